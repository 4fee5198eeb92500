"""Fitting: runs advanced chunk by chunk until they are done, with a snapshot kept after each chunk.

`fit` trains any learner, a transformer or the step size of gradient descent, on fresh episodes every
step. Python only counts chunks, shows progress and keeps snapshots; a step is compiled (`training`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from toyicl.core.config import require
from toyicl.tasks.linear import Task
from toyicl.training.distributed import any_process
from toyicl.training.placement import AcrossRuns, Spread
from toyicl.training.state import TrainingState, at, empty_state, latest_losses, record
from toyicl.training.step import Build, Run, Training, start

Progress = Callable[[int, np.ndarray], None]
"""Called after every chunk with the steps done by all runs together, and each run's latest loss."""


class Job(NamedTuple):
    """A training that an experiment declares: one run for each seed."""

    build: Build
    """Makes the learner."""
    task: Task
    """The task whose episodes it is trained on."""
    training: Training
    """Steps, batch size, and optimiser."""
    max_seeds: int | None = None
    """Largest number of seeds that are trained; None trains all seeds of the run."""

    def seeds(self, count: int) -> range:
        """The seeds that are trained in a run with `count` seeds."""
        return range(count if self.max_seeds is None else min(count, self.max_seeds))


class Plan(NamedTuple):
    """What to fit: one learner for each seed."""

    build: Build
    task: Task
    training: Training
    seeds: Sequence[int]


class History(NamedTuple):
    """What `fit` returns: the learners of all runs at every snapshot, on the host."""

    learners: Any
    """One learner with leading axes (seed, snapshot) on every leaf."""
    steps: np.ndarray
    """Training steps done at each snapshot, (snapshot,), from 0."""
    seeds: np.ndarray
    """Seed of each run, (seed,)."""
    training_loss: np.ndarray
    """Mean training loss since the last snapshot, (seed, snapshot - 1)."""
    diverged_at: np.ndarray
    """Step at which a seed's loss first was not finite, (seed,); -1 where it always was."""

    @property
    def final(self) -> Any:
        """The trained learners, with a leading seed axis on every leaf."""
        return jax.tree.map(lambda leaf: leaf[:, -1], self.learners)


Histories = Mapping[str, History]
"""What an experiment measures: the history of each training, by the name that declares it."""


class Checkpointer(Protocol):
    """Who keeps trails safe while a fit goes on."""

    def restore(self, trails: TrainingState) -> TrainingState:
        """The trails kept earlier, or those given if there are none."""
        ...

    def visit(self, trails: Callable[[], TrainingState]) -> None:
        """Called by all processes together after every round of chunks; ends the fit by raising."""
        ...

    def finish(self, trails: TrainingState) -> None:
        """Called once the runs are done."""
        ...


class NoCheckpoints:
    """A keeper for fits that are short, or may be lost."""

    def restore(self, trails: TrainingState) -> TrainingState:
        """The trails given."""
        return trails

    def visit(self, trails: Callable[[], TrainingState]) -> None:
        """Go on."""

    def finish(self, trails: TrainingState) -> None:
        """Nothing to do."""


def fit(
    build: Build,
    task: Task,
    training: Training,
    *,
    seeds: int | Sequence[int] = 1,
    progress: Progress | None = None,
) -> History:
    """Train one learner for each seed, on fresh episodes every step.

    `seeds` is a count, for seeds 0, 1, ..., or the seeds themselves. A run depends on its own seed
    alone: the episodes of a step are drawn from (seed, step). Runs are spread over the devices of the
    process (see `use_all_cores`). A run that diverges leaves the others as they are; see
    `History.diverged_at`.
    """
    chosen = range(seeds) if isinstance(seeds, int) else seeds
    (history,) = fit_all([Plan(build, task, training, chosen)], progress=progress)
    return history


def fit_all(
    plans: Sequence[Plan],
    *,
    spread: Spread | None = None,
    keeper: Checkpointer | None = None,
    progress: Progress | None = None,
) -> list[History]:
    """Fit plans of one kind together: their runs are compiled once and advanced side by side.

    Plans are of one kind if they differ in traced settings and seeds alone; see `kind`.
    """
    spread, keeper = spread or AcrossRuns(), keeper or NoCheckpoints()
    for plan in plans:
        require(len(plan.seeds) > 0, "seeds", "at least 1", len(plan.seeds))
    runs = [
        jax.device_get(start(plan.build, plan.task, plan.training, int(seed)))
        for plan in plans
        for seed in plan.seeds
    ]
    trails = _advance_to_end(runs, keeper.restore(empty_state(runs)), spread, keeper, progress)
    ends = np.cumsum([len(plan.seeds) for plan in plans])
    starts = np.append(0, ends[:-1])
    return [
        _history(plan, jax.tree.map(lambda leaf, a=a, b=b: leaf[a:b], trails))
        for plan, a, b in zip(plans, starts, ends, strict=True)
    ]


def kind(plan: Plan | Job) -> Any:
    """What plans that can be fitted together have in common: all that is not traced."""
    run = jax.eval_shape(start, plan.build, plan.task, plan.training, 0)
    leaves, structure = jax.tree.flatten(run)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _advance_to_end(
    runs: list[Run],
    trails: TrainingState,
    spread: Spread,
    keeper: Checkpointer,
    progress: Progress | None,
) -> TrainingState:
    """The trails of all runs once each has done its steps."""
    runs = [at(run, trails, index) for index, run in enumerate(runs)]
    every, mine = runs[0].training.snapshot_every, spread.share(len(runs))
    room = spread.at_once(len(mine))
    waiting = deque(i for i in mine if runs[i].step < runs[i].training.steps)
    while any(any_process(bool(waiting))):
        turn = [waiting.popleft() for _ in range(min(len(waiting), room))]
        if turn:
            moved, losses = spread.advance([runs[i] for i in turn], room)
            for index, run, chunk in zip(turn, moved, losses, strict=True):
                record(trails, index, run, chunk)
                runs[index] = run
                if run.step < run.training.steps:
                    waiting.append(index)
        if progress is not None:
            progress(int(trails.step[mine].sum()), latest_losses(trails, every)[mine])
        keeper.visit(lambda: spread.collect(trails))
    trails = spread.collect(trails)
    keeper.finish(trails)
    return trails


def _history(plan: Plan, trails: TrainingState) -> History:
    every = plan.training.snapshot_every
    count = int(plan.training.steps) // every
    return History(
        learners=jax.tree.map(lambda leaf: leaf[:, : count + 1], trails.learners),
        steps=np.arange(count + 1) * every,
        seeds=np.asarray(plan.seeds),
        training_loss=trails.training_loss[:, :count],
        diverged_at=trails.diverged_at,
    )
