"""Checkpoints of a run folder: the trails of its fits, with who made them, saved by Orbax.

A generation is a folder with Orbax's files, `about.json` and the digest of every file. It takes its
place by being renamed, and the one before it stays: whatever happens while one is written, or to what
was written, the last good one is found. Nothing is ever unpickled.
"""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import atomic_files
from toyicl.training import distributed
from toyicl.training.state import TrainingState, named_arrays, with_arrays

FOLDER, ABOUT, ARRAYS = "checkpoint", "about.json", "arrays"
FORMAT = 2
"""Of all that is in a run folder; another number means that this version cannot read it."""
KEPT = 2
"""Generations that stay."""
SHARE, LEAST_SECONDS = 0.02, 5.0
"""Left to itself, saving waits so many seconds, and takes at most this share of the time."""


class Checkpoint(NamedTuple):
    """What a generation holds."""

    identity: dict[str, Any]
    """What has to be equal for a run to be carried on: settings, seeds, and so on."""
    origins: list[dict[str, Any]]
    """Program and machine of every process that had a part in it, in order."""
    fits: dict[str, dict[str, np.ndarray]]
    """The trails of each fit, as named arrays, by the label of the fit."""
    ends: dict[str, list[int]] = {}  # noqa: RUF012 (never changed in place)
    """How many chunks each run of a fit will have, by its label; older checkpoints do not say."""
    damaged: Sequence[str] = ()
    """Generations that were found damaged on the way to this one."""


