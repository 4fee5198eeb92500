"""What a run would train, and a rough estimate of its cost, without training or writing anything."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.analysis.cost_scaling import operations
from toyicl.core.products import contract
from toyicl.harness.checkpoints import NamedArrays
from toyicl.harness.trainings import Declared
from toyicl.training import loop
from toyicl.training.step import one_step

SIZE, COPIES, REPEATS = 10, 2048, 20
"""Matrix products that are timed: size, number at once, and repetitions."""


@dataclass(frozen=True)
class PlannedTraining:
    """A training of a planned run."""

    name: str
    """Its name, with the point of a sweep."""
    runs: int
    """Number of runs, one for each seed."""
    steps: int
    """Training steps of each run."""
    steps_done: int
    """Steps of all runs together that a checkpoint holds."""
    batch_size: int
    """Episodes in each step."""
    parameters: int
    """Number of trainable parameters of one learner."""
    operations: float
    """Floating-point operations of one step of one run, as XLA counts them before optimisation."""

    @property
    def operations_left(self) -> float:
        """Floating-point operations of the steps that are still to be done."""
        return self.operations * (self.runs * self.steps - self.steps_done)


@dataclass(frozen=True)
class Plan:
    """The trainings of a planned run, and what is needed to estimate their cost."""

    experiment: str
    """Name of the experiment."""
    groups: tuple[tuple[PlannedTraining, ...], ...]
    """Trainings that are compiled as one program."""
    devices: int
    """Devices of this process."""
    speed: float
    """Floating-point operations per second of one device in small matrix products."""

    @property
    def trainings(self) -> list[PlannedTraining]:
        """All trainings."""
        return [training for group in self.groups for training in group]

    @property
    def steps(self) -> int:
        """Training steps of all runs of all trainings."""
        return sum(training.runs * training.steps for training in self.trainings)

    @property
    def steps_done(self) -> int:
        """How many of them a checkpoint holds."""
        return sum(training.steps_done for training in self.trainings)

    @property
    def fraction_left(self) -> float:
        """Fraction of the floating-point operations of training that is still to be done."""
        left = sum(training.operations_left for training in self.trainings)
        total = sum(one.operations * one.runs * one.steps for one in self.trainings)
        return left / total if total else 0.0

    @property
    def seconds(self) -> float:
        """Rough time of the training steps that are left, each run on one device."""
        times = []
        for group in self.groups:
            busy = min(self.devices, sum(training.runs for training in group))
            times.append(sum(training.operations_left for training in group) / (self.speed * busy))
        return sum(times)


def plan(
    experiment: str,
    groups: Sequence[Sequence[Declared]],
    seeds: Sequence[int],
    states: dict[str, NamedArrays],
) -> Plan:
    """The plan of a run that resumes from the states of its trainings."""
    planned = tuple(_planned(group, seeds, states) for group in groups)
    return Plan(experiment, planned, jax.local_device_count(), speed() if planned else 1.0)


def lines(plan: Plan) -> list[str]:
    """A plan as text for the user."""
    trainings = plan.trainings
    if not trainings:
        return [f"{plan.experiment}: nothing is trained; the run only measures"]
    runs = sum(one.runs for one in trainings)
    width = max(len(one.name) for one in trainings)
    left = sum(one.operations_left for one in trainings)
    return [
        f"{plan.experiment}: {_counted(len(trainings), 'training')}, {_counted(runs, 'run')}, "
        f"{_counted(len(plan.groups), 'compiled program')}",
        *(f"  {_described(one, width)}" for one in trainings),
        *([f"  {_done(plan)} are done already"] if plan.steps_done else []),
        f"  estimate: {left:.1e} floating-point operations, {duration(plan.seconds)} on "
        f"{_counted(plan.devices, 'device')} at {plan.speed:.1e} operations per second each, the "
        "speed of small matrix products here",
        "  The estimate leaves out compilation and measurement, and may be wrong by a factor of five.",
    ]


def speed() -> float:
    """Floating-point operations per second of one device in many small matrix products at once.

    Matrices have the size of the default task, their copies are on the last axis, as episodes are, and
    products are those of models: large products are faster, and the steps of small models are not.
    """
    matrices = jnp.ones((SIZE, SIZE, COPIES), jnp.result_type(float))
    multiply = jax.jit(lambda a: jax.vmap(contract, -1, -1)(a, a))
    jax.block_until_ready(multiply(matrices))
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(multiply(matrices))
        times.append(time.perf_counter() - begin)
    return 2 * SIZE**3 * COPIES / min(times)


def _planned(
    group: Sequence[Declared], seeds: Sequence[int], states: dict[str, NamedArrays]
) -> tuple[PlannedTraining, ...]:
    """The planned trainings of a group; one step costs the same in all of them."""
    run: Any = jax.eval_shape(partial(loop.begin, group[0].job), 0)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(run.learner, nnx.Param)))
    cost = operations(one_step, run)
    return tuple(
        PlannedTraining(
            name=one.full_name,
            runs=len(one.job.seeds(seeds)),
            steps=int(one.job.training.steps),
            steps_done=int(states[one.full_name]["step"].sum()) if one.full_name in states else 0,
            batch_size=one.job.training.batch_size,
            parameters=parameters,
            operations=cost,
        )
        for one in group
    )


def _done(plan: Plan) -> str:
    return f"{plan.steps_done:,} of {plan.steps:,} steps"


def _described(training: PlannedTraining, width: int) -> str:
    return (
        f"{training.name:<{width}}  {_counted(training.runs, 'run')} of {training.steps:,} steps, "
        f"batch size {training.batch_size:,}, {_counted(training.parameters, 'parameter')}, "
        f"{training.operations:.1e} operations per step"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time in words, to about one digit."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * length:
            return f"about {_counted(round(seconds / length), unit)}"
    return f"about {_counted(round(seconds), 'second')}" if seconds >= 1 else "less than a second"
