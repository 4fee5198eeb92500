"""The best steps of gradient descent and GD++ on a task, for any number of steps.

Losses are functions of the eigenvalues of the scatter matrix (`toyicl.theory.gram_spectrum`), and
steps are searched for where there is no closed form (`toyicl.theory.step_search`). Searches are at
input range 1 and weight scale 1, so that the scaling relations hold up to rounding: losses scale as
r^2 omega^2, and learning rates and curvatures as 1 / r^2.

Units and symbols are those of `toyicl.theory.closed_form`. All functions raise BadInput for a
number of steps below 1, for weights of scale 0, for tasks that `input_moments` refuses, and, with
more than one step, for distractors.
"""

from dataclasses import replace

import numpy as np

from toyicl.core.config import require, require_size
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import (
    Optimum,
    gradient_descent_optimum,
    optimal_scale,
    predict_zero_loss,
)
from toyicl.theory.gram_spectrum import orthogonal_roots
from toyicl.theory.step_search import (
    LogLoss,
    Minimum,
    Problem,
    Steps,
    descent_residual,
    lowest,
    minimise,
    unit_problem,
)

DESCENT = LogLoss(descent_residual)
MOST_STEPS_PER_LAYER = 8
"""Largest K of `gdpp_per_layer`: its residual has the degree (3^K - 1) / 2, which for more steps is
larger than the number of nodes of the quadrature that its loss is computed with."""
BLOCK = 8
"""Arrays of one number for each step are padded to a multiple of this length, so that different
numbers of steps share a compiled program."""


def gd_shared(task: LinearRegression, steps: int) -> Optimum:
    """The best K steps of gradient descent with one learning rate."""
    require_size("steps", steps)
    if steps == 1:
        return gradient_descent_optimum(task)
    return _optimum(task, steps, _shared(task, unit_problem(task), steps))


def gd_per_step(task: LinearRegression, steps: int) -> Optimum:
    """The best K steps of gradient descent, each with its own learning rate, the largest first.

    Without label noise the best residual R is the polynomial of degree K with R(0) = 1 that is
    orthogonal under s times the distribution of eigenvalues. Its roots are real, and the steps are
    their reciprocals. No other fixed linear method of K steps, with momentum or without, has a
    smaller loss.

    With noise of relative variance lambda = sigma^2 / omega^2, the best polynomial can have complex
    roots, which no real steps have. The best real steps are searched for, from the reciprocals of
    the roots shifted by lambda and from the best shared step. Momentum can then have a smaller
    loss.
    """
    require_size("steps", steps)
    if steps == 1:
        return gradient_descent_optimum(task)
    values, weights, noise = problem = unit_problem(task)
    roots = orthogonal_roots(values, values * weights, steps)
    if noise == 0:
        left = np.prod(1 - values[:, None] / roots, axis=1)
        loss = float(weights @ left**2 / weights.sum())
        return _optimum(task, steps, Minimum(Steps(1 / roots), float(np.log(loss))))
    shared = np.full(steps, _shared(task, problem, steps).parameters.rates)
    starts = [Steps(_padded(rates)) for rates in (1 / (roots + noise), shared)]
    (rates, _), value = minimise(DESCENT, starts, problem, steps)
    return _optimum(task, steps, Minimum(Steps(np.sort(rates[:steps])[::-1]), value))


def gdpp_shared(task: LinearRegression, steps: int) -> Optimum:
    """The best K steps of GD++ with one (eta, gamma); von Oswald et al. (2022), appendix A.10.

    The loss is never above that of `gd_shared`, whose step is one of the starts of the search. At K
    = 1 gamma has no effect and is 0.
    """
    require_size("steps", steps)
    if steps == 1:
        return replace(gradient_descent_optimum(task), curvatures=(0.0,))
    return _optimum(task, steps, _shared_with_curvature(task, unit_problem(task), steps))


