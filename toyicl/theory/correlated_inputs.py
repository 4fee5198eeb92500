"""One step with a step matrix on correlated inputs: the loss of any matrix, and the best one.

A single linear attention layer predicts sum_i y_i x_i . G x_q with some d x d matrix G, as does one
step of gradient descent preconditioned by N G. For normal inputs of covariance Lambda, the scatter
S = sum_i x_i x_i^T has

    E S = N Lambda,   E S^2 = N [(N + 1) Lambda^2 + tr(Lambda) Lambda]

from which all formulas follow. Losses are those of `toyicl.theory.closed_form`, 0.5 E |prediction -
y_query|^2, where y_query has no label noise. omega is the scale of the weights and sigma that of
the label noise.
"""

from typing import Any, NamedTuple

import numpy as np

from toyicl.core.config import require, require_positive
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import Optimum
from toyicl.theory.gram_spectrum import require_no_distractors, require_no_weight_mean


class BestMatrix(NamedTuple):
    """The best step matrix on a task, and its loss."""

    matrix: np.ndarray
    """G, (d, d): the preconditioner divided by N."""
    loss: float
    """Expected loss."""


def input_covariance(task: LinearRegression) -> np.ndarray:
    """Covariance Lambda of the inputs, (d, d), float64.

    Raises BadInput for inputs that are not normal, for distractors and for weights with another mean
    than 0, since the moments above hold for normal inputs, true labels and centred weights only.
    """
    rule = "normal here, as the moments of other correlated inputs are not known"
    require(
        task.input_distribution == "normal",
        "task.input_distribution",
        rule,
        task.input_distribution,
    )
    require_no_distractors(task)
    require_no_weight_mean(task)
    area = float(task.input_range) ** 2
    if task.covariance is None:
        return area * np.eye(task.dim)
    entries = np.asarray(task.covariance, np.float64).ravel()
    full = entries.size == task.dim**2
    return area * (entries.reshape(task.dim, task.dim) if full else np.diag(entries))


def step_matrix_loss(task: LinearRegression, matrix: Any) -> float:
    """Loss of the prediction sum_i y_i x_i . G x_q, where G is `matrix`, (d, d).

        (m / 2) omega^2 [tr Lambda - 2 tr(E S G Lambda) + tr(G^T E S^2 G Lambda)]
        + (m / 2) sigma^2 tr(G^T E S G Lambda)

    Raises BadInput for another shape and for tasks that `input_covariance` refuses.
    """
    covariance = input_covariance(task)
    step = np.asarray(matrix, np.float64)
    require(step.shape == covariance.shape, "matrix", f"of shape {covariance.shape}", step.shape)
    mean, square = _moments(covariance, task.context_size)
    signal = np.trace(covariance) - 2 * np.trace(mean @ step @ covariance)
    signal += np.trace(step.T @ square @ step @ covariance)
    noise = np.trace(step.T @ mean @ step @ covariance)
    power, variance = float(task.weight_scale) ** 2, float(task.label_noise or 0.0) ** 2
    return float(task.outputs / 2 * (power * signal + variance * noise))


def best_step_matrix(task: LinearRegression) -> BestMatrix:
    """The best step matrix: G* = [(tr Lambda + sigma^2 / omega^2) I + (N + 1) Lambda]^-1.

    Ahn et al. (2023), extended by label noise. Steps are smaller in directions of larger variance.
    Raises BadInput for tasks that `input_covariance` refuses and for weights of scale 0.
    """
    covariance = input_covariance(task)
    require_positive("task.weight_scale", task.weight_scale)
    noise = (float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2
    inverse = (np.trace(covariance) + noise) * np.eye(task.dim)
    matrix = np.linalg.inv(inverse + (task.context_size + 1) * covariance)
    return BestMatrix(matrix, step_matrix_loss(task, matrix))


def best_scalar_step(task: LinearRegression) -> Optimum:
    """The best single step of gradient descent, G = (eta / N) I, on correlated inputs.

    Raises BadInput for tasks that `input_covariance` refuses and for weights of scale 0.
    """
    covariance = input_covariance(task)
    require_positive("task.weight_scale", task.weight_scale)
    noise = (float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2
    mean, square = _moments(covariance, task.context_size)
    step = np.trace(mean @ covariance) / np.trace((square + noise * mean) @ covariance)
    loss = step_matrix_loss(task, step * np.eye(task.dim))
    return Optimum(1, loss, (float(step) * task.context_size,))


def _moments(covariance: np.ndarray, context_size: int) -> tuple[np.ndarray, np.ndarray]:
    """E S and E S^2, both (d, d)."""
    mean = context_size * covariance
    return mean, (context_size + 1) * mean @ covariance + np.trace(covariance) * mean
