"""Recurrent learners against loops in NumPy, gradient descent, and counts of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn
from flax import nnx

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.core.errors import BadInput, BadSetting
from toyicl.models.recurrent import (
    RecurrentArchitecture,
    descending_recurrence,
    of_size,
)
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(dim=3, outputs=2, context_size=4)
CELLS = ("lstm", "linear")


def built(cell, width=5):
    return RecurrentArchitecture(cell=cell, width=width)(TASK, jax.random.key(1))


def episode():
    return tuple(np.asarray(f[..., 0]) for f in drawn(TASK, 2, 1)[:3])


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def test_the_lstm_is_its_equations_read_token_by_token(close):
    model, (x, y, x_query) = built("lstm"), episode()
    inward = np.asarray(model.cell.dense_i.kernel[...])
    within = np.asarray(model.cell.dense_h.kernel[...])
    bias = np.asarray(model.cell.dense_h.bias[...])
    cell, hidden = np.zeros(5), np.zeros(5)
    rows = [np.concatenate([a, b, [0.0]]) for a, b in zip(x, y, strict=True)]
    for token in [*rows, np.concatenate([x_query, np.zeros(2), [1.0]])]:
        i, f, g, o = np.split(token @ inward + hidden @ within + bias, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
    expected = hidden @ model.readout.kernel[...] + model.readout.bias[...]
    close(model(x, y, x_query), expected)
    assert bias.tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10


def test_the_linear_recurrence_is_a_decaying_sum_over_tokens(close):
    model, (x, y, x_query) = built("linear"), episode()
    tokens = np.concatenate([x, y], axis=1)
    kept = sigmoid(np.asarray(model.decay[...]))
    np.testing.assert_allclose(kept, 0.95)
    state = sum(
        kept ** (len(tokens) - 1 - t) * (e @ model.gate[...]) * (e @ model.value[...])
        for t, e in enumerate(tokens)
    )
    close(model(x, y, x_query), (x_query @ model.query[...] * state) @ model.output[...])


def test_the_constructed_recurrence_is_one_step_of_gradient_descent(close):
    model, (x, y, x_query) = descending_recurrence(0.7, 4, 3, 2), episode()
    close(model(x, y, x_query), GradientDescent(0.7)(x, y, x_query))


@pytest.mark.parametrize("cell", CELLS)
def test_parameters_are_counted(cell):
    settings = RecurrentArchitecture(cell=cell, width=7)
    model = settings(TASK, jax.random.key(0))
    counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert settings.parameters(TASK) == counted


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("parameters", [1, 100, 480, 5808])
def test_the_width_with_the_nearest_number_of_parameters_is_found(cell, parameters):
    found = of_size(cell, TASK, parameters)
    numbers = [RecurrentArchitecture(cell=cell, width=w).parameters(TASK) for w in range(1, 600)]
    nearest = min(abs(number - parameters) for number in numbers)
    assert abs(found.parameters(TASK) - parameters) == nearest


@pytest.mark.parametrize("cell", CELLS)
def test_initial_weights_scale_with_their_setting(cell):
    small, large = (
        RecurrentArchitecture(cell=cell, init_scale=scale)(TASK, jax.random.key(0))
        for scale in (0.25, 1.0)
    )
    pairs = (
        [(small.readout.kernel, large.readout.kernel)]
        if cell == "lstm"
        else [
            (small.gate, large.gate),
            (small.output, large.output),
        ]
    )
    for one, other in pairs:
        np.testing.assert_allclose(2 * one[...], other[...], rtol=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"cell": "gru"}, "cell must be one of lstm, linear, got 'gru'"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"decay": 1.5}, "decay must be above 0 and below 1, got 1.5"),
        ({"decay": 1.0}, "decay must be above 0 and below 1, got 1.0"),
        ({"init_scale": 0.0}, "init_scale must be a finite number above 0, got 0.0"),
    ],
)
def test_bad_settings_are_refused(bad, message):
    with pytest.raises(BadSetting, match=message):
        RecurrentArchitecture(**bad)


def test_a_number_of_parameters_that_is_no_size_is_refused():
    with pytest.raises(BadInput, match="parameters must be a whole number of at least 1"):
        of_size("lstm", TASK, 0)


def test_the_order_of_the_context_matters_to_the_lstm_alone_once_the_decay_is_1():
    x, y, x_query = episode()
    lstm, descent = built("lstm"), descending_recurrence(0.7, 4, 3, 2)
    for model, changes in ((lstm, True), (descent, False)):
        forth, back = model(x, y, x_query), model(x[::-1], y[::-1], x_query)
        assert bool(jnp.allclose(forth, back, atol=1e-12)) is not changes
