"""Iterative learners against loops in NumPy, their own limits, and exact losses."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.algorithms.iterative import (
    Chebyshev,
    ConjugateGradients,
    HeavyBall,
    IterativeNewton,
    PreconditionedGradientDescent,
)
from toyicl.algorithms.ridge import LeastSquares
from toyicl.analysis import metrics
from toyicl.core.episode import predict
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import correlated_inputs, gram_spectrum

# Every size is compiled anew: few examples, and a failing one is not searched for a smaller one.
few = settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
SIZES = {"d": st.integers(1, 4), "m": st.integers(1, 3), "n": st.integers(1, 6)}
ORACLES = json.loads((Path(__file__).parents[1] / "helpers" / "oracles.json").read_text())
TASK = LinearRegression(dim=2, context_size=4)
SPREAD = LinearRegression(
    dim=4, context_size=8, input_distribution="normal", covariance=(2.0, 1.0, 0.5, 0.25)
)
LEARNERS = [
    PreconditionedGradientDescent(np.array([[0.3, 0.1], [0.0, 0.2]]), 2),
    HeavyBall([0.2, 0.3, 0.1], 0.4, 3),
    Chebyshev(0.1, 2.0, 3),
    IterativeNewton(0.1, 3),
    ConjugateGradients(2),
]
answer = jax.jit(lambda learner, x, y, x_query: learner(x, y, x_query))


def random_context(d, m, n, seed=0):
    draw = np.random.default_rng([d, m, n, seed])
    return draw.normal(size=(n, d)), draw.normal(size=(n, m)), draw.normal(size=d)


def descend(x, y, matrices, momenta):
    """Descent with momentum written out, point by point."""
    weights = before = np.zeros((y.shape[1], x.shape[1]))
    for matrix, momentum in zip(matrices, momenta, strict=True):
        gradient = np.zeros_like(weights)
        for point, label in zip(x, y, strict=True):
            gradient += np.outer(weights @ point - label, point) / len(x)
        weights, before = weights - gradient @ matrix + momentum * (weights - before), weights
    return weights


@few
@given(**SIZES, steps=st.integers(1, 3), each=st.booleans())
def test_preconditioned_descent_is_the_loop(d, m, n, steps, each, close):
    x, y, x_query = random_context(d, m, n)
    matrices = 0.1 * np.random.default_rng(1).normal(size=(steps, d, d))
    if not each:
        matrices[:] = matrices[0]
    learner = PreconditionedGradientDescent(matrices if each else matrices[0], steps)
    expected = descend(x, y, matrices, np.zeros(steps)) @ x_query
    close(answer(learner, x, y, x_query), expected, 1e-10)


@few
@given(**SIZES, steps=st.integers(1, 3))
def test_a_multiple_of_the_identity_is_gradient_descent(d, m, n, steps, close):
    context = random_context(d, m, n)
    learner = PreconditionedGradientDescent(0.2 * np.eye(d), steps)
    close(answer(learner, *context), answer(GradientDescent(0.2, steps), *context), 1e-10)


def test_the_inverse_scatter_solves_in_one_step(close):
    x, y, x_query = random_context(3, 2, 6)
    learner = PreconditionedGradientDescent(6 * np.linalg.inv(x.T @ x))
    close(answer(learner, x, y, x_query), answer(LeastSquares(), x, y, x_query), 1e-10)


@few
@given(**SIZES, steps=st.integers(1, 4), each=st.booleans())
def test_heavy_ball_is_the_loop(d, m, n, steps, each, close):
    x, y, x_query = random_context(d, m, n)
    rates = np.array([0.2, 0.3, 0.1, 0.2])[:steps] if each else np.full(steps, 0.2)
    momenta = np.array([0.9, 0.5, 0.3, 0.4])[:steps] if each else np.full(steps, 0.5)
    learner = HeavyBall(*((rates, momenta) if each else (0.2, 0.5)), steps)
    expected = descend(x, y, rates[:, None, None] * np.eye(d), momenta) @ x_query
    close(answer(learner, x, y, x_query), expected, 1e-10)


@few
@given(**SIZES, steps=st.integers(1, 4))
def test_without_momentum_it_is_gradient_descent(d, m, n, steps, close):
    context = random_context(d, m, n)
    expected = answer(GradientDescent(0.2, steps), *context)
    close(answer(HeavyBall(0.2, 0.0, steps), *context), expected, 1e-10)


@few
@given(d=st.integers(1, 4), n=st.integers(1, 6), steps=st.integers(1, 5), low=st.floats(0, 2))
def test_chebyshev_leaves_its_polynomial(d, n, steps, low, close):
    """T_K of the interval moved to [-1, 1], over its value at 0."""
    x, _, x_query = random_context(d, 1, n)
    weights, high = np.random.default_rng(2).normal(size=(1, d)), 2.5
    values, vectors = np.linalg.eigh(x.T @ x)

    def polynomial(s):
        return chebyshev.chebval((high + low - 2 * s) / (high - low), [0] * steps + [1])

    solved = vectors @ np.diag(1 - polynomial(values) / polynomial(0.0)) @ vectors.T
    found = answer(Chebyshev(low, high, steps), x, x @ weights.T, x_query)
    close(found, weights @ solved @ x_query, 1e-8)


@few
@given(**SIZES, low=st.floats(0, 1))
def test_one_chebyshev_step_is_gradient_descent(d, m, n, low, close):
    context = random_context(d, m, n)
    expected = answer(GradientDescent(n / ((low + 3) / 2)), *context)
    close(answer(Chebyshev(low, 3.0, 1), *context), expected, 1e-10)


def test_chebyshev_on_a_point_is_gradient_descent(close):
    context = random_context(3, 2, 5)
    close(answer(Chebyshev(9.0, 9.0, 4), *context), answer(GradientDescent(5 / 9, 4), *context))


def test_chebyshev_on_the_spectrum_is_quick(close):
    """Far quicker than gradient descent with the best step for the same two eigenvalues."""
    x, y, x_query = random_context(3, 2, 8)
    values = np.linalg.eigvalsh(x.T @ x)
    solution = answer(LeastSquares(), x, y, x_query)
    found = answer(Chebyshev(values[0], values[-1], 20), x, y, x_query)
    slow = answer(GradientDescent(8 * 2 / (values[0] + values[-1]), 20), x, y, x_query)
    close(found, solution, 1e-5)
    assert np.abs(slow - solution).max() > 100 * np.abs(found - solution).max()


@few
@given(**SIZES, steps=st.integers(0, 4))
def test_newton_is_the_loop(d, m, n, steps, close):
    x, y, x_query = random_context(d, m, n)
    inverse = 0.05 * np.eye(d)
    for _ in range(steps):
        inverse = 2 * inverse - inverse @ x.T @ x @ inverse
    expected = y.T @ x @ inverse @ x_query
    close(answer(IterativeNewton(0.05, steps), x, y, x_query), expected, 1e-10)


@few
@given(**SIZES, steps=st.integers(0, 3))
def test_newton_is_twice_as_many_steps_each_time(d, m, n, steps, close):
    context = random_context(d, m, n)
    expected = answer(GradientDescent(0.05 * n, 2**steps), *context)
    close(answer(IterativeNewton(0.05, steps), *context), expected, 1e-10)


def test_newtons_limit_is_least_squares(close):
    context = random_context(3, 2, 8)
    close(answer(IterativeNewton(0.05, 12), *context), answer(LeastSquares(), *context), 1e-10)


@few
@given(d=st.integers(1, 4), m=st.integers(1, 3), more=st.integers(4, 8), extra=st.integers(0, 3))
def test_d_conjugate_gradients_are_least_squares(d, m, more, extra, close):
    """And further steps, or a context without labels, do no harm."""
    x, y, x_query = random_context(d, m, d + more)
    expected = np.linalg.lstsq(x, y)[0].T @ x_query
    learner = ConjugateGradients(d + extra)
    close(answer(learner, x, y, x_query), expected, 1e-9)
    close(answer(learner, x, 0 * y, x_query), np.zeros(m))


@pytest.mark.parametrize(("n", "steps"), [(1, 3), (3, 3), (2, 9)])
def test_conjugate_gradients_find_the_least_norm(n, steps, close):
    x, y, x_query = random_context(4, 2, n)
    expected = np.linalg.lstsq(x, y)[0].T @ x_query
    close(answer(ConjugateGradients(steps), x, y, x_query), expected, 1e-8)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_conjugate_gradients_fit_best_of_all(steps, close):
    """Of all vectors in the space of X^T y, S X^T y, ...: solved for directly."""
    x, y, x_query = random_context(4, 2, 9)
    expected = []
    for labels in y.T:
        space = np.stack([np.linalg.matrix_power(x.T @ x, p) @ x.T @ labels for p in range(steps)])
        found = np.linalg.lstsq(x @ space.T, labels)[0]
        expected.append(x_query @ space.T @ found)
    close(answer(ConjugateGradients(steps), x, y, x_query), np.array(expected), 1e-8)


def test_conjugate_gradients_do_not_wander_in_float32():
    """With fewer points than inputs, long after there is nothing left to do."""
    episodes = drawn(replace(TASK, dim=5, context_size=3), 0, 100)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), episodes)
    found, right = (
        np.asarray(jax.jit(predict)(learner, batch))
        for learner, batch in ((ConjugateGradients(9), single), (LeastSquares(), episodes))
    )
    assert np.abs(found).max() < 2 * np.abs(right).max()
    assert np.quantile(np.abs(found - right), 0.99) < 1e-3


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
def test_the_order_of_points_means_nothing(learner, close):
    x, y, x_query = random_context(2, 2, 5)
    close(answer(learner, x[::-1], y[::-1], x_query), answer(learner, x, y, x_query), 1e-10)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
def test_every_parameter_has_a_gradient(learner):
    gradient = jax.jit(jax.grad(metrics.loss))(learner, drawn(TASK, 0, 8))
    affected = [bool(np.any(leaf != 0)) for leaf in jax.tree.leaves(gradient)]
    count = {"HeavyBall": 2, "Chebyshev": 2, "ConjugateGradients": 0}
    assert affected == [True] * count.get(type(learner).__name__, 1)


# What they lose


def errors_of(learner, task, episodes=10_000):
    batch = drawn(task, 1, episodes)
    return np.sum((jax.jit(predict)(learner, batch) - batch.y_query) ** 2, axis=0) / 2


def within(losses, expected, slack=0.0):
    """Whether simulated losses have the expected mean, to 3 standard errors and its own rounding."""
    error = losses.std() / np.sqrt(losses.size)
    assert abs(losses.mean() - expected) < 3 * error + slack, (losses.mean(), expected, error)


@pytest.mark.parametrize("noise", [None, 0.4])
def test_the_best_preconditioner_has_the_loss_of_theory(noise):
    task = replace(SPREAD, label_noise=noise)
    learner = PreconditionedGradientDescent.best(task)
    within(errors_of(learner, task), correlated_inputs.best_step_matrix(task).loss)


# Losses for d = N = 10. K iterations of Newton are 2^K steps of gradient descent (Fu et al.,
# 2023), whose best size is in ORACLES.
NEWTON = {0: 0.206229, 1: 0.156615, 2: 0.118364}
CONJUGATE = {1: 0.1967, 2: 0.1295, 4: 0.0748}


@pytest.mark.parametrize("steps", NEWTON)
def test_newton_has_the_known_loss(steps):
    rate = ORACLES["gd_r1"][f"N10_K{2**steps}"]["eta_shared"]
    within(errors_of(IterativeNewton(rate / 10, steps), LinearRegression()), NEWTON[steps], 1e-6)


@pytest.mark.parametrize("steps", [0, 2])
def test_the_best_newton_is_the_best_descent(steps, close):
    context = random_context(2, 1, 4)
    expected = answer(GradientDescent.shared(TASK, 2**steps), *context)
    close(answer(IterativeNewton.best(TASK, steps), *context), expected, 1e-10)


@pytest.mark.parametrize("steps", CONJUGATE)
def test_conjugate_gradients_have_the_known_loss(steps):
    within(errors_of(ConjugateGradients(steps), LinearRegression()), CONJUGATE[steps], 1e-4)


def momentum_left(rates, momenta):
    """Residual of descent with momentum, of steps given on the plain sum."""

    def residual(values):
        left = before = np.ones_like(values)
        for rate, momentum in zip(rates, momenta, strict=True):
            left, before = (1 - rate * values) * left + momentum * (left - before), left
        return left

    return residual


def chebyshev_left(low, high, steps):
    def residual(values):
        place = (high + low - 2 * np.append(values, 0.0)) / (high - low)
        heights = chebyshev.chebval(place, [0] * steps + [1])
        return heights[:-1] / heights[-1]

    return residual


TUNED = {
    "heavy ball": (
        HeavyBall.best,
        lambda rate, mu: momentum_left([rate / 4] * 3, [mu] * 3),
    ),
    "Chebyshev": (Chebyshev.best, lambda high, low: chebyshev_left(low, high, 3)),
}


@pytest.mark.parametrize("noise", [None, 0.05])
@pytest.mark.parametrize("name", TUNED)
def test_the_best_momentum_lies_between_the_two_best_descents(name, noise):
    """Polynomials of degree K: no better than the best, better than K equal steps, and tuned."""
    task, (build, residual) = replace(TASK, label_noise=noise), TUNED[name]
    learner = build(task, 3)
    own = [float(leaf) for leaf in jax.tree.leaves(learner)]

    def loss(*factors):
        values = [value * factor for value, factor in zip(own, factors, strict=True)]
        return gram_spectrum.population_loss(task, residual(*values))

    best = loss(1, 1)
    assert theory.gd_per_step(task, 3).loss < best < 0.99 * theory.gd_shared(task, 3).loss
    for other in (0.99, 1.01):
        assert best < min(loss(other, 1), loss(1, other))
    within(errors_of(learner, task), best)


@pytest.mark.parametrize("build", [HeavyBall.best, Chebyshev.best])
def test_one_step_of_any_is_the_best_step(build, close):
    context = random_context(2, 1, 4)
    expected = answer(GradientDescent.shared(TASK), *context)
    close(answer(build(TASK, 1), *context), expected, 1e-4)


@pytest.mark.parametrize("build", [HeavyBall.best, Chebyshev.best, IterativeNewton.best])
def test_many_steps_have_finite_parameters_and_no_larger_loss(build):
    """Iterations of Newton are squarings, so that 12 of them are 4096 steps."""
    task = replace(TASK, label_noise=0.05)
    depths = (1, 4, 9, 12) if build == IterativeNewton.best else (1, 10, 30)
    losses = [errors_of(build(task, steps), task).mean() for steps in depths]
    assert np.all(np.isfinite(losses))
    assert np.all(np.diff(losses) < 1e-3 * losses[0])


@pytest.mark.parametrize("steps", [5, 20])
def test_no_momentum_is_better_than_the_best_fixed_steps_in_float32(steps):
    """Twenty steps with the largest first would lose all digits of float32."""
    task = LinearRegression()
    with jax.enable_x64(False):
        each, ball, series = (
            errors_of(build(task, steps), task, 4_000).mean()
            for build in (GradientDescent.per_step, HeavyBall.best, Chebyshev.best)
        )
    assert each < min(ball, series)


BAD = [
    (lambda: PreconditionedGradientDescent(np.eye(2), 0), "steps must be a whole number of at"),
    (
        lambda: PreconditionedGradientDescent(np.ones((2, 3)), 2),
        "preconditioner must be one square matrix, or one for each of 2 steps, got (2, 3)",
    ),
    (
        lambda: PreconditionedGradientDescent(np.ones((3, 2, 2)), 2),
        "preconditioner must be one square matrix, or one for each of 2 steps, got (3, 2, 2)",
    ),
    (lambda: PreconditionedGradientDescent(0.1), "preconditioner must be one square matrix"),
    (
        lambda: PreconditionedGradientDescent.best(LinearRegression()),
        "task.input_distribution must be normal here",
    ),
    (
        lambda: HeavyBall(0.1, [0.1], 2),
        "momentum must be one number, or one for each of 2 steps, got [0.1]",
    ),
    (lambda: HeavyBall(0.1, 0.1, 0), "steps must be a whole number of at least 1, got 0"),
    (lambda: Chebyshev(2.0, 1.0), "low must be at most high (1.0), got 2.0"),
    (lambda: Chebyshev(-1.0, 1.0), "low must be a finite number of at least 0, got -1.0"),
    (lambda: Chebyshev(0.0, 0.0), "high must be a finite number above 0, got 0.0"),
    (lambda: IterativeNewton(0.1, -1), "steps must be a whole number of at least 0, got -1"),
    (lambda: ConjugateGradients(0), "steps must be a whole number of at least 1, got 0"),
    (
        lambda: HeavyBall.best(replace(TASK, distractors=1), 2),
        "task.distractors must be None or 0",
    ),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_refuses(build, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        build()
