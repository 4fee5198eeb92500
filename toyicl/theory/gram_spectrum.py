"""The eigenvalues of a context's scatter matrix: sampled, calibrated, averaged over.

For independent coordinates symmetric about 0, any learner that is a function of S = sum_i x_i x_i^T
is judged by eigenvalues alone. If its prediction is x_q . q(S) sum_i y_i x_i, with the residual
R(s) = 1 - s q(s), then

    loss = (m E x^2 / 2) E sum_s [omega^2 R(s)^2 + sigma^2 (1 - R(s))^2 / s]

for m outputs, weights of scale omega and label noise sigma. `population_loss` is that formula. The
expectation is over a large fixed sample, reweighted so that the moments E tr S^p known exactly come
out exactly: then all losses polynomial in s are exact up to that degree and precise beyond it.
"""

import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from toyicl.core.config import require, require_choice, require_size
from toyicl.tasks.linear import QUANTILES, LinearRegression

COORDINATE_MOMENTS: dict[str, Callable[[int], float]] = {
    "uniform": lambda order: 0.5**order / (order + 1),
    "normal": lambda order: float(math.prod(range(1, order, 2))),
    "laplace": lambda order: float(math.factorial(order)),
}
"""E x^order, for even orders, of the laws symmetric about 0, at scale 1."""

MOMENTS = 8
"""Highest p whose E tr S^p is counted exactly; one more costs many times as long."""
TASKS = 1_000_000
ENTRIES = 200_000_000
"""Most tasks, and most random numbers, spent on one law of eigenvalues: a few seconds on two cores."""
BINS = 2**12
CHUNK_ENTRIES = 400_000
"""Random numbers drawn at a time: they stay in the processor's cache."""


def input_moments(task: LinearRegression) -> tuple[float, float]:
    """E x^2 and E x^4 of an input coordinate, closed forms.

    Raises ValueError where coordinates are not independent, identical and symmetric about 0: all
    formulas of this module and of `toyicl.theory.closed_form` pass through here because they need
    exactly that.
    """
    require_choice("task.input_distribution", task.input_distribution, tuple(COORDINATE_MOMENTS))
    rule = "None, as this formula needs independent coordinates"
    require(task.covariance is None, "task.covariance", rule, task.covariance)
    moment, scale = COORDINATE_MOMENTS[task.input_distribution], float(task.input_range)
    return moment(2) * scale**2, moment(4) * scale**4


def require_no_distractors(task: LinearRegression) -> None:
    """Raise ValueError for replaced labels: they are no function of the inputs' eigenvalues."""
    rule = "None or 0 here; only one step of gradient descent is known with distractors"
    require(not task.distractors, "task.distractors", rule, task.distractors)


def gram_spectrum(task: LinearRegression, tasks: int = 100_000, seed: int = 0) -> np.ndarray:
    """Eigenvalues of S = sum_i x_i x_i^T in sampled tasks, (tasks, d), ascending, float64.

    The same seed gives the same sample, drawn once at range 1 for each law, d and N, and kept. Where
    N < d the first d - N of each row are exact zeros. Raises ValueError for what `input_moments`
    refuses and for sizes that are not whole numbers.
    """
    input_moments(task)
    require_size("tasks", tasks)
    require_size("seed", seed, least=0)
    spectrum = _unit_spectrum(task.dim, task.context_size, task.input_distribution, tasks, seed)
    padding = ((0, 0), (task.dim - spectrum.shape[1], 0))
    return np.pad(spectrum * float(task.input_range) ** 2, padding)


def worst_case_curvature(spectrum: np.ndarray) -> float:
    """The gamma that leaves the mean least eigenvalue l and the greatest u of all tasks equal.

    l (1 - gamma l)^2 = u (1 - gamma u)^2 gives 1 / (u + sqrt(l u) + l): von Oswald et al. (2022),
    appendix A.10, whose text does not say which of the tasks' l and u are meant. `spectrum` has rows
    of ascending eigenvalues, one task each.
    """
    least, greatest = spectrum[:, 0].mean(), spectrum.max()
    return float(1 / (greatest + np.sqrt(least * greatest) + least))


def condition_numbers(spectrum: np.ndarray, curvatures: np.ndarray) -> np.ndarray:
    """Median over tasks of the condition number after s -> s (1 - gamma s)^2, for each gamma."""
    found = []
    for curvature in curvatures:
        moved = spectrum * (1 - curvature * spectrum) ** 2
        found.append(np.median(moved.max(axis=-1) / moved.min(axis=-1)))
    return np.array(found)


def population_loss(task: LinearRegression, residual: Callable[[np.ndarray], np.ndarray]) -> float:
    """Loss over all tasks of a learner given by its residual R, on the noise-free query label.

    `residual` maps an array of eigenvalues of S to R(s), with R(0) = 1: what is left, in the
    direction of that eigenvalue, of the weights to be found. The formula is in the module's
    docstring. Raises ValueError for what `input_moments` refuses and for distractors.
    """
    second, _ = input_moments(task)
    require_no_distractors(task)
    values, weights = unit_law(task)
    values = values * float(task.input_range) ** 2
    left = residual(values)
    # Where s = 0 no label says anything, so no noise enters either.
    answered = np.divide((1 - left) ** 2, values, out=np.zeros_like(values), where=values > 0)
    noise = float(task.label_noise or 0.0)
    error = float(task.weight_scale) ** 2 * left**2 + noise**2 * answered
    return task.outputs * second / 2 * float(weights @ error)


