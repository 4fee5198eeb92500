"""The reduced layer compared with a layer of linear attention, and its fit with NumPy's."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn, predict

from toyicl.core.errors import BadInput
from toyicl.models.construction import with_circuits
from toyicl.models.reduced_attention import ReducedAttention, least_squares_attention
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(
    dim=3, context_size=5, input_distribution="normal", input_range=0.6, label_noise=0.3
)
EPISODES = drawn(TASK, 0, 60)


def test_is_a_layer_of_linear_attention_whose_values_are_labels(close):
    """W_K^T W_Q maps the query's input to d + 1 scores, and P W_V passes labels on."""
    matrix, count = np.random.default_rng(0).normal(size=(4, 3)), TASK.context_size
    scale = np.array([1 / 0.36] * 3 + [1.0])[:, None]
    key_query = jnp.pad(jnp.asarray(matrix * scale / count), ((0, 0), (0, 1)))
    value_output = -jnp.diag(jnp.array([0.0, 0.0, 0.0, 1.0]))
    layer = with_circuits([(key_query, value_output)], 3)
    reduced = ReducedAttention(matrix, 0.36)
    close(predict(reduced, EPISODES), predict(layer, EPISODES), 1e-12)


def test_the_fit_has_the_least_squared_error(close):
    """Compared with NumPy's least squares on features that are built in loops."""
    x, y, x_query, y_query = (np.asarray(field) for field in EPISODES)
    rows = []
    for e in range(60):
        read = [sum(y[i, 0, e] * x[i, a, e] for i in range(5)) / (5 * 0.36) for a in range(3)]
        read.append(sum(y[i, 0, e] ** 2 for i in range(5)) / 5)
        rows.append([one * x_query[b, e] for one in read for b in range(3)])
    expected = np.linalg.lstsq(np.array(rows), y_query[0])[0].reshape(4, 3)
    close(least_squares_attention(EPISODES, 0.36).matrix[...], expected, 1e-8)


def test_refuses():
    with pytest.raises(BadInput, match=r"matrix must be of shape \(dim \+ 1, dim\)"):
        ReducedAttention(np.eye(3))
    with pytest.raises(BadInput, match=r"episodes must be at least d \(d \+ 1\) = 12 for a fit"):
        least_squares_attention(drawn(TASK, 0, 11))
    two = drawn(replace(TASK, outputs=2), 0, 20)
    with pytest.raises(BadInput, match="outputs must be 1"):
        least_squares_attention(two)