def load(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest good checkpoint of a run folder, or None if there never was one.

    Damaged generations are told to `warn`. Raises Damaged if there is none but damaged ones, and
    BadInput if the newest was written by a version whose format is another one.
    """
    damaged: list[str] = []
    for path in reversed(_generations(folder)):
        try:
            return _read(path)._replace(damaged=damaged)
        except atomic_files.Damaged as error:
            warn(str(error))
            damaged.append(path.name)
    if damaged:
        raise atomic_files.Damaged(f"no good checkpoint is left in {folder}; --fresh starts over")
    return None


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Save a new generation, and only then delete those before the last, and damaged ones."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    earlier = _generations(folder)
    number = int(earlier[-1].name) + 1 if earlier else 1
    own = place / f"{number:08d}"
    atomic_files.save_folder(own, partial(_write, checkpoint=checkpoint))
    good = [path for path in [*earlier, own] if path.name not in checkpoint.damaged]
    for path in earlier:
        if path not in good[-KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


def discard(folder: Path) -> None:
    """Delete all checkpoints of a run folder."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def require_format(number: Any, where: Path) -> None:
    """Raises BadInput for what another version wrote, in a format that this one cannot read."""
    if number != FORMAT:
        raise BadInput(
            f"{where} must have been written in format {FORMAT}, got {number}: use the version of "
            "toyicl that wrote it, or another --out, or --fresh to start over"
        )


class CheckpointManager:
    """Keeps the trails of a run's fits safe; `fitting.Keeper` for each is made by `of`.

    `checkpoint` is what to go on from, with the identity and the origins of this run.
    `every` is the number of seconds between two generations; None chooses it so that saving costs
    little. `stop` says whether the user wants to leave: then a last checkpoint is saved, and
    Unfinished is raised. `warn` is told what went wrong without ending the run. Only process 0 writes.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        *,
        every: float | None,
        stop: Callable[[], bool],
        warn: Callable[[str], None],
    ) -> None:
        fits, ends = dict(checkpoint.fits), dict(checkpoint.ends)
        self.checkpoint = checkpoint._replace(fits=fits, ends=ends)
        self.seconds = 0.0
        """Time spent on saving so far."""
        self._folder, self._every, self._stop, self._warn = folder, every, stop, warn
        self._saved_at, self._cost, self._unsaved = -np.inf, 0.0, True
        self._saved_steps = _steps(fits)
        self._used: set[str] = set()

    def unused(self, label: str) -> str:
        """The label if nothing has been kept under it since the start, or else one with a number.

        Fits come in the same order every time, so each finds its own trails again.
        """
        numbered = (f"{label} ({number})" for number in itertools.count(2))
        own = next(name for name in itertools.chain([label], numbered) if name not in self._used)
        self._used.add(own)
        return own

    def of(self, label: str, ends: Sequence[int] = ()) -> "OneFit":
        """The keeper of one fit, known by its label; `ends` are the chunks that its runs will have."""
        if ends:
            self.checkpoint.ends[label] = list(ends)
        return OneFit(self, label)

    def update(self, label: str, trails: TrainingState) -> None:
        """Take over a fit's trails, to be saved with the next generation."""
        self.checkpoint.fits[label] = named_arrays(trails)
        self._unsaved |= self._saved_steps.get(label) != trails.step.tolist()

    def wishes(self) -> list[bool]:
        """Whether it is time to save, and whether to stop; the same in all processes."""
        pause = max(LEAST_SECONDS, self._cost / SHARE) if self._every is None else self._every
        due = distributed.is_first() and time.monotonic() - self._saved_at > pause
        return distributed.any_process(due, self._stop())

    def save(self) -> None:
        """Save a generation if there is anything new; a failure is told, and the run goes on."""
        if not self._unsaved or not distributed.is_first():
            return
        begin = time.monotonic()
        try:
            save(self._folder, self.checkpoint)
            self._unsaved, self._saved_steps = False, _steps(self.checkpoint.fits)
        except Exception as error:  # Orbax and TensorStore raise what they like if a disk is full
            reason = _reason(error)
            self._warn(
                f"no checkpoint could be saved in {self._folder} ({reason}); "
                "training goes on, and the one before still resumes"
            )
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - begin
        self.seconds += self._cost


class OneFit(NamedTuple):
    """The keeper of one fit."""

    keeper: CheckpointManager
    label: str

    def restore(self, trails: TrainingState) -> TrainingState:
        """The trails kept earlier, or those given if there are none.

        Raises Unfinished, in all processes, if what was kept does not fit.
        """
        kept, failure = self.keeper.checkpoint.fits.get(self.label), None
        if kept is not None:
            try:
                trails = with_arrays(trails, kept)
            except ValueError as error:
                failure = Unfinished(
                    f"the checkpoint of {self.label!r} is of another program ({error}); "
                    "--fresh starts over"
                )
        distributed.fail_together(failure)
        return distributed.from_first(trails)

    def visit(self, trails: Callable[[], TrainingState]) -> None:
        """Save from time to time.

        Raises Unfinished, after a last checkpoint, if the user wants to leave.
        """
        due, stop = self.keeper.wishes()
        if due or stop:
            now = trails()
            self.keeper.update(self.label, now)
            self.keeper.save()
        if stop:
            steps = " ".join(str(step) for step in now.step[:8])
            raise Unfinished(
                f"stopped in {self.label!r} after steps {steps}; the same command carries on"
            )

    def finish(self, trails: TrainingState) -> None:
        """Save the finished trails, whatever comes after them."""
        self.keeper.update(self.label, trails)
        self.keeper.save()


def _generations(folder: Path) -> list[Path]:
    """Generations of a run folder, oldest first."""
    return sorted(path for path in (folder / FOLDER).glob("*") if path.name.isdecimal())


def _write(path: Path, checkpoint: Checkpoint) -> None:
    names = [(label, name) for label, arrays in checkpoint.fits.items() for name in arrays]
    about = {
        "format": FORMAT,
        "identity": checkpoint.identity,
        "origins": checkpoint.origins,
        "names": names,
        "ends": checkpoint.ends,
    }
    (path / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    if names:
        arrays = {str(i): checkpoint.fits[label][name] for i, (label, name) in enumerate(names)}
        _orbax().save((path / ARRAYS).absolute(), arrays)


def _read(path: Path) -> Checkpoint:
    atomic_files.require_whole(path)
    about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    require_format(about["format"], path)
    names = about["names"]
    arrays = _orbax().restore((path / ARRAYS).absolute()) if names else {}
    fits: dict[str, dict[str, np.ndarray]] = {}
    for index, (label, name) in enumerate(names):
        fits.setdefault(label, {})[name] = np.asarray(arrays[str(index)])
    return Checkpoint(about["identity"], about["origins"], fits, about.get("ends", {}))


def _steps(fits: dict[str, dict[str, np.ndarray]]) -> dict[str, list[int]]:
    """Steps done by each run of each fit: trails are told apart by them, and they grow in place."""
    return {label: arrays["step"].tolist() for label, arrays in fits.items()}


def _orbax() -> Any:
    """Orbax's checkpointer of process 0 alone: the others neither write nor wait."""
    import orbax.checkpoint as ocp  # only now, since it takes as long to import as a save

    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="toyicl"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip() or type(error).__name__
    return "no space left on device" if "No space left" in text else text.splitlines()[0][:200]
