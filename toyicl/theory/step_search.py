"""The search for several steps of gradient descent, or GD++, on a law of eigenvalues.

Steps are tuned at input range 1 and weight scale 1, where only lambda, the noise relative to both, is
left; so the laws of scaling hold to rounding. A rate h is eta / N.
"""

from collections.abc import Iterator, Sequence

import numpy as np

Problem = tuple[np.ndarray, np.ndarray, float]
"""Eigenvalues, their weights, and lambda."""
Vector = Sequence[float] | np.ndarray


def spread(steps: int, rates: Vector, curvatures: Vector) -> tuple[np.ndarray, np.ndarray]:
    """One rate and one curvature for each step, from those shared or those given; the last is 0."""
    inner = np.asarray(curvatures, float) if len(curvatures) else np.zeros(1)
    return np.broadcast_to(rates, steps), np.append(np.broadcast_to(inner, steps - 1), 0.0)


def residuals(
    values: np.ndarray, rates: np.ndarray, curvatures: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Residual and transformed eigenvalues before each step, and after the last.

    R <- R (1 - h s),   s <- s (1 - gamma s)^2
    """
    left = np.ones_like(values)
    yield left, values
    for rate, curvature in zip(rates, curvatures, strict=True):
        left = left * (1 - rate * values)
        if curvature:
            values = values * (1 - curvature * values) ** 2
        yield left, values


def loss_and_slopes(
    problem: Problem, steps: int, rates: Vector, curvatures: Vector
) -> tuple[float, np.ndarray]:
    """Log of the mean of R^2 + lambda (1 - R)^2 / s, and its slopes in all parameters given."""
    values, weights, noise = problem
    h, gamma = spread(steps, rates, curvatures)
    heard = np.divide(noise, values, out=np.zeros_like(values), where=values > 0)
    # High degrees overflow far from the optimum; such points only have to look bad.
    with np.errstate(over="ignore", invalid="ignore"):
        *layers, (left, _) = residuals(values, h, gamma)
        loss = float(weights @ (left**2 + heard * (1 - left) ** 2)) / float(weights.sum())
        if not np.isfinite(loss) or loss == 0:
            return 700.0, np.zeros(len(rates) + len(curvatures))
        # Backwards through the steps: how the loss depends on R, and on s, before each.
        on_left = 2 * weights * (left - heard * (1 - left)) / (weights.sum() * loss)
        on_value, slopes = np.zeros_like(values), np.zeros((2, steps))
        for step in reversed(range(steps)):
            before, s = layers[step]
            bend = 1 - gamma[step] * s
            slopes[:, step] = -np.sum(on_left * before * s), -2 * np.sum(on_value * s**2 * bend)
            on_value = on_value * bend * (1 - 3 * gamma[step] * s) - on_left * before * h[step]
            on_left = on_left * (1 - h[step] * s)
    parts = (slopes[0], len(rates)), (slopes[1, :-1], len(curvatures))
    tied = [part.sum(keepdims=True) if size == 1 else part[:size] for part, size in parts]
    return float(np.log(loss)), np.concatenate([np.zeros(0), *tied])


def tune(
    problem: Problem, steps: int, rates: Vector, curvatures: Vector
) -> tuple[np.ndarray, np.ndarray]:
    """Rates and curvatures at the optimum reached from a start; one that is alone is shared."""
    from scipy.optimize import minimize  # takes most of a second, and few commands tune

    start = np.concatenate([rates, curvatures])
    unit = np.where(start == 0, rates[0], start)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = parameters * unit
        loss, slopes = loss_and_slopes(problem, steps, scaled[: len(rates)], scaled[len(rates) :])
        return loss, slopes * unit

    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
    found = minimize(objective, start / unit, jac=True, method="L-BFGS-B", options=options).x * unit
    return found[: len(rates)], found[len(rates) :]


def best_of(
    problem: Problem, steps: int, starts: Sequence[tuple[Vector, Vector]]
) -> tuple[np.ndarray, np.ndarray]:
    """The best of the optima reached from some starts."""
    tuned = [tune(problem, steps, *start) for start in starts]
    return min(tuned, key=lambda point: loss_and_slopes(problem, steps, *point)[0])
