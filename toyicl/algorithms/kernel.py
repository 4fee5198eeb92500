"""Learners that compare the query with each context point: candidates for softmax attention.

Their kernel is that of softmax attention, exp(scale x . x'). One softmax head is a Nadaraya-Watson
average, which is also a step of gradient descent in the kernel's function space with a step size
that depends on the query. The difference of two heads with small logits of opposite sign is a step
of gradient descent on centred inputs.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl import theory
from toyicl.algorithms.gradient_descent import Rates, as_rates
from toyicl.core.config import require_not_negative, require_size
from toyicl.tasks.linear import LinearRegression


class NadarayaWatson(nnx.Module):
    """The mean of the labels with weights proportional to exp(scale x_i . x_q).

    Nadaraya (1964), Watson (1964). This is softmax attention to the labels. `scale` may be any
    number; for 0 the learner is `AveragedLabels`.
    """

    def __init__(self, scale: float | jax.Array):
        self.scale = nnx.Param(jnp.asarray(scale, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return jax.nn.softmax(self.scale[...] * x @ x_query) @ y


class KernelRidge(nnx.Module):
    """Ridge regression in the function space of the exponential kernel.

        f(x_q) = k_q (K + penalty I)^-1 Y,   K_ij = exp(scale x_i . x_j)

    The prediction is the posterior mean of a Gaussian process with Gaussian label noise. For a small
    `scale` K is close to a matrix of rank 1, so that without a `penalty` the prediction needs
    float64. Raises BadInput for a negative `penalty`.
    """

    def __init__(self, scale: float | jax.Array, penalty: float | jax.Array):
        require_not_negative("penalty", penalty)
        self.scale = nnx.Param(jnp.asarray(scale, float))
        self.penalty = nnx.Param(jnp.asarray(penalty, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        scale = self.scale[...]
        gram = jnp.exp(scale * x @ x.T) + self.penalty[...] * jnp.eye(x.shape[0], dtype=x.dtype)
        return jnp.exp(scale * x @ x_query) @ jnp.linalg.solve(gram, y)


class FunctionalDescent(nnx.Module):
    """K steps of gradient descent in the function space of the exponential kernel, from f = 0.

        f <- f + (eta_k / N) sum_i k(x_i, .) (y_i - f(x_i)),   k(x, x') = exp(scale x . x')

    Cf. Cheng et al. (2023). `learning_rate` is eta: a number that all `steps` share, or one for each
    step, (steps,). Raises BadInput for other shapes.
    """

    def __init__(self, scale: float | jax.Array, learning_rate: Rates, steps: int = 1):
        require_size("steps", steps)
        self.scale = nnx.Param(jnp.asarray(scale, float))
        self.learning_rate = as_rates(learning_rate, steps, "learning_rate")
        self.steps = steps

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        scale = self.scale[...]
        gram, row = jnp.exp(scale * x @ x.T), jnp.exp(scale * x @ x_query)
        # f is represented by its coefficients: f(x) = sum_i coefficients_i k(x_i, x).
        coefficients = jnp.zeros_like(y)
        for rate in jnp.broadcast_to(self.learning_rate[...], (self.steps,)):
            coefficients = coefficients + rate / x.shape[0] * (y - gram @ coefficients)
        return row @ coefficients


class AveragedLabels(nnx.Module):
    """The mean label of the context for every query: a baseline for softmax attention."""

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return jnp.mean(y, axis=0)


class NearestNeighbour(nnx.Module):
    """The label of the context point that is nearest to the query, the first in case of a tie."""

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return y[jnp.argmin(jnp.sum((x - x_query[None]) ** 2, axis=1))]


class CentredDescent(nnx.Module):
    """One step of gradient descent on centred inputs.

        (eta / N) sum_i (x_i - mean x) . x_q y_i

    This is the limit of the difference of two softmax heads with logits of opposite sign, as the
    logits approach 0: the prediction depends on the covariance of x and y, not on their product
    (`models.construction.subtracted_heads`). `learning_rate` is eta, a number.
    """

    def __init__(self, learning_rate: float | jax.Array):
        self.learning_rate = as_rates(learning_rate, 1, "learning_rate")

    @classmethod
    def best(cls, task: LinearRegression) -> "CentredDescent":
        """The best step on a task; see `theory.centred_optimum`."""
        (rate,) = theory.centred_optimum(task).learning_rates
        return cls(rate)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        centred = x - jnp.mean(x, axis=0, keepdims=True)
        return self.learning_rate[...] / x.shape[0] * (x_query @ centred.T) @ y
