"""Distribution of the eigenvalues of a context's scatter matrix, and losses as means over it.

If input coordinates are independent and symmetric about 0, the loss of any learner that is a
function of S = sum_i x_i x_i^T depends on the eigenvalues s of S alone. For the prediction x_q .
q(S) sum_i y_i x_i, with the residual R(s) = 1 - s q(s),

    loss = (m E x^2 / 2) E sum_s [omega^2 R(s)^2 + sigma^2 (1 - R(s))^2 / s]

for m outputs, weights of scale omega and label noise sigma; `population_loss` evaluates it. The
expectation is over a large fixed sample of tasks. The sample is reweighted so that it has the exact
moments E tr S^p for p up to `MOMENTS`, so that losses that are polynomials in s are exact up to
that degree and precise beyond it.
"""

import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from toyicl.core.config import require, require_choice, require_memory, require_size, require_whole
from toyicl.tasks.linear import QUANTILES, LinearRegression

COORDINATE_MOMENTS: dict[str, Callable[[int], float]] = {
    "uniform": lambda order: 0.5**order / (order + 1),
    "normal": lambda order: float(math.prod(range(1, order, 2))),
    "laplace": lambda order: float(math.factorial(order)),
}
"""E x^order at scale 1, for even orders, of the input distributions that are symmetric about 0."""

MOMENTS = 8
"""Highest p for which E tr S^p is computed exactly; one more takes many times as long."""
TASKS = 1_000_000
ENTRIES = 200_000_000
"""Largest number of tasks, and of random numbers, that are drawn for one distribution of eigenvalues.
This takes a few seconds on two cores."""
BINS = 2**12
"""Intervals between 0 and the largest eigenvalue, each of which can hold a node of a quadrature."""
MOST_NODES = BINS + 2
"""Largest number of nodes: one for each interval, the largest eigenvalue, and 0."""
DISTINCT = 1e-11
"""Smallest relative part of a power of the eigenvalues that lower powers do not have. Rounding hides it
below."""
CHUNK_ENTRIES = 400_000
"""Random numbers drawn at a time, so few that they fit into the processor's cache."""


def input_moments(task: LinearRegression) -> tuple[float, float]:
    """E x^2 and E x^4 of an input coordinate, in closed form.

    Raises BadInput where coordinates are not independent, identically distributed and symmetric
    about 0, and where weights have another mean than 0. All formulas of this module and of
    `toyicl.theory.closed_form` need this and call this function.
    """
    require_choice("task.input_distribution", task.input_distribution, tuple(COORDINATE_MOMENTS))
    rule = "None, as this formula needs independent coordinates"
    require(task.covariance is None, "task.covariance", rule, task.covariance)
    require_isotropic_weights(task)
    require(not task.rotated, "task.rotated", "False, as for covariance", task.rotated)
    require_no_weight_mean(task)
    moment, scale = COORDINATE_MOMENTS[task.input_distribution], float(task.input_range)
    return moment(2) * scale**2, moment(4) * scale**4


def require_isotropic_weights(task: LinearRegression) -> None:
    """Raise BadInput for a task whose weights have a covariance, on which losses would depend."""
    rule = "None, as this formula needs independent weights"
    require(task.weight_covariance is None, "task.weight_covariance", rule, task.weight_covariance)


def require_no_weight_mean(task: LinearRegression) -> None:
    """Raise BadInput for weights with another mean than 0, which formulas do not take into account."""
    rule = (
        "None or 0 here; theory.recentred gives the task whose losses are those of a starting point"
    )
    require(not task.weight_mean, "task.weight_mean", rule, task.weight_mean)


def require_no_distractors(task: LinearRegression) -> None:
    """Raise BadInput for a task with distractors, whose losses are not functions of eigenvalues."""
    rule = "None or 0 here; with distractors only one step of gradient descent has a closed form"
    require(not task.distractors, "task.distractors", rule, task.distractors)


def gram_spectrum(task: LinearRegression, tasks: int = 100_000, seed: int = 0) -> np.ndarray:
    """Eigenvalues of S = sum_i x_i x_i^T in sampled tasks, (tasks, d), ascending, float64.

    The same seed gives the same sample, which is drawn once, at range 1, for each distribution, d
    and N, and kept in memory. Where N < d the first d - N entries of each row are exactly 0. Raises
    BadInput for tasks that `input_moments` refuses, and for sizes that are not whole numbers.
    """
    input_moments(task)
    require_size("tasks", tasks)
    require_whole("seed", seed, least=0)
    spectrum = _unit_spectrum(task.dim, task.context_size, task.input_distribution, tasks, seed)
    padding = ((0, 0), (task.dim - spectrum.shape[1], 0))
    return np.pad(spectrum * float(task.input_range) ** 2, padding)


