"""The training loop: runs are advanced chunk by chunk, with a snapshot of the learner after each chunk.

`fit` trains any learner, such as a transformer or the step size of gradient descent, on fresh episodes
every step. Python counts chunks, reports progress and keeps snapshots; the steps of a chunk are
compiled (`training.step`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from toyicl.core.config import require
from toyicl.core.episode import Objective
from toyicl.tasks.linear import Task
from toyicl.training.distributed import any_process
from toyicl.training.placement import AcrossRuns, Spread
from toyicl.training.state import TrainingState, at, empty_state, latest_losses, record
from toyicl.training.step import Build, Run, Training, start

Progress = Callable[[int, np.ndarray], None]
"""Called after every chunk with the steps done by all runs together, and the latest loss of each."""


class Job(NamedTuple):
    """A training that an experiment declares: one run for each seed."""

    build: Build
    """Makes the learner."""
    task: Task
    """The task whose episodes it is trained on."""
    training: Training
    """Steps, batch size, and optimiser."""
    max_seeds: int | None = None
    """Only the seeds below this number are trained; None trains all seeds of the run."""
    objective: Objective | None = None
    """A pure function that training minimises; None means the loss of the task's episodes."""
    min_seeds: int = 0
    """Smallest number of seeds that are trained, for a training that needs more than the run has."""

    def seeds(self, seeds: int | Sequence[int]) -> Sequence[int]:
        """Those of a run's seeds that are trained; a number n means the seeds 0, ..., n - 1.

        The parts of a run that is divided by seed train together what the whole run would: seeds below
        `min_seeds` are trained by the part with seed 0, and seeds from `max_seeds` on by none.
        """
        chosen = listed(seeds)
        if self.min_seeds:
            first = range(self.min_seeds) if 0 in chosen else ()
            chosen = [*first, *(seed for seed in chosen if seed >= self.min_seeds)]
        if self.max_seeds is None:
            return chosen
        return [seed for seed in chosen if seed < self.max_seeds]


class History(NamedTuple):
    """The result of a training: the learners of all runs at every snapshot, on the host."""

    learners: Any
    """One learner with leading axes (seed, snapshot) on every leaf."""
    steps: np.ndarray
    """Training steps done at each snapshot, (snapshot,), from 0."""
    seeds: np.ndarray
    """Seed of each run, (seed,)."""
    training_loss: np.ndarray
    """Mean training loss since the previous snapshot, (seed, snapshot - 1)."""
    diverged_at: np.ndarray
    """Step at which the loss of a seed was first not finite, (seed,); -1 where it always was finite."""

    @property
    def final(self) -> Any:
        """The trained learners, with a leading seed axis on every leaf."""
        return jax.tree.map(lambda leaf: leaf[:, -1], self.learners)


def listed(seeds: int | Sequence[int]) -> Sequence[int]:
    """Seeds as a sequence; a number n means the seeds 0, ..., n - 1."""
    return range(seeds) if isinstance(seeds, int) else seeds


Histories = Mapping[str, History]
"""What an experiment measures: the history of each training, by the name that declares it."""


class Checkpointer(Protocol):
    """Saves the states of jobs that are trained together, one state for each job."""

    def restore(self, states: list[TrainingState]) -> list[TrainingState]:
        """The states saved earlier; rows that were not saved are taken from the given states."""
        ...

    def visit(self, states: Callable[[], list[TrainingState]]) -> None:
        """Called by all processes together after every round of chunks; ends the training by raising.

        `states` collects the states of all processes, and is called by all of them or by none.
        """
        ...

    def finish(self, states: list[TrainingState]) -> None:
        """Called once all runs are done."""
        ...


class NoCheckpoints:
    """Saves no checkpoints: for short trainings that need not be resumed."""

    def restore(self, states: list[TrainingState]) -> list[TrainingState]:
        """The states given."""
        return states

    def visit(self, states: Callable[[], list[TrainingState]]) -> None:
        """Do nothing."""

    def finish(self, states: list[TrainingState]) -> None:
        """Do nothing."""