def gdpp_per_layer(task: LinearRegression, steps: int) -> Optimum:
    """K steps of GD++, each with its own (eta, gamma), the last without gamma: a local optimum.

    The residual has degree (3^K - 1) / 2. From K = 3 on the loss therefore depends on eigenvalues
    so rare that no sample determines it: the value is a lower estimate, to be compared with the
    loss on fresh tasks. The search starts from the optimum of fewer steps with one more step, from
    the best shared steps, and from the family R(s) = sin(3^K t) / (3^K sin t), sin^2 t = s / bound.
    Raises BadInput for more than `MOST_STEPS_PER_LAYER` steps.
    """
    require_size("steps", steps)
    rule = f"at most {MOST_STEPS_PER_LAYER} for GD++ with its own steps in each layer"
    require(steps <= MOST_STEPS_PER_LAYER, "steps", rule, steps)
    if steps == 1:
        return gradient_descent_optimum(task)
    problem = unit_problem(task)
    longer: list[Steps] = []
    for count in range(2, steps + 1):
        shared = _shared_with_curvature(task, problem, count).parameters
        repeated = Steps(np.full(count, shared.rates), np.full(count - 1, shared.curvatures))
        starts = [*_bounded_families(problem, count), *longer, repeated]
        best = minimise(DESCENT, starts, problem, count)
        longer = _longer(best.parameters)
    return _optimum(task, steps, best)


def _shared(task: LinearRegression, problem: Problem, steps: int) -> Minimum[Steps]:
    """The best shared step, searched from the best single step and from one that converges."""
    starts = [Steps(np.array([step])) for step in (_unit_scale(task), 1 / problem.values[-1])]
    return minimise(DESCENT, starts, problem, steps)


def _shared_with_curvature(task: LinearRegression, problem: Problem, steps: int) -> Minimum[Steps]:
    """The best shared step and curvature, searched from the best shared step among others."""
    scale = _unit_scale(task)
    starts = [
        Steps(_shared(task, problem, steps).parameters.rates, np.zeros(1)),
        Steps(np.array([scale * steps]), np.array([scale / 3])),
        Steps(np.array([scale * steps / 2]), np.array([scale / 6])),
    ]
    return minimise(DESCENT, starts, problem, steps)


def _bounded_families(problem: Problem, steps: int) -> list[Steps]:
    """Steps with |R| <= 1 for eigenvalues up to a bound: the best bound, the largest node, twice it.

    h_k = gamma_k = 9^(k - 1) 4 / (3 bound).
    """

    def family(bound: float) -> Steps:
        rates = 4 / (3 * bound) * 9.0 ** np.arange(steps)
        return Steps(rates, rates[:-1])

    largest = problem.values[-1]
    families = [family(bound) for bound in np.geomspace(0.03, 3, 40) * largest]
    best = lowest(DESCENT, families, problem, steps)
    return [best, family(largest), family(2 * largest)]


def _longer(steps: Steps) -> list[Steps]:
    """Starts with one step more: the last step repeated or times 9, or the first repeated."""
    rates, curvatures = steps
    appended = [
        Steps(np.append(rates, factor * rates[-1]), np.append(curvatures, factor * curvatures[-1]))
        for factor in (1, 9)
    ]
    return [*appended, Steps(np.append(rates[0], rates), np.append(curvatures[0], curvatures))]


def _unit_scale(task: LinearRegression) -> float:
    return optimal_scale(task) * float(task.input_range) ** 2


def _padded(numbers: np.ndarray) -> np.ndarray:
    """Numbers, one for each step, padded to a multiple of `BLOCK` by repeating the last."""
    return np.pad(numbers, (0, -len(numbers) % BLOCK), mode="edge")


def _optimum(task: LinearRegression, steps: int, unit: Minimum[Steps]) -> Optimum:
    """The optimum in the units of the task: eta = h N / r^2, gamma / r^2, and the loss.

    The value of `LogLoss` is the logarithm of the loss over that of the prediction 0.
    """
    area, n = float(task.input_range) ** 2, task.context_size
    rates, curvatures = (np.asarray(part, float) / area for part in unit.parameters)
    loss = predict_zero_loss(task) * float(np.exp(unit.value))
    etas = tuple(float(rate) * n for rate in rates)
    return Optimum(steps, loss, etas, tuple(map(float, curvatures)))
