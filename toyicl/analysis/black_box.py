"""Analyses of a learner by its predictions only: its residual polynomial and its implicit weights.

They apply to every learner. Unlike `weights.read_layer`, they do not assume that the learner takes
steps of gradient descent.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.core.config import require
from toyicl.core.episode import Learner


class Residuals(NamedTuple):
    """A learner's relative residual in each eigendirection of a context's scatter matrix."""

    eigenvalues: jax.Array
    """Eigenvalues s of S = sum_i x_i x_i^T, (d, contexts), ascending."""
    residuals: jax.Array
    """1 - f / (w . x_q), for weights w and a query x_q along the eigenvector, (d, contexts)."""


def residual_polynomial(
    learner: Learner, x: jax.Array, *, weight: float = 1.0, query: float = 0.5
) -> Residuals:
    """The residual R(s) of a learner at each eigenvalue s of contexts x, (N, d, contexts).

    For each eigenvector v of S = sum_i x_i x_i^T the learner receives the labels x_i . (weight v) and
    the query (query v). A learner whose prediction is x_q . q(S) sum_i y_i x_i then predicts
    weight query (1 - R(s)) with R(s) = 1 - s q(s). This is (1 - eta s / N)^K for gradient descent, the
    residual of `theory.step_search.descent_residual` for GD++, and penalty / (s + penalty) for ridge.
    For other learners R depends on `weight` and `query`. Only the first output is used.

    Raises BadInput for x of another shape.
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
    """The least-squares linear map from queries to a learner's predictions on one context.

    Shapes (N, d), (N, m), (queries, d) -> weights (m, d), and the unexplained fraction of the squared
    predictions, a scalar: 0 for a learner that is linear in its query. Cf. Fu et al. (2023).

    Raises BadInput unless there are more than d queries.
    """
    enough = queries.shape[0] > x.shape[1]  # a linear map fits any predictions for d queries
    rule = f"more than the number of inputs ({x.shape[1]})"
    require(enough, "queries", rule, queries.shape[0])
    answers = jax.vmap(learner, (None, None, 0))(x, y, queries)
    weights = jnp.linalg.lstsq(queries, answers)[0]
    unexplained = jnp.sum((answers - queries @ weights) ** 2) / jnp.sum(answers**2)
    return weights.T, unexplained