def unit_law(task: LinearRegression) -> tuple[np.ndarray, np.ndarray]:
    """Nodes s and weights, summing to d, with weights . f(s) = E sum_s f(s), at input range 1."""
    return _unit_law(task.dim, task.context_size, task.input_distribution)


def orthogonal_roots(values: np.ndarray, weights: np.ndarray, degree: int) -> np.ndarray:
    """Roots of the polynomial of a degree orthogonal to all lower ones under weighted nodes, (degree,).

    They are the Ritz values of multiplication by s on polynomials of lower degree: always real, and
    found without the moments, whose matrix is hopelessly conditioned.
    """
    basis = np.sqrt(weights / weights.sum())[:, None]
    for _ in range(degree - 1):
        column = values * basis[:, -1]
        for _ in range(2):  # the second time removes what rounding left of the first
            column = column - basis @ (basis.T @ column)
        basis = np.column_stack([basis, column / np.linalg.norm(column)])
    return np.linalg.eigvalsh(basis.T @ (values[:, None] * basis))


@lru_cache(maxsize=16)
def _unit_law(dim: int, context_size: int, law: str) -> tuple[np.ndarray, np.ndarray]:
    side = min(dim, context_size)
    tasks = min(TASKS, math.ceil(ENTRIES / (dim * context_size)))
    spectrum = _sample_spectrum(dim, context_size, law, tasks, 0).ravel()
    # Some thousand bins stand for 10^7 eigenvalues. Their relative width falls towards large ones,
    # where residuals of high degree turn fast, and their means keep the first moment.
    top = spectrum.max()
    bins = (np.sqrt(np.sqrt(spectrum / top)) * BINS).astype(np.int64)
    counts, sums = np.bincount(bins), np.bincount(bins, spectrum)
    used = counts > 0
    values, weights = sums[used] / counts[used], counts[used] * (side / counts.sum())
    weights = _calibrate(values, weights, trace_moments(dim, context_size, law))
    if dim > side:
        values, weights = np.append(0.0, values), np.append(dim - side, weights)
    values.setflags(write=False)
    weights.setflags(write=False)
    return values, weights


def _calibrate(values: np.ndarray, weights: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Weights nearest in relative entropy whose moments 1..p are those given; all stay positive.

    Heavy tails make high moments depend on eigenvalues that no sample holds. They show by
    corrections that are not small; then fewer moments are imposed.
    """
    unit = values / values[-1]
    for order in range(len(moments), 0, -1):
        powers = unit[:, None] ** np.arange(order + 1)
        # Orthonormal polynomials under the sample's own weights: Newton's matrix is close to I.
        factor = np.linalg.qr(np.sqrt(weights)[:, None] * powers)[1]
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


def trace_moments(dim: int, context_size: int, law: str) -> np.ndarray:
    """E tr S^p for p = 1..MOMENTS, at input range 1, exact."""
    moment = COORDINATE_MOMENTS[law]

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
    """Closed walks of 2p steps between coordinates and points that use each edge evenly often.

    tr S^p is a sum over such walks of the product of the entries x_ij walked over, and entries
    symmetric about 0 kill the others. Labels are given in order of first visit, so a walk stands for
    all its relabellings. Returns how many walks have (points, coordinates, visits to each edge).
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
            if odd_then >= left:  # too few steps remain to even out the edges
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
def _unit_spectrum(dim: int, context_size: int, law: str, tasks: int, seed: int) -> np.ndarray:
    spectrum = _sample_spectrum(dim, context_size, law, tasks, seed)
    spectrum.setflags(write=False)
    return spectrum


def _sample_spectrum(dim: int, context_size: int, law: str, tasks: int, seed: int) -> np.ndarray:
    """Eigenvalues of the smaller Gram matrix at input range 1, (tasks, min(N, d)), positive."""
    chunk = max(1, CHUNK_ENTRIES // (dim * context_size))

    def eigenvalues(index: int) -> np.ndarray:
        numbers = np.random.default_rng((seed, index))
        u = numbers.random((chunk, context_size, dim), np.float32)
        # Odd multiples of 2^-24: symmetric, and neither end is met, where a quantile is infinite.
        u = 2 * u - np.float32(1 - 2**-24)
        x = np.asarray(QUANTILES[law](u), np.float64)
        transposed = x.swapaxes(1, 2)
        gram = transposed @ x if context_size >= dim else x @ transposed
        # Rounding can leave a tiny eigenvalue negative, and 0 means one that no point reaches.
        return np.maximum(np.linalg.eigvalsh(gram), np.finfo(float).tiny)

    with ThreadPoolExecutor() as pool:
        chunks = list(pool.map(eigenvalues, range(math.ceil(tasks / chunk))))
    return np.concatenate(chunks)[:tasks]
