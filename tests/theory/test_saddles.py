"""Losses of saddle points: published values, numerical minima over rank-m matrices, and scaling."""

import re
from dataclasses import replace

import numpy as np
import pytest
from compiled import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from toyicl import theory
from toyicl.tasks.linear import LinearRegression

NORMAL = LinearRegression(
    dim=3,
    context_size=5,
    outputs=2,
    input_distribution="normal",
    input_range=0.8,
    covariance=(2.0, 0.6, 0.1, 0.6, 0.7, 0.2, 0.1, 0.2, 0.5),
    weight_scale=1.4,
    label_noise=0.7,
)
ISOTROPIC = LinearRegression(
    dim=3, context_size=4, weight_scale=1.3, label_noise=0.4, distractors=1
)
several = settings(max_examples=25, deadline=None, derandomize=True)
positive = st.floats(0.3, 3)


def of_variances(variances, **changes):
    return LinearRegression(
        dim=len(variances), input_distribution="normal", covariance=tuple(variances), **changes
    )


def loss_of_matrix(task):
    """The loss of a step matrix, from the formulas for arbitrary matrices."""
    if task.covariance is not None:
        return lambda matrix: theory.step_matrix_loss(task, matrix)
    best = theory.gradient_descent_optimum(task).loss
    return lambda matrix: best + theory.excess_loss(task, matrix)


def test_published_values():
    """Full squared errors of Zhang et al. (2025), and the anisotropic inputs of `preconditioned`."""
    published = theory.saddle_losses(of_variances((0.4, 0.3, 0.2, 0.1), context_size=31))
    np.testing.assert_allclose(
        2 * published, [1, 0.64058, 0.37737, 0.20980, 0.13600], atol=6e-6, rtol=0
    )
    spread = theory.saddle_losses(of_variances((2.0, 1.0, 0.5, 0.25), context_size=8))
    np.testing.assert_allclose(
        spread, [1.875, 1.13937, 0.82564, 0.70443, 0.66276], atol=6e-6, rtol=0
    )


def test_the_first_saddle_of_figure_2():
    losses = theory.saddle_losses(LinearRegression())
    assert losses.shape == (11,)
    assert losses[1] == pytest.approx(0.39562, abs=5e-6)


@pytest.mark.parametrize("task", [NORMAL, ISOTROPIC])
def test_no_matrix_of_a_rank_has_a_smaller_loss(task):
    """Compared with a numerical minimum over products of two matrices with m columns."""
    expected, loss, d = theory.saddle_losses(task), loss_of_matrix(task), task.dim
    for rank in range(1, d + 1):

        def of_factors(entries, rank=rank):
            left, right = entries.reshape(2, d, rank)
            return loss(left @ right.T)

        starts = np.random.default_rng(rank).normal(size=(4, 2 * d * rank))
        found = min(minimize(of_factors, start, tol=1e-10).fun for start in starts)
        assert found == pytest.approx(expected[rank], rel=1e-6)


@pytest.mark.parametrize("task", [NORMAL, replace(NORMAL, covariance=None)])
def test_the_ends_are_predicting_0_and_the_best_matrix(task):
    losses = theory.saddle_losses(task)
    assert losses[0] == pytest.approx(theory.step_matrix_loss(task, np.zeros((3, 3))), 1e-12)
    assert losses[-1] == pytest.approx(theory.best_step_matrix(task).loss, 1e-12)


@pytest.mark.parametrize("distribution", ["uniform", "normal", "laplace"])
@pytest.mark.parametrize("distractors", [None, 2])
def test_losses_of_isotropic_inputs_are_those_of_a_simulation(distribution, distractors):
    """A step along two of four coordinates, as long as the best step."""
    task = LinearRegression(
        dim=4,
        context_size=6,
        outputs=2,
        input_distribution=distribution,
        weight_scale=1.2,
        label_noise=0.3,
        distractors=distractors,
    )
    x, y, x_query, y_query = map(np.asarray, drawn(task, 0, 100_000))
    step = theory.optimal_scale(task) * np.diag([1.0, 1, 0, 0])
    answers = np.einsum("nme,nae,ab,be->me", y, x, step, x_query, optimize=True)
    losses = 0.5 * np.sum((answers - y_query) ** 2, axis=0)
    error = losses.std() / np.sqrt(losses.size)
    assert abs(losses.mean() - theory.saddle_losses(task)[2]) < 3 * error