def worst_case_curvature(spectrum: np.ndarray) -> float:
    """The gamma at which the smallest eigenvalue l and the largest u become equal.

    l (1 - gamma l)^2 = u (1 - gamma u)^2 has the solution gamma = 1 / (u + sqrt(l u) + l), of von
    Oswald et al. (2022), appendix A.10. Their text does not define l and u for many tasks: here l
    is the mean over tasks of the smallest eigenvalue and u the largest eigenvalue of all tasks.
    `spectrum` is (tasks, d), with eigenvalues in ascending order.
    """
    least, greatest = spectrum[:, 0].mean(), spectrum.max()
    return float(1 / (greatest + np.sqrt(least * greatest) + least))


def condition_numbers(spectrum: np.ndarray, curvatures: np.ndarray) -> np.ndarray:
    """Median over tasks of the condition number after s -> s (1 - gamma s)^2, for each gamma; (n,).

    `spectrum` is (tasks, d) and `curvatures`, the values of gamma, (n,).
    """
    found = []
    for curvature in curvatures:
        moved = spectrum * (1 - curvature * spectrum) ** 2
        found.append(np.median(moved.max(axis=-1) / moved.min(axis=-1)))
    return np.array(found)


def population_loss(task: LinearRegression, residual: Callable[[np.ndarray], np.ndarray]) -> float:
    """Expected loss of a learner with residual R, on the query's label without noise.

    `residual` maps eigenvalues of S, (n,), to R(s), (n,), with R(0) = 1: the fraction of the
    weights that remains to be found in the direction of each eigenvalue. The module's docstring has
    the formula. Raises BadInput for tasks that `input_moments` refuses, and for distractors.
    """
    second, _ = input_moments(task)
    require_no_distractors(task)
    values, weights = eigenvalue_quadrature(task)
    values = values * float(task.input_range) ** 2
    left = residual(values)
    # In directions with s = 0 labels have no effect on the prediction, and neither has their noise.
    gain = np.divide((1 - left) ** 2, values, out=np.zeros_like(values), where=values > 0)
    noise = float(task.label_noise or 0.0)
    error = float(task.weight_scale) ** 2 * left**2 + noise**2 * gain
    return task.outputs * second / 2 * float(weights @ error)


def eigenvalue_quadrature(task: LinearRegression) -> tuple[np.ndarray, np.ndarray]:
    """Nodes s, ascending, and weights of a quadrature over eigenvalues of S at input range 1.

    weights . f(s) = E sum_s f(s), the mean over tasks of a sum over the d eigenvalues. Both are
    (n,).
    """
    return _unit_quadrature(task.dim, task.context_size, task.input_distribution)


def orthogonal_roots(values: np.ndarray, weights: np.ndarray, degree: int) -> np.ndarray:
    """Roots of the orthogonal polynomial of a degree, ascending, (degree,).

    Polynomials are orthogonal with respect to the nodes `values` and their `weights`, both (n,).
    The roots are the Ritz values of multiplication by s on polynomials of lower degree. Computed in
    this way they are always real, and the ill-conditioned matrix of moments is not needed.
    """
    basis = np.sqrt(weights / weights.sum())[:, None]
    for _ in range(degree - 1):
        column = values * basis[:, -1]
        for _ in range(2):  # the second projection removes the rounding errors of the first
            column = column - basis @ (basis.T @ column)
        basis = np.column_stack([basis, column / np.linalg.norm(column)])
    return np.linalg.eigvalsh(basis.T @ (values[:, None] * basis))


@lru_cache(maxsize=16)
def _unit_quadrature(
    dim: int, context_size: int, distribution: str
) -> tuple[np.ndarray, np.ndarray]:
    side = min(dim, context_size)
    tasks = min(TASKS, math.ceil(ENTRIES / (dim * context_size)))
    with ThreadPoolExecutor(1) as pool:  # the moments are computed while tasks are sampled
        moments = pool.submit(trace_moments, dim, context_size, distribution)
        spectrum = _sample_spectrum(dim, context_size, distribution, tasks, 0).ravel()
    # Some thousand bins represent 10^7 eigenvalues. The relative width of a bin is smaller for
    # large eigenvalues, where residuals of high degree vary fast. The mean of each bin is its node,
    # which keeps the first moment.
    top = spectrum.max()
    bins = (np.sqrt(np.sqrt(spectrum / top)) * BINS).astype(np.int64)
    counts, sums = np.bincount(bins), np.bincount(bins, spectrum)
    used = counts > 0
    values, weights = sums[used] / counts[used], counts[used] * (side / counts.sum())
    weights = _calibrate(values, weights, moments.result())
    if dim > side:
        values, weights = np.append(0.0, values), np.append(dim - side, weights)
    values.setflags(write=False)
    weights.setflags(write=False)
    return values, weights


