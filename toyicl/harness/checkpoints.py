"""Checkpoints of a run folder: the state of every training, saved by Orbax.

A generation is a folder with the files of Orbax, `about.json`, and the digest of every file. A new
generation is written under another name and then renamed, and the previous one is kept. So the last
good generation is found, whatever happens while one is written or to what was written. Nothing is
unpickled.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from toyicl.core import strict_json
from toyicl.core.errors import BadInput
from toyicl.harness import atomic_files
from toyicl.harness.experiment import CHECKPOINT

ABOUT, ARRAYS = "about.json", "arrays"
FORMAT = 2
"""Format of all files in a run folder; this version cannot read those of another number."""
KEPT = 2
"""Number of generations that are kept."""

NamedArrays = dict[str, np.ndarray]
"""State of a training, a row for each seed; see `training.state.named_arrays`."""


class Checkpoint(NamedTuple):
    """Contents of a generation."""

    identity: dict[str, Any]
    """What must be equal for a run to be resumed: settings, seeds, and so on."""
    origins: list[dict[str, Any]]
    """Program and machine of every process that took part in the run, in order."""
    states: dict[str, NamedArrays]
    """State of each training, by its name."""
    command: str = ""
    """The command that reproduces the run; empty in checkpoints of earlier versions."""
    seconds: float | None = 0.0
    """Time spent on training so far; None if some of it was spent by a version that recorded none."""
    descriptions: Mapping[str, Any] = MappingProxyType({})
    """What determines each training, by its name; see `descriptions.describe`. Empty in checkpoints of
    earlier versions."""
    damaged: Sequence[str] = ()
    """Newer generations that were found damaged when this one was read."""


def load(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest undamaged checkpoint of a run folder, or None if there never was one.

    `warn` is called with a sentence for each damaged generation. Raises Damaged if all are damaged,
    and BadInput if the newest was written in another format.
    """
    damaged: list[str] = []
    for path in reversed(_generations(folder)):
        try:
            return _read(path)._replace(damaged=damaged)
        except atomic_files.Damaged as error:
            warn(str(error))
            damaged.append(path.name)
    if damaged:
        raise atomic_files.Damaged(
            f"no undamaged checkpoint is left in {folder}; --fresh starts over"
        )
    return None


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Save a new generation, then delete all but the last two, and damaged ones."""
    place = folder / CHECKPOINT
    place.mkdir(exist_ok=True)
    earlier = _generations(folder)
    number = int(earlier[-1].name) + 1 if earlier else 1
    own = place / f"{number:08d}"
    atomic_files.save_folder(own, partial(_write, checkpoint=checkpoint))
    good = [path for path in [*earlier, own] if path.name not in checkpoint.damaged]
    for path in earlier:
        if path not in good[-KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


def reason(error: Exception) -> str:
    """Why `save` failed, on one line; Orbax and TensorStore raise various errors if a disk is full."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip() or type(error).__name__
    return "no space left on device" if "No space left" in text else text.splitlines()[0][:200]


def discard(folder: Path) -> None:
    """Delete all checkpoints of a run folder."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def require_format(number: Any, where: Path) -> None:
    """Raises BadInput for a file of a format that this version cannot read."""
    if number != FORMAT:
        raise BadInput(
            f"{where} must have been written in format {FORMAT}, got {number}: use the version of "
            "toyicl that wrote it, another --out, or --fresh to start over"
        )


def _generations(folder: Path) -> list[Path]:
    """Generations of a run folder, oldest first."""
    return sorted(path for path in (folder / CHECKPOINT).glob("*") if path.name.isdecimal())


def _write(path: Path, checkpoint: Checkpoint) -> None:
    names = [(training, name) for training, arrays in checkpoint.states.items() for name in arrays]
    about = {
        "format": FORMAT,
        "identity": checkpoint.identity,
        "origins": checkpoint.origins,
        "command": checkpoint.command,
        "seconds": checkpoint.seconds,
        "descriptions": dict(checkpoint.descriptions),
        "names": names,
    }
    (path / ABOUT).write_text(strict_json.text(about, indent=1), encoding="utf-8")
    if names:
        arrays = {
            str(i): checkpoint.states[training][name] for i, (training, name) in enumerate(names)
        }
        _save_arrays(path / ARRAYS, arrays)


def _save_arrays(path: Path, arrays: NamedArrays) -> None:
    """Save arrays with Orbax, which locks files while it writes them.

    Where the file system has no locks, they are saved in the folder for temporary files and copied.
    """
    if atomic_files.has_locks(path.parent):
        _orbax().save(path.absolute(), arrays)
        return
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder).absolute() / path.name
        _orbax().save(elsewhere, arrays)
        shutil.copytree(elsewhere, path)


def _read(path: Path) -> Checkpoint:
    atomic_files.require_whole(path)
    about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    require_format(about["format"], path)
    names = about["names"]
    arrays = _orbax().restore((path / ARRAYS).absolute()) if names else {}
    states: dict[str, NamedArrays] = {}
    for index, (training, name) in enumerate(names):
        states.setdefault(training, {})[name] = np.asarray(arrays[str(index)])
    return Checkpoint(
        about["identity"],
        about["origins"],
        states,
        command=about.get("command", ""),
        seconds=about.get("seconds"),
        descriptions=about.get("descriptions", {}),
    )


def _orbax() -> Any:
    """The checkpointer of Orbax for process 0 alone: the others neither write nor wait."""
    import orbax.checkpoint as ocp  # not at the top, since the import takes as long as a save

    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="toyicl"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)
