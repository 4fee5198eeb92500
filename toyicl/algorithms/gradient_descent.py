"""Gradient descent and GD++ as learners, references for a trained transformer.

Both are written as in a textbook, so that they can serve as oracles in tests of transformers that
are constructed or trained to do the same. Their step sizes are parameters. The class methods give
the best step sizes on a task of linear regression; on other tasks `training.fit` can tune them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from toyicl import theory
from toyicl.core.config import require, require_size
from toyicl.core.variables import Fixed
from toyicl.tasks.linear import LinearRegression

Rates = float | Sequence[float] | jax.Array


def as_rates(rates: Rates, steps: int, name: str) -> nnx.Param:
    """A rate as a parameter: a number that all steps share, (), or one for each step, (steps,).

    Raises BadInput, which names `name`, for another shape.
    """
    values = jnp.asarray(rates, float)
    rule = f"one number, or one for each of {steps} steps"
    require(values.shape in ((), (steps,)), name, rule, rates)
    return nnx.Param(values)


def leja_order(rates: Sequence[float]) -> np.ndarray:
    """Step sizes of gradient descent in an order in which rounding errors do not grow, (steps,).

    The order of the steps has no effect in exact arithmetic. In float32, twenty steps with the
    largest first lose all accuracy, because they multiply rounding errors by large factors before
    smaller steps divide by them. In Leja order the reciprocals of the step sizes, the roots of the
    residual, maximise the product of distances to the roots before them; cf. Calvetti and Reichel
    (1996).
    """
    roots = 1 / np.asarray(rates, np.float64)
    order = [int(np.argmax(np.abs(roots)))]
    log_distance = np.zeros_like(roots)
    for _ in range(roots.size - 1):
        with np.errstate(divide="ignore"):  # equal roots have distance 0, and come last
            log_distance += np.log(np.abs(roots - roots[order[-1]]))
        log_distance[order] = -np.inf
        rest = [index for index in range(roots.size) if index not in order]
        order.append(max(rest, key=lambda index: log_distance[index]))
    return np.asarray(rates, np.float64)[order]


class GradientDescent(nnx.Module):
    """K steps of gradient descent on the context's squared error, from W_0, by default 0.

        W <- W - (eta_k / N) sum_i (W x_i - y_i) x_i^T

    von Oswald et al. (2022), equation 3. `learning_rate` is eta: a number that all `steps` share,
    or one for each step, (steps,). `initial_weights` is W_0, (m, d). Raises BadInput for other
    shapes.
    """

    def __init__(
        self,
        learning_rate: Rates,
        steps: int = 1,
        *,
        initial_weights: jax.Array | None = None,
    ):
        require_size("steps", steps)
        self.learning_rate = as_rates(learning_rate, steps, "learning_rate")
        self.steps = steps
        self.initial_weights = (
            None if initial_weights is None else Fixed(jnp.asarray(initial_weights))
        )

    @classmethod
    def shared(cls, task: LinearRegression, steps: int = 1) -> "GradientDescent":
        """The best K steps from 0 with one learning rate on a task; see `theory.gd_shared`."""
        (rate,) = theory.gd_shared(theory.recentred(task), steps).learning_rates
        return cls(rate, steps)

    @classmethod
    def from_mean(cls, task: LinearRegression, steps: int = 1) -> "GradientDescent":
        """The best K steps with one learning rate from the mean of the weights of a task."""
        mean = float(task.weight_mean or 0.0)
        (rate,) = theory.gd_shared(theory.recentred(task, mean), steps).learning_rates
        return cls(rate, steps, initial_weights=jnp.full((task.outputs, task.dim), mean))

    @classmethod
    def per_step(cls, task: LinearRegression, steps: int = 1) -> "GradientDescent":
        """The best K steps from 0, each with its own learning rate; see `theory.gd_per_step`.

        The steps are in Leja order, so that they can be taken in float32.
        """
        rates = theory.gd_per_step(theory.recentred(task), steps).learning_rates
        return cls(jnp.asarray(leja_order(rates)), steps)

    def weights(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The weights after the last step: (N, d), (N, m) -> (m, d)."""
        start = self.initial_weights
        weights = jnp.zeros((y.shape[1], x.shape[1]), x.dtype) if start is None else start[...]
        for rate in jnp.broadcast_to(self.learning_rate[...], (self.steps,)):
            gradient = (x @ weights.T - y).T @ x / x.shape[0]
            weights = weights - rate * gradient
        return weights

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return self.weights(x, y) @ x_query


class GradientDescentPlusPlus(nnx.Module):
    """K steps of GD++: gradient descent with a transformation of the inputs after each step.

        y_j <- y_j - (eta_k / N) sum_i y_i x_i . x_j
        x_j <- x_j - gamma_k sum_i x_i x_i . x_j

    for all points at once, including the query with label 0; von Oswald et al. (2022), appendix
    A.10. `learning_rate` is eta and `curvature` gamma, of the plain sum. Each is a number that all
    `steps` share, or one for each step, (steps,). The gamma of the last step has no effect. Raises
    BadInput for other shapes.
    """

    def __init__(self, learning_rate: Rates, curvature: Rates, steps: int = 2):
        require_size("steps", steps)
        self.learning_rate = as_rates(learning_rate, steps, "learning_rate")
        self.curvature = as_rates(curvature, steps, "curvature")
        self.steps = steps

    @classmethod
    def shared(cls, task: LinearRegression, steps: int = 2) -> "GradientDescentPlusPlus":
        """The best K steps with one (eta, gamma) on a task; see `theory.gdpp_shared`."""
        optimum = theory.gdpp_shared(task, steps)
        return cls(optimum.learning_rates[0], optimum.curvatures[0], steps)

    @classmethod
    def per_layer(cls, task: LinearRegression, steps: int = 2) -> "GradientDescentPlusPlus":
        """The best K steps, each with its own (eta, gamma); see `theory.gdpp_per_layer`.

        Raises BadInput for more steps than `theory.optimal_steps.MOST_STEPS_PER_LAYER`.
        """
        optimum = theory.gdpp_per_layer(task, steps)
        # The gamma of the last step has no effect on the prediction, and theory gives none.
        return cls(optimum.learning_rates, (*optimum.curvatures, 0.0), steps)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        rates = jnp.broadcast_to(self.learning_rate[...], (self.steps,))
        curvatures = jnp.broadcast_to(self.curvature[...], (self.steps,))
        count, y_query = x.shape[0], jnp.zeros(y.shape[1], y.dtype)
        for rate, curvature in zip(rates, curvatures, strict=True):
            scatter, moments = x.T @ x, x.T @ y
            y, y_query = y - rate / count * x @ moments, y_query - rate / count * x_query @ moments
            x, x_query = x - curvature * x @ scatter, x_query - curvature * x_query @ scatter
        return -y_query
