"""The trainings of a run: those of all points of a sweep, in groups that are compiled together."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from toyicl.core.config import require
from toyicl.core.errors import BadInput
from toyicl.harness import sweeps
from toyicl.harness.checkpoint_manager import CheckpointManager
from toyicl.harness.experiment import Experiment
from toyicl.training import loop, recipes
from toyicl.training.loop import History, Job, fit_all
from toyicl.training.placement import Spread

Show = Callable[[str, int], AbstractContextManager[Callable[[int, np.ndarray], None]]]
"""Called with the label and the steps of a group; a context whose value is a `loop.Progress`."""
MOST_NAMES = 3
"""Number of trainings that the label of a group names."""


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
        """The point and the name; different for all trainings of a run."""
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
            fits = job.min_seeds >= 0 and (job.max_seeds is None or job.min_seeds <= job.max_seeds)
            require(fits, f"min_seeds of {name!r}", "0 to max_seeds", job.min_seeds)
            found.append(Declared(index, place, name, job))
    return found


def grouped(trainings: Sequence[Declared]) -> list[list[Declared]]:
    """The trainings in groups of one kind, each of which is trained as one compiled program."""
    groups: dict[Any, list[Declared]] = {}
    for training in trainings:
        groups.setdefault(loop.kind(training.job), []).append(training)
    return list(groups.values())


def with_seeds(trainings: Sequence[Declared], seeds: Sequence[int]) -> list[Declared]:
    """The trainings that train at least one of the seeds."""
    return [training for training in trainings if training.job.seeds(seeds)]


def most_runs(groups: Sequence[Sequence[Declared]], seeds: int | Sequence[int]) -> int:
    """Number of runs of the largest group: so many processes can have work at once."""
    return max(sum(len(one.job.seeds(seeds)) for one in group) for group in groups)


def described(trainings: Sequence[Declared]) -> str:
    """Recipe, steps and batch size of all trainings, as text; empty without any.

    Trainings of the same recipe and length are named together.
    """
    alike: dict[str, list[Declared]] = {}
    for training in trainings:
        alike.setdefault(recipes.describe(training.job.training), []).append(training)
    return "; ".join(f"{label(group)}: {recipe}" for recipe, group in alike.items())


def label(group: Sequence[Declared]) -> str:
    """Name of a group: the names of its trainings, each once, and at most three of them."""
    names = list(dict.fromkeys(training.name for training in group))
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def train(
    groups: Sequence[Sequence[Declared]],
    *,
    seeds: Sequence[int],
    spread: Spread,
    manager: CheckpointManager,
    show: Show,
) -> dict[str, History]:
    """The history of each training by its full name; each group is trained as one program.

    Raises Unfinished if the user stops the run, or if what was kept earlier does not fit.
    """
    histories: dict[str, History] = {}
    for group in groups:
        names, jobs = [one.full_name for one in group], [one.job for one in group]
        steps = [int(job.training.steps) for job in jobs for _ in job.seeds(seeds)]
        own_steps = sum(steps[index] for index in spread.own_runs(len(steps)))
        with show(label(group), own_steps) as progress:
            fitted = fit_all(
                jobs,
                seeds,
                spread=spread,
                checkpointer=manager.of(names, label(group)),
                progress=progress,
            )
        histories |= dict(zip(names, fitted, strict=True))
    return histories


def diverged(histories: dict[str, History]) -> list[str]:
    """A sentence for each seed of each training whose loss was not finite."""
    return [
        f"{name}: seed {seed} diverged, its loss is not finite at step {step}"
        for name, history in histories.items()
        for seed, step in zip(history.seeds, history.diverged_at, strict=True)
        if step >= 0
    ]
