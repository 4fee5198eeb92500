"""Losses under noise of mixed scales compared with simulations and with published values."""

from dataclasses import replace

import numpy as np
import pytest

from toyicl import theory
from toyicl.core.errors import BadInput
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import mixed_noise
from toyicl.theory.gram_spectrum import gram_spectrum

TASK = LinearRegression(dim=3, context_size=6, input_distribution="normal", weight_scale=1.5)
TABLE = LinearRegression(dim=10, context_size=20, input_distribution="normal")
"""The setting of Vladymyrov et al. (2024), Table 1."""


def simulated(task, largest, tasks=100_000):
    """Losses of ridge with the known and the mean variance, and of the best step, with their errors."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(tasks, task.context_size, task.dim))
    w = task.weight_scale * draw.normal(size=(tasks, task.dim))
    sigma = largest * draw.random(tasks)
    y = np.einsum("tnd,td->tn", x, w) + sigma[:, None] * draw.normal(size=x.shape[:2])
    moment, gram = np.einsum("tnd,tn->td", x, y), np.einsum("tnd,tne->tde", x, x)
    mean = mixed_noise.with_mean_noise(task, largest)
    rate = theory.gradient_descent_optimum(mean).learning_rates[0]
    eye = np.eye(task.dim)

    def ridge(variance):
        matrix = gram + (variance / task.weight_scale**2)[:, None, None] * eye
        return np.linalg.solve(matrix, moment[..., None])[..., 0]

    estimates = {
        "known": ridge(sigma**2),
        "constant": ridge(np.full(tasks, largest**2 / 3)),
        "step": rate / task.context_size * moment,
    }
    losses = {name: 0.5 * np.sum((own - w) ** 2, axis=1) for name, own in estimates.items()}
    return {name: (v.mean(), v.std() / np.sqrt(tasks)) for name, v in losses.items()}


def test_losses_are_those_of_a_simulation():
    largest = 2.0
    mean = mixed_noise.with_mean_noise(TASK, largest)
    exact = {
        "known": mixed_noise.known_noise_loss(TASK, largest),
        "constant": theory.ridge(mean)[0],
        "step": theory.gradient_descent_optimum(mean).loss,
    }
    for name, (value, error) in simulated(TASK, largest).items():
        assert abs(value - exact[name]) < 4 * error, name
        assert error < 0.01 * value


def test_without_noise_ridge_is_least_squares():
    assert mixed_noise.known_noise_loss(TASK, 0.0) == 0
    few = replace(TASK, context_size=2)
    np.testing.assert_allclose(mixed_noise.known_noise_loss(few, 0.0), 1.5**2 / 2)


@pytest.mark.slow
def test_losses_of_the_published_setting_are_those_of_the_formula_and_of_sampled_eigenvalues():
    """(d / 2) (d + 1 + v) / (N + d + 1 + v) for v = s^2 / 3, minus ridge with the known noise."""
    spectrum = gram_spectrum(TABLE, tasks=50_000, seed=1)
    scales = (np.arange(200) + 0.5) / 200
    excess = {1: 1.646, 3: 1.175, 5: 0.897, 7: 0.798}
    for largest, expected in excess.items():
        mean = mixed_noise.with_mean_noise(TABLE, largest)
        loss, variance = theory.gradient_descent_optimum(mean).loss, largest**2 / 3
        np.testing.assert_allclose(loss, 5 * (11 + variance) / (31 + variance), rtol=1e-10)
        known = mixed_noise.known_noise_loss(TABLE, largest)
        penalties = (largest * scales) ** 2
        each = np.mean([0.5 * np.sum(p / (spectrum + p), axis=1) for p in penalties], axis=0)
        assert abs(known - each.mean()) < 4 * each.std() / np.sqrt(len(each))
        np.testing.assert_allclose(loss - known, expected, atol=1e-3)


def test_a_task_with_noise_and_a_negative_scale_are_refused():
    with pytest.raises(BadInput, match=r"task\.label_noise must be None"):
        mixed_noise.known_noise_loss(replace(TASK, label_noise=0.1), 1.0)
    with pytest.raises(BadInput, match="largest_noise must be"):
        mixed_noise.with_mean_noise(TASK, -1.0)
