"""Iterative solvers as learners, which converge faster than gradient descent.

All minimise the context's squared error, starting from W = 0. Preconditioned gradient descent uses
the covariance of the inputs. Methods with momentum have a better polynomial of the scatter matrix S
= sum_i x_i x_i^T as their residual. Newton's iteration squares the residual. Conjugate gradients
have another polynomial for every context.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from toyicl import theory
from toyicl.algorithms.gradient_descent import Rates, as_rates
from toyicl.core.config import (
    require,
    require_at_most,
    require_not_negative,
    require_positive,
    require_size,
)
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.step_search import LogLoss, lowest, minimise, unit_problem


class PreconditionedGradientDescent(nnx.Module):
    """K steps of gradient descent with a matrix in place of the step size.

        W <- W - (1 / N) sum_i (W x_i - y_i) x_i^T A_k

    Ahn et al. (2023). `preconditioner` is A: (d, d), which all `steps` share, or (steps, d, d).
    Raises BadInput for other shapes.
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
        """The best single step on normal inputs; see `theory.best_step_matrix`."""
        return cls(task.context_size * theory.best_step_matrix(task).matrix)

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

    Polyak (1964). `learning_rate` is eta and `momentum` is mu. Each is a number that all `steps`
    share, or one for each step, (steps,). The first momentum has no effect. Raises BadInput for
    other shapes.
    """

    def __init__(self, learning_rate: Rates, momentum: Rates, steps: int = 2):
        require_size("steps", steps)
        self.learning_rate = as_rates(learning_rate, steps, "learning_rate")
        self.momentum = as_rates(momentum, steps, "momentum")
        self.steps = steps

    @classmethod
    def best(cls, task: LinearRegression, steps: int = 2) -> "HeavyBall":
        """The best K steps with one (eta, mu) on a task: a local optimum, found by `minimise`."""
        problem, unit = unit_problem(task), _unit_rate(task, steps)
        starts = [np.array(start) for start in ((unit, 0.0), (1.65 * unit, 0.3), (unit, 0.6))]
        rate, momentum = minimise(LogLoss(_momentum_residual), starts, problem, steps).parameters
        return cls(float(rate) / float(task.input_range) ** 2 * task.context_size, momentum, steps)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        rates = jnp.broadcast_to(self.learning_rate[...], (self.steps,)) / x.shape[0]
        momenta = jnp.broadcast_to(self.momentum[...], (self.steps,))
        return _descend(x, y, rates, momenta) @ x_query


class Chebyshev(nnx.Module):
    """K steps of Chebyshev's semi-iteration, the best method in the worst case on an interval.

        R(s) = T_K((high + low - 2 s) / (high - low)) / T_K((high + low) / (high - low))

    is the residual in a direction of eigenvalue s of S = sum_i x_i x_i^T; Golub and Varga (1961).
    The interval of eigenvalues of this plain sum is [`low`, `high`]. Where both are equal, all
    steps are those of gradient descent with eta = N / high. Raises BadInput unless 0 <= low <= high
    > 0.
    """

    def __init__(self, low: float | jax.Array, high: float | jax.Array, steps: int = 2):
        require_size("steps", steps)
        require_not_negative("low", low)
        require_positive("high", high)
        require_at_most("low", low, "high", high)
        self.low = nnx.Param(jnp.asarray(low, float))
        self.high = nnx.Param(jnp.asarray(high, float))
        self.steps = steps

    @classmethod
    def best(cls, task: LinearRegression, steps: int = 2) -> "Chebyshev":
        """The best interval for K steps on a task: a local optimum, found by `minimise`.

        The interval does not contain all eigenvalues, since the loss is a mean and not a worst
        case.
        """
        problem, centre = unit_problem(task), -np.log(_unit_rate(task, steps))
        starts = [np.array([centre, width]) for width in (0.0, 2.0)]
        found = minimise(LogLoss(_chebyshev_residual), starts, problem, steps).parameters
        centre, width = np.exp(found[0]), 1 / (1 + np.exp(-found[1]))
        area = float(task.input_range) ** 2
        return cls(float(area * centre * (1 - width)), float(area * centre * (1 + width)), steps)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        rates, momenta = _chebyshev_rates(self.low[...], self.high[...], self.steps)
        return _descend(x, y, rates, momenta) @ x_query


class IterativeNewton(nnx.Module):
    """K iterations of Newton's method for the inverse of S = sum_i x_i x_i^T.

        M <- M (2 I - S M),   M_0 = alpha I,   W = Y^T X M

    Each iteration squares the residual: R(s) = (1 - alpha s)^(2^K). K iterations are therefore 2^K
    steps of gradient descent, and K = 0 is one step; cf. Fu et al. (2023). `scale` is alpha, of the
    plain sum.

    An iteration whose |S| |M|, in Frobenius norms, exceeds the reciprocal of the rounding error is
    left out: S M has no correct digits then, and further iterations would multiply errors without
    bound.
    """

    def __init__(self, scale: float | jax.Array, steps: int = 1):
        require_size("steps", steps, least=0)
        self.scale = nnx.Param(jnp.asarray(scale, float))
        self.steps = steps

    @classmethod
    def best(cls, task: LinearRegression, steps: int = 1) -> "IterativeNewton":
        """The best alpha for K iterations on a task: a local optimum, found by `minimise`.

        It is eta / N of the best 2^K shared steps of gradient descent.
        """
        require_size("steps", steps, least=0)
        problem, unit = unit_problem(task), _unit_rate(task, 1)
        # With noise the best alpha falls as 2^-K. Without noise it approaches 2 over the largest s.
        candidates = [np.array(unit * 2.0**-power) for power in range(steps + 4)]
        objective = LogLoss(_newton_residual)
        start = lowest(objective, candidates, problem, steps)
        found = minimise(objective, [start], problem, steps).parameters
        return cls(float(found) / float(task.input_range) ** 2, steps)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        scatter, eye = x.T @ x, jnp.eye(x.shape[1], dtype=x.dtype)
        most = 1 / jnp.finfo(x.dtype).eps
        size = jnp.linalg.norm(scatter)
        inverse = self.scale[...] * eye
        for _ in range(self.steps):
            following = inverse @ (2 * eye - scatter @ inverse)
            inverse = jnp.where(size * jnp.linalg.norm(following) < most, following, inverse)
        return y.T @ x @ (inverse @ x_query)


class ConjugateGradients(nnx.Module):
    """K steps of conjugate gradients on the normal equations, without parameters.

    Hestenes and Stiefel (1952). Of all methods that use K products with S, it has the smallest
    squared error on the context, for each output. d steps are least squares. Once the residual is
    at the level of rounding errors, further steps have no effect, also where N < d.
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
        """The approximate solution of S w = target after K steps: (d, d), (d,) -> (d,)."""
        weights, left, way = jnp.zeros_like(target), target, target
        error = target @ target
        # Rounding errors have components outside the range of S, along which the length of a step
        # is arbitrary.
        least = (10 * jnp.finfo(target.dtype).eps) ** 2 * error
        for _ in range(self.steps):
            along = way @ scatter @ way
            going = (error > least) & (along > 0)
            step = jnp.where(going, error / jnp.where(going, along, 1), 0)
            weights, left = weights + step * way, left - step * scatter @ way
            before, error = error, jnp.where(going, left @ left, error)
            way = left + jnp.where(going, error / jnp.where(going, before, 1), 0) * way
        return weights


