"""Training steps as a compiled program: a run between two chunks of steps, and one such chunk.

A chunk is a loop over training steps. It advances several runs together, each on its own device, or
one run whose batches are divided among all devices. `training.loop` calls it until the runs are done.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from toyicl.analysis.metrics import loss
from toyicl.core.config import (
    is_number,
    require,
    require_not_negative,
    require_positive,
    require_size,
    require_whole,
    settings,
    static,
)
from toyicl.core.episode import Episode, Learner, Objective
from toyicl.core.random_numbers import efficient_key
from toyicl.core.variables import require_no_state
from toyicl.tasks.linear import Task
from toyicl.training.gradient import Gradient, of_batch, of_microbatches

Build = Callable[[Any, jax.Array], Any]
"""Builds a learner for a task from a key; a pytree, such as an `Architecture` or `StartFrom`."""


@settings
class Training:
    """Settings of a training run: Adam on fresh batches, after clipping the gradient's global norm.

    The defaults are those of the released code of von Oswald et al. (2022) for one or two layers. For
    more layers it takes learning_rate 5e-4 and clip_norm 10; their text has b2 .999 and clip_norm 10
    for all depths.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    steps: int = 5000
    """Number of training steps; not part of the compiled program."""
    batch_size: int = static(default=2048)
    """Number of fresh episodes in each step."""
    snapshot_every: int = static(default=100)
    """Steps between two snapshots of the parameters; also the length of a compiled chunk."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    final_learning_rate: float | None = None
    """Adam's step size after the last step, reached along half a cosine; None means no change."""
    clip_norm: float | None = 1e-3
    """Bound on the gradient's global norm; None means no bound."""
    b1: float = 0.9
    """Adam's decay rate of the first moment."""
    b2: float = 0.98
    """Adam's decay rate of the second moment."""

    def __post_init__(self) -> None:
        require_size("batch_size", self.batch_size)
        require_size("snapshot_every", self.snapshot_every)
        if not isinstance(self.steps, jax.Array):
            require_whole("steps", self.steps)
            rule = f"a multiple of snapshot_every ({self.snapshot_every})"
            require(self.steps % self.snapshot_every == 0, "steps", rule, self.steps)
        require_positive("learning_rate", self.learning_rate)
        if self.final_learning_rate is not None:
            require_not_negative("final_learning_rate", self.final_learning_rate)
        if self.clip_norm is not None:
            require_positive("clip_norm", self.clip_norm)
        for name in ("b1", "b2"):
            value, rule = getattr(self, name), "at least 0 and below 1"
            if is_number(name, rule, value):
                require(bool(0 <= value < 1), name, rule, value)

    def optimiser(self) -> optax.GradientTransformation:
        """Clipping, then Adam; the settings may be traced."""
        bound = self.clip_norm
        clip = optax.identity() if bound is None else optax.clip_by_global_norm(bound)
        adam = optax.scale_by_adam(b1=self.b1, b2=self.b2)
        start, end = self.learning_rate, self.final_learning_rate
        if end is None:
            return optax.chain(clip, adam, optax.scale_by_learning_rate(start))

        def falling(step: jax.Array) -> jax.Array:
            return end + (start - end) * (1 + jnp.cos(jnp.pi * step / self.steps)) / 2

        return optax.chain(clip, adam, optax.scale_by_learning_rate(falling))


@settings
class StartFrom:
    """A builder whose learner is given, such as one step of gradient descent, for every run."""

    learner: Learner

    def __call__(self, task: Task, key: jax.Array) -> Learner:
        """The given learner, for every task and key."""
        return self.learner


class Run(NamedTuple):
    """State and settings of one run between two chunks; small, since no episodes are kept."""

    learner: Learner
    optimiser: optax.OptState
    step: int | jax.Array
    """Training steps done."""
    key: jax.Array
    """Key from which the run's episodes are drawn, as key data, (2,)."""
    task: Task
    training: Training
    objective: jax.tree_util.Partial | None
    """What is minimised, as part of the run's structure; None means the task's own loss."""


@partial(jax.jit, static_argnames="objective")
def start(
    build: Build,
    task: Task,
    training: Training,
    seed: int | jax.Array,
    objective: Objective | None = None,
) -> Run:
    """The run of a seed, before its first step.

    `objective` is a pure function, which is minimised instead of the loss of the task's episodes. It
    is static: another function means another compiled program.

    Raises BadInput for a learner with a variable that is neither `flax.nnx.Param` nor `Fixed`.
    """
    weights_key, episodes_key = jax.random.split(jax.random.key(seed))
    learner = build(task, weights_key)
    require_no_state(learner)
    return Run(
        learner=learner,
        optimiser=training.optimiser().init(nnx.state(learner, nnx.Param)),
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(episodes_key),
        task=task,
        training=training,
        objective=None if objective is None else jax.tree_util.Partial(objective),
    )


