"""Closed forms: what the best steps are and what every reference loses, exactly.

Losses are 0.5 E |prediction - y_query|^2, summed over outputs, against the query's noise-free label.
Throughout, m2 = E x^2 and m4 = E x^4 of an input coordinate, omega is the scale of the weights and
sigma that of the label noise; learning rates are eta, of (eta / N) sum_i, and curvatures gamma, of
the plain sum. Input coordinates must be independent and symmetric about 0 (`input_moments`).

One step and one attention head have closed forms. Several steps are read off the eigenvalues of the
scatter matrix (`toyicl.theory.gram_spectrum`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toyicl.core.config import require, require_positive, require_size
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.gram_spectrum import (
    input_moments,
    orthogonal_roots,
    population_loss,
    require_no_distractors,
    unit_law,
)
from toyicl.theory.step_search import (
    Problem,
    Vector,
    best_of,
    loss_and_slopes,
    residuals,
    spread,
    tune,
)


@dataclass(frozen=True)
class Optimum:
    """The best steps of one kind on a task, and what they lose."""

    steps: int
    """How many steps, K."""
    loss: float
    learning_rates: tuple[float, ...]
    """eta: one that all steps share, or one for each step."""
    curvatures: tuple[float, ...] = ()
    """gamma: empty for plain gradient descent, one that all steps share, or one for each step but
    the last, whose curvature moves nothing that is read."""


def predict_zero_loss(task: LinearRegression) -> float:
    """Loss of answering 0 always: m omega^2 d m2 / 2."""
    second, _ = input_moments(task)
    return task.outputs * float(task.weight_scale) ** 2 * task.dim * second / 2


def gradient_descent_loss(task: LinearRegression, learning_rate: float) -> float:
    """Loss of one step of gradient descent from 0, of any size eta.

    With M = N - D true labels and D distractors of scale tau, it is m omega^2 d m2 / 2 times

        1 - 2 eta m2 M / N
          + (eta / N)^2 [M (m4 + (M + d - 2) m2^2) + (M sigma^2 + D tau^2) m2 / omega^2]
    """
    constant, slope, curve = _one_step(task)
    return constant - 2 * slope * learning_rate + curve * learning_rate**2


def gradient_descent_optimum(task: LinearRegression) -> Optimum:
    """The best single step: eta* = N / (m2 (N + d - 2 + m4 / m2^2) + sigma^2 / omega^2).

    That is for true labels; distractors are covered too, by the minimum of `gradient_descent_loss`.
    """
    require_positive("task.weight_scale", task.weight_scale)
    constant, slope, curve = _one_step(task)
    rate = slope / curve if slope else 0.0
    return Optimum(1, constant - slope * rate, (rate,))


def centred_optimum(task: LinearRegression) -> Optimum:
    """The best single step on the centred scatter: (eta / N) sum_i (x_i - mean x) . x_q y_i.

    The centred scatter sum_i (x_i - mean x) x_i^T has mean (N - 1) m2 I and mean square C I,

        C = (N - 1) [(d - 1) m2^2 + (m4 - 3 m2^2) (N - 1) / N + (N + 1) m2^2]

    so that eta* / N = (N - 1) m2 / (C + (N - 1) m2 sigma^2 / omega^2). Two softmax heads of opposite
    small logits take this step, not the plain one. Raises ValueError for distractors.
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
    """z* = eta* / N: the best single linear attention layer acts as z* sum_i y_i (x_i . x_q)."""
    return gradient_descent_optimum(task).learning_rates[0] / task.context_size


def excess_loss(task: LinearRegression, implicit: Any) -> float:
    """How much more than the best single step a layer loses that predicts sum_i y_i x_i . G x_q.

    Proportional to |G - z* I|^2 over the entries of G, `implicit`, (d, d). With z* from
    `optimal_scale`; so one step of gradient descent is the only optimum, as in Mahankali et al.
    (2023). Raises ValueError for another shape.
    """
    matrix = _square("implicit", implicit, task.dim)
    _, _, curve = _one_step(task)
    miss = matrix - optimal_scale(task) * np.eye(task.dim)
    return curve * task.context_size**2 / task.dim * float(np.sum(miss**2))


