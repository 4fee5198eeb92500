"""Running an experiment: train, measure, save, judge and draw, for one point or a sweep."""

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr

from toyicl.core import strict_json
from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import (
    atomic_files,
    checkpoints,
    descriptions,
    dry_run,
    memory,
    outputs,
    provenance,
    resuming,
    sweeps,
    trainings,
)
from toyicl.harness.checkpoint_manager import CheckpointManager
from toyicl.harness.checkpoints import Checkpoint
from toyicl.harness.descriptions import Description
from toyicl.harness.dry_run import Plan
from toyicl.harness.environment import moved_since_any
from toyicl.harness.experiment import Experiment
from toyicl.harness.provenance import changed_since_any, changes, cut_sentence
from toyicl.harness.results import load_results, save_results
from toyicl.harness.trainings import Declared
from toyicl.training import distributed
from toyicl.training.loop import History, listed
from toyicl.training.placement import AcrossRuns, Spread


class Console(Protocol):
    """What a run reports to the user, and whether the user wants to interrupt it."""

    def progress(
        self, label: str, steps: int
    ) -> AbstractContextManager[Callable[[int, np.ndarray], None]]:
        """A context that shows progress; its value is called with the steps done and the losses."""
        ...

    def warn(self, sentence: str) -> None:
        """Report a problem that does not end the run."""
        ...

    def stop(self) -> bool:
        """Whether the user has asked to stop."""
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
    """Result of a run: files, verdicts and problems."""

    files: list[Path]
    verdicts: list[dict[str, Any]]
    diverged: list[str]
    """A sentence for each seed whose loss was not finite."""
    cut: str = ""
    """What the run did otherwise than at full settings, as a sentence; empty if nothing."""


def run(
    experiment: Experiment,
    grid: Grid,
    folder: Path,
    *,
    seeds: int | Sequence[int],
    quick: bool,
    command: str,
    fresh: bool = False,
    checkpoint_every: float | None = None,
    lock: bool = True,
    spread: Spread,
    console: Console,
) -> Outcome:
    """Run an experiment into a folder, or resume an earlier run of it.

    `seeds` is a number, for seeds 0, 1, ..., or the seeds themselves. Nothing is measured where a
    training has none of the seeds: such a run is a part, whose checkpoint `gathering` joins with those
    of the other seeds. Every process of a cluster calls this; process 0 alone reads and writes files. A
    run that is not quick replaces a finished quick run. Raises BadInput, before anything is computed,
    if the folder cannot be written, is in use, or holds a run with other settings and `fresh` is not
    set, and if there are more processes than runs; Unfinished if the run was interrupted or could not
    be saved, or if a swept setting is named like a variable that was measured.
    """
    seeds = listed(seeds)
    declared, groups = _declared(experiment, grid, seeds, spread)
    trained = trainings.with_seeds(declared, seeds)
    if groups:
        spread.require_work(trainings.most_runs(groups, seeds))
    identity = provenance.identity(experiment.name, grid.base, seeds, grid.sweep)
    described = descriptions.describe(trained, seeds)
    origin = provenance.origin(experiment.digest, spread.name)
    with contextlib.ExitStack() as held:
        begin = partial(
            _begin, folder, identity, described, origin, fresh, quick, console, held, lock
        )
        kept = _on_first_process(begin)
        origins = [*kept.origins, origin]
        manager = CheckpointManager(
            folder,
            kept._replace(
                identity=identity, origins=origins, command=command, descriptions=described
            ),
            every=checkpoint_every,
            stop=console.stop,
            warn=console.warn,
        )
        histories = trainings.train(
            groups, seeds=seeds, spread=spread, manager=manager, show=console.progress
        )
        diverged = trainings.diverged(histories)
        if len(trained) < len(declared):
            manager.save()
            if distributed.is_first():
                console.warn(_has_to_be_gathered(experiment.name, declared, seeds))
            return Outcome([], [], diverged)
        begun = time.monotonic()
        measured = _measured(experiment, grid, declared, histories)
        seconds = {"training": manager.checkpoint.seconds, "measuring": time.monotonic() - begun}
        manager.save()
        if not distributed.is_first():
            return Outcome([], [], diverged)
        sweeps.require_own_names(experiment.name, grid.sweep, measured)
        attributes = {
            **provenance.attributes(identity, origins, quick, command),
            "seconds": strict_json.text(seconds),
            "cut": cut_sentence(experiment.full, grid.base, len(seeds)),
            "changes": strict_json.text(changes(experiment.full, grid.base)),
            "trainings": trainings.described(declared),
        }
        results = sweeps.labelled(measured, grid.sweep).assign_attrs(attributes)
        return _saved(experiment, results, folder, diverged)