def _calibrate(values: np.ndarray, weights: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Positive weights with given moments 1..p that are nearest to some weights in relative entropy.

    For heavy-tailed inputs, high moments depend on eigenvalues that are too rare to be in the
    sample, and imposing them would need large corrections. Fewer moments are imposed then, and where
    values are too few or too near to each other to distinguish so many, as with a long context.
    """
    unit = values / values[-1]
    for order in range(min(len(moments), len(values) - 1), 0, -1):
        powers = unit[:, None] ** np.arange(order + 1)
        # In the basis of orthonormal polynomials under the sample's weights, Newton's matrix is
        # close to I.
        factor = np.linalg.qr(np.sqrt(weights)[:, None] * powers)[1]
        scales = np.abs(np.diag(factor))
        if scales.min() < DISTINCT * scales.max():
            continue
        basis = powers @ np.linalg.inv(factor)
        exact = np.append(weights.sum(), moments[:order] / values[-1] ** np.arange(1, order + 1))
        target = np.linalg.solve(factor.T, exact)
        tilt = np.zeros(order + 1)
        for _ in range(20):
            exponent = basis @ tilt
            if np.abs(exponent).max() > math.log(10):
                break
            tilted = weights * np.exp(exponent)
            slope = basis.T @ tilted - target
            if np.abs(slope).max() < 1e-10:
                return tilted
            tilt -= np.linalg.solve(basis.T @ (tilted[:, None] * basis), slope)
    return weights


def trace_moments(dim: int, context_size: int, distribution: str) -> np.ndarray:
    """Exact E tr S^p for p = 1..MOMENTS at input range 1, (MOMENTS,)."""
    moment = COORDINATE_MOMENTS[distribution]

    def expectation(order: int) -> float:
        return sum(
            count
            * math.perm(context_size, points)
            * math.perm(dim, coordinates)
            * math.prod(moment(visits) for visits in repeats)
            for (points, coordinates, repeats), count in _walks(order).items()
        )

    return np.array([expectation(order) for order in range(1, MOMENTS + 1)])


@lru_cache(maxsize=MOMENTS)
def _walks(order: int) -> Counter[tuple[int, int, tuple[int, ...]]]:
    """Counts of closed walks of 2p steps between coordinates and points, with even visits of edges.

    tr S^p is a sum over closed walks of the product of the entries x_ij of the edges walked. The
    mean of the product is 0 where an edge is visited an odd number of times, since entries are
    symmetric about 0. Coordinates and points are labelled in the order of the first visit, so that
    one walk represents all its relabellings. Returns the number of walks for each (points,
    coordinates, visits to each edge).
    """
    found: Counter[tuple[int, int, tuple[int, ...]]] = Counter()
    visits: dict[tuple[int, int], int] = {}

    def walk(left: int, at: int, seen: tuple[int, int], odd: int) -> None:
        if left == 0:
            found[(*seen, tuple(sorted(visits.values())))] += 1
            return
        to_point = left % 2 == 0
        known = seen[0] if to_point else seen[1]
        for there in range(known + 1) if left > 1 else (0,):
            edge = (there, at) if to_point else (at, there)
            before = visits.get(edge, 0)
            odd_then = odd - 1 if before % 2 else odd + 1
            if odd_then >= left:  # too few steps remain to make all visits even
                continue
            visits[edge] = before + 1
            grown = max(known, there + 1)
            walk(left - 1, there, (grown, seen[1]) if to_point else (seen[0], grown), odd_then)
            if before:
                visits[edge] = before
            else:
                del visits[edge]

    walk(2 * order, 0, (0, 1), 0)
    return found


@lru_cache(maxsize=4)
def _unit_spectrum(
    dim: int, context_size: int, distribution: str, tasks: int, seed: int
) -> np.ndarray:
    spectrum = _sample_spectrum(dim, context_size, distribution, tasks, seed)
    spectrum.setflags(write=False)
    return spectrum


def _sample_spectrum(
    dim: int, context_size: int, distribution: str, tasks: int, seed: int
) -> np.ndarray:
    """Eigenvalues of the smaller Gram matrix at input range 1, (tasks, min(N, d)), positive.

    Raises BadSetting for a task whose inputs do not fit into memory.
    """
    chunk = max(1, CHUNK_ENTRIES // (dim * context_size))
    largest = ("dim", dim) if dim > context_size else ("context_size", context_size)
    require_memory(*largest, dim * context_size + min(dim, context_size) ** 2)

    def eigenvalues(index: int) -> np.ndarray:
        numbers = np.random.default_rng((seed, index))
        u = numbers.random((chunk, context_size, dim), np.float32)
        # Odd multiples of 2^-24 are symmetric and never -1 or 1, where a quantile can be infinite.
        u = 2 * u - np.float32(1 - 2**-24)
        x = np.asarray(QUANTILES[distribution](u), np.float64)
        transposed = x.swapaxes(1, 2)
        gram = transposed @ x if context_size >= dim else x @ transposed
        # Rounding can make a tiny eigenvalue negative or 0, and 0 stands for directions without
        # data.
        return np.maximum(np.linalg.eigvalsh(gram), np.finfo(float).tiny)

    with ThreadPoolExecutor() as pool:
        chunks = list(pool.map(eigenvalues, range(math.ceil(tasks / chunk))))
    return np.concatenate(chunks)[:tasks]