def single_head_loss(task: LinearRegression, key_query: Any, value_output: Any) -> float:
    """Loss of any single head of linear attention, its weights as learned or as constructed.

    Tokens are e_i = (x_i, y_i), the query's (x_q, 0); it attends to the N labelled tokens only and
    answers minus the last entry of its update, sum_i P W_V e_i (e_i . W_K^T W_Q e_q). `key_query` is
    W_K^T W_Q and `value_output` is P W_V, both (d + 1, d + 1). The prediction has parts of degree 0,
    1 and 2 in the weights; only that of degree 1 can help. Raises ValueError for more than one
    output, label noise, distractors, or another shape.
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

    # E S^2 = scatter I, E S tr S = trace_square / d I, E S v v^T S = the matrix `spread`, v = A x_q.
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


def gd_shared(task: LinearRegression, steps: int) -> Optimum:
    """The best K steps of gradient descent of one size.

    Raises ValueError, with more than one step, for distractors; so do the optima below.
    """
    require_size("steps", steps)
    if steps == 1:
        return gradient_descent_optimum(task)
    return _optimum(task, steps, *tune(_unit_problem(task), steps, [_unit_scale(task)], []))


def gd_per_step(task: LinearRegression, steps: int) -> Optimum:
    """The best K steps of gradient descent, each of its own size, the largest first.

    Minimising E sum_s [R^2 + lambda (1 - R)^2 / s], lambda = sigma^2 / omega^2, over polynomials of
    degree K with R(0) = 1 completes a square: (s + lambda) R(s) = lambda + s P(s) / P(-lambda), with
    P the orthogonal polynomial of degree K under s times the law of eigenvalues. Steps are the
    reciprocals of R's roots. Without noise these are P's, all real; with much noise some are complex,
    real steps cannot reach that R, and the best real ones are searched for.
    """
    require_size("steps", steps)
    if steps == 1:
        return gradient_descent_optimum(task)
    values, weights, noise = problem = _unit_problem(task)
    roots = orthogonal_roots(values, values * weights, steps)
    if noise == 0:
        return _optimum(task, steps, np.sort(1 / roots)[::-1], [])
    shifted = (-1) ** steps * np.poly(roots) / np.prod(roots + noise)  # P(s) / P(-lambda)
    roots = np.roots(np.polydiv(np.append(shifted, noise), [1, noise])[0])
    # Complex pairs start apart: equal steps have equal slopes and would never part. So do shared steps,
    # the second start, which the first need not end below.
    shared, _ = tune(problem, steps, [_unit_scale(task)], [])
    apart = shared * np.linspace(1.1, 0.9, steps)
    starts: list[tuple[Vector, Vector]] = [
        ((1 + 0.1 * np.sign(roots.imag)) / np.abs(roots), []),
        (apart, []),
        (np.full(steps, shared), []),
    ]
    rates, _ = best_of(problem, steps, starts)
    return _optimum(task, steps, np.sort(rates)[::-1], [])


def gdpp_shared(task: LinearRegression, steps: int) -> Optimum:
    """The best K steps of GD++ with one (eta, gamma); von Oswald et al. (2022), appendix A.10.

    Never worse than `gd_shared`, one of the points it is searched from. At K = 1 gamma has no effect
    and is given as 0.
    """
    require_size("steps", steps)
    if steps == 1:
        return replace(gradient_descent_optimum(task), curvatures=(0.0,))
    problem, scale = _unit_problem(task), _unit_scale(task)
    plain, _ = tune(problem, steps, [scale], [])
    starts: list[tuple[Vector, Vector]] = [
        (plain, [0.0]),
        ([scale * steps], [scale / 3]),
        ([scale * steps / 2], [scale / 6]),
    ]
    return _optimum(task, steps, *best_of(problem, steps, starts))


def gdpp_per_layer(task: LinearRegression, steps: int) -> Optimum:
    """K steps of GD++, each with its own (eta, gamma), the last without gamma: a local optimum.

    The residual has degree (3^K - 1) / 2, so from K = 3 on the loss depends on eigenvalues so rare
    that no sample settles them: take it as a lower estimate, and measure on fresh tasks.
    One start has R(s) = sin(3^K t) / (3^K sin t), sin^2 t = s / bound, for the best bound.
    """
    require_size("steps", steps)
    if steps == 1:
        return gradient_descent_optimum(task)
    problem, shared = _unit_problem(task), gdpp_shared(task, steps)
    bounds = np.geomspace(0.03, 3, 40) * problem[0][-1]
    families = [4 / (3 * bound) * 9.0 ** np.arange(steps) for bound in bounds]
    losses = [loss_and_slopes(problem, steps, f, f[:-1])[0] for f in families]
    family, area = families[int(np.argmin(losses))], float(task.input_range) ** 2
    rates = np.full(steps, shared.learning_rates[0] * area / task.context_size)
    curvatures = np.full(steps - 1, shared.curvatures[0] * area)
    starts = [(family, family[:-1]), (rates, curvatures)]
    return _optimum(task, steps, *best_of(problem, steps, starts))


def ridge(task: LinearRegression) -> tuple[float, float]:
    """Loss and penalty of the best ridge regression: penalty sigma^2 / omega^2 on the plain sum.

    At penalty 0 it stands for its limit, the least-squares solution of least norm. Raises ValueError
    for distractors and for weights of scale 0.
    """
    require_positive("task.weight_scale", task.weight_scale)
    require_no_distractors(task)
    penalty = (float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2
    if penalty == 0:  # N points leave d - N directions unseen, and no doubt about the others
        unseen = max(task.dim - task.context_size, 0) / task.dim
        return predict_zero_loss(task) * unseen, 0.0
    return population_loss(task, lambda values: penalty / (values + penalty)), penalty


def bayes_loss(task: LinearRegression) -> float:
    """Loss of the posterior mean, which no learner beats; for Gaussian weights and noise, ridge."""
    return ridge(task)[0]


def floors(task: LinearRegression, depths: Iterable[int]) -> dict[str, Any]:
    """All references of a task as plain numbers, for each number of steps in `depths`.

    The command `floors` prints this.
    """
    loss, penalty = ridge(task)
    shared, per_step, curved = [], [], []
    for depth in depths:
        shared.append(_row(gd_shared(task, depth)))
        best = gd_per_step(task, depth)
        rates = list(best.learning_rates)
        per_step.append({"steps": depth, "loss": best.loss, "learning_rates": rates})
        curved.append(_row(gdpp_shared(task, depth)))
    return {
        "predict_zero": predict_zero_loss(task),
        "gd_shared": shared,
        "gd_per_step": per_step,
        "gdpp_shared": curved,
        "bayes": loss,
        "ridge": {"loss": loss, "penalty": penalty},
    }


def _row(best: Optimum) -> dict[str, Any]:
    """One shared optimum as plain numbers, with its curvature where it has one."""
    row = {"steps": best.steps, "loss": best.loss, "learning_rate": best.learning_rates[0]}
    return row | ({"curvature": best.curvatures[0]} if best.curvatures else {})


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


def _unit_problem(task: LinearRegression) -> Problem:
    """Eigenvalues, their weights, and lambda = sigma^2 / (omega r)^2."""
    input_moments(task)
    require_no_distractors(task)
    require_positive("task.weight_scale", task.weight_scale)
    scale = float(task.weight_scale) * float(task.input_range)
    return *unit_law(task), (float(task.label_noise or 0.0) / scale) ** 2


def _unit_scale(task: LinearRegression) -> float:
    return optimal_scale(task) * float(task.input_range) ** 2


def _optimum(task: LinearRegression, steps: int, rates: Vector, curvatures: Vector) -> Optimum:
    """The tuned steps in the task's own units, eta = h N / r^2 and gamma / r^2, with their loss."""
    area, n = float(task.input_range) ** 2, task.context_size
    h, gamma = np.asarray(rates, float) / area, np.asarray(curvatures, float) / area

    def residual(values: np.ndarray) -> np.ndarray:
        *_, (left, _) = residuals(values, *spread(steps, h, gamma))
        return left

    etas = tuple(float(rate) * n for rate in h)
    return Optimum(steps, population_loss(task, residual), etas, tuple(map(float, gamma)))
