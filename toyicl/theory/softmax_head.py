"""One softmax head on normal inputs: its loss, its optimum, and its distance from linear attention.

The head predicts c sum_i p_i y_i with the weights p = softmax_i(s x_i . x_q): a kernel average of the
labels times a factor. For inputs x ~ N(0, tau^2 I) only the coordinates along the query, z_i ~
N(0, 1), enter the weights, p = softmax_i(a z_i) with a = s tau^2 r for a query of length tau r. Loss
and distance are therefore means over r of three moments, which `head_moments` computes by quadrature:

    E sum_i p_i z_i,   E (sum_i p_i z_i)^2,   E sum_i p_i^2

Losses are 0.5 E |prediction - y_query|^2, where y_query has no label noise.
"""

import math
from dataclasses import dataclass

import numpy as np

from toyicl.core.config import require, require_positive, require_size
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.gram_spectrum import input_moments, require_no_distractors

FARTHEST, SPACING = 8.5, 0.06
"""Ends of the grid of z, beyond which a normal distribution has mass 1e-17, and its largest step."""
LOG_SPACING = 0.3
"""Step of the grid of u = log t in `head_moments`."""
LARGEST_EXPONENT = 300.0
"""Bound on log v, where v^2 is finite and exp(-v) is 0."""
LENGTHS = 32
"""Nodes of the quadrature over the length of the query."""
SMALLEST_WEIGHT = 1e-14
"""Nodes of smaller weight are left out."""
LARGEST_SLOPE = 4.0
"""Upper bound of the search for the best scale, relative to 1 / (tau^2 sqrt(d))."""


@dataclass(frozen=True)
class HeadOptimum:
    """The best softmax head of the form c sum_i softmax_i(s x_i . x_q) y_i on a task."""

    scale: float
    """s, the inverse temperature."""
    factor: float
    """c, the size of the value-output circuit."""
    loss: float
    """Expected loss."""


@dataclass(frozen=True)
class HeadMoments:
    """Means over z_1, ..., z_N ~ N(0, 1) with the weights p = softmax_i(a z_i), for each slope a."""

    mean: np.ndarray
    """E sum_i p_i z_i, which is a (1 - E sum_i p_i^2)."""
    square: np.ndarray
    """E (sum_i p_i z_i)^2."""
    concentration: np.ndarray
    """E sum_i p_i^2, between 1 / N and 1."""


def head_moments(slopes: np.ndarray, points: int) -> HeadMoments:
    """Moments of softmax weights of N = `points` normal scores, for slopes a, (n,).

    With 1 / (sum_i e^{a z_i})^2 = int_0^inf t exp(-t sum_i e^{a z_i}) dt the points separate: every
    moment is an integral over u = log t of products of E exp(-v), E z v exp(-v), E v^2 exp(-v) and
    E z^2 v^2 exp(-v), where v = e^{u + a z}. Both integrals are sums over equidistant nodes, which
    converge exponentially for such functions. Raises BadInput unless `points` is a size.
    """
    require_size("points", points)
    found = np.array([_moments_at(float(slope), points) for slope in np.asarray(slopes)])
    square, concentration = found.reshape(-1, 2).T
    return HeadMoments(np.asarray(slopes) * (1 - concentration), square, concentration)


def _moments_at(slope: float, points: int) -> tuple[float, float]:
    """E (sum_i p_i z_i)^2 and E sum_i p_i^2 at one slope."""
    steep = abs(slope)
    spacing = min(SPACING, 0.4 / max(steep, 1.0))
    z = np.arange(-FARTHEST, FARTHEST + spacing / 2, spacing)
    normal = np.exp(-(z**2) / 2)
    normal /= normal.sum()
    lowest = -20 - min(steep, FARTHEST) * steep - math.log(points) / 2
    u = np.arange(lowest, 4 + FARTHEST * steep, LOG_SPACING)
    v = np.exp(np.minimum(u[:, None] + slope * z[None], LARGEST_EXPONENT))
    decay = np.exp(-v)
    remaining = decay @ normal
    once, twice = v * decay, v**2 * decay
    others = remaining ** (points - 1)
    concentration = points * np.sum((twice @ normal) * others)
    same = points * np.sum((twice @ (normal * z**2)) * others)
    pairs = (once @ (normal * z)) ** 2 * remaining ** max(points - 2, 0)
    square = same + points * (points - 1) * np.sum(pairs)
    return LOG_SPACING * square, LOG_SPACING * concentration


def softmax_head_loss(task: LinearRegression, scale: float, factor: float) -> float:
    """Expected loss of the prediction c sum_i softmax_i(s x_i . x_q) y_i, on normal inputs.

    `scale` is s and `factor` c. Raises BadInput for inputs that are not normal and independent, for
    distractors, and for weights with a mean or a covariance.
    """
    slope, curve = _quadratic(task, scale)
    return _zero(task) - 2 * slope * factor + curve * factor**2


