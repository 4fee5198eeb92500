"""One layer on correlated normal inputs: exact losses against simulation, and as optima."""

import re
from dataclasses import replace

import numpy as np
import pytest
from compiled import drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from toyicl import theory
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import correlated_inputs

SPREAD = LinearRegression(
    dim=4, context_size=8, input_distribution="normal", covariance=(2.0, 1.0, 0.5, 0.25)
)
FULL = LinearRegression(
    dim=2,
    context_size=5,
    outputs=2,
    input_distribution="normal",
    input_range=0.8,
    covariance=(2.0, 0.6, 0.6, 0.5),
    weight_scale=1.4,
    label_noise=0.7,
)
several = settings(max_examples=25, deadline=None, derandomize=True)
entries = st.lists(st.floats(-1, 1), min_size=4, max_size=4)


def within(losses, expected, errors=3):
    """Whether simulated losses, one an episode, have the expected mean."""
    error = losses.std() / np.sqrt(losses.size)
    assert abs(losses.mean() - expected) < errors * error, (losses.mean(), expected, error)


def errors_of(matrix, episodes):
    """Losses of sum_i y_i x_i . G x_q; (episodes,)."""
    x, y, x_query, y_query = map(np.asarray, episodes)
    answer = np.einsum("nme,nae,ab,be->me", y, x, matrix, x_query, optimize=True)
    return 0.5 * np.sum((answer - y_query) ** 2, axis=0)


def test_the_worked_case():
    """x ~ N(0, diag(2, 1, 1/2, 1/4)) and eight points; the formula of `best_step_matrix` by hand."""
    variances = np.array([2, 1, 0.5, 0.25])
    best = correlated_inputs.best_step_matrix(SPREAD)
    assert best.loss == pytest.approx(0.66276, abs=5e-6)
    np.testing.assert_allclose(best.matrix, np.diag(1 / (3.75 + 9 * variances)), atol=1e-15)
    by_hand = np.sum(variances * (variances + 3.75) / (9 * variances + 3.75)) / 2
    assert best.loss == pytest.approx(by_hand, 1e-12)
    scalar = correlated_inputs.best_scalar_step(SPREAD)
    assert scalar.loss == pytest.approx(0.7703, abs=5e-5)
    assert scalar.learning_rates[0] / 8 == pytest.approx(5.3125 / 102.1875, 1e-12)


PRIOR = replace(SPREAD, label_noise=0.5, weight_covariance=(0.5, 1.0, 2.0, 4.0))


@pytest.mark.parametrize("task", [FULL, replace(SPREAD, label_noise=0.5), PRIOR])
def test_losses_are_those_of_a_simulation(task):
    """Of the best matrix, the best number, and any matrix, here one that is not symmetric."""
    best, scalar = (
        correlated_inputs.best_step_matrix(task),
        correlated_inputs.best_scalar_step(task),
    )
    episodes = drawn(task, 0, 20_000)
    within(errors_of(best.matrix, episodes), best.loss)
    step = scalar.learning_rates[0] / task.context_size
    within(errors_of(step * np.eye(task.dim), episodes), scalar.loss)
    other = np.random.default_rng(3).normal(size=(task.dim, task.dim)) * best.matrix.max() / 2
    within(errors_of(other, episodes), correlated_inputs.step_matrix_loss(task, other))


@several
@given(entries=entries, noise=st.sampled_from([None, 0.3]))
@pytest.mark.parametrize("prior", [None, (1.0, 0.3, 0.3, 0.5)])
def test_no_matrix_beats_the_best(entries, noise, prior):
    """And in its neighbourhood the loss grows with the square of the distance."""
    task = replace(FULL, label_noise=noise, weight_covariance=prior)
    best, change = correlated_inputs.best_step_matrix(task), np.reshape(entries, (2, 2))

    def loss(factor):
        return correlated_inputs.step_matrix_loss(task, best.matrix + factor * change)

    assert loss(1.0) >= best.loss - 1e-12
    assert loss(1.0) - best.loss == pytest.approx(4 * (loss(0.5) - best.loss), 1e-9, 1e-12)
    assert best.loss <= correlated_inputs.best_scalar_step(task).loss


@several
@given(
    dim=st.integers(1, 5),
    count=st.integers(1, 12),
    scale=st.floats(0.3, 3),
    noise=st.floats(0, 2),
    explicit=st.booleans(),
)
def test_without_correlation_it_is_gradient_descent(dim, count, scale, noise, explicit):
    task = LinearRegression(
        dim=dim,
        context_size=count,
        input_distribution="normal",
        input_range=scale,
        label_noise=noise,
    )
    best, scalar = theory.gradient_descent_optimum(task), correlated_inputs.best_scalar_step
    spread = replace(task, covariance=(1.0,) * dim) if explicit else task
    assert correlated_inputs.best_step_matrix(spread).loss == pytest.approx(best.loss, 1e-10)
    assert scalar(spread).learning_rates == (pytest.approx(best.learning_rates[0], 1e-10),)
    matrix = 0.7 * best.learning_rates[0] / count * np.eye(dim)
    expected = theory.gradient_descent_loss(task, 0.7 * best.learning_rates[0])
    assert correlated_inputs.step_matrix_loss(spread, matrix) == pytest.approx(expected, 1e-10)


def test_only_the_inputs_own_axes_matter():
    """A rotation of the inputs rotates the optimum and leaves its loss."""
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    plain = replace(FULL, covariance=(2.0, 0.5))
    turned = replace(FULL, covariance=tuple((turn @ np.diag([2.0, 0.5]) @ turn.T).ravel()))
    first, second = (
        correlated_inputs.best_step_matrix(plain),
        correlated_inputs.best_step_matrix(turned),
    )
    assert second.loss == pytest.approx(first.loss, 1e-12)
    np.testing.assert_allclose(second.matrix, turn @ first.matrix @ turn.T, atol=1e-12)


def test_matrix_of_zeros_is_predicting_zero():
    loss = correlated_inputs.step_matrix_loss(SPREAD, np.zeros((4, 4)))
    assert loss == pytest.approx(3.75 / 2, 1e-15)


BAD = [
    (
        lambda: correlated_inputs.best_step_matrix(LinearRegression()),
        "task.input_distribution must be normal here, as the moments of other correlated inputs are "
        "not known, got 'uniform'",
    ),
    (
        lambda: correlated_inputs.best_scalar_step(replace(SPREAD, distractors=2)),
        "task.distractors must be None or 0 here",
    ),
    (
        lambda: correlated_inputs.best_step_matrix(replace(SPREAD, weight_scale=0.0)),
        "task.weight_scale must be a finite number above 0, got 0.0",
    ),
    (
        lambda: correlated_inputs.step_matrix_loss(SPREAD, np.eye(3)),
        "matrix must be of shape (4, 4), got (3, 3)",
    ),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_refuses(build, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        build()
