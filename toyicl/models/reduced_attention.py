"""One layer of linear attention with the weights that its prediction depends on, and their fit."""

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import require, require_positive
from toyicl.core.episode import Episode
from toyicl.core.variables import Fixed


class ReducedAttention(nnx.Module):
    """One layer of linear attention whose values are labels, with its weights merged into one matrix.

        prediction = h^T G x_q,   h = ((1 / s) sum_i y_i x_i, sum_i y_i^2) / N

    The prediction of a layer with one head on tokens (x_i, y_i), and (x_q, 0) for the query, is of
    this form if its values are multiples of the labels; Lu et al. (2025). G is `matrix`, (d + 1, d),
    and s is `input_variance`, that of an input coordinate. Raises BadInput for another shape.
    """

    def __init__(self, matrix: jax.Array, input_variance: float | jax.Array = 1.0):
        weights = jnp.asarray(matrix, float)
        fits = weights.ndim == 2 and weights.shape[0] == weights.shape[1] + 1
        require(fits, "matrix", "of shape (dim + 1, dim)", weights.shape)
        require_positive("input_variance", input_variance)
        self.matrix = nnx.Param(weights)
        self.input_variance = Fixed(jnp.asarray(input_variance, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        read = label_moments(x, y, self.input_variance[...])
        return read.T @ self.matrix[...] @ x_query


def label_moments(x: jax.Array, y: jax.Array, input_variance: float | jax.Array = 1.0) -> jax.Array:
    """H of each output: the moments of labels and inputs, over s, and of the labels: (d + 1, m)."""
    count = x.shape[0]
    moments = x.T @ y / (count * input_variance)
    return jnp.concatenate([moments, jnp.sum(y**2, axis=0)[None] / count])


def least_squares_attention(
    episodes: Episode, input_variance: float | jax.Array = 1.0
) -> ReducedAttention:
    """The reduced layer with the least squared error on a batch of episodes.

    Raises BadInput for episodes with more than one output, and for fewer episodes than the layer has
    weights, d (d + 1).
    """
    x, y, x_query, y_query = episodes
    dim, count = x_query.shape
    require(y.shape[1] == 1, "outputs", "1 for a fit of the reduced layer", y.shape[1])
    weights = dim * (dim + 1)
    require(count >= weights, "episodes", f"at least d (d + 1) = {weights} for a fit", count)
    read = jax.vmap(label_moments, (-1, -1, None), -1)(x, y, input_variance)[:, 0]
    features = (read[:, None] * x_query[None]).reshape(weights, count)
    gram, target = features @ features.T, features @ y_query[0]
    matrix = jax.scipy.linalg.solve(gram, target, assume_a="pos")
    return ReducedAttention(matrix.reshape(dim + 1, dim), input_variance)
