"""Several experiments as one job: which are finished, and how long the others take."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toyicl.cli.console import exit_status, machine_errors, report_note
from toyicl.cli.options import FIGURES, Run
from toyicl.core.errors import BadInput, Interrupted, Unfinished
from toyicl.harness import experiment

if TYPE_CHECKING:
    from toyicl.harness.runner import Grid
    from toyicl.harness.status import Status


class Member(NamedTuple):
    """One of the experiments of a job."""

    listing: experiment.Listing
    experiment: experiment.Experiment
    grid: "Grid"
    """The settings to run."""
    folder: Path
    """Where its results are written."""


def require_own_folders(members: Sequence[Member]) -> None:
    """Raises BadInput if two experiments would write into the same folder."""
    paths: dict[Path, Path] = {}
    for member in members:
        path = paths.setdefault(member.folder, member.listing.path)
        if path != member.listing.path:
            raise BadInput(
                "experiments must have different names, so that each has a folder of its own, got "
                f"{path} and {member.listing.path}"
            )


def require_prerequisites(member: Member) -> None:
    """Raises BadInput if something is not installed that one of the points of an experiment needs."""
    for settings in member.grid.points:
        member.experiment.prerequisites(settings)


def with_prerequisites(members: Sequence[Member]) -> list[Member]:
    """The experiments that do not lack anything that has to be installed; the others are reported."""
    kept = []
    for member in members:
        try:
            require_prerequisites(member)
        except BadInput as error:
            report_note(f"{member.experiment.name} is left out: {error}")
        else:
            kept.append(member)
    return kept


def require_free_names(members: Sequence[Member], *, read: bool) -> None:
    """Raises BadInput if a swept setting is named like a variable that the results are known to have.

    These are the variables of the earlier results in an experiment's folder, and of the checked-in
    ones, if they may be read, and those that many experiments have.
    """
    from toyicl.harness import status, sweeps

    for member in members:
        if member.grid.sweep:
            places = (member.folder, experiment.place(FIGURES, member.listing)) if read else ()
            known = filter(None, (status.results_in(place) for place in places))
            sweeps.require_free_names(member.experiment.name, member.grid.sweep, known)


def print_table(command: Run, seeds: range, members: Sequence[Member]) -> int:
    """Print how far each experiment is; the exit status that the worst one would have so far."""
    from toyicl.harness import status

    found, code = _statuses(command, seeds, members)
    print("\n".join(status.lines(found)))
    return code


def run_each(
    command: Run, seeds: range, members: Sequence[Member], run_one: Callable[[Member], int]
) -> int:
    """Run the experiments that are not finished, one after another; the highest exit status.

    `run_one` runs one of them and returns its exit status. Where it raises BadInput or Unfinished, this
    is reported in one line, and the others are run. Every process of a cluster calls this. Raises
    Interrupted if the user has interrupted a run.
    """
    from toyicl.training import compilation_cache

    # A process that waits for another one gives up after a while, and an estimate may take longer.
    estimates = [] if command.distributed else _statuses(command, seeds, members)[0]
    codes, finished, without = [0], 0, []
    for position, member in enumerate(members):
        name = member.experiment.name
        if _is_finished(command, seeds, member):
            _report_first(f"{name} is finished, and not run again")
            finished += 1
            continue
        _report_position(name, position, len(members), finished, estimates)
        try:
            with machine_errors():
                codes.append(run_one(member))
            finished += 1
        except Interrupted:
            raise
        except (BadInput, Unfinished) as error:
            codes.append(report_failure(name, error))
            without.append(name)
        compilation_cache.forget_programs()
    if without:
        _report_first(f"{len(without)} of {len(members)} experiments failed: {', '.join(without)}")
    return max(codes)


def _statuses(command: Run, seeds: range, members: Sequence[Member]) -> "tuple[list[Status], int]":
    """How far each experiment is, and the highest exit status of those that cannot be run."""
    from toyicl.harness.status import REFUSED, Status, status

    found, codes = [], [0]
    for member in members:
        try:
            one = status(
                member.experiment,
                member.grid,
                member.folder,
                seeds=seeds,
                quick=command.quick,
                fresh=command.fresh,
                records=[experiment.place(FIGURES, member.listing)],
                warn=report_note,
            )
        except (BadInput, Unfinished) as error:
            codes.append(report_failure(member.experiment.name, error))
            one = Status(member.experiment.name, REFUSED, 0.0, recorded=False)
        found.append(one)
    return found, max(codes)


def report_failure(name: str, error: BadInput | Unfinished) -> int:
    """Report in one line why an experiment was not run to its end; its exit status."""
    report_note(f"{name}: {error}")
    return exit_status(error)


def _is_finished(command: Run, seeds: range, member: Member) -> bool:
    """Whether an experiment is finished according to process 0, which alone reads its results."""
    from toyicl.harness.status import is_finished
    from toyicl.training import distributed

    failure: Exception | None = None
    finished = False
    try:
        finished = distributed.is_first() and is_finished(
            member.experiment,
            member.grid,
            member.folder,
            seeds=seeds,
            quick=command.quick,
            fresh=command.fresh,
        )
    except Exception as error:
        failure = error
    distributed.fail_together(failure)
    return distributed.any_process(finished)[0]


def _report_position(
    name: str, position: int, count: int, finished: int, estimates: "Sequence[Status]"
) -> None:
    """Report how far a job is before one of its experiments, with the time left if it is known."""
    from toyicl.harness.dry_run import duration
    from toyicl.harness.status import FINISHED, seconds_left

    after = estimates[position:]
    done = finished + sum(one.state == FINISHED for one in after)
    left = f", {duration(seconds_left(after))} left" if after else ""
    _report_first(f"{name}: experiment {position + 1} of {count}, {done} finished{left}")


def _report_first(sentence: str) -> None:
    """Report what all processes of a cluster know, in process 0 alone."""
    from toyicl.training import distributed

    if distributed.is_first():
        report_note(sentence)