def softmax_head_optimum(task: LinearRegression) -> HeadOptimum:
    """The best head of the form c sum_i softmax_i(s x_i . x_q) y_i, on normal inputs.

    The best factor c for a scale s is known, and the best scale is searched for. With -s and -c the
    loss is the same. That no other key-query or value-output circuit of one head is better is not
    proved here. Raises BadInput as `softmax_head_loss` does, and for weights of scale 0.
    """
    from scipy.optimize import minimize_scalar  # its import takes long, and few commands search

    _require_normal(task)
    require_positive("task.weight_scale", task.weight_scale)
    unit = 1 / (float(task.input_range) ** 2 * math.sqrt(task.dim))

    def loss(relative: float) -> float:
        slope, curve = _quadratic(task, relative * unit)
        return _zero(task) - slope**2 / curve

    found = minimize_scalar(
        loss, bounds=(1e-3, LARGEST_SLOPE), method="bounded", options={"xatol": 1e-4}
    )
    scale = float(found.x) * unit
    slope, curve = _quadratic(task, scale)
    return HeadOptimum(scale, slope / curve, _zero(task) - slope**2 / curve)


def softmax_head_distance(task: LinearRegression, scale: float) -> float:
    """Mean squared distance of sum_i softmax_i(s x_i . x_q) y_i from its limit for N -> infinity.

    The limit is s tau^2 w . x_q for inputs N(0, tau^2 I): the same linear function that linear
    attention divided by N has as its limit. Label noise adds to the distance. Raises BadInput as
    `softmax_head_loss` does.
    """
    lengths, weights, moments = _over_lengths(task, scale)
    slopes = _slopes(task, scale, lengths)
    along = moments.square - 2 * slopes * moments.mean + slopes**2
    across = (task.dim - 1) * moments.concentration
    signal, noise = _powers(task)
    return task.outputs * float(
        weights @ (signal * (along + across) + noise * moments.concentration)
    )


def softmax_head_limit_ratio(dim: int) -> float:
    """Limit for N -> infinity of the loss of the best softmax head over that of the best linear step.

    Both losses fall as 1 / N on noise-free normal inputs of unit scale. With t = s^2 the ratio is

        min_t [d (1 - 2 t)^{-d/2} + d t (1 - 2 t)^{-d/2 - 1}] / (d (d + 1) t)

    for d = `dim`: a small scale makes the head linear, and a large factor c = 1 / s then amplifies
    what remains of the variance of the mean label. Raises BadInput unless `dim` is a size.
    """
    from scipy.optimize import minimize_scalar

    require_size("dim", dim)

    def ratio(t: float) -> float:
        return (1 - t) * (1 - 2 * t) ** (-dim / 2 - 1) / ((dim + 1) * t)

    return float(minimize_scalar(ratio, bounds=(1e-6, 0.499), method="bounded").fun)


def _zero(task: LinearRegression) -> float:
    """Loss of predicting 0."""
    signal, _ = _powers(task)
    return task.outputs * signal * task.dim / 2


def _quadratic(task: LinearRegression, scale: float) -> tuple[float, float]:
    """(b, c) of the loss a - 2 b f + c f^2 at a factor f, where a is the loss of predicting 0."""
    lengths, weights, moments = _over_lengths(task, scale)
    signal, noise = _powers(task)
    half = task.outputs / 2
    slope = half * signal * float(weights @ (lengths * moments.mean))
    size = moments.square + (task.dim - 1) * moments.concentration
    curve = half * float(weights @ (signal * size + noise * moments.concentration))
    return slope, curve


def _powers(task: LinearRegression) -> tuple[float, float]:
    """omega^2 tau^2, the power of a label for each input, and sigma^2, that of its noise."""
    signal = (float(task.weight_scale) * float(task.input_range)) ** 2
    return signal, float(task.label_noise or 0.0) ** 2


def _slopes(task: LinearRegression, scale: float, lengths: np.ndarray) -> np.ndarray:
    return scale * float(task.input_range) ** 2 * lengths


def _over_lengths(
    task: LinearRegression, scale: float
) -> tuple[np.ndarray, np.ndarray, HeadMoments]:
    """Lengths r of a standard normal query, their weights, and the moments at each, (n,)."""
    from scipy.special import roots_genlaguerre

    _require_normal(task)
    nodes, weights = roots_genlaguerre(LENGTHS, task.dim / 2 - 1)
    weights = weights / weights.sum()
    kept = weights > SMALLEST_WEIGHT
    lengths, weights = np.sqrt(2 * nodes[kept]), weights[kept]
    return lengths, weights, head_moments(_slopes(task, scale, lengths), task.context_size)


def _require_normal(task: LinearRegression) -> None:
    rule = "normal, for softmax heads"
    kind = task.input_distribution
    require(kind == "normal", "task.input_distribution", rule, kind)
    input_moments(
        task
    )  # refuses dependent coordinates, and weights that are not centred or isotropic
    require_no_distractors(task)
