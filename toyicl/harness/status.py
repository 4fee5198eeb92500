"""How far each of several experiments is, and how long the rest of it takes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import provenance, runner
from toyicl.harness.dry_run import Plan, duration
from toyicl.harness.experiment import RESULTS, Experiment
from toyicl.harness.results import load_results
from toyicl.harness.runner import Grid
from toyicl.training.loop import listed

FINISHED, BY_ANOTHER_REVISION, NOT_BEGUN, REFUSED = (
    "finished",
    "finished by another revision",
    "not begun",
    "cannot be run",
)


class Status(NamedTuple):
    """How far an experiment is."""

    experiment: str
    """Its name."""
    state: str
    """How far it is, in words; `FINISHED` if it need not be run again, `REFUSED` if it cannot be."""
    seconds: float
    """Estimated time that is left."""
    recorded: bool
    """Whether the estimate follows from the time that an earlier run took."""


def status(
    experiment: Experiment,
    grid: Grid,
    folder: Path,
    *,
    seeds: int | Sequence[int],
    quick: bool,
    fresh: bool,
    records: Sequence[Path],
    warn: Callable[[str], None],
) -> Status:
    """How far `runner.run` with the same arguments is, and an estimate of the time it still takes.

    It is finished if its results have the same settings, the same seeds or more, were made by the same
    program, and are not those of a quick run where this one is not quick. `records` are folders with
    results of earlier runs, whose times are used if they had the same settings. Nothing is trained and
    nothing is written. Raises BadInput for settings that `run` would refuse.
    """
    seeds = listed(seeds)
    identity = provenance.identity(experiment.name, grid.base, seeds, grid.sweep)
    found = None if fresh else _results_of(identity, folder, quick=quick)
    if found is not None and not _changed(found, experiment):
        return Status(experiment.name, FINISHED, 0.0, recorded=False)
    plan = runner.plan(experiment, grid, folder, seeds=seeds, quick=quick, fresh=fresh, warn=warn)
    state = BY_ANOTHER_REVISION if found is not None else _how_far(plan)
    for place in (folder, *records):
        seconds = _recorded_seconds(results_in(place), identity, plan)
        if seconds is not None:
            return Status(experiment.name, state, seconds, recorded=True)
    return Status(experiment.name, state, plan.seconds, recorded=False)


def is_finished(
    experiment: Experiment,
    grid: Grid,
    folder: Path,
    *,
    seeds: int | Sequence[int],
    quick: bool,
    fresh: bool,
) -> bool:
    """Whether `status` would be `FINISHED`; it takes less time, since nothing is planned."""
    identity = provenance.identity(experiment.name, grid.base, seeds, grid.sweep)
    found = None if fresh else _results_of(identity, folder, quick=quick)
    return found is not None and not _changed(found, experiment)


def lines(statuses: Sequence[Status]) -> list[str]:
    """A table of experiments as text for the user, and the time that all of them take."""
    rows = [("experiment", "state", "estimated time left")]
    rows += [(one.experiment, one.state, _time_left(one)) for one in statuses]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    finished = sum(one.state == FINISHED for one in statuses)
    table = [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in rows]
    table.append(
        f"{len(statuses)} experiments, {finished} finished, {duration(seconds_left(statuses))} left"
    )
    if not all(one.recorded or one.state in (FINISHED, REFUSED) for one in statuses):
        table.append(
            "Estimates without a * leave out compilation and measurement, and may be wrong by a factor "
            "of five."
        )
    if any(one.recorded for one in statuses):
        table.append("* from the time that an earlier run took")
    return table


def seconds_left(statuses: Sequence[Status]) -> float:
    """Estimated time of all experiments, one after another."""
    return sum(one.seconds for one in statuses)


def _time_left(status: Status) -> str:
    if status.state in (FINISHED, REFUSED):
        return ""
    if not status.recorded and not status.seconds:
        return "measurement only"
    return duration(status.seconds) + " *" * status.recorded


def _how_far(plan: Plan) -> str:
    if not plan.steps_done:
        return NOT_BEGUN
    return f"{plan.steps_done:,} of {plan.steps:,} steps trained"


def results_in(folder: Path) -> xr.Dataset | None:
    """The results in a folder; None if there are none, or none that can be read."""
    if not (folder / RESULTS).exists():
        return None
    try:
        return load_results(folder)
    except (BadInput, Unfinished):  # they are made again
        return None


def _results_of(identity: dict[str, Any], folder: Path, *, quick: bool) -> xr.Dataset | None:
    """The results in a folder if they are those of an identity; None otherwise."""
    found = results_in(folder)
    return found if found is not None and _has_all(found, identity, quick=quick) else None


def _has_all(results: xr.Dataset, identity: dict[str, Any], *, quick: bool) -> bool:
    """Whether results are those of an identity, or of one with further seeds.

    Those of a quick run are not those of a full one, even if both have the same settings: they are
    marked as quick, which `verify` takes into account. A quick run has nothing to add to full results.
    """
    if results.attrs.get("level") == "quick" and not quick:
        return False
    there, seeds = provenance.identity_of(results), identity["seeds"]
    first = there["seeds"][: len(seeds)]
    return not provenance.differences(there | {"seeds": first}, identity)


def _changed(results: xr.Dataset, experiment: Experiment) -> bool:
    """Whether results were made by another program than this one."""
    now = {"source": provenance.source_digest(), "experiment_file": experiment.digest}
    return bool(provenance.changed_since(json.loads(results.attrs["origins"])[-1], now))


def _recorded_seconds(
    results: xr.Dataset | None, identity: dict[str, Any], plan: Plan
) -> float | None:
    """The time that is left if everything takes as long for each seed as it did in earlier results.

    None if there are no results with the same settings that recorded their times.
    """
    if results is None:
        return None
    there = provenance.identity_of(results)
    if any(there[name] != identity[name] for name in ("experiment", "settings", "sweep")):
        return None
    times = json.loads(results.attrs.get("seconds", "{}"))
    if times.get("training") is None:
        return None
    scale = len(identity["seeds"]) / len(there["seeds"])
    return scale * (times["training"] * plan.fraction_left + times["measuring"])
