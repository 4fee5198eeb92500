"""What a model computes, read from outside: its residual polynomial, implicit weights, and circuits.

Unlike `construction.read_layer`, nothing here supposes that a model is gradient descent: any learner
can be asked for its residuals and weights, and any attention layer for its circuit scores.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.core.config import require
from toyicl.core.episode import Learner


class Residuals(NamedTuple):
    """What a learner leaves, in each direction of a context's scatter matrix."""

    eigenvalues: jax.Array
    """Eigenvalues s of S = sum_i x_i x_i^T, (d, contexts), ascending."""
    residuals: jax.Array
    """1 - f / (w . x_q) with weights and query along the eigenvalue's direction, (d, contexts)."""


def residual_polynomial(
    learner: Learner, x: jax.Array, *, weight: float = 1.0, query: float = 0.5
) -> Residuals:
    """R(s) of a learner, on contexts x (N, d, contexts): what it leaves of the weights to be found.

    For each eigenvector v of S the learner gets labels x_i . (weight v) and the query (query v). A
    learner whose prediction is x_q . q(S) sum_i y_i x_i then answers weight query (1 - R(s)), with
    R(s) = 1 - s q(s): (1 - eta s / N)^K for gradient descent, the residual of `descent` for GD++,
    penalty / (s + penalty) for ridge. For any other learner it is what it leaves at that size of
    weights and query. Outputs: one, or the first of several.
    """
    require(x.ndim == 3, "x", "contexts of shape (N, d, contexts)", x.shape)

    def one(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, vectors = jnp.linalg.eigh(x.T @ x)

        def along(vector: jax.Array) -> jax.Array:
            answer = learner(x, (x @ vector * weight)[:, None], query * vector)
            return 1 - answer[0] / (weight * query)

        return values, jax.vmap(along)(vectors.T)

    return Residuals(*jax.vmap(one, in_axes=-1, out_axes=-1)(x))


def implicit_weights(
    learner: Learner, x: jax.Array, y: jax.Array, queries: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The linear map that fits a learner's answers to many queries on one context best.

    Shapes (N, d), (N, m), (queries, d) -> weights (m, d), and the share of the answers' squares that
    they leave, a number: 0 for a learner that is linear in its query. Needs more than d queries; cf.
    Fu et al. (2023).
    """
    enough = queries.shape[0] > x.shape[1]  # any answers to d queries are those of a linear map
    require(enough, "queries", f"more than there are inputs ({x.shape[1]})", queries.shape[0])
    answers = jax.vmap(learner, (None, None, 0))(x, y, queries)
    weights = jnp.linalg.lstsq(queries, answers)[0]
    left = jnp.sum((answers - queries @ weights) ** 2) / jnp.sum(answers**2)
    return weights.T, left