def _descend(x: jax.Array, y: jax.Array, rates: jax.Array, momenta: jax.Array) -> jax.Array:
    """Weights after descent with momentum from 0, (m, d); rates are of the plain sum, (steps,)."""
    weights = before = jnp.zeros((y.shape[1], x.shape[1]), x.dtype)
    for rate, momentum in zip(rates, momenta, strict=True):
        step = momentum * (weights - before) - rate * (x @ weights.T - y).T @ x
        weights, before = weights + step, weights
    return weights


def _chebyshev_rates(low: jax.Array, high: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """The semi-iteration as descent with momentum: steps omega_k / centre, momenta omega_k - 1."""
    centre, width = (high + low) / 2, (high - low) / (high + low)
    omegas = [jnp.ones_like(centre)]
    for index in range(1, steps):
        omegas.append(_next_omega(index, omegas[-1], width))
    weights = jnp.stack(omegas)
    return weights / centre, weights - 1


def _next_omega(index: int | jax.Array, omega: jax.Array, width: jax.Array) -> jax.Array:
    """omega_k of the semi-iteration from omega_(k-1), for k = `index` counted from 0."""
    following = 1 / (1 - omega * width**2 / jnp.where(index == 1, 2, 4))
    return jnp.where(index == 0, jnp.ones_like(following), following)


def _momentum_residual(
    parameters: jax.Array, values: jax.Array, steps: int | jax.Array
) -> jax.Array:
    """Residual of descent with momentum with parameters (h, mu) at eigenvalues (n,); (n,)."""
    rate, momentum = parameters

    def step(_: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, before = state
        return left - rate * values * left + momentum * (left - before), left

    start = jnp.ones_like(values)
    return jax.lax.fori_loop(0, steps, step, (start, start))[0]


def _chebyshev_residual(
    parameters: jax.Array, values: jax.Array, steps: int | jax.Array
) -> jax.Array:
    """Residual of the semi-iteration at eigenvalues (n,); (n,).

    Parameters are the logarithm of the interval's centre, and the logit of its half-width over its
    centre.
    """
    centre, width = jnp.exp(parameters[0]), jax.nn.sigmoid(parameters[1])

    def step(index: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        left, before, omega = state
        omega = _next_omega(index, omega, width)
        return left - omega / centre * values * left + (omega - 1) * (left - before), left, omega

    start = jnp.ones_like(values)
    return jax.lax.fori_loop(0, steps, step, (start, start, jnp.ones_like(centre)))[0]


def _newton_residual(scale: jax.Array, values: jax.Array, steps: int | jax.Array) -> jax.Array:
    """Residual of Newton's iteration, (1 - alpha s)^(2^K), at eigenvalues (n,); (n,)."""
    return jax.lax.fori_loop(0, steps, lambda _, left: left * left, 1 - scale * values)


def _unit_rate(task: LinearRegression, steps: int) -> float:
    """Step h = eta / N of the best shared steps of gradient descent, at input range 1."""
    (rate,) = theory.gd_shared(task, steps).learning_rates
    return rate / task.context_size * float(task.input_range) ** 2
