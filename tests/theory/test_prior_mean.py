"""Gradient descent on weights with a mean: published numbers, simulation, refused tasks."""

from dataclasses import replace

import numpy as np
import pytest
from compiled import drawn, predict

from toyicl import theory
from toyicl.algorithms import GradientDescent
from toyicl.core.errors import BadInput
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(dim=5, context_size=20, input_distribution="normal")


def with_squared_mean(square):
    return replace(TASK, weight_mean=(square / TASK.dim) ** 0.5)


def errors(learner, task, episodes=100_000):
    batch = drawn(task, 7, episodes)
    return 0.5 * np.sum(np.asarray(predict(learner, batch) - batch.y_query) ** 2, axis=0)


def within(losses, expected):
    """Whether simulated losses, one an episode, have the expected mean, up to three errors."""
    assert abs(losses.mean() - expected) < 3 * losses.std() / np.sqrt(losses.size)


@pytest.mark.parametrize(
    ("square", "zero"), [(0, 0.57692), (1, 0.69231), (5, 1.15385), (25, 3.46154)]
)
def test_one_step_has_the_known_losses(square, zero):
    task = with_squared_mean(square)
    from_mean = theory.recentred(task, task.weight_mean)
    assert theory.gradient_descent_optimum(from_mean).loss == pytest.approx(0.576923, rel=1e-5)
    from_zero = theory.gradient_descent_optimum(theory.recentred(task))
    assert from_zero.loss == pytest.approx(zero, rel=1e-5)


@pytest.mark.parametrize("distribution", ["normal", "uniform", "laplace"])
@pytest.mark.parametrize("start", [0.0, 0.4, 1.3])
def test_the_loss_from_any_start_is_that_of_a_simulation(start, distribution):
    task = replace(
        TASK,
        dim=3,
        context_size=6,
        outputs=2,
        input_distribution=distribution,
        weight_mean=1.3,
        weight_scale=0.7,
        label_noise=0.5,
    )
    rate = 0.6 * theory.gradient_descent_optimum(theory.recentred(task, start)).learning_rates[0]
    learner = GradientDescent(rate, initial_weights=np.full((2, 3), start))
    expected = theory.gradient_descent_loss(theory.recentred(task, start), rate)
    within(errors(learner, task), expected)


@pytest.mark.parametrize("steps", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_best_steps_from_the_mean_and_from_0(steps):
    """Their losses are those of simulation, and those from the mean do not depend on it."""
    task = with_squared_mean(5)
    centred = theory.gd_shared(replace(task, weight_mean=None), steps).loss
    within(errors(GradientDescent.from_mean(task, steps), task), centred)
    from_zero = theory.gd_shared(theory.recentred(task), steps).loss
    assert from_zero == pytest.approx(2 * centred, rel=1e-3)
    within(errors(GradientDescent.shared(task, steps), task), from_zero)


def test_a_task_without_a_mean_is_returned_as_it_is():
    noisy = replace(TASK, distractors=3)
    assert theory.recentred(noisy) is noisy
    assert theory.recentred(TASK, 2.0).weight_scale == pytest.approx(np.sqrt(5))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (theory.gradient_descent_optimum, "task.weight_mean must be None or 0 here"),
        (theory.best_scalar_step, "task.weight_mean must be None or 0 here"),
        (theory.saddle_losses, "task.weight_mean must be None or 0 here"),
        (theory.ridge, "task.weight_mean must be None or 0 here"),
        (
            lambda task: theory.recentred(replace(task, distractors=2)),
            "task.distractors must be None or 0 here",
        ),
    ],
)
def test_formulas_refuse_what_they_do_not_take_into_account(function, message):
    with pytest.raises(BadInput, match=message):
        function(with_squared_mean(5))
