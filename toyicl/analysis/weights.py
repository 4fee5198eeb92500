"""Analyses of trained weights: implied step matrices, step sizes, curvatures and circuit scores."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.core.config import require
from toyicl.models.construction import layer_circuits, mean_diagonal
from toyicl.models.transformer import Transformer


class LayerReading(NamedTuple):
    """The circuits of one layer, interpreted as a step of GD++."""

    step: jax.Array
    """eta / N: mean diagonal of the implied d x d step matrix."""
    curvature: jax.Array
    """gamma: minus the mean diagonal of the input block of P W_V, times that of W_K^T W_Q."""
    off_construction: jax.Array
    """Relative Frobenius distance of the step matrix from (eta / N) I: 0 for the construction."""


def implied_step(model: Transformer, dim: int, layer: int = 0) -> jax.Array:
    """The d x d matrix G of a one-output layer's prediction w^T S G x_q, S = sum_i x_i x_i^T.

    G = -sum_heads (u_x a^T + u_y A), with (u_x, u_y) the last row of P W_V, A the input block of
    W_K^T W_Q and a the input part of its last row. Only this part of a linear layer is odd in w.
    Shapes: w and x_q (d,), S and G (d, d).
    """
    key_query, value_output = layer_circuits(model, layer)
    last_row = value_output[:, -1]
    inputs, label = last_row[:, :dim], last_row[:, dim]
    square, row = key_query[:, :dim, :dim], key_query[:, dim, :dim]
    return -jnp.einsum("ha,hb->ab", inputs, row) - jnp.einsum("h,hab->ab", label, square)


def read_layer(model: Transformer, dim: int, layer: int = 0) -> LayerReading:
    """The step size eta / N and gamma of a layer of a one-output transformer on joint tokens."""
    step_matrix = implied_step(model, dim, layer)
    step = jnp.trace(step_matrix) / dim
    key_query, value_output = layer_circuits(model, layer)
    curvature = -jnp.sum(mean_diagonal(key_query, dim) * mean_diagonal(value_output, dim))
    distance = jnp.linalg.norm(step_matrix - step * jnp.eye(dim)) / jnp.linalg.norm(step_matrix)
    return LayerReading(step, curvature, distance)


def label_steps(model: Transformer, dim: int) -> tuple[jax.Array, jax.Array]:
    """Steps h and label weights c of layers that update labels only, each (depth,).

    They are the parameters of the `LabelDescent` that is nearest to a one-output transformer on joint
    tokens: h is the mean diagonal of the implied step matrix, and h c minus the product of the last
    diagonal entries of W_K^T W_Q and P W_V, summed over heads.
    """
    steps, weights = [], []
    for index in range(model.depth):
        key_query, value_output = layer_circuits(model, index)
        step = jnp.trace(implied_step(model, dim, index)) / dim
        steps.append(step)
        weights.append(-jnp.sum(key_query[:, dim, dim] * value_output[:, dim, dim]) / step)
    return jnp.stack(steps), jnp.stack(weights)


class CircuitScores(NamedTuple):
    """Relative distance of a layer's circuits from multiples of the identity, of each head, (heads,).

    0 for the construction; about `random_circuit_score` for independent random weights.
    """

    key_query: jax.Array
    """Distance of the input block of W_K^T W_Q."""
    value_output: jax.Array
    """Distance of the label block of P W_V; 0 if there is one output."""


def circuit_scores(model: Transformer, dim: int, layer: int = 0) -> CircuitScores:
    """|M - (tr M / d) I| / |M| of the two circuits M of a layer on joint tokens, in Frobenius norms.

    Raises BadInput for separate tokens and for tokens with an embedding.
    """
    attention = model.layer(layer).attention
    width = attention.key_query.shape[-1]
    rule = "that of a model on joint tokens without an embedding"
    require(width == dim + model.outputs, "token size", rule, width)
    return CircuitScores(
        _distance_from_identity(attention.key_query[:, :dim, :dim]),
        _distance_from_identity(attention.value_output[:, dim:, dim:]),
    )


def random_circuit_score(dim: int) -> float:
    """Root mean square score of d x d matrices with independent entries: sqrt(1 - 1/d^2)."""
    return (1 - 1 / dim**2) ** 0.5


def _distance_from_identity(matrices: jax.Array) -> jax.Array:
    """Relative distance of matrices (heads, d, d) from multiples of the identity, (heads,)."""
    size = matrices.shape[-1]
    means = jnp.trace(matrices, axis1=-2, axis2=-1) / size
    rest = matrices - jnp.einsum("h,ab->hab", means, jnp.eye(size, dtype=matrices.dtype))
    return jnp.linalg.norm(rest, axis=(-2, -1)) / jnp.linalg.norm(matrices, axis=(-2, -1))
