"""One step with a step matrix on correlated inputs: the loss of any matrix, and the best one.

A single linear attention layer predicts sum_i y_i x_i . G x_q with some d x d matrix G, as does one
step of gradient descent preconditioned by N G. For normal inputs of covariance Lambda, the scatter
S = sum_i x_i x_i^T has, for any symmetric matrix C,

    E S = N Lambda,   E S C S = N [(N + 1) Lambda C Lambda + tr(C Lambda) Lambda]

from which all formulas follow. Losses are those of `toyicl.theory.closed_form`, 0.5 E |prediction -
y_query|^2, where y_query has no label noise. omega is the scale of the weights, omega^2 C the
covariance of each row of W, by default with C = I, and sigma the scale of the label noise.
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
    than 0, since the moments above hold for normal inputs, true labels and centred weights only, and
    for inputs that are rotated in each episode.
    """
    rule = "normal here, as the moments of other correlated inputs are not known"
    require(
        task.input_distribution == "normal",
        "task.input_distribution",
        rule,
        task.input_distribution,
    )
    require_no_distractors(task)
    rule = "False here, as the covariance would differ between episodes"
    require(not task.rotated, "task.rotated", rule, task.rotated)
    require_no_weight_mean(task)
    return float(task.input_range) ** 2 * _as_matrix(task.covariance, task.dim)


def weight_covariance(task: LinearRegression) -> np.ndarray:
    """Covariance C of each row of W at weight scale 1, (d, d), float64."""
    return _as_matrix(task.weight_covariance, task.dim)


def _as_matrix(covariance: Any, dim: int) -> np.ndarray:
    """A covariance of a task, which may be None or a diagonal, as a matrix, (d, d)."""
    if covariance is None:
        return np.eye(dim)
    entries = np.asarray(covariance, np.float64).ravel()
    return entries.reshape(dim, dim) if entries.size == dim**2 else np.diag(entries)


def step_matrix_loss(task: LinearRegression, matrix: Any) -> float:
    """Loss of the prediction sum_i y_i x_i . G x_q, where G is `matrix`, (d, d).

        (m / 2) omega^2 [tr C Lambda - 2 tr(C E S G Lambda) + tr(G^T E S C S G Lambda)]
        + (m / 2) sigma^2 tr(G^T E S G Lambda)

    Raises BadInput for another shape and for tasks that `input_covariance` refuses.
    """
    covariance, prior, mean, square = _moments(task)
    step = np.asarray(matrix, np.float64)
    require(step.shape == covariance.shape, "matrix", f"of shape {covariance.shape}", step.shape)
    signal = np.trace(prior @ covariance) - 2 * np.trace(prior @ mean @ step @ covariance)
    signal += np.trace(step.T @ square @ step @ covariance)
    noise = np.trace(step.T @ mean @ step @ covariance)
    power, variance = float(task.weight_scale) ** 2, float(task.label_noise or 0.0) ** 2
    return float(task.outputs / 2 * (power * signal + variance * noise))


def best_step_matrix(task: LinearRegression) -> BestMatrix:
    """The best step matrix: G* = [(tr C Lambda + sigma^2 / omega^2) I + (N + 1) C Lambda]^-1 C.

    Ahn et al. (2023), extended by label noise. With C = I steps are smaller in directions of larger
    variance. With C = Lambda^-1 and no noise G* = Lambda^-1 / (N + d + 1). Raises BadInput for tasks
    that `input_covariance` refuses and for weights of scale 0.
    """
    covariance, prior, _, _ = _moments(task)
    together = prior @ covariance
    inverse = (np.trace(together) + _relative_noise(task)) * np.eye(task.dim)
    matrix = np.linalg.solve(inverse + (task.context_size + 1) * together, prior)
    return BestMatrix(matrix, step_matrix_loss(task, matrix))


def best_scalar_step(task: LinearRegression) -> Optimum:
    """The best single step of gradient descent, G = (eta / N) I, on correlated inputs.

    Raises BadInput for tasks that `input_covariance` refuses and for weights of scale 0.
    """
    covariance, prior, mean, square = _moments(task)
    second = square + _relative_noise(task) * mean
    step = np.trace(prior @ mean @ covariance) / np.trace(second @ covariance)
    loss = step_matrix_loss(task, step * np.eye(task.dim))
    return Optimum(1, loss, (float(step) * task.context_size,))


def _relative_noise(task: LinearRegression) -> float:
    """sigma^2 / omega^2. Raises BadInput for weights of scale 0."""
    require_positive("task.weight_scale", task.weight_scale)
    return (float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2


def _moments(task: LinearRegression) -> tuple[np.ndarray, ...]:
    """Lambda, C, E S and E S C S, each (d, d)."""
    covariance, prior = input_covariance(task), weight_covariance(task)
    mean = task.context_size * covariance
    square = (task.context_size + 1) * mean @ prior @ covariance
    return covariance, prior, mean, square + np.trace(prior @ covariance) * mean
