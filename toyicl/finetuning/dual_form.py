"""Dual forms: weights from training, or from a context, as attention over the training inputs.

A linear layer trained by gradient descent equals its initial weights plus unnormalised linear attention
over its training inputs, with its errors as values (Aizerman et al. 1964; Irie et al. 2022). Dai et al.
(2022) interpret linear attention over demonstrations the other way round, as an update of weights.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.models.attention import read_by_scores, read_softmax

Derivative = Callable[[jax.Array, jax.Array], jax.Array]
"""Derivative of a cost with respect to the answer: answer (m,), label (m,) -> (m,)."""


class Trained(NamedTuple):
    """A linear layer after T steps of gradient descent, with the input and error of each step."""

    weights: jax.Array
    """The weights after training, (m, d)."""
    inputs: jax.Array
    """Input of each step, (T, d)."""
    errors: jax.Array
    """Minus the learning rate times the derivative of each step's cost by its answer, (T, m)."""


def train(
    weights: jax.Array, x: jax.Array, y: jax.Array, rate: float | jax.Array, derivative: Derivative
) -> Trained:
    """Gradient descent on W x, one example at a time, in the order of x (T, d), y (T, m); W (m, d)."""

    def step(
        weights: jax.Array, example: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        row, label = example
        error = -rate * derivative(weights @ row, label)
        return weights + jnp.outer(error, row), error

    weights, errors = jax.lax.scan(step, weights, (x, y))
    return Trained(weights, x, errors)


def answer_by_attention(start: jax.Array, trained: Trained, x_query: jax.Array) -> jax.Array:
    """The trained layer's answer (m,), from its initial weights (m, d) and attention over training."""
    return start @ x_query + linear_attention(trained.inputs, trained.errors, x_query)


def attention_over_training(trained: Trained, x_query: jax.Array) -> jax.Array:
    """Attention of a query to each training step, x_t . x_q: (T,)."""
    return trained.inputs @ x_query


def context_weights(keys: jax.Array, values: jax.Array) -> jax.Array:
    """The weight update dW = sum_i v_i k_i^T that linear attention over tokens amounts to: (m, d)."""
    return values.T @ keys


def linear_attention(keys: jax.Array, values: jax.Array, query: jax.Array) -> jax.Array:
    """sum_i v_i (k_i . q) for keys (N, d), values (N, m) and a query (d,): (m,)."""
    return read_by_scores(query, keys, values)


def softmax_attention(keys: jax.Array, values: jax.Array, query: jax.Array) -> jax.Array:
    """sum_i v_i softmax_i(k_i . q) for keys (N, d), values (N, m) and a query (d,): (m,)."""
    return read_softmax(query, keys, values)


def agreement(weights: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """-sum_i <v_i, W k_i>: the objective whose negative gradient is `context_weights` for every W.

    It is linear in W, so it has no minimum, and no error that a step could reduce.
    """
    return -jnp.sum(values * (keys @ weights.T))


def squares(weights: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """1/2 sum_i |W k_i - v_i|^2, whose negative gradient is `context_weights` at W = 0.

    If the keys span all directions, this holds at no other W.
    """
    return jnp.sum((keys @ weights.T - values) ** 2) / 2


def local_step(keys: jax.Array, values: jax.Array, query: jax.Array, start: jax.Array) -> jax.Array:
    """A step of size 1 / Z(q), Z = sum_i e^(k_i . q), from any o on 1/2 sum_i e^(k_i . q) |v_i - o|^2.

    The result is softmax attention for every start o, (m,). Each query has an objective of its own.
    """
    scores = keys @ query
    weights = jnp.exp(scores - jnp.max(scores))  # the factor of objective and step size cancels
    gradient = jax.grad(lambda o: weights @ jnp.sum((values - o[None]) ** 2, axis=1) / 2)(start)
    return start - gradient / jnp.sum(weights)
