"""When checkpoints are saved during a run, and how a run resumes from one."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toyicl.core.errors import Interrupted, Unfinished
from toyicl.harness.checkpoints import Checkpoint, NamedArrays, reason, save
from toyicl.training import distributed
from toyicl.training.state import TrainingState, named_arrays, with_rows

MOST_OVERHEAD, LEAST_SECONDS = 0.02, 5.0
"""Without a given interval, saving takes at most this fraction of the time, and waits so long."""


class CheckpointManager:
    """Saves the states of a run's trainings; `of` makes the `loop.Checkpointer` of a group of them.

    `checkpoint` is what the run resumes from, with the identity and the origins of this run. `every` is
    the number of seconds between two generations; None chooses it so that saving costs at most 2% of
    the time. `stop` returns whether the user has asked to stop: a last checkpoint is then saved, and
    Unfinished is raised. `warn` is called with a sentence about problems that do not end the run. Only
    process 0 writes.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        *,
        every: float | None,
        stop: Callable[[], bool],
        warn: Callable[[str], None],
    ) -> None:
        states = dict(checkpoint.states)
        self.checkpoint = checkpoint._replace(states=states)
        self.seconds = 0.0
        """Time spent on saving so far."""
        self._folder, self._every, self._stop, self._warn = folder, every, stop, warn
        self._saved_at, self._cost, self._unsaved = -np.inf, 0.0, True
        self._saved_steps = _steps(states)
        self._trained_until = time.monotonic()

    def of(self, names: Sequence[str], label: str | None = None) -> "GroupCheckpointer":
        """The checkpointer of trainings that are advanced together; `label` names them in messages."""
        return GroupCheckpointer(self, names, label or ", ".join(names))

    def update(self, name: str, state: TrainingState) -> None:
        """Take over the state of a training, to be saved with the next generation."""
        self.checkpoint.states[name] = named_arrays(state)
        self._unsaved |= self._saved_steps.get(name) != state.step.tolist()

    def count_seconds(self) -> None:
        """Add the time since the last call, or since the manager was made, to that of training."""
        now = time.monotonic()
        if self.checkpoint.seconds is not None:
            seconds = self.checkpoint.seconds + now - self._trained_until
            self.checkpoint = self.checkpoint._replace(seconds=seconds)
        self._trained_until = now

    def wishes(self) -> list[bool]:
        """Whether it is time to save, and whether to stop; the same in all processes."""
        pause = (
            max(LEAST_SECONDS, self._cost / MOST_OVERHEAD) if self._every is None else self._every
        )
        due = distributed.is_first() and time.monotonic() - self._saved_at > pause
        return distributed.any_process(due, self._stop())

    def save(self) -> None:
        """Save a generation if anything is new; a failure is reported, and the run continues."""
        if not self._unsaved or not distributed.is_first():
            return
        begin = time.monotonic()
        try:
            save(self._folder, self.checkpoint)
            self._unsaved, self._saved_steps = False, _steps(self.checkpoint.states)
        except Exception as error:  # Orbax and TensorStore raise various errors if a disk is full
            self._warn(
                f"no checkpoint could be saved in {self._folder} ({reason(error)}); "
                "training continues, and the previous checkpoint remains valid"
            )
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - begin
        self.seconds += self._cost


class GroupCheckpointer(NamedTuple):
    """A `loop.Checkpointer` for the trainings of one group."""

    manager: CheckpointManager
    names: Sequence[str]
    """Name of each training, different from all others of the run."""
    label: str
    """Name of the group in messages."""

    def restore(self, states: list[TrainingState]) -> list[TrainingState]:
        """The states kept earlier; where fewer seeds were kept, the other rows are those given.

        Raises Unfinished, in all processes, if what was kept does not fit.
        """
        failure: Exception | None = None
        try:
            states = [
                self._restored(name, state) for name, state in zip(self.names, states, strict=True)
            ]
        except Unfinished as error:
            failure = error
        distributed.fail_together(failure)
        return distributed.from_first(states)

    def _restored(self, name: str, state: TrainingState) -> TrainingState:
        kept = self.manager.checkpoint.states.get(name)
        if kept is None:
            return state
        try:
            return with_rows(state, kept)
        except ValueError as error:
            raise Unfinished(
                f"the checkpoint of {name!r} was made by another program ({error}); "
                "--fresh starts over"
            ) from error

    def visit(self, states: Callable[[], list[TrainingState]]) -> None:
        """Save from time to time.

        Raises Interrupted, after a last checkpoint, if the user has asked to stop.
        """
        due, stop = self.manager.wishes()
        if due or stop:
            now = states()
            self.finish(now)
        if stop:
            steps = [int(step) for state in now for step in state.step]
            shown = ", ".join(map(str, steps[:8])) + ", ..." * (len(steps) > 8)
            raise Interrupted(
                f"interrupted while training {self.label!r}, after {shown} steps; "
                "rerun the same command to resume"
            )

    def finish(self, states: list[TrainingState]) -> None:
        """Save the states, whatever comes after them."""
        for name, state in zip(self.names, states, strict=True):
            self.manager.update(name, state)
        self.manager.count_seconds()
        self.manager.save()


def _steps(states: dict[str, NamedArrays]) -> dict[str, list[int]]:
    """Steps done by each run of each training: they show whether a state, changed in place, is new."""
    return {name: arrays["step"].tolist() for name, arrays in states.items()}