def fit(
    build: Build,
    task: Task,
    training: Training,
    *,
    seeds: int | Sequence[int] = 1,
    objective: Objective | None = None,
    progress: Progress | None = None,
) -> History:
    """Train one learner for each seed, on fresh episodes every step.

    `objective(learner, episodes)` is a pure function whose scalar value is minimised; None means the
    task's own, `episodes.loss(learner)`. It is part of the compiled program.

    `seeds` is a number, for seeds 0, 1, ..., or the seeds themselves. A run depends on its own seed
    alone: the episodes of a step are drawn from (seed, step). Runs are distributed over the devices of
    the process (see `use_all_cores`). A run that diverges does not affect the others; see
    `History.diverged_at`. Raises BadInput without a seed, and for a learner with variables that are
    neither `flax.nnx.Param` nor `Fixed`.
    """
    job = Job(build, task, training, objective=objective)
    (history,) = fit_all([job], seeds, progress=progress)
    return history


def fit_all(
    jobs: Sequence[Job],
    seeds: int | Sequence[int] = 1,
    *,
    spread: Spread | None = None,
    checkpointer: Checkpointer | None = None,
    progress: Progress | None = None,
) -> list[History]:
    """Train jobs of one kind together: their runs are compiled once and advanced in turn.

    Jobs are of one kind if they differ in traced settings and in numbers of seeds alone; see `kind`.
    """
    spread, checkpointer = spread or AcrossRuns(), checkpointer or NoCheckpoints()
    chosen = [job.seeds(seeds) for job in jobs]
    for own in chosen:
        require(len(own) > 0, "seeds", "at least 1", len(own))
    runs = [
        [jax.device_get(begin(job, int(seed))) for seed in own]
        for job, own in zip(jobs, chosen, strict=True)
    ]
    states = checkpointer.restore([empty_state(own) for own in runs])
    states = _advance_to_end(runs, states, spread, checkpointer, progress)
    return [_history(job, own, state) for job, own, state in zip(jobs, chosen, states, strict=True)]


def kind(job: Job) -> Any:
    """What jobs that can be trained together have in common: all that is not traced."""
    run = jax.eval_shape(partial(begin, job), 0)
    leaves, structure = jax.tree.flatten(run)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def begin(job: Job, seed: int | jax.Array) -> Run:
    """The run of a seed of a job, before its first step."""
    return start(job.build, job.task, job.training, seed, job.objective)


def _advance_to_end(
    runs: Sequence[Sequence[Run]],
    states: list[TrainingState],
    spread: Spread,
    checkpointer: Checkpointer,
    progress: Progress | None,
) -> list[TrainingState]:
    """The states of all jobs once every run has done its steps."""
    places = [(job, row) for job, own in enumerate(runs) for row in range(len(own))]
    current = [at(runs[job][row], states[job], row) for job, row in places]
    every, mine = current[0].training.snapshot_every, spread.own_runs(len(current))
    firsts = np.cumsum([0, *map(len, runs)])[:-1]
    room = spread.at_once(len(mine))

    def collected() -> list[TrainingState]:
        return [spread.collect(s, int(first)) for s, first in zip(states, firsts, strict=True)]

    waiting = deque(i for i in mine if current[i].step < current[i].training.steps)
    while any(any_process(bool(waiting))):
        turn = [waiting.popleft() for _ in range(min(len(waiting), room))]
        if turn:
            moved, losses = spread.advance([current[i] for i in turn], room)
            for index, run, chunk in zip(turn, moved, losses, strict=True):
                job, row = places[index]
                record(states[job], row, run, chunk)
                current[index] = run
                if run.step < run.training.steps:
                    waiting.append(index)
        if progress is not None:
            steps = np.concatenate([state.step for state in states])
            latest = np.concatenate([latest_losses(state, every) for state in states])
            progress(int(steps[mine].sum()), latest[mine])
        checkpointer.visit(collected)
    states = collected()
    checkpointer.finish(states)
    return states


def _history(job: Job, seeds: Sequence[int], state: TrainingState) -> History:
    every = job.training.snapshot_every
    return History(
        learners=state.learners,
        steps=np.arange(state.training_loss.shape[1] + 1) * every,
        seeds=np.asarray(seeds),
        training_loss=state.training_loss,
        diverged_at=state.diverged_at,
    )
