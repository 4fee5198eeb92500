"""Several experiments as one job: which are finished, and how long the others take."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toyicl.cli.console import report_note
from toyicl.cli.options import FIGURES, Run
from toyicl.harness import experiment

if TYPE_CHECKING:
    from toyicl.harness.runner import Grid
    from toyicl.harness.status import Status


def statuses(
    command: Run,
    seeds: range,
    chosen: Sequence[experiment.Listing],
    loaded: Sequence[experiment.Experiment],
    grids: "Sequence[Grid]",
) -> "list[Status]":
    """How far each experiment of a command is; none in the processes of a cluster but the first.

    Every process calls this, since the first alone reads files. Raises BadInput if one of the
    experiments cannot be run, so that this is known before any is.
    """
    from toyicl.harness.status import status
    from toyicl.training import distributed

    failure: Exception | None = None
    found = []
    try:
        for listing, one, grid in zip(chosen, loaded, grids, strict=True):
            if distributed.is_first():
                found.append(
                    status(
                        one,
                        grid,
                        experiment.place(command.out, listing),
                        seeds=seeds,
                        quick=command.quick,
                        fresh=command.fresh,
                        records=[experiment.place(FIGURES, listing)],
                        warn=report_note,
                    )
                )
    except Exception as error:
        failure = error
    distributed.fail_together(failure)
    return found


def is_left(found: "Sequence[Status]", position: int) -> bool:
    """Report how far a job is before one of its experiments; whether that one has to be run.

    Every process of a cluster calls this, and all get the answer of process 0, which has the statuses.
    """
    from toyicl.harness.dry_run import duration
    from toyicl.harness.status import FINISHED, seconds_left
    from toyicl.training import distributed

    finished = False
    if distributed.is_first():
        own, after = found[position], found[position:]
        finished = own.state == FINISHED
        done = position + sum(one.state == FINISHED for one in after)
        if finished:
            report_note(f"{own.experiment} is finished, and not run again")
        else:
            report_note(
                f"{own.experiment}: experiment {position + 1} of {len(found)}, {done} finished, "
                f"{duration(seconds_left(after))} left"
            )
    return not distributed.any_process(finished)[0]
