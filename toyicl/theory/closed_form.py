"""Closed forms for one step of gradient descent and one head of linear attention.

Losses are 0.5 E |prediction - y_query|^2, summed over outputs, where y_query has no label noise. m2
= E x^2 and m4 = E x^4 are moments of an input coordinate, omega is the scale of the weights and
sigma that of the label noise. Learning rates are eta, in (eta / N) sum_i, and curvatures are gamma,
in a plain sum. Input coordinates must be independent and symmetric about 0 (`input_moments`).

Several steps have no such formulas; see `toyicl.theory.optimal_steps`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from toyicl.core.config import require, require_positive
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.gram_spectrum import input_moments, require_no_distractors


@dataclass(frozen=True)
class Optimum:
    """The best steps of one kind on a task, and their loss."""

    steps: int
    """Number of steps, K."""
    loss: float
    """Expected loss."""
    learning_rates: tuple[float, ...]
    """eta: one that all steps share, or one for each step."""
    curvatures: tuple[float, ...] = ()
    """gamma: empty for gradient descent; one that all steps share, or one for each step but the last,
    whose curvature has no effect on the prediction."""


def predict_zero_loss(task: LinearRegression) -> float:
    """Loss of the prediction 0: m omega^2 d m2 / 2."""
    second, _ = input_moments(task)
    return task.outputs * float(task.weight_scale) ** 2 * task.dim * second / 2


def gradient_descent_loss(task: LinearRegression, learning_rate: float) -> float:
    """Loss of one step of gradient descent from 0 with learning rate eta.

    With M = N - D true labels and D distractors of scale tau, the loss is m omega^2 d m2 / 2 times

        1 - 2 eta m2 M / N
          + (eta / N)^2 [M (m4 + (M + d - 2) m2^2) + (M sigma^2 + D tau^2) m2 / omega^2]
    """
    constant, slope, curve = _one_step(task)
    return constant - 2 * slope * learning_rate + curve * learning_rate**2


def gradient_descent_optimum(task: LinearRegression) -> Optimum:
    """The best single step: eta* = N / (m2 (N + d - 2 + m4 / m2^2) + sigma^2 / omega^2).

    This is the formula without distractors. With distractors the optimum is that of
    `gradient_descent_loss`. Raises BadInput for weights of scale 0.
    """
    require_positive("task.weight_scale", task.weight_scale)
    constant, slope, curve = _one_step(task)
    rate = slope / curve if slope else 0.0
    return Optimum(1, constant - slope * rate, (rate,))


def centred_optimum(task: LinearRegression) -> Optimum:
    """The best single step on centred inputs: (eta / N) sum_i (x_i - mean x) . x_q y_i.

    The centred scatter matrix sum_i (x_i - mean x) x_i^T has mean (N - 1) m2 I and mean square C I,

        C = (N - 1) [(d - 1) m2^2 + (m4 - 3 m2^2) (N - 1) / N + (N + 1) m2^2]

    so that eta* / N = (N - 1) m2 / (C + (N - 1) m2 sigma^2 / omega^2). The difference of two
    softmax heads with small logits of opposite sign is this step, and not a step on inputs that are
    not centred. Raises BadInput for distractors and for weights of scale 0.
    """
    second, fourth = input_moments(task)
    require_no_distractors(task)
    require_positive("task.weight_scale", task.weight_scale)
    n, d, free = task.context_size, task.dim, task.context_size - 1
    noise = (float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2
    uneven = (fourth - 3 * second**2) * free / n
    curve = free * ((d - 1) * second**2 + uneven + (n + 1) * second**2 + second * noise)
    step = free * second / curve if free else 0.0  # a single point is its own mean
    return Optimum(1, predict_zero_loss(task) * (1 - step * free * second), (step * n,))


def optimal_scale(task: LinearRegression) -> float:
    """z* = eta* / N: the best single linear attention layer predicts z* sum_i y_i (x_i . x_q)."""
    return gradient_descent_optimum(task).learning_rates[0] / task.context_size


def excess_loss(task: LinearRegression, implicit: Any) -> float:
    """Loss of the prediction sum_i y_i x_i . G x_q, minus that of the best single step.

    G is `implicit`, (d, d). The excess is proportional to |G - z* I|^2, the sum of squares over the
    entries, with z* from `optimal_scale`. One step of gradient descent is therefore the only
    optimum, as in Mahankali et al. (2023). Raises BadInput for another shape.
    """
    matrix = _square("implicit", implicit, task.dim)
    _, _, curve = _one_step(task)
    miss = matrix - optimal_scale(task) * np.eye(task.dim)
    return curve * task.context_size**2 / task.dim * float(np.sum(miss**2))


def single_head_loss(task: LinearRegression, key_query: Any, value_output: Any) -> float:
    """Loss of a single head of linear attention with any weights.

    Tokens are e_i = (x_i, y_i), and (x_q, 0) for the query, which attends to the N labelled tokens
    only. The prediction is minus the last entry of its update, sum_i P W_V e_i (e_i . W_K^T W_Q
    e_q). `key_query` is W_K^T W_Q and `value_output` is P W_V, both (d + 1, d + 1). The prediction
    has terms of degree 0, 1 and 2 in the task's weights, and only the term of degree 1 can reduce
    the loss. Raises BadInput for more than one output, label noise, distractors, or another shape.
    """
    second, fourth = input_moments(task)
    require(task.outputs == 1, "task.outputs", "1 here", task.outputs)
    require(not task.label_noise, "task.label_noise", "None or 0 here", task.label_noise)
    require_no_distractors(task)
    d, n, omega = task.dim, task.context_size, float(task.weight_scale)
    scores = _square("key_query", key_query, d + 1)
    written = -_square("value_output", value_output, d + 1)[d]
    from_x, from_y = scores[:d, :d], scores[d, :d]
    out_x, out_y = written[:d], written[d]

    # E S^2 = scatter I, E S tr S = trace_square / d I, and E S v v^T S = `spread` for v = A x_q.
    scatter = n * (fourth + (n + d - 2) * second**2)
    trace_square = (n * d * second) ** 2 + n * d * (fourth - second**2)
    keys = from_x @ from_x.T
    spread = n * second**2 * (np.trace(keys) * np.eye(d) + (n + 1) * keys)
    spread += n * (fourth - 3 * second**2) * np.diag(np.diag(keys))

    implicit = np.outer(out_x, from_y) + out_y * from_x
    degree_1 = d - 2 * n * second * np.trace(implicit) + scatter * np.sum(implicit**2)
    degree_0 = out_x @ spread @ out_x
    across = 2 * out_y * (out_x @ from_x @ from_y) * trace_square / d
    degree_2 = out_y**2 * (from_y @ from_y) * (trace_square + 2 * d * scatter)
    return float(second / 2 * (degree_0 + omega**2 * (degree_1 + across) + omega**4 * degree_2))


def _square(name: str, matrix: Any, size: int) -> np.ndarray:
    array = np.asarray(matrix, np.float64)
    require(array.shape == (size, size), name, f"a {size} x {size} matrix", array.shape)
    return array


def _one_step(task: LinearRegression) -> tuple[float, float, float]:
    """(a, b, c) of the loss a - 2 b eta + c eta^2 of one step of gradient descent."""
    second, fourth = input_moments(task)
    n, d, false = task.context_size, task.dim, int(task.distractors or 0)
    power, true = float(task.weight_scale) ** 2, n - false
    noise = true * float(task.label_noise or 0.0) ** 2 + false * float(task.distractor_scale) ** 2
    zero = task.outputs * d * second / 2
    curve = power * true * (fourth + (true + d - 2) * second**2) + noise * second
    return zero * power, zero * power * second * true / n, zero * curve / n**2
