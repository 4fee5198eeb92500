"""How close the circuits of attention heads are to multiples of the identity, with controls.

The construction of von Oswald et al. (2022) needs W_K^T W_Q and P W_V to be multiples of the identity
on inputs and on labels. Both are products M = A^T B of two k x n matrices, where k is the key size and
n the width, so that their scores are computed from the factors, without an n x n matrix: A, B = W_K,
W_Q for the key-query circuit, and P^T, W_V for the value-output circuit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.models.attention import Attention

CIRCUITS = ("key_query", "value_output")
"""Names of the two circuits: W_K^T W_Q and P W_V."""
BEYOND = 4.0
"""A |z| above which a circuit's identity part is not explained by a random orientation."""


class HeadCircuits(NamedTuple):
    """The factors of a circuit M = A^T B of each head; leading axes are layers and heads."""

    left: jax.Array
    """A, (..., k, n)."""
    right: jax.Array
    """B, (..., k, n)."""


class IdentityScores(NamedTuple):
    """How close circuits are to multiples of the identity, for each head."""

    z: jax.Array
    """tr(M) sqrt(n) / |M|_F: about N(0, 1) if the orientation of B is random."""
    fraction: jax.Array
    """tr(M)^2 / (k |M|_F^2), from 0 to 1, which a multiple of an orthogonal projection on k dimensions
    has."""
    sign: jax.Array
    """Sum of the real parts of the eigenvalues over the sum of their absolute values, from -1 to 1."""


def of_attention(attention: Attention) -> dict[str, HeadCircuits]:
    """The circuits of an attention layer by name, heads first."""
    return circuits(
        attention.query[...], attention.key[...], attention.value[...], attention.output[...]
    )


def circuits(
    query: jax.Array, key: jax.Array, value: jax.Array, output: jax.Array
) -> dict[str, HeadCircuits]:
    """The circuits by name, from weights (..., k, n), and (..., n, k) for the output."""
    return {
        "key_query": HeadCircuits(key, query),
        "value_output": HeadCircuits(jnp.swapaxes(output, -1, -2), value),
    }


def scores(found: HeadCircuits) -> IdentityScores:
    """Scores of the circuits of each head; NaN for a circuit that is 0."""
    left, right = found
    size, width = left.shape[-2:]
    trace = jnp.sum(left * right, axis=(-2, -1))
    squares = _squared_norm(found)
    values = eigenvalues(found)
    return IdentityScores(
        trace * jnp.sqrt(width / squares),
        trace**2 / (size * squares),
        jnp.sum(values.real, axis=-1) / jnp.sum(jnp.abs(values), axis=-1),
    )


def eigenvalues(found: HeadCircuits) -> jax.Array:
    """The k eigenvalues of each circuit that may differ from 0, times sqrt(k) / |M|_F, (..., k).

    They are those of B A^T. All are 1 for a projection on k dimensions, and the square of their mean is
    `IdentityScores.fraction`.
    """
    values = jnp.linalg.eigvals(found.right @ jnp.swapaxes(found.left, -1, -2))
    size = found.left.shape[-2]
    return values * jnp.sqrt(size / _squared_norm(found))[..., None]


def _squared_norm(found: HeadCircuits) -> jax.Array:
    """|M|_F^2 of each circuit."""
    left, right = (each @ jnp.swapaxes(each, -1, -2) for each in found)
    return jnp.sum(left * right, axis=(-2, -1))


def rotated(key: jax.Array, found: HeadCircuits) -> HeadCircuits:
    """The circuits with B after a random rotation of the width: what a random orientation gives."""
    width = found.right.shape[-1]
    return found._replace(right=found.right @ jax.random.orthogonal(key, width))


def shuffled(found: HeadCircuits, heads: int, layers: int = 0) -> HeadCircuits:
    """The circuits with B of another head, on axes (layer, head, k, n).

    B comes from the head `heads` places, and the layer `layers` places, before. What is left of a score
    is common to heads, such as directions in which all of them have large weights.
    """
    return found._replace(right=jnp.roll(found.right, (layers, heads), axis=(0, 1)))


def untrained(key: jax.Array, found: HeadCircuits) -> HeadCircuits:
    """Circuits of weights from N(0, 1) in the same shapes."""
    left, right = jax.random.split(key)
    return HeadCircuits(
        jax.random.normal(left, found.left.shape), jax.random.normal(right, found.right.shape)
    )
