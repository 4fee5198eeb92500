"""The memory that a run needs, estimated from sizes alone, before anything is compiled.

An estimate is a lower bound: what fits is not refused. It contains the snapshots and optimiser states
of all runs, which are kept until the end, and, for the largest training, the episodes and activations
of the runs that are advanced at the same time, or of the evaluation. It leaves out what XLA keeps in
addition.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Jaxpr

from toyicl.core.errors import BadInput
from toyicl.core.memory import amount, available, number_size
from toyicl.core.nesting import nested
from toyicl.harness.trainings import Declared
from toyicl.tasks.linear import COPIES, episode_size
from toyicl.training import loop
from toyicl.training.gradient import computed, microbatch_size
from toyicl.training.step import one_step

SEED_BYTES = 4096
"""Memory of one run without its learner: its key, its settings, and its place in lists."""
STATES = 5
"""Copies of a learner's parameters apart from snapshots: now, their gradient, two moments of Adam, and
the update."""


class Estimate(NamedTuple):
    """What one training needs, in bytes."""

    kept: int
    """Snapshots and states of its runs."""
    step: int
    """Episodes and activations of a step of one run."""
    factors: str
    """The sizes that this follows from, as text."""


def require_episodes(trainings: Sequence[Declared], points: Sequence[Any], seeds: int) -> None:
    """Check what follows from settings alone: the seeds, and the episodes of a step.

    Raises BadInput with the estimate, and with the memory that there is.
    """
    _require_available(seeds * SEED_BYTES, "the run", f"seeds {seeds:,}")
    for one in trainings:
        needed = COPIES * one.job.training.batch_size * episode_size(one.job.task) * number_size()
        _require_available(needed, _named(one), _factors(one, points, ""))


def require_room(
    groups: Sequence[Sequence[Declared]], points: Sequence[Any], seeds: Sequence[int], at_once: int
) -> None:
    """Check that there is room for trainings, of which `at_once` runs are advanced at the same time.

    `groups` are trainings of one kind. Raises BadInput with the estimate and the memory that there is,
    which names the training with the largest part in it.
    """
    largest: tuple[int, Declared | None, str] = (0, None, "")
    kept = 0
    for group in groups:
        for one, estimate in zip(group, _estimates(group, points, seeds), strict=True):
            kept += estimate.kept
            own = estimate.kept + min(at_once, len(one.job.seeds(seeds))) * estimate.step
            largest = max(largest, (own, one, estimate.factors), key=lambda entry: entry[0])
            held = kept - estimate.kept + own
            _, worst, factors = largest
            if worst is not None:
                _require_available(held, _named(worst), factors)


def _estimates(
    group: Sequence[Declared], points: Sequence[Any], seeds: Sequence[int]
) -> list[Estimate]:
    """What each training of a group needs; learners and activations have one size in all of them."""
    job = group[0].job
    run = jax.eval_shape(partial(loop.begin, job), 0)
    learner = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run.learner))
    found = []
    largest: int | None = None
    for one in group:
        own, training = one.job, one.job.training
        snapshots = 1 + int(training.steps) // training.snapshot_every
        count = len(own.seeds(seeds))
        kept = count * ((snapshots + STATES) * learner + SEED_BYTES)
        runs = f"{count:,} seeds, {snapshots:,} snapshots of {amount(learner)}, "
        factors = _factors(one, points, runs)
        _require_available(kept, _named(one), factors)
        largest = _largest_activation(run) if largest is None else largest
        episode = COPIES * episode_size(own.task) * number_size()
        step = training.batch_size * episode + largest * _episodes_at_once(own)
        evaluated = _evaluation_episodes(points[one.point]) * (episode + largest)
        found.append(Estimate(kept, max(step, evaluated), factors))
    return found


def _largest_activation(run: Any) -> int:
    """Bytes of the largest array of a step, for each episode of its batch."""
    program: Jaxpr = jax.make_jaxpr(one_step)(run).jaxpr
    batch = run.training.batch_size
    sizes = (
        value.size * value.dtype.itemsize // batch
        for value in computed(program)
        if batch in value.shape and np.issubdtype(value.dtype, np.floating)
    )
    return max(sizes, default=0)


def _episodes_at_once(job: loop.Job) -> int:
    """Episodes whose activations exist at once: a microbatch on a CPU."""
    batch = job.training.batch_size
    divided = jax.devices()[0].platform == "cpu" and job.objective is None
    return microbatch_size(batch) if divided else batch


def _evaluation_episodes(settings: Any) -> int:
    """The largest setting of this name: episodes on which learners are evaluated, all at once."""
    return max(getattr(part, "evaluation_episodes", 0) for _, part in nested(settings))


def _factors(one: Declared, points: Sequence[Any], before: str) -> str:
    """The sizes of a training as text, under the names of their settings where they have some."""
    paths = {id(value): path for path, value in nested(points[one.point])}
    task, training = one.job.task, one.job.training
    ours, theirs = paths.get(id(training), ""), paths.get(id(task), "")
    episodes = _evaluation_episodes(points[one.point])
    evaluated = f"evaluation_episodes {episodes:,}, " if episodes else ""
    return (
        f"{before}{evaluated}{ours}batch_size {training.batch_size:,}, {theirs}context_size "
        f"{task.context_size:,}, {theirs}dim {task.dim:,}, {theirs}outputs {task.outputs:,}"
    )


def _named(one: Declared) -> str:
    return f"training {one.full_name!r}"


def _require_available(needed: int, what: str, factors: str) -> None:
    if needed > available():
        raise BadInput(
            f"{what} must fit into memory, {amount(available())} here, got an estimate of "
            f"{amount(needed)} or more, for {factors}"
        )
