"""Iterative solvers as learners: faster or better informed than gradient descent.

All minimise the context's squared error from W = 0. Each belongs to a class of its own: a step matrix
knows the inputs' covariance, momentum spends its steps on a better polynomial of the scatter matrix
S = sum_i x_i x_i^T, Newton's iteration squares what is left, and conjugate gradients choose their
polynomial anew for every context.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from toyicl import theory
from toyicl.algorithms.gradient_descent import Rates, as_rates
from toyicl.core.config import (
    NUMBERS,
    require,
    require_not_negative,
    require_positive,
    require_size,
)
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import correlated_inputs
from toyicl.theory.gram_spectrum import population_loss


class PreconditionedGradientDescent(nnx.Module):
    """K steps of gradient descent with a matrix in place of the step size.

        W <- W - (1 / N) sum_i (W x_i - y_i) x_i^T A_k

    Ahn et al. (2023). `preconditioner` is A: (d, d), shared by all `steps`, or (K, d, d).
    """

    def __init__(self, preconditioner: Any, steps: int = 1):
        require_size("steps", steps)
        matrices = jnp.asarray(preconditioner, float)
        square = matrices.ndim in (2, 3) and matrices.shape[-1] == matrices.shape[-2]
        rule = f"one square matrix, or one for each of {steps} steps"
        allowed = square and matrices.shape[:-2] in ((), (steps,))
        require(allowed, "preconditioner", rule, matrices.shape)
        self.preconditioner = nnx.Param(matrices)
        self.steps = steps

    @classmethod
    def best(cls, task: LinearRegression) -> "PreconditionedGradientDescent":
        """The best single step on normal inputs; see `anisotropic.best_step_matrix`."""
        return cls(task.context_size * correlated_inputs.best_step_matrix(task).matrix)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        matrices = self.preconditioner[...]
        weights = jnp.zeros((y.shape[1], x.shape[1]), x.dtype)
        for matrix in jnp.broadcast_to(matrices, (self.steps, *matrices.shape[-2:])):
            weights = weights - (x @ weights.T - y).T @ x @ matrix / x.shape[0]
        return weights @ x_query


class HeavyBall(nnx.Module):
    """K steps of gradient descent with Polyak's momentum.

        W_(k+1) = W_k - (eta_k / N) sum_i (W_k x_i - y_i) x_i^T + mu_k (W_k - W_(k-1))

    Polyak (1964). `learning_rate` is eta and `momentum` mu, each shared by all `steps` or one for
    each; the first momentum has no effect.
    """

    def __init__(self, learning_rate: Rates, momentum: Rates, steps: int = 2):
        require_size("steps", steps)
        self.learning_rate = as_rates(learning_rate, steps, "learning_rate")
        self.momentum = as_rates(momentum, steps, "momentum")
        self.steps = steps

    @classmethod
    def best(cls, task: LinearRegression, steps: int = 2) -> "HeavyBall":
        """The best K steps with one (eta, mu) on a task, searched on its law of eigenvalues."""
        (rate,) = theory.gd_shared(task, steps).learning_rates
        unit = rate / task.context_size

        def ready(point: np.ndarray) -> tuple[Any, Any]:
            return unit * np.exp(point[0]) * np.ones(steps), point[1] * np.ones(steps)

        point = _search(task, ready, steps, ([0.0, 0.0], [0.5, 0.3]))
        return cls(rate * float(np.exp(point[0])), float(point[1]), steps)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        rates = jnp.broadcast_to(self.learning_rate[...], (self.steps,)) / x.shape[0]
        momenta = jnp.broadcast_to(self.momentum[...], (self.steps,))
        return _roll(x, y, rates, momenta) @ x_query


class Chebyshev(nnx.Module):
    """K steps of Chebyshev's semi-iteration: the smallest worst case over an interval of eigenvalues.

        R(s) = T_K((high + low - 2 s) / (high - low)) / T_K((high + low) / (high - low))

    is what is left in an eigendirection of S = sum_i x_i x_i^T, of eigenvalue s; Golub and Varga
    (1961). [`low`, `high`] are eigenvalues of that plain sum; where they are equal, all steps are
    gradient descent's of size eta = N / high.
    """

    def __init__(self, low: float | jax.Array, high: float | jax.Array, steps: int = 2):
        require_size("steps", steps)
        require_not_negative("low", low)
        require_positive("high", high)
        if isinstance(low, NUMBERS) and isinstance(high, NUMBERS):
            require(bool(low <= high), "low", f"no more than high ({high})", low)
        self.low = nnx.Param(jnp.asarray(low, float))
        self.high = nnx.Param(jnp.asarray(high, float))
        self.steps = steps

    @classmethod
    def best(cls, task: LinearRegression, steps: int = 2) -> "Chebyshev":
        """The best interval for K steps on a task, searched on its law of eigenvalues.

        Not the one that holds all eigenvalues: what counts here is the mean, not the worst case.
        """
        (rate,) = theory.gd_shared(task, steps).learning_rates

        def interval(point: np.ndarray) -> tuple[float, float]:
            centre, width = task.context_size / rate * np.exp(point[0]), 1 / (1 + np.exp(-point[1]))
            return float(centre * (1 - width)), float(centre * (1 + width))

        def ready(point: np.ndarray) -> tuple[Any, Any]:
            return _chebyshev_rates(*interval(point), steps)

        return cls(*interval(_search(task, ready, steps, ([0.0, 0.0], [0.0, 2.0]))), steps)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        rates, momenta = _chebyshev_rates(self.low[...], self.high[...], self.steps)
        return _roll(x, y, rates, momenta) @ x_query


class IterativeNewton(nnx.Module):
    """K iterations of Newton's method for the inverse of the scatter matrix S = sum_i x_i x_i^T.

        M <- M (2 I - S M),   M_0 = alpha I,   W = Y^T X M

    Each squares what is left: R(s) = (1 - alpha s)^(2^K), so K iterations are 2^K steps of gradient
    descent, and none is one; cf. Fu et al. (2023). `scale` is alpha, on the plain sum.
    """

    def __init__(self, scale: float | jax.Array, steps: int = 1):
        require_size("steps", steps, least=0)
        self.scale = nnx.Param(jnp.asarray(scale, float))
        self.steps = steps

    @classmethod
    def best(cls, task: LinearRegression, steps: int = 1) -> "IterativeNewton":
        """The best alpha for K iterations: eta / N of as many shared steps of gradient descent."""
        (rate,) = theory.gd_shared(task, 2**steps).learning_rates
        return cls(rate / task.context_size, steps)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        scatter, eye = x.T @ x, jnp.eye(x.shape[1], dtype=x.dtype)
        inverse = self.scale[...] * eye
        for _ in range(self.steps):
            inverse = inverse @ (2 * eye - scatter @ inverse)
        return y.T @ x @ (inverse @ x_query)


class ConjugateGradients(nnx.Module):
    """K steps of conjugate gradients on the normal equations; nothing to tune.

    Hestenes and Stiefel (1952). Of all K-step methods on S and X^T Y it leaves the smallest squared
    error on the context, for each output; d steps are least squares. Once what is left is rounding,
    further steps stay where they are, also where N < d.
    """

    def __init__(self, steps: int = 1):
        require_size("steps", steps)
        self.steps = steps

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""

        def predict(target: jax.Array) -> jax.Array:
            return self._solve(x.T @ x, target) @ x_query

        return jax.vmap(predict, in_axes=1)(x.T @ y)

    def _solve(self, scatter: jax.Array, target: jax.Array) -> jax.Array:
        """What K steps find for S w = target, (d, d), (d,) -> (d,)."""
        weights, left, way = jnp.zeros_like(target), target, target
        error = target @ target
        # Rounding has parts outside the range of S, along which a step would be as long as it likes.
        least = (10 * jnp.finfo(target.dtype).eps) ** 2 * error
        for _ in range(self.steps):
            along = way @ scatter @ way
            going = (error > least) & (along > 0)
            step = jnp.where(going, error / jnp.where(going, along, 1), 0)
            weights, left = weights + step * way, left - step * scatter @ way
            before, error = error, jnp.where(going, left @ left, error)
            way = left + jnp.where(going, error / jnp.where(going, before, 1), 0) * way
        return weights


def _roll(x: jax.Array, y: jax.Array, rates: jax.Array, momenta: jax.Array) -> jax.Array:
    """Weights after descent from 0 with given steps on the plain sum and momenta, (m, d)."""
    weights = before = jnp.zeros((y.shape[1], x.shape[1]), x.dtype)
    for rate, momentum in zip(rates, momenta, strict=True):
        step = momentum * (weights - before) - rate * (x @ weights.T - y).T @ x
        weights, before = weights + step, weights
    return weights


def _chebyshev_rates(low: Any, high: Any, steps: int) -> tuple[Any, Any]:
    """The semi-iteration as descent with momentum: steps omega_k / centre, momenta omega_k - 1."""
    numpy = jnp if isinstance(low, jax.Array) else np
    centre, spread = (high + low) / 2, (high - low) / (high + low)
    omegas = [numpy.ones_like(centre)]
    for index in range(1, steps):
        omegas.append(1 / (1 - omegas[-1] * spread**2 / (2 if index == 1 else 4)))
    weights = numpy.stack(omegas)
    return weights / centre, weights - 1


def _search(
    task: LinearRegression,
    ready: Callable[[np.ndarray], tuple[Any, Any]],
    steps: int,
    starts: tuple[list[float], ...],
) -> np.ndarray:
    """The parameters that lose least, from the best of some starts; `ready` makes rates of them."""
    from scipy.optimize import minimize  # takes most of a second, and few commands tune

    def loss(point: np.ndarray) -> float:
        def residual(values: np.ndarray) -> np.ndarray:
            left = before = np.ones_like(values)
            for rate, momentum in zip(*ready(point), strict=True):
                left, before = left - rate * values * left + momentum * (left - before), left
            return left

        return population_loss(task, residual)

    options = {"xatol": 1e-6, "fatol": 1e-12}
    found = [minimize(loss, start, method="Nelder-Mead", options=options) for start in starts]
    return np.asarray(min(found, key=lambda result: result.fun).x)
