"""Control of what XLA's CPU compiler fuses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def not_fused(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """The value of a function of arrays, as one operation that is not fused with those that use it.

    XLA fuses an elementwise operation into every operation that uses its result, and computes it again
    there, even if it is a long sum. It does not fuse the branches of a conditional with operations
    outside it. The condition is always true; the barrier hides this from the compiler, and keeps the
    layout of the arrays. For CPUs only: on a GPU the host would have to read the condition.
    """

    def nothing(*arrays: jax.Array) -> jax.Array:
        result = jax.eval_shape(function, *arrays)
        return jnp.zeros(result.shape, result.dtype)

    always, *held = jax.lax.optimization_barrier((True, *arrays))
    return jax.lax.cond(always, function, nothing, *held)
