"""The gradient of a training step: of a whole batch, or accumulated over microbatches."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr

from toyicl.core.episode import Episode

LIGHT = 8
"""A model is light if its activations are at most so many times as large as its episodes. It computes
little for each entry of its input, and microbatches do not reduce its time."""
LARGEST, SMALLEST = 128, 32
"""Bounds on the episodes of a microbatch."""

LossOfParameters = Callable[[nnx.State, Episode], jax.Array]
"""The objective as a function of parameters and episodes."""
Gradient = Callable[[LossOfParameters, nnx.State, Episode], tuple[jax.Array, nnx.State]]
"""The value of an objective and its gradient, for parameters and a batch of episodes."""


def of_batch(
    value_of: LossOfParameters, parameters: nnx.State, episodes: Episode
) -> tuple[jax.Array, nnx.State]:
    """Value and gradient of an objective, for the whole batch at once."""
    return jax.value_and_grad(value_of)(parameters, episodes)


def of_microbatches(
    value_of: LossOfParameters, parameters: nnx.State, episodes: Episode
) -> tuple[jax.Array, nnx.State]:
    """Value and gradient of an objective that is a mean over episodes, accumulated over microbatches.

    It equals `of_batch` up to rounding. The activations of a microbatch stay in the cache of a CPU's
    core. The gradient of a light model is computed for the whole batch at once.
    """
    batch = episodes.x.shape[-1]
    size = microbatch_size(batch)
    count = batch // size
    if count == 1 or activations(value_of, parameters, episodes) <= LIGHT:
        return of_batch(value_of, parameters, episodes)

    def microbatch(index: int | jax.Array) -> Episode:
        def cut(field: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(field, index * size, size, -1)

        return jax.tree.map(cut, episodes)

    def accumulate(index: jax.Array, carry: tuple) -> tuple:
        # The next microbatch is carried through the loop, which stores it; XLA would otherwise cut it
        # out of the batch again in every operation that reads it.
        total, own = carry
        found = jax.value_and_grad(value_of)(parameters, own)
        following = microbatch(jnp.minimum(index + 1, count - 1))
        return jax.tree.map(jnp.add, total, found), following

    shapes = jax.eval_shape(jax.value_and_grad(value_of), parameters, microbatch(0))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    total, _ = jax.lax.fori_loop(0, count, accumulate, (zeros, microbatch(0)))
    return jax.tree.map(lambda accumulated: accumulated / count, total)


def microbatch_size(batch: int) -> int:
    """Episodes of a microbatch: the largest divisor of a batch up to `LARGEST`.

    The whole batch, if that divisor is below `SMALLEST`.
    """
    largest = max(size for size in range(1, min(batch, LARGEST) + 1) if batch % size == 0)
    return largest if largest >= SMALLEST else batch


def activations(value_of: LossOfParameters, parameters: nnx.State, episodes: Episode) -> float:
    """Size of all arrays with an axis of episodes that an objective computes, relative to the batch."""
    program = jax.make_jaxpr(value_of)(parameters, episodes)
    batch = episodes.x.shape[-1]
    total = sum(value.size for value in computed(program.jaxpr) if batch in value.shape)
    return total / sum(field.size for field in episodes)


def computed(program: Jaxpr) -> Iterator[Any]:
    """What each equation of a program computes, with those of programs that it calls or repeats."""
    for equation in program.eqns:
        yield from (value.aval for value in equation.outvars)
        for entry in jax.tree.leaves(
            equation.params, is_leaf=lambda entry: isinstance(entry, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(entry, ClosedJaxpr | Jaxpr):
                yield from computed(entry.jaxpr if isinstance(entry, ClosedJaxpr) else entry)
