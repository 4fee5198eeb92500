"""References against loops in NumPy, against each other, and against their closed forms."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn import linear_model

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.ridge import AdaptiveRidge, LeastSquares, Ridge, TunedAdaptiveRidge
from toyicl.analysis import metrics
from toyicl.core.episode import predict
from toyicl.core.errors import BadInput
from toyicl.tasks.linear import LinearRegression

# Every size is compiled anew: few examples, and a failing one is not searched for a smaller one.
few = settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
SIZES = {"d": st.integers(1, 4), "m": st.integers(1, 3), "n": st.integers(1, 6)}
TASK = LinearRegression(dim=2, context_size=4)
answer = jax.jit(lambda learner, x, y, x_query: learner(x, y, x_query))
weights_of = jax.jit(GradientDescent.weights)


def random_context(d, m, n, seed=0):
    draw = np.random.default_rng([d, m, n, seed])
    return draw.normal(size=(n, d)), draw.normal(size=(n, m)), draw.normal(size=d)


def descend(x, y, rates, weights):
    """Gradient descent written out, point by point."""
    for rate in rates:
        gradient = np.zeros_like(weights)
        for point, label in zip(x, y, strict=True):
            gradient += np.outer(weights @ point - label, point)
        weights = weights - rate / len(x) * gradient
    return weights


def descend_with_curvature(x, y, x_query, rates, curvatures):
    """GD++ written out: all tokens move at once, the query with label 0 among them."""
    points, labels = np.vstack([x, x_query]), np.vstack([y, np.zeros(y.shape[1])])
    for rate, curvature in zip(rates, curvatures, strict=True):
        new_points, new_labels = points.copy(), labels.copy()
        for j, own in enumerate(points):
            for i in range(len(x)):
                new_labels[j] -= rate / len(x) * labels[i] * (points[i] @ own)
                new_points[j] -= curvature * points[i] * (points[i] @ own)
        points, labels = new_points, new_labels
    return -labels[-1]


@few
@given(**SIZES, rates=st.lists(st.floats(0.01, 0.5), min_size=1, max_size=3), started=st.booleans())
def test_gradient_descent_is_the_loop(d, m, n, rates, started, close):
    x, y, x_query = random_context(d, m, n)
    start = np.random.default_rng(1).normal(size=(m, d)) if started else np.zeros((m, d))
    learner = GradientDescent(rates, len(rates), initial_weights=start if started else None)
    expected = descend(x, y, rates, start)
    close(weights_of(learner, x, y), expected)
    close(answer(learner, x, y, x_query), expected @ x_query, 1e-10)


def test_one_rate_is_shared_by_all_steps(close):
    x, y, _ = random_context(3, 2, 4)
    close(
        weights_of(GradientDescent(0.2, 3), x, y), descend(x, y, [0.2, 0.2, 0.2], np.zeros((2, 3)))
    )


@few
@given(**SIZES, first=st.integers(1, 3), then=st.integers(1, 3))
def test_steps_follow_each_other(d, m, n, first, then, close):
    x, y, _ = random_context(d, m, n)

    @jax.jit
    def both(x, y):
        halfway = GradientDescent(0.1, first).weights(x, y)
        onwards = GradientDescent(0.1, then, initial_weights=halfway).weights(x, y)
        return onwards, GradientDescent(0.1, first + then).weights(x, y)

    close(*both(x, y))


@few
@given(**SIZES, factor=st.floats(-3, 3))
def test_predictions_are_linear_in_the_labels(d, m, n, factor, close):
    x, y, x_query = random_context(d, m, n)
    other = random_context(d, m, n, seed=1)[1]
    learners = (GradientDescent(0.2, 2), GradientDescentPlusPlus(0.2, 0.1), Ridge(0.3))
    answers = jax.jit(lambda labels: jnp.stack([f(x, labels, x_query) for f in learners]))
    close(answers(y + factor * other), answers(y) + factor * answers(other), 1e-10)


@few
@given(**SIZES, steps=st.integers(1, 3), each=st.booleans())
def test_plus_plus_is_the_loop(d, m, n, steps, each, close):
    x, y, x_query = random_context(d, m, n)
    rates, curvatures = np.array([0.2, 0.3, 0.1])[:steps], np.array([0.05, 0.02, 0.3])[:steps]
    if not each:
        rates, curvatures = np.full(steps, 0.2), np.full(steps, 0.05)
    given_rates = (rates, curvatures) if each else (0.2, 0.05)
    learner = GradientDescentPlusPlus(*given_rates, steps)
    close(
        answer(learner, x, y, x_query),
        descend_with_curvature(x, y, x_query, rates, curvatures),
        1e-10,
    )


@few
@given(**SIZES, steps=st.integers(1, 4))
def test_plus_plus_without_curvature_is_gradient_descent(d, m, n, steps, close):
    context = random_context(d, m, n)
    plain, curved = GradientDescent(0.2, steps), GradientDescentPlusPlus(0.2, 0.0, steps)
    close(answer(curved, *context), answer(plain, *context), 1e-10)


@few
@given(d=st.integers(1, 4), n=st.integers(1, 6), steps=st.integers(1, 3))
def test_plus_plus_leaves_a_polynomial_of_the_scatter(d, n, steps, close):
    """On labels W x the residual is R(S), by eigenvalue (von Oswald et al. 2022, appendix A.10)."""
    x, _, x_query = random_context(d, 1, n)
    weights = np.random.default_rng(2).normal(size=(1, d))
    rates, curvatures = [0.5, 0.8, 0.3][:steps], [0.03, 0.05, 0.7][:steps]
    values, vectors = np.linalg.eigh(x.T @ x)
    left = np.ones(d)
    for rate, curvature in zip(rates, curvatures, strict=True):
        left = left * (1 - rate / n * values)
        values = values * (1 - curvature * values) ** 2
    residual = vectors @ np.diag(left) @ vectors.T
    learner = GradientDescentPlusPlus(rates, curvatures, steps)
    close(
        answer(learner, x, x @ weights.T, x_query),
        weights @ (np.eye(d) - residual) @ x_query,
        1e-10,
    )


def test_the_last_curvature_has_no_effect():
    learner = GradientDescentPlusPlus([0.2, 0.3, 0.1], [0.05, 0.02, 0.3], 3)
    gradient = jax.jit(jax.grad(metrics.loss))(learner, drawn(TASK, 0, 8))
    assert gradient.curvature[...][2] == 0
    assert np.all(gradient.curvature[...][:2] != 0)
    assert np.all(gradient.learning_rate[...] != 0)


@few
@given(**SIZES, penalty=st.floats(0.01, 10))
def test_ridge_solves_its_equations(d, m, n, penalty, close):
    x, y, x_query = random_context(d, m, n)
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(d), x.T @ y).T
    close(answer(Ridge(penalty), x, y, x_query), weights @ x_query, 1e-10)


def test_ridge_with_a_large_penalty_is_one_small_step(close):
    x, y, x_query = random_context(3, 2, 5)
    step = GradientDescent(5 / 1e9)
    close(answer(Ridge(1e9), x, y, x_query), answer(step, x, y, x_query), 1e-7)


def test_ridge_with_a_small_penalty_is_least_squares(close):
    context = random_context(3, 2, 5)
    close(answer(Ridge(1e-10), *context), answer(LeastSquares(), *context), 1e-8)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_least_squares_is_that_of_numpy(n, close):
    """Of least norm with fewer points than inputs."""
    x, y, x_query = random_context(3, 2, n)
    close(answer(LeastSquares(), x, y, x_query), np.linalg.lstsq(x, y)[0].T @ x_query, 1e-10)
    close(answer(LeastSquares(), x, y, x_query), (np.linalg.pinv(x) @ y).T @ x_query, 1e-10)


def test_many_steps_reach_least_squares(close):
    context = random_context(2, 1, 30)
    close(answer(GradientDescent(1.0, 40), *context), answer(LeastSquares(), *context), 1e-8)


def test_the_sensitivity_of_gradient_descent_is_its_weights(close):
    episodes = drawn(replace(TASK, outputs=2), 0, 3)
    learner = GradientDescent([1.0, 0.5], 2)
    weights = jax.jit(jax.vmap(learner.weights, in_axes=-1, out_axes=-1))(episodes.x, episodes.y)
    close(jax.jit(metrics.sensitivity)(learner, episodes), weights)


@pytest.mark.parametrize("noise", [None, 0.3])
def test_the_best_step_is_the_closed_form(noise, close):
    """eta* = N / (m2 (N + d - 2 + kappa) + sigma^2 / omega^2), uniform inputs of range 1."""
    learner = GradientDescent.shared(replace(TASK, label_noise=noise))
    expected = 4 / ((4 + 2 - 2 + 1.8) / 12 + (noise or 0) ** 2)
    close(learner.learning_rate[...], expected)
    assert learner.steps == 1


def test_the_papers_best_step():
    assert abs(GradientDescent.shared(LinearRegression()).learning_rate[...] - 6.0606061) < 1e-7


OPTIMA = [
    (GradientDescent.shared, theory.gd_shared),
    (GradientDescent.per_step, theory.gd_per_step),
    (GradientDescentPlusPlus.shared, theory.gdpp_shared),
    (GradientDescentPlusPlus.per_layer, theory.gdpp_per_layer),
]


@pytest.mark.parametrize(("build", "optimum"), OPTIMA)
def test_tuned_references_have_the_loss_of_theory(build, optimum):
    """And the loss is flat around them."""
    best, learner = optimum(TASK, 2), build(TASK, 2)
    assert learner.steps == 2
    episodes = drawn(TASK, 0, 50_000)
    errors = np.square(jax.jit(predict)(learner, episodes) - episodes.y_query)[0] / 2
    assert abs(errors.mean() - best.loss) < 4 * errors.std() / np.sqrt(errors.size)
    gradient = jax.jit(jax.grad(metrics.loss))(learner, episodes)
    for own, slope in zip(jax.tree.leaves(learner), jax.tree.leaves(gradient), strict=True):
        # Slope of the log loss by the log of a rate; flat but for sampling error.
        assert np.abs(own * slope).max() < 0.1 * best.loss

    def loss(factor: float) -> float:
        scaled = jax.tree.map(lambda leaf: factor * leaf, learner)
        return jax.jit(metrics.loss)(scaled, episodes)

    assert loss(1.0) < min(loss(0.95), loss(1.05))


def test_the_bayes_ridge_has_the_penalty_of_noise_over_weights(close):
    task = replace(TASK, label_noise=0.3, weight_scale=2.0)
    close(Ridge.bayes(task).penalty[...], 0.3**2 / 2.0**2)


def test_no_other_penalty_beats_the_bayes_ridge():
    task = replace(TASK, label_noise=0.2)
    episodes = drawn(task, 0, 50_000)
    penalties = Ridge.bayes(task).penalty[...] * np.array([0.5, 1.0, 2.0])
    losses = jax.jit(jax.vmap(lambda penalty: metrics.loss(Ridge(penalty), episodes)))
    smaller, best, larger = losses(penalties)
    assert best < smaller
    assert best < larger


@few
@given(d=st.integers(1, 4), m=st.integers(1, 3), more=st.integers(1, 5), omega=st.floats(0.3, 3))
def test_adaptive_ridge_estimates_the_noise(d, m, more, omega, close):
    x, y, x_query = random_context(d, m, d + more)
    left = y - linear_model.LinearRegression(fit_intercept=False).fit(x, y).predict(x)
    penalty = np.sum(left**2) / (m * more) / omega**2
    judge = linear_model.Ridge(alpha=penalty, fit_intercept=False).fit(x, y)
    expected = judge.predict([x_query])[0].reshape(m)
    close(answer(AdaptiveRidge(omega), x, y, x_query), expected, 1e-8)


def test_without_noise_adaptive_ridge_is_least_squares(close):
    x, _, x_query = random_context(3, 2, 6)
    y = x @ np.random.default_rng(1).normal(size=(3, 2))
    close(answer(AdaptiveRidge(), x, y, x_query), answer(LeastSquares(), x, y, x_query), 1e-10)


def test_the_estimate_is_unbiased_and_costs_little():
    """Nearly as good as ridge regression with the true noise, and better than least squares."""
    task = LinearRegression(dim=3, context_size=8, label_noise=0.4)
    episodes = drawn(task, 0, 20_000)
    penalty = jax.jit(jax.vmap(AdaptiveRidge().penalty, in_axes=-1))(episodes.x, episodes.y)
    assert abs(np.mean(penalty) - 0.16) < 3 * np.std(penalty) / np.sqrt(penalty.size)
    known, estimated, plain = (
        jax.jit(metrics.loss)(learner, episodes)
        for learner in (Ridge(0.16), AdaptiveRidge(), LeastSquares())
    )
    assert known < estimated < 1.1 * known < plain


def test_the_weight_scale_of_adaptive_ridge_has_a_gradient():
    episodes = drawn(replace(TASK, label_noise=0.1), 0, 8)
    gradient = jax.jit(jax.grad(metrics.loss))(AdaptiveRidge(1.3), episodes)
    assert gradient.weight_scale[...] != 0


def test_rates_may_be_traced(close):
    context = random_context(3, 1, 4)
    swept = jax.vmap(lambda rate: answer(GradientDescent(rate, 2), *context))(jnp.array([0.1, 0.2]))
    close(swept[1], answer(GradientDescent(0.2, 2), *context))


BAD = [
    (lambda: GradientDescent(0.1, 0), "steps must be a whole number of at least 1, got 0"),
    (
        lambda: GradientDescent([0.1, 0.2], 3),
        "learning_rate must be one number, or one for each of 3 steps, got [0.1, 0.2]",
    ),
    (
        lambda: GradientDescent([[0.1]], 1),
        "learning_rate must be one number, or one for each of 1 steps, got [[0.1]]",
    ),
    (lambda: GradientDescentPlusPlus(0.1, 0.1, 1.5), "steps must be a whole number of at least 1"),
    (
        lambda: GradientDescentPlusPlus([0.1], 0.1, 2),
        "learning_rate must be one number, or one for each of 2 steps, got [0.1]",
    ),
    (
        lambda: GradientDescentPlusPlus(0.1, [0.1, 0.2, 0.3], 2),
        "curvature must be one number, or one for each of 2 steps, got [0.1, 0.2, 0.3]",
    ),
    (lambda: AdaptiveRidge(0.0), "weight_scale must be a finite number above 0, got 0.0"),
    (
        lambda: AdaptiveRidge()(*random_context(3, 1, 3)),
        "context_size must be more than the number of inputs, 3, to estimate the noise from "
        "residuals, got 3",
    ),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_refuses(build, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        build()


def test_tuned_adaptive_ridge_bounds_a_multiple_of_the_estimated_noise(close):
    x, y, x_query = random_context(3, 2, 8)
    estimate = AdaptiveRidge().penalty(x, y)
    for factor, bound in ((1.3, 100.0), (1.3, 0.01)):
        penalty = min(1.3 * float(estimate), bound**2)
        close(TunedAdaptiveRidge(factor, bound)(x, y, x_query), Ridge(penalty)(x, y, x_query))
    for name in ("factor", "bound"):
        with pytest.raises(BadInput, match=f"{name} must be a finite number above 0"):
            TunedAdaptiveRidge(**{name: 0.0})
