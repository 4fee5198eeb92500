"""The gradient of a training step: of a whole batch, or of parts of it that fit the cache of a core."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.episode import Episode

LIGHT = 8
"""A model is light if its activations are at most so many times as large as its episodes: it does
little with what it reads, and parts gain nothing."""
MOST, FEWEST = 128, 32
"""Bounds on the episodes of a part. On CPUs, 128 is within a tenth of the fastest size for models of
one to twelve layers; `benchmarks/training_step.py` shows it."""

Value = Callable[[nnx.State, Episode], jax.Array]
"""The objective as a function of parameters and episodes."""
Gradient = Callable[[Value, nnx.State, Episode], tuple[jax.Array, nnx.State]]
"""The value of an objective and its gradient, for parameters and a batch of episodes."""


def of_batch(
    value_of: Value, parameters: nnx.State, episodes: Episode
) -> tuple[jax.Array, nnx.State]:
    """Value and gradient of an objective, for the whole batch at once."""
    return jax.value_and_grad(value_of)(parameters, episodes)


def of_parts(
    value_of: Value, parameters: nnx.State, episodes: Episode
) -> tuple[jax.Array, nnx.State]:
    """Value and gradient of an objective that is a mean over episodes, as a mean over parts of a batch.

    It equals `of_batch` up to rounding. The activations of a part stay in the cache of a CPU's core,
    which makes deep models several times faster. Light models have the whole batch at once.
    """
    batch = episodes.x.shape[-1]
    size = part_size(batch)
    count = batch // size
    if count == 1 or activations(value_of, parameters, episodes) <= LIGHT:
        return of_batch(value_of, parameters, episodes)

    def part(index: jax.Array) -> Episode:
        def cut(field: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(field, index * size, size, -1)

        return jax.tree.map(cut, episodes)

    def add_part(index: jax.Array, carry: tuple) -> tuple:
        # The next part is carried through the loop, which stores it; XLA would otherwise cut it out of
        # the batch again in every operation that reads it.
        total, own = carry
        found = jax.value_and_grad(value_of)(parameters, own)
        return jax.tree.map(jnp.add, total, found), part(jnp.minimum(index + 1, count - 1))

    shapes = jax.eval_shape(jax.value_and_grad(value_of), parameters, part(jnp.int32(0)))
    nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    total, _ = jax.lax.fori_loop(0, count, add_part, (nothing, part(jnp.int32(0))))
    return jax.tree.map(lambda sum_of_parts: sum_of_parts / count, total)


def part_size(batch: int) -> int:
    """Episodes of a part: the largest divisor of a batch up to `MOST`; all, if it is below `FEWEST`."""
    largest = max(size for size in range(1, min(batch, MOST) + 1) if batch % size == 0)
    return largest if largest >= FEWEST else batch


def activations(value_of: Value, parameters: nnx.State, episodes: Episode) -> float:
    """Size of all arrays with an axis of episodes that an objective computes, relative to the batch."""
    program = jax.make_jaxpr(value_of)(parameters, episodes)
    batch = episodes.x.shape[-1]
    made = [value.aval for equation in program.eqns for value in equation.outvars]
    computed = sum(value.size for value in made if value.shape[-1:] == (batch,))
    return computed / sum(field.size for field in episodes)
