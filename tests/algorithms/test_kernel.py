"""Kernel learners against loops in NumPy, scikit-learn, each other, and the exact loss."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from compiled import drawn
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn import kernel_ridge, neighbors

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.algorithms.kernel import (
    AveragedLabels,
    CentredDescent,
    FunctionalDescent,
    KernelRidge,
    NadarayaWatson,
    NearestNeighbour,
)
from toyicl.analysis import metrics
from toyicl.core.episode import predict
from toyicl.models.construction import subtracted_heads
from toyicl.tasks.linear import LinearRegression

# Every size is compiled anew: few examples, and a failing one is not searched for a smaller one.
few = settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
SIZES = {"d": st.integers(1, 4), "m": st.integers(1, 3), "n": st.integers(1, 6)}
SCALES = st.floats(-1, 1)
TASK = LinearRegression(dim=2, context_size=4)
TUNABLE = [
    NadarayaWatson(0.7),
    KernelRidge(0.7, 0.1),
    FunctionalDescent(0.7, [0.2, 0.3], 2),
    CentredDescent(0.4),
]
LEARNERS = [*TUNABLE, AveragedLabels(), NearestNeighbour()]
answer = jax.jit(lambda learner, x, y, x_query: learner(x, y, x_query))


def named(learner):
    return type(learner).__name__


def random_context(d, m, n, seed=0):
    draw = np.random.default_rng([d, m, n, seed])
    return draw.normal(size=(n, d)), draw.normal(size=(n, m)), draw.normal(size=d)


def kernel(first, second, scale):
    """exp(scale x . x') for each pair of points, one at a time."""
    return np.array([[np.exp(scale * sum(a * b)) for b in second] for a in first])


@few
@given(**SIZES, scale=SCALES)
def test_nadaraya_watson_is_the_weighted_mean(d, m, n, scale, close):
    x, y, x_query = random_context(d, m, n)
    weights = kernel(x, [x_query], scale)[:, 0]
    expected = sum(w * label for w, label in zip(weights, y, strict=True)) / sum(weights)
    close(answer(NadarayaWatson(scale), x, y, x_query), expected, 1e-10)


@few
@given(**SIZES)
def test_without_a_scale_labels_are_averaged(d, m, n, close):
    x, y, x_query = random_context(d, m, n)
    close(answer(NadarayaWatson(0.0), x, y, x_query), np.mean(y, axis=0), 1e-10)
    close(answer(AveragedLabels(), x, y, x_query), np.mean(y, axis=0), 1e-10)


def test_a_large_scale_picks_one_label(close):
    """That of the greatest x . x_q; on a sphere that is the nearest point. No overflow on the way."""
    x, y, x_query = random_context(3, 2, 6)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    close(answer(NadarayaWatson(1e4), x, y, x_query), answer(NearestNeighbour(), x, y, x_query))


@few
@given(**SIZES, scale=SCALES, penalty=st.floats(0.01, 10))
def test_kernel_ridge_is_that_of_scikit_learn(d, m, n, scale, penalty, close):
    x, y, x_query = random_context(d, m, n)
    judge = kernel_ridge.KernelRidge(alpha=penalty, kernel="precomputed")
    judge.fit(kernel(x, x, scale), y)
    expected = judge.predict(kernel([x_query], x, scale))[0]
    close(answer(KernelRidge(scale, penalty), x, y, x_query), expected, 1e-8)


def test_kernel_ridge_without_a_penalty_repeats_the_labels(close):
    x, y, _ = random_context(3, 2, 4)
    close(answer(KernelRidge(0.5, 0.0), x, y, x[2]), y[2], 1e-8)


@few
@given(**SIZES, scale=SCALES, steps=st.integers(1, 3), each=st.booleans())
def test_functional_descent_is_the_loop(d, m, n, scale, steps, each, close):
    """Values at all points, the query's too, moved by the kernel times what is missing."""
    x, y, x_query = random_context(d, m, n)
    rates = [0.2, 0.3, 0.1][:steps] if each else [0.2] * steps
    values = np.zeros((n + 1, m))
    for rate in rates:
        moves = kernel([*x, x_query], x, scale) @ (y - values[:n])
        values = values + rate / n * moves
    learner = FunctionalDescent(scale, rates if each else 0.2, steps)
    close(answer(learner, x, y, x_query), values[n], 1e-10)


@few
@given(**SIZES, scale=SCALES)
def test_a_softmax_head_is_a_functional_step_of_the_querys_size(d, m, n, scale, close):
    """The step size is N over the sum of the kernel's values at the query, as the docstring
    of `toyicl.algorithms.kernel` states."""
    x, y, x_query = random_context(d, m, n)
    size = n / np.sum(kernel(x, [x_query], scale))
    step = answer(FunctionalDescent(scale, size), x, y, x_query)
    close(step, answer(NadarayaWatson(scale), x, y, x_query), 1e-10)


def test_a_large_penalty_is_a_small_functional_step(close):
    x, y, x_query = random_context(3, 2, 5)
    ridge = answer(KernelRidge(0.4, 1e9), x, y, x_query)
    close(ridge, answer(FunctionalDescent(0.4, 5 / 1e9), x, y, x_query), 1e-7)


def test_many_functional_steps_are_kernel_regression(close):
    x, y, x_query = np.eye(3), random_context(3, 2, 3)[1], np.array([0.2, 0.5, -0.3])
    found = answer(FunctionalDescent(1.0, 1.0, 60), x, y, x_query)
    close(found, answer(KernelRidge(1.0, 0.0), x, y, x_query), 1e-8)


@few
@given(**SIZES)
def test_the_nearest_neighbour_is_that_of_scikit_learn(d, m, n, close):
    x, y, x_query = random_context(d, m, n)
    judge = neighbors.KNeighborsRegressor(1).fit(x, y)
    close(answer(NearestNeighbour(), x, y, x_query), judge.predict([x_query])[0])


# The centred scatter


@few
@given(**SIZES)
def test_centred_descent_is_descent_on_centred_inputs(d, m, n, close):
    x, y, x_query = random_context(d, m, n)
    mean = sum(x) / n
    expected = sum(label * ((point - mean) @ x_query) for point, label in zip(x, y, strict=True))
    close(answer(CentredDescent(0.3), x, y, x_query), 0.3 / n * expected, 1e-10)
    centred = answer(GradientDescent(0.3), x - mean[None], y, x_query)
    close(0.3 / n * expected, centred, 1e-10)


def test_opposite_softmax_heads_become_centred_descent(close):
    """Quadratically in the logits' scale, with the covariance, a step of size 1, as the limit."""
    x, y, x_query = random_context(3, 1, 6)
    limit = answer(CentredDescent(1.0), x, y, x_query)
    misses = [np.abs(answer(subtracted_heads(e, 3), x, y, x_query) - limit) for e in (0.02, 0.01)]
    assert misses[0] < 1e-2 * np.abs(limit)
    close(misses[0] / misses[1], np.array([4.0]), 1e-2)


def test_the_papers_centred_step():
    """The loss is .218464 for d = N = 10 by the formula of `centred_optimum`; that of the plain step
    is lower."""
    best = theory.centred_optimum(LinearRegression())
    assert best.loss == pytest.approx(0.218464, abs=5e-7)
    assert best.loss > theory.gradient_descent_optimum(LinearRegression()).loss
    assert CentredDescent.best(LinearRegression()).learning_rate[...] == best.learning_rates[0]


@pytest.mark.parametrize("distribution", ["uniform", "normal", "laplace"])
def test_the_best_centred_step_has_the_loss_of_theory(distribution):
    task = LinearRegression(
        dim=3,
        context_size=4,
        outputs=2,
        input_distribution=distribution,
        input_range=0.7,
        weight_scale=1.3,
    )
    task = replace(task, label_noise=0.6)
    best, episodes = theory.centred_optimum(task), drawn(task, 0, 20_000)
    found = jax.jit(predict)(CentredDescent.best(task), episodes)
    losses = np.asarray(np.sum((found - episodes.y_query) ** 2, axis=0) / 2)
    error = losses.std() / np.sqrt(losses.size)
    assert abs(losses.mean() - best.loss) < 3 * error
    # The loss is quadratic in the step, so the best one for these episodes has a closed form too.
    rate = np.sum(found * episodes.y_query) / np.sum(found**2)
    assert abs(rate - 1) < 0.05


def test_one_point_is_its_own_mean():
    task = replace(TASK, context_size=1)
    best = theory.centred_optimum(task)
    assert best.learning_rates == (0.0,)
    assert best.loss == theory.predict_zero_loss(task)


# All of them


@pytest.mark.parametrize("learner", LEARNERS, ids=named)
def test_the_order_of_points_means_nothing(learner, close):
    x, y, x_query = random_context(2, 2, 5)
    close(answer(learner, x[::-1], y[::-1], x_query), answer(learner, x, y, x_query), 1e-10)


@pytest.mark.parametrize("learner", TUNABLE, ids=named)
def test_every_parameter_has_a_gradient(learner):
    gradient = jax.jit(jax.grad(metrics.loss))(learner, drawn(TASK, 0, 8))
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(gradient))


BAD = [
    (lambda: FunctionalDescent(0.1, 0.1, 0), "steps must be a whole number of at least 1, got 0"),
    (
        lambda: FunctionalDescent(0.1, [0.1, 0.2], 3),
        "learning_rate must be one number, or one for each of 3 steps, got [0.1, 0.2]",
    ),
    (lambda: KernelRidge(0.1, -1.0), "penalty must be a finite number of at least 0, got -1.0"),
    (
        lambda: CentredDescent.best(replace(TASK, distractors=2)),
        "task.distractors must be None or 0 here",
    ),
    (
        lambda: CentredDescent.best(replace(TASK, input_distribution="exponential")),
        "task.input_distribution must be one of uniform, normal, laplace, got 'exponential'",
    ),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_refuses(build, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        build()
