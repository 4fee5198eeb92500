"""Running an experiment: train, measure, save, draw, judge; at one point or over a grid of them."""

import contextlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr

from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import (
    atomic_files,
    checkpoints,
    dry_run,
    provenance,
    resuming,
    sweeps,
    trainings,
)
from toyicl.harness.checkpoint_manager import CheckpointManager
from toyicl.harness.checkpoints import Checkpoint
from toyicl.harness.dry_run import Plan
from toyicl.harness.experiment import Experiment
from toyicl.harness.provenance import changed_since, cut_sentence
from toyicl.harness.results import (
    CLAIMS,
    FIGURE,
    RESULTS,
    load_results,
    require_results,
    save_results,
)
from toyicl.plots import figures
from toyicl.training import distributed
from toyicl.training.placement import Spread


class Console(Protocol):
    """What a run says to its user, and hears from them, while it goes on."""

    def progress(
        self, label: str, steps: int
    ) -> AbstractContextManager[Callable[[int, np.ndarray], None]]:
        """A context whose value is called with (steps done, losses)."""
        ...

    def warn(self, sentence: str) -> None:
        """Something went wrong, and the run goes on."""
        ...

    def stop(self) -> bool:
        """Whether the user wants to leave."""
        ...


class Grid(NamedTuple):
    """The settings to run: one point, or those of a sweep."""

    base: Any
    """Settings without the sweep."""
    sweep: dict[str, list[Any]]
    """Values of each swept setting, by its path; empty without a sweep."""
    points: Sequence[Any]
    """Settings of each point, in the order of `sweeps.grid`."""


class Outcome(NamedTuple):
    """What a run left behind."""

    files: list[Path]
    verdicts: list[dict[str, Any]]
    diverged: list[str]
    """A sentence for each seed whose training diverged."""


def run(
    experiment: Experiment,
    grid: Grid,
    folder: Path,
    *,
    seeds: int,
    quick: bool,
    command: str,
    fresh: bool = False,
    checkpoint_every: float | None = None,
    lock: bool = True,
    spread: Spread,
    screen: Console,
) -> Outcome:
    """Run an experiment into a folder, or carry on where an earlier run of it stopped.

    A finished quick run gives way to one that is not quick. Raises BadInput, before anything is
    computed, if the folder cannot be written, is in use, or holds another run with other settings and
    `fresh` is not set; Unfinished if the run was stopped, or could not
    be saved. Every process of a cluster calls this; process 0 alone reads and writes.
    """
    declared = trainings.declared(experiment, grid.points, grid.sweep)
    groups = trainings.grouped(declared)
    if groups:
        spread.require_work(trainings.most_runs(groups, seeds))
    identity = provenance.identity(experiment.name, grid.base, seeds, grid.sweep)
    origin = provenance.origin(experiment.digest)
    with contextlib.ExitStack() as held:
        begin = partial(_begin, folder, identity, origin, fresh, quick, screen, held, lock)
        kept = _on_first_process(begin)
        origins = [*kept.origins, origin]
        manager = CheckpointManager(
            folder,
            kept._replace(identity=identity, origins=origins),
            every=checkpoint_every,
            stop=screen.stop,
            warn=screen.warn,
        )
        histories = trainings.train(
            groups, seeds=seeds, spread=spread, manager=manager, show=screen.progress
        )
        diverged = trainings.diverged(histories)
        measured = [
            experiment.measure(
                settings,
                {one.name: histories[one.full_name] for one in declared if one.point == point},
            )
            for point, settings in enumerate(grid.points)
        ]
        manager.save()
        if not distributed.is_first():
            return Outcome([], [], diverged)
        _require_datasets(experiment, measured)
        results = sweeps.labelled(measured, grid.sweep)
        cut = cut_sentence(experiment.full, grid.base, seeds)
        attributes = {
            **results.attrs,
            **provenance.attributes(identity, origins, quick, command),
            "cut": cut,
        }
        try:
            saved = save_results(results.assign_attrs(attributes), folder)
            results = load_results(folder)  # claims and figure come from what was saved
            verdicts = judge(experiment, results)
            return Outcome(
                [saved, *write(experiment, results, folder, verdicts)], verdicts, diverged
            )
        except OSError as error:
            raise Unfinished(
                f"results could not be saved in {folder} ({error.strerror or error}); the training "
                "is kept, and the same command saves them once there is room"
            ) from error


def plan(
    experiment: Experiment,
    grid: Grid,
    folder: Path,
    *,
    seeds: int,
    quick: bool,
    fresh: bool = False,
    warn: Callable[[str], None],
) -> Plan:
    """What `run` would train with the same arguments, and a rough estimate of its cost.

    Nothing is trained and nothing is written. Raises BadInput for settings that `run` would refuse.
    """
    declared = trainings.declared(experiment, grid.points, grid.sweep)
    identity = provenance.identity(experiment.name, grid.base, seeds, grid.sweep)
    kept = resuming.earlier(folder, identity, quick=quick, fresh=fresh, warn=warn)
    states = kept.states if kept else {}
    return dry_run.plan(experiment.name, trainings.grouped(declared), seeds, states)