def plan(
    experiment: Experiment,
    grid: Grid,
    folder: Path,
    *,
    seeds: int | Sequence[int],
    quick: bool,
    fresh: bool = False,
    warn: Callable[[str], None],
) -> Plan:
    """What `run` would train with the same arguments, and a rough estimate of its cost.

    Nothing is trained and nothing is written. Raises BadInput for settings that `run` would refuse.
    """
    seeds = listed(seeds)
    declared, groups = _declared(experiment, grid, seeds, AcrossRuns())
    trained = trainings.with_seeds(declared, seeds)
    identity = provenance.identity(experiment.name, grid.base, seeds, grid.sweep)
    described = descriptions.describe(trained, seeds)
    kept = resuming.earlier(folder, identity, described, quick=quick, fresh=fresh, warn=warn)
    states = kept.states if kept else {}
    return dry_run.plan(experiment.name, groups, seeds, states)


def _declared(
    experiment: Experiment, grid: Grid, seeds: Sequence[int], spread: Spread
) -> tuple[list[Declared], list[list[Declared]]]:
    """All trainings of a run, and those with seeds to train, in groups of one kind.

    Raises BadInput if they would not fit into memory.
    """
    declared = trainings.declared(experiment, grid.points, grid.sweep)
    memory.require_episodes(declared, grid.points, len(seeds))
    groups = trainings.grouped(trainings.with_seeds(declared, seeds))
    at_once = spread.at_once(trainings.most_runs(groups, seeds)) if groups else 0
    memory.require_room(groups, grid.points, seeds, at_once)
    return declared, groups


def _begin(
    folder: Path,
    identity: dict[str, Any],
    described: dict[str, Description | None],
    origin: dict[str, Any],
    fresh: bool,
    quick: bool,
    console: Console,
    held: contextlib.ExitStack,
    lock: bool,
) -> Checkpoint:
    """Lock a folder, and read the checkpoint that the run resumes."""
    atomic_files.prepare_folder(folder)
    held.enter_context(atomic_files.locked(folder, console.warn, lock=lock))
    kept = resuming.earlier(
        folder, identity, described, quick=quick, fresh=fresh, warn=console.warn
    )
    if kept is None:
        if not fresh:
            console.warn(f"replacing the finished --quick run in {folder}")
        checkpoints.discard(folder)
        return Checkpoint(identity, [], {})
    changed = changed_since_any(kept.origins, origin)
    if changed:
        console.warn(f"resuming a run that {changed} started; --fresh starts over")
    moved = moved_since_any(kept.origins, origin)
    if moved:
        console.warn(
            f"resuming a run in another environment ({moved}): the results may differ in the last "
            "digits from those of a run that was not interrupted"
        )
    return kept


def _has_to_be_gathered(name: str, declared: Sequence[Declared], seeds: Sequence[int]) -> str:
    """Why a part of a run is not measured, as a sentence."""
    without = trainings.label([one for one in declared if not one.job.seeds(seeds)])
    return (
        f"{name} is not measured, because {without} has none of the seeds "
        f"{seeds[0]} to {seeds[-1]}; their training is saved, and `toyicl gather` joins it with that "
        "of the other seeds"
    )


def _on_first_process(begin: Callable[[], Checkpoint]) -> Checkpoint:
    """The result of `begin` in process 0; if it fails, for whatever reason, all processes end."""
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


def _measured(
    experiment: Experiment,
    grid: Grid,
    declared: Sequence[Declared],
    histories: dict[str, History],
) -> list[xr.Dataset]:
    """The measurement of each point; raises BadInput unless it is a dataset."""
    measured = []
    for point, settings in enumerate(grid.points):
        own = {one.name: histories[one.full_name] for one in declared if one.point == point}
        measured.append(experiment.measure(settings, own))
        if not isinstance(measured[-1], xr.Dataset):
            kind = type(measured[-1]).__name__
            raise BadInput(
                f"measure of {experiment.name} must return an xarray.Dataset, got {kind}"
            )
    return measured


def _saved(
    experiment: Experiment, results: xr.Dataset, folder: Path, diverged: list[str]
) -> Outcome:
    """Save results, with the verdicts and the figure that follow from what was saved."""
    try:
        path = save_results(results, folder)
        loaded = load_results(folder)
        verdicts = outputs.judge(experiment, loaded)
        files = [path, *outputs.write(experiment, loaded, folder, verdicts)]
    except OSError as error:
        raise Unfinished(
            f"results could not be saved in {folder} ({error.strerror or error}); the training is "
            "kept; rerun the same command once there is room"
        ) from error
    return Outcome(files, verdicts, diverged, str(results.attrs["cut"]))