def test_they_are_saddle_points_of_the_factors():
    """The gradient vanishes, and the loss falls along a direction that the matrix lacks."""
    task = of_variances((2.0, 1.0, 0.5), context_size=4, label_noise=0.3)
    best, losses = theory.best_step_matrix(task).matrix, theory.saddle_losses(task)
    for rank in range(3):
        kept = np.sqrt(np.diag(best)) * (np.arange(3) < rank)

        def loss(change, kept=kept):
            left, right = np.diag(kept) + change.reshape(2, 3, 3)
            return theory.step_matrix_loss(task, left @ right.T)

        assert loss(np.zeros(18)) == pytest.approx(losses[rank], 1e-12)
        slopes = [(loss(h) - loss(-h)) / 2e-5 for h in 1e-5 * np.eye(18)]
        np.testing.assert_allclose(slopes, 0, atol=1e-8)
        missing = np.zeros((2, 3, 3))
        missing[:, rank, rank] = 0.01
        assert loss(missing.ravel()) < losses[rank] - 1e-6


@several
@given(
    variances=st.lists(positive, min_size=2, max_size=4),
    count=st.integers(1, 9),
    noise=st.floats(0, 2),
    factor=positive,
)
def test_scaling(variances, count, noise, factor):
    """Inputs with their noise, or weights with their noise, scale the losses by their square."""
    task = of_variances(variances, context_size=count, label_noise=noise)
    losses = theory.saddle_losses(task)
    gains = -np.diff(losses)
    assert np.all(gains > 0)
    assert np.all(np.diff(gains) <= 1e-12)
    louder = replace(task, label_noise=factor * noise)
    for scaled in (replace(louder, input_range=factor), replace(louder, weight_scale=factor)):
        np.testing.assert_allclose(theory.saddle_losses(scaled), factor**2 * losses, rtol=1e-10)
    more = replace(task, outputs=3)
    np.testing.assert_allclose(theory.saddle_losses(more), 3 * losses, rtol=1e-12)


@several
@given(dim=st.integers(1, 6), count=st.integers(1, 9), variance=positive, noise=st.floats(0, 2))
def test_equal_variances_are_isotropic_inputs(dim, count, variance, noise):
    correlated = of_variances([variance] * dim, context_size=count, label_noise=noise)
    plain = replace(correlated, covariance=None, input_range=variance**0.5)
    expected = theory.saddle_losses(plain)
    np.testing.assert_allclose(theory.saddle_losses(correlated), expected, rtol=1e-10)


def test_a_rotation_changes_nothing():
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    variances = np.array([0.3, 2.0, 1.0])
    turned = tuple((turn @ np.diag(variances) @ turn.T).ravel())
    expected = theory.saddle_losses(of_variances(variances))
    found = theory.saddle_losses(replace(of_variances(variances), covariance=turned))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


BAD = [
    (replace(NORMAL, weight_scale=0.0), "task.weight_scale must be a finite number above 0"),
    (replace(ISOTROPIC, weight_scale=0.0), "task.weight_scale must be a finite number above 0"),
    (replace(NORMAL, distractors=1), "task.distractors must be None or 0 here"),
    (replace(NORMAL, input_distribution="uniform"), "task.input_distribution must be normal here"),
    (replace(ISOTROPIC, dim=2**31 - 1), "task.dim must be small enough for memory, which is"),
    (
        LinearRegression(input_distribution="exponential"),
        "task.input_distribution must be one of uniform, normal, laplace",
    ),
]


@pytest.mark.parametrize(("task", "message"), BAD)
def test_refuses(task, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        theory.saddle_losses(task)