@partial(jax.jit, static_argnames=("length", "mesh"), donate_argnames="runs")
def advance(runs: Run, steps: jax.Array, length: int, mesh: Mesh) -> tuple[Run, jax.Array]:
    """Advance runs, stacked on a leading axis, by some steps; also returns losses, (run, length).

    `steps`, one number for each device, is `length`, or 0 for a device without a run. Each device
    advances its own runs without communication: the program contains no collective operation.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"

    def advance_own(runs: Run, steps: jax.Array) -> tuple[Run, jax.Array]:
        # A given objective need not be a mean over episodes, which microbatches could be averaged to.
        divided = on_cpu and runs.objective is None
        gradient = of_microbatches if divided else of_batch
        train = partial(_train, steps=steps[0], length=length, gradient=gradient)
        if runs.key.shape[0] > 1:
            return jax.vmap(train)(runs)
        # A batch of one run would hide from XLA that its weights are shared by all episodes.
        moved = train(jax.tree.map(lambda leaf: leaf[0], runs))
        return jax.tree.map(lambda leaf: leaf[None], moved)

    axis = PartitionSpec("run")
    # Devices share nothing, so JAX need not track which values vary between them.
    spread = jax.shard_map(advance_own, mesh=mesh, in_specs=axis, out_specs=axis, check_vma=False)
    return spread(runs, steps)


@partial(jax.jit, static_argnames=("length", "mesh"), donate_argnames="run")
def advance_divided(run: Run, steps: jax.Array, length: int, mesh: Mesh) -> tuple[Run, jax.Array]:
    """Advance one run by some steps, each batch divided among the devices of the mesh axis "batch".

    The episodes are those of `advance`: the numbers drawn from a key do not depend on the device.
    """

    def divide(array: jax.Array) -> jax.Array:
        axes = PartitionSpec(*[None] * (array.ndim - 1), "batch")
        return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, axes))

    moved = _train(run, steps, length, place=lambda episodes: jax.tree.map(divide, episodes))
    return jax.lax.with_sharding_constraint(moved, NamedSharding(mesh, PartitionSpec()))


def _train(
    run: Run,
    steps: jax.Array,
    length: int,
    gradient: Gradient = of_batch,
    place: Callable[[Episode], Episode] = lambda episodes: episodes,
) -> tuple[Run, jax.Array]:
    """Advance one run by `steps` steps; also returns its losses, (length,), NaN after those steps.

    Episodes are drawn one step ahead and carried through the loop. Values that a loop carries are
    stored; otherwise XLA would draw the episodes again wherever they are used, which takes longer than
    the rest of a step.
    """

    def draw(run: Run) -> Episode:
        return place(_episodes(run))

    def step(index: jax.Array, carry: tuple[Run, Episode, jax.Array]) -> tuple:
        run, episodes, losses = carry
        run, value = _step(run, episodes, gradient)
        return run, draw(run), losses.at[index].set(value)

    unknown = jnp.full(length, jnp.nan)
    run, _, losses = jax.lax.fori_loop(0, steps, step, (run, draw(run), unknown))
    return run, losses


def one_step(run: Run) -> tuple[Run, jax.Array]:
    """One optimiser step on fresh episodes, and the value of the objective before it.

    Equal to a step of `advance`, up to rounding; to be lowered, to count its operations.
    """
    return _step(run, _episodes(run), of_batch)


def _episodes(run: Run) -> Episode:
    """The episodes of the next step of a run."""
    key = jax.random.fold_in(jax.random.wrap_key_data(run.key), run.step)
    return run.task.sample(efficient_key(key), run.training.batch_size)


def _step(run: Run, episodes: Episode, gradient: Gradient) -> tuple[Run, jax.Array]:
    """One optimiser step on the given episodes, and the value of the objective before it."""
    structure, *states = nnx.split(run.learner, nnx.Param, ...)
    parameters, fixed = states
    objective = loss if run.objective is None else run.objective

    def value_of(parameters: nnx.State, episodes: Episode) -> jax.Array:
        return objective(nnx.merge(structure, parameters, fixed), episodes)

    value, found = gradient(value_of, parameters, episodes)
    updates, optimiser = run.training.optimiser().update(found, run.optimiser, parameters)
    learner = nnx.merge(structure, optax.apply_updates(parameters, updates), fixed)
    return run._replace(learner=learner, optimiser=optimiser, step=run.step + 1), value