def plan_lines(plan: Plan) -> list[str]:
    """A plan as lines of text."""
    return dry_run.lines(plan)


def redraw(
    experiment: Experiment, folder: Path, warn: Callable[[str], None], *, lock: bool = True
) -> list[Path]:
    """Write again what follows from a run's saved results: the verdicts and the figure.

    Raises BadInput if there are none or the folder is in use, and Unfinished if they cannot be saved.
    """
    require_results(folder)
    with atomic_files.locked(folder, warn, lock=lock):
        results = load_results(folder, warn)
        try:
            return write(experiment, results, folder, judge(experiment, results))
        except OSError as error:
            raise Unfinished(
                f"the figure could not be saved in {folder} ({error.strerror or error}); the results "
                "are kept, and the same command draws it once there is room"
            ) from error


def judge(experiment: Experiment, results: xr.Dataset | None) -> list[dict[str, Any]]:
    """Every claim of an experiment beside its results, at each point if they are a sweep's.

    "not run" without results.
    """
    if results is None:
        return [claim.judge(None) for claim in experiment.claims]
    sweep = swept(results)
    if not sweep:
        return [claim.judge(results) for claim in experiment.claims]
    points = zip(sweeps.grid(sweep), sweeps.points_of(results, sweep), strict=True)
    return [
        claim.judge(point) | {"point": where}
        for where, point in points
        for claim in experiment.claims
    ]


def write(
    experiment: Experiment, results: xr.Dataset, folder: Path, verdicts: list[dict[str, Any]]
) -> list[Path]:
    """Write what follows from results: the claims with their verdicts, and the figure."""
    text = json.dumps(verdicts, indent=1, allow_nan=False) + "\n"
    claims = atomic_files.save_text(text, folder / CLAIMS)
    sweep = swept(results)
    with figures.style():
        figure = (
            sweeps.draw(experiment.claims, results, sweep) if sweep else experiment.draw(results)
        )
        return [claims, *figures.save(figure, folder / FIGURE)]


def has_results(folder: Path) -> bool:
    """Whether a folder holds the results of a run."""
    return (folder / RESULTS).exists()


def experiment_of(folder: Path) -> str:
    """Name of the experiment whose results are in a folder.

    Raises BadInput and Damaged as `runs.load_results`.
    """
    return str(load_results(folder).attrs["experiment"])


def is_full(folder: Path) -> bool:
    """Whether a folder holds the results of a run that started from full settings."""
    if not has_results(folder):
        return False
    try:
        return load_results(folder).attrs.get("level") != "quick"
    except (BadInput, Unfinished):  # whoever reads them says what is wrong
        return True


def results_of(folder: Path, note: Callable[[str], None]) -> xr.Dataset | None:
    """The results in a folder; None if there are none.

    Raises BadInput and Damaged as `results.load_results`, which calls `note`.
    """
    return load_results(folder, note) if has_results(folder) else None


def swept(results: xr.Dataset) -> dict[str, list[Any]]:
    """Values of each swept setting; empty if the results are those of one point."""
    return json.loads(results.attrs.get("sweep", "{}"))


def _begin(
    folder: Path,
    identity: dict[str, Any],
    origin: dict[str, Any],
    fresh: bool,
    quick: bool,
    screen: Console,
    held: contextlib.ExitStack,
    lock: bool,
) -> Checkpoint:
    """Lock a folder, and read the checkpoint that the run resumes."""
    atomic_files.prepare_folder(folder)
    held.enter_context(atomic_files.locked(folder, screen.warn, lock=lock))
    kept = resuming.earlier(folder, identity, quick=quick, fresh=fresh, warn=screen.warn)
    if kept is None:
        if not fresh:
            screen.warn(f"replacing the finished --quick run in {folder}")
        checkpoints.discard(folder)
        return Checkpoint(identity, [], {})
    changed = changed_since(kept.origins[-1], origin) if kept.origins else ""
    if changed:
        screen.warn(f"resuming a run that {changed} started; --fresh starts over")
    return kept


def _on_first_process(begin: Callable[[], Checkpoint]) -> Checkpoint:
    """What process 0 begins with; if it cannot, for whatever reason, all processes end together."""
    failure: Exception | None = None
    kept = Checkpoint({}, [], {})
    if distributed.is_first():
        try:
            kept = begin()
        except OSError as error:
            failure = Unfinished(f"the run could not be read or written: {error}")
        except Exception as error:
            failure = error
    distributed.fail_together(failure)
    return kept


def _require_datasets(experiment: Experiment, measured: Sequence[Any]) -> None:
    for results in measured:
        if not isinstance(results, xr.Dataset):
            kind = type(results).__name__
            raise BadInput(
                f"measure of {experiment.name} must return an xarray.Dataset, got {kind}"
            )
