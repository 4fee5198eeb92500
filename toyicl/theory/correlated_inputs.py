"""One linear layer on correlated inputs: what any step matrix loses, and which is the best.

A single linear attention layer predicts sum_i y_i x_i . G x_q with some d x d matrix G, as does one
step of gradient descent preconditioned by N G. For normal inputs of covariance Lambda, the scatter
S = sum_i x_i x_i^T has

    E S = N Lambda,   E S^2 = N [(N + 1) Lambda^2 + tr(Lambda) Lambda]

and everything else follows. Losses are those of `toyicl.theory.closed_form`: 0.5 E |prediction -
y_query|^2, the query's label without noise; omega is the scale of the weights and sigma that of
the label noise.
"""

from typing import Any, NamedTuple

import numpy as np

from toyicl.core.config import require, require_positive
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import Optimum
from toyicl.theory.gram_spectrum import require_no_distractors


class BestMatrix(NamedTuple):
    """The best step matrix on a task, and what it loses."""

    matrix: np.ndarray
    """G, (d, d): the preconditioner divided by N."""
    loss: float


def input_covariance(task: LinearRegression) -> np.ndarray:
    """Covariance Lambda of the inputs, (d, d), float64.

    Raises ValueError for laws other than the normal one and for distractors: the moments above hold
    for normal inputs and true labels only.
    """
    rule = "normal here: the moments of correlated inputs are known for that law only"
    require(
        task.input_distribution == "normal",
        "task.input_distribution",
        rule,
        task.input_distribution,
    )
    require_no_distractors(task)
    area = float(task.input_range) ** 2
    if task.covariance is None:
        return area * np.eye(task.dim)
    entries = np.asarray(task.covariance, np.float64).ravel()
    full = entries.size == task.dim**2
    return area * (entries.reshape(task.dim, task.dim) if full else np.diag(entries))


def step_matrix_loss(task: LinearRegression, matrix: Any) -> float:
    """Loss of predicting sum_i y_i x_i . G x_q, for any G, `matrix`, (d, d).

        (m / 2) omega^2 [tr Lambda - 2 tr(E S G Lambda) + tr(G^T E S^2 G Lambda)]
        + (m / 2) sigma^2 tr(G^T E S G Lambda)

    Raises ValueError for another shape and for what `input_covariance` refuses.
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
    """The best of all single layers: G* = [(tr Lambda + sigma^2 / omega^2) I + (N + 1) Lambda]^-1.

    Ahn et al. (2023), with noise added. It shrinks directions of much variance, where a few points
    already say enough. Raises ValueError for what `input_covariance` refuses and for weights of
    scale 0.
    """
    covariance = input_covariance(task)
    require_positive("task.weight_scale", task.weight_scale)
    noise = (float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2
    inverse = (np.trace(covariance) + noise) * np.eye(task.dim)
    matrix = np.linalg.inv(inverse + (task.context_size + 1) * covariance)
    return BestMatrix(matrix, step_matrix_loss(task, matrix))


def best_scalar_step(task: LinearRegression) -> Optimum:
    """The best single step of plain gradient descent, G = (eta / N) I: what one number can reach."""
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
