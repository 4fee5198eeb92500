"""Diagonal layers compared with loops, with heads of linear attention, and with GD++."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.algorithms.token_descent import TokenDescent
from toyicl.core.errors import BadInput
from toyicl.models.attention import read_linear
from toyicl.models.diagonal import DiagonalArchitecture, DiagonalLayers
from toyicl.tasks.linear import LinearRegression

DRAW = np.random.default_rng(0)
X, Y, QUERY = DRAW.normal(size=(5, 3)), DRAW.normal(size=(5, 2)), DRAW.normal(size=3)
WEIGHTS = np.array([[-0.05, 0.02, -0.1, 0.03], [0.04, -0.03, -0.08, -0.02], [0.1, 0.1, -0.2, 0.05]])


def slow(weights, x, y, x_query):
    """The definition, token by token."""
    tokens = [(np.array(a), np.array(b)) for a, b in zip(x, y, strict=True)]
    tokens.append((np.array(x_query), np.zeros(y.shape[1])))
    for w_xx, w_xy, w_yx, w_yy in weights:
        context, tokens = (
            tokens[:-1],
            [
                (
                    a + sum((w_xx * (c @ a) + w_xy * (d @ b)) * c for c, d in tokens[:-1]),
                    b + sum((w_yx * (c @ a) + w_yy * (d @ b)) * d for c, d in tokens[:-1]),
                )
                for a, b in tokens
            ],
        )
        assert len(context) == len(x)
    return -tokens[-1][1]


def test_they_are_their_definition(close):
    close(DiagonalLayers(WEIGHTS)(X, Y, QUERY), slow(WEIGHTS, X, Y, QUERY))


def test_a_layer_is_two_heads_of_linear_attention_with_diagonal_blocks(close):
    w_xx, w_xy, w_yx, w_yy = WEIGHTS[0]
    by_inputs, by_labels = np.diag([1.0] * 3 + [0.0] * 2), np.diag([0.0] * 3 + [1.0] * 2)
    outputs = [np.diag([a] * 3 + [b] * 2) for a, b in ((w_xx, w_yx), (w_xy, w_yy))]
    tokens = jnp.asarray(np.concatenate([X, Y], axis=1))
    update = sum(
        read_linear(tokens @ jnp.asarray(key_query).T, tokens, tokens) @ jnp.asarray(output).T
        for key_query, output in zip((by_inputs, by_labels), outputs, strict=True)
    )
    model = DiagonalLayers(WEIGHTS[:1])
    x, y = model._advance(0, (jnp.asarray(X), jnp.asarray(Y)), (jnp.asarray(X), jnp.asarray(Y)))
    close(jnp.concatenate([x, y], axis=1), tokens + update)


def test_without_scores_of_labels_they_are_gdpp(close):
    steps, curvatures = np.array([0.1, 0.05]), np.array([0.02, 0.0])
    zero = np.zeros(2)
    weights = np.stack([-curvatures, zero, -steps, zero], axis=1)
    expected = TokenDescent(steps, curvatures, 2)(X, Y, QUERY)
    close(DiagonalLayers(weights)(X, Y, QUERY), expected)


def test_the_initial_weights_have_the_given_scale():
    task = LinearRegression(context_size=20)
    weights = DiagonalArchitecture(depth=4000, init_scale=0.5)(task, jax.random.key(0)).weights[...]
    np.testing.assert_allclose(jnp.std(weights), 0.5 / 20, rtol=0.03)


def test_bad_settings_are_refused():
    with pytest.raises(BadInput, match="depth must be"):
        DiagonalArchitecture(depth=0)
    with pytest.raises(BadInput, match="init_scale must be"):
        DiagonalArchitecture(init_scale=-1.0)
    for shape in ((4,), (2, 3), (0, 4)):
        with pytest.raises(BadInput, match=r"weights must be of shape \(depth, 4\)"):
            DiagonalLayers(np.zeros(shape))
