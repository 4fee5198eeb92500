"""Training as a program: what a run is between two chunks of steps, and the chunk that XLA compiles.

A chunk loops over steps. It advances many runs at once, each on its own device, or one run whose
batches are divided among all devices. `fitting.fit` calls it until the runs are done.
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
    settings,
    static,
)
from toyicl.core.episode import Episode, Learner
from toyicl.tasks.linear import Task

Build = Callable[[Any, jax.Array], Any]
"""Makes a learner for a task from a key; a pytree, such as an `Architecture` or `StartFrom`."""


@settings
class Training:
    """Settings of a training run: Adam on fresh batches, after clipping the gradient's global norm.

    The defaults are the released code of von Oswald et al. (2022) for at most two layers; beyond two
    it takes learning_rate 5e-4 and clip_norm 10 (their text has b2 .999 and clip_norm 10 throughout).

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    steps: int = 5000
    """Number of training steps; only counted, so another number compiles nothing."""
    batch_size: int = static(default=2048)
    """Fresh episodes in each step."""
    snapshot_every: int = static(default=100)
    """Steps between two kept snapshots of the parameters; also the length of a compiled chunk."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    final_learning_rate: float | None = None
    """The size to which it falls along half a cosine, after the last step; None leaves it as it is."""
    clip_norm: float | None = 1e-3
    """Bound on the gradient's global norm; None leaves it as it is."""
    b1: float = 0.9
    """Adam's decay of the first moment."""
    b2: float = 0.98
    """Adam's decay of the second moment."""

    def __post_init__(self) -> None:
        require_size("batch_size", self.batch_size)
        require_size("snapshot_every", self.snapshot_every)
        if not isinstance(self.steps, jax.Array):
            require_size("steps", self.steps)
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
        """Adam after clipping; its numbers may be traced."""
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
    """A builder that starts every run from the same learner, such as one step of gradient descent."""

    learner: Learner

    def __call__(self, task: Task, key: jax.Array) -> Learner:
        """The learner itself, whatever the task and the key."""
        return self.learner


class Run(NamedTuple):
    """All that one run is between two chunks, on the host; small, since episodes are drawn anew."""

    learner: Learner
    optimiser: optax.OptState
    step: int | jax.Array
    """Training steps done."""
    key: jax.Array
    """What the run's episodes are drawn from, as key data, (2,)."""
    task: Task
    training: Training


@jax.jit
def start(build: Build, task: Task, training: Training, seed: int | jax.Array) -> Run:
    """The run of a seed, before its first step."""
    weights_key, episodes_key = jax.random.split(jax.random.key(seed))
    learner = build(task, weights_key)
    return Run(
        learner=learner,
        optimiser=training.optimiser().init(nnx.state(learner, nnx.Param)),
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(episodes_key),
        task=task,
        training=training,
    )


@partial(jax.jit, static_argnames=("length", "mesh"), donate_argnames="runs")
def advance(runs: Run, steps: jax.Array, length: int, mesh: Mesh) -> tuple[Run, jax.Array]:
    """Runs, stacked on a leading axis, some steps further; their losses, (run, length).

    `steps`, one number for each device, is `length`, or 0 where a device has nothing to do. Each
    device advances its own runs and speaks to no other: the program holds no collective.
    """

    def advance_own(runs: Run, steps: jax.Array) -> tuple[Run, jax.Array]:
        return jax.vmap(partial(_train, steps=steps[0], length=length))(runs)

    axis = PartitionSpec("run")
    # Nothing is shared between devices, so there is no use in tracking what varies between them.
    spread = jax.shard_map(advance_own, mesh=mesh, in_specs=axis, out_specs=axis, check_vma=False)
    return spread(runs, steps)


@partial(jax.jit, static_argnames=("length", "mesh"), donate_argnames="run")
def advance_divided(run: Run, steps: jax.Array, length: int, mesh: Mesh) -> tuple[Run, jax.Array]:
    """One run some steps further, each batch divided among the devices of the mesh axis "batch".

    The episodes are those of `advance`: what a key draws does not depend on where it is drawn.
    """

    def divide(array: jax.Array) -> jax.Array:
        axes = PartitionSpec(*[None] * (array.ndim - 1), "batch")
        return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, axes))

    moved = _train(run, steps, length, lambda episodes: jax.tree.map(divide, episodes))
    return jax.lax.with_sharding_constraint(moved, NamedSharding(mesh, PartitionSpec()))


def _train(
    run: Run,
    steps: jax.Array,
    length: int,
    place: Callable[[Episode], Episode] = lambda episodes: episodes,
) -> tuple[Run, jax.Array]:
    """One run `steps` steps further, and its losses, NaN after those steps.

    Episodes are drawn one step ahead and carried through the loop: what a loop carries is stored,
    whereas XLA would redraw it inside each of its uses, which takes longer than the rest of a step.
    """

    def draw(run: Run) -> Episode:
        key = jax.random.fold_in(jax.random.wrap_key_data(run.key), run.step)
        return place(run.task.sample(key, run.training.batch_size))

    def step(index: jax.Array, carry: tuple[Run, Episode, jax.Array]) -> tuple:
        run, episodes, losses = carry
        run, value = _step(run, episodes)
        return run, draw(run), losses.at[index].set(value)

    unknown = jnp.full(length, jnp.nan)
    run, _, losses = jax.lax.fori_loop(0, steps, step, (run, draw(run), unknown))
    return run, losses


def _step(run: Run, episodes: Episode) -> tuple[Run, jax.Array]:
    """One optimiser step on the given episodes, and the loss before it."""
    structure, *states = nnx.split(run.learner, nnx.Param, ...)
    parameters, fixed = states

    def objective(parameters: nnx.State) -> jax.Array:
        return loss(nnx.merge(structure, parameters, fixed), episodes)

    value, gradient = jax.value_and_grad(objective)(parameters)
    updates, optimiser = run.training.optimiser().update(gradient, run.optimiser, parameters)
    learner = nnx.merge(structure, optax.apply_updates(parameters, updates), fixed)
    return run._replace(learner=learner, optimiser=optimiser, step=run.step + 1), value
