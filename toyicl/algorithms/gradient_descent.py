"""Closed-form algorithms as learners, to set beside a trained transformer.

Each is written the way a textbook writes it, on weights where it has weights, so that it can serve as
the oracle of the transformers that claim to do the same. Their step sizes are parameters: `fit`
tunes them where no closed form does.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl import theory
from toyicl.core.config import require, require_size
from toyicl.core.variables import Fixed
from toyicl.tasks.linear import LinearRegression

Rates = float | Sequence[float] | jax.Array


def as_rates(rates: Rates, steps: int, name: str) -> nnx.Param:
    """A rate as a parameter: a scalar shared by all steps, or one for each."""
    values = jnp.asarray(rates, float)
    rule = f"one number, or one for each of {steps} steps"
    require(values.shape in ((), (steps,)), name, rule, rates)
    return nnx.Param(values)


class GradientDescent(nnx.Module):
    """K steps of gradient descent on the context's squared error, from W_0 (zero unless given).

        W <- W - (eta_k / N) sum_i (W x_i - y_i) x_i^T

    von Oswald et al. (2022), equation 3. `learning_rate` is eta: a number shared by all `steps`, or
    one for each step; `initial_weights` is W_0, (m, d).
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
        """The best K steps of one size on a task; see `theory.gd_shared`."""
        (rate,) = theory.gd_shared(task, steps).learning_rates
        return cls(rate, steps)

    @classmethod
    def per_step(cls, task: LinearRegression, steps: int = 1) -> "GradientDescent":
        """The best K steps, each of its own size; see `theory.gd_per_step`."""
        return cls(theory.gd_per_step(task, steps).learning_rates, steps)

    def weights(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The weights after the last step, (m, d)."""
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
    """K steps of GD++: gradient descent that also corrects the curvature of its inputs.

        y_j <- y_j - (eta_k / N) sum_i y_i x_i . x_j
        x_j <- x_j - gamma_k sum_i x_i x_i . x_j

    for all points at once, the query (label 0) among them; von Oswald et al. (2022), appendix A.10.
    `curvature` is gamma, on the sum; the last step's gamma has no effect. Each is a number shared by
    all `steps`, or one for each.
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
        """The best K steps, each with its own (eta, gamma); see `theory.gdpp_per_layer`."""
        optimum = theory.gdpp_per_layer(task, steps)
        # The last gamma moves nothing that is read, so theory gives none.
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
