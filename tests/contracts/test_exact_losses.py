"""Exact losses on all variants of the linear task: refused, or those of simulated episodes."""

import jax
import numpy as np
import pytest
from compiled import drawn

from toyicl import theory
from toyicl.algorithms import (
    GradientDescent,
    GradientDescentPlusPlus,
    NadarayaWatson,
    PreconditionedGradientDescent,
    Ridge,
)
from toyicl.analysis import metrics
from toyicl.core.errors import BadInput
from toyicl.tasks.linear import LinearRegression

SETTINGS = {
    "normal": {"input_distribution": "normal"},
    "uniform": {},
    "noise": {"input_distribution": "normal", "label_noise": 0.7},
    "covariance": {"input_distribution": "normal", "covariance": (2.0, 0.5, 0.1)},
    "mean": {"input_distribution": "normal", "weight_mean": 1.5},
    "weight covariance": {"input_distribution": "normal", "weight_covariance": (2.0, 0.5, 0.1)},
    "both covariances": {
        "input_distribution": "normal",
        "covariance": (2.0, 0.5, 0.1),
        "weight_covariance": (0.5, 2.0, 1.0),
    },
    "rotated": {"input_distribution": "normal", "rotated": True},
    "rotated covariance": {
        "input_distribution": "normal",
        "rotated": True,
        "covariance": (2.0, 0.5, 0.1),
    },
    "distractors": {"input_distribution": "normal", "distractors": 2},
}


def shared(task):
    best = theory.gd_shared(task, 2)
    return best.loss, GradientDescent(best.learning_rates[0], 2)


def per_step(task):
    best = theory.gd_per_step(task, 2)
    return best.loss, GradientDescent(np.array(best.learning_rates), 2)


def curved(task):
    best = theory.gdpp_shared(task, 2)
    return best.loss, GradientDescentPlusPlus(best.learning_rates[0], best.curvatures[0], 2)


def ridge(task):
    loss, penalty = theory.ridge(task)
    return loss, Ridge(max(penalty, 1e-9))


def matrix(task):
    best = theory.best_step_matrix(task)
    return best.loss, PreconditionedGradientDescent(task.context_size * best.matrix, 1)


def softmax(task):
    return theory.softmax_head_loss(task, 0.3, 1.0), NadarayaWatson(0.3)


EXACT = (shared, per_step, curved, ridge, matrix, softmax)
"""Functions of a task that return an exact loss, and the learner that has it."""
BATCHES, EPISODES = 8, 5000


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_exact_loss_is_refused_or_that_of_simulated_episodes(settings):
    task = LinearRegression(dim=3, context_size=6, **SETTINGS[settings])
    sets = [drawn(task, n, EPISODES) for n in range(BATCHES)]
    pairs = {"predict zero": lambda task: (theory.predict_zero_loss(task), None)}
    for name, exact in pairs.items() | {(one.__name__, one) for one in EXACT}:
        try:
            loss, learner = exact(task)
        except BadInput:
            continue
        if learner is None:
            found = [metrics.zero_loss(each) for each in sets]
        else:
            found = [jax.jit(each.loss)(learner) for each in sets]
        error = np.std(found, ddof=1) / np.sqrt(BATCHES)
        assert abs(np.mean(found) - loss) < 5 * error, name


def test_normal_inputs_with_noise_are_refused_by_none():
    task = LinearRegression(dim=3, context_size=6, **SETTINGS["noise"])
    for exact in EXACT:
        loss, _ = exact(task)
        assert np.isfinite(loss)
