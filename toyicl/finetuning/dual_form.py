"""Dual forms: weights that were trained, or told in context, as attention over what they learned from.

A linear layer that gradient descent has trained is its first weights plus unnormalised linear attention
over its training inputs, with its errors as values (Aizerman et al. 1964; Irie et al. 2022). Dai et al.
(2022) read linear attention over demonstrations the other way, as weights that were changed by them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.models.attention import read_by_scores, read_softmax

Slope = Callable[[jax.Array, jax.Array], jax.Array]
"""Derivative of a cost by the answer: answer (m,), label (m,) -> (m,)."""


class Trained(NamedTuple):
    """A linear layer after T steps of gradient descent, and what each step was made of."""

    weights: jax.Array
    """(m, d)."""
    inputs: jax.Array
    """What each step's example was, (T, d)."""
    errors: jax.Array
    """Minus the rate times the derivative of its cost by the answer at that time, (T, m)."""


def train(
    weights: jax.Array, x: jax.Array, y: jax.Array, rate: float | jax.Array, slope: Slope
) -> Trained:
    """Steps of gradient descent on W x, one example at a time, in the order of x (T, d), y (T, m)."""

    def step(
        weights: jax.Array, example: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        given, label = example
        error = -rate * slope(weights @ given, label)
        return weights + jnp.outer(error, given), error

    weights, errors = jax.lax.scan(step, weights, (x, y))
    return Trained(weights, x, errors)


def answer_by_attention(start: jax.Array, trained: Trained, x_query: jax.Array) -> jax.Array:
    """The trained layer's answer, from its first weights (m, d) and attention over its training."""
    return start @ x_query + linear_attention(trained.inputs, trained.errors, x_query)


def attention_over_training(trained: Trained, x_query: jax.Array) -> jax.Array:
    """How much a query attends to each training step: x_t . x_q, (T,)."""
    return trained.inputs @ x_query


def context_weights(keys: jax.Array, values: jax.Array) -> jax.Array:
    """The sum dW = sum_i v_i k_i^T, what linear attention over tokens adds to weights: (m, d)."""
    return values.T @ keys


def linear_attention(keys: jax.Array, values: jax.Array, query: jax.Array) -> jax.Array:
    """sum_i v_i (k_i . q), of keys (N, d), values (N, m) and a query (d,)."""
    (read,) = read_by_scores((query,), (keys,), (values,))
    return read


def softmax_attention(keys: jax.Array, values: jax.Array, query: jax.Array) -> jax.Array:
    """sum_i v_i softmax_i(k_i . q)."""
    (read,) = read_softmax((query,), (keys,), (values,))
    return read


def agreement(weights: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """-sum_i <v_i, W k_i>: the objective whose negative gradient is `context_weights`, wherever W is.

    It is linear in W: no minimum, and no error that a step would make smaller.
    """
    return -jnp.sum(values * (keys @ weights.T))


def squares(weights: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """1/2 sum_i |W k_i - v_i|^2, whose negative gradient is `context_weights` at W = 0.

    And nowhere else, if the keys span all directions.
    """
    return jnp.sum((keys @ weights.T - values) ** 2) / 2


def local_step(keys: jax.Array, values: jax.Array, query: jax.Array, start: jax.Array) -> jax.Array:
    """A step of size 1 / Z(q), Z = sum_i e^(k_i . q), from any o on 1/2 sum_i e^(k_i . q) |v_i - o|^2.

    It ends in softmax attention, wherever it starts; each query has an objective of its own.
    """
    scores = keys @ query
    near = jnp.exp(scores - jnp.max(scores))  # the factor of objective and step size cancels
    gradient = jax.grad(lambda o: near @ jnp.sum((values - o[None]) ** 2, axis=1) / 2)(start)
    return start - gradient / jnp.sum(near)
