"""The trainings of a run: those of all points of a sweep, in groups that are compiled together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from toyicl.core.config import require
from toyicl.core.errors import BadInput
from toyicl.harness import sweeps
from toyicl.harness.experiment import Experiment
from toyicl.training import loop
from toyicl.training.loop import Job

NAMED = 3
"""Number of trainings of a group that its progress bar names."""


class Declared(NamedTuple):
    """A training that an experiment declares at one point of a sweep."""

    point: int
    """Index of the point, in the order of `sweeps.grid`; 0 without a sweep."""
    place: str
    """The swept settings at the point, as text; empty without a sweep."""
    name: str
    """Name of the training at its point."""
    job: Job

    @property
    def full_name(self) -> str:
        """The name together with the point; different for all trainings of a run."""
        return f"{self.place}: {self.name}" if self.place else self.name


def declared(
    experiment: Experiment, points: Sequence[Any], sweep: dict[str, list[Any]]
) -> list[Declared]:
    """The trainings of an experiment at all points of a sweep, point by point.

    Raises BadInput unless the experiment's `trainings` returns a dictionary of `Job`s by name.
    """
    found = []
    places = [sweeps.named(point) for point in sweeps.grid(sweep)]
    for index, (settings, place) in enumerate(zip(points, places, strict=True)):
        jobs = experiment.trainings(settings)
        named = isinstance(jobs, dict) and all(isinstance(name, str) and name for name in jobs)
        if not named or not all(isinstance(job, Job) for job in jobs.values()):
            raise BadInput(
                f"trainings of {experiment.name} must return a dictionary of Job by name"
            )
        for name, job in jobs.items():
            least = job.max_seeds is None or job.max_seeds >= 1
            require(least, f"max_seeds of {name!r}", "None or at least 1", job.max_seeds)
            found.append(Declared(index, place, name, job))
    return found


def grouped(trainings: Sequence[Declared]) -> list[list[Declared]]:
    """The trainings in groups of one kind, each of which is trained as one compiled program."""
    groups: dict[Any, list[Declared]] = {}
    for training in trainings:
        groups.setdefault(loop.kind(training.job), []).append(training)
    return list(groups.values())


def most_runs(trainings: Sequence[Declared], seeds: int) -> int:
    """Number of runs of the largest group: so many processes can have work at once."""
    return max(sum(len(one.job.seeds(seeds)) for one in group) for group in grouped(trainings))


def label(group: Sequence[Declared]) -> str:
    """Name of a group: the names of its trainings, each once, and at most three of them."""
    names = list(dict.fromkeys(training.name for training in group))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
