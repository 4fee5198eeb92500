"""Ridge regression, with a fixed or an estimated penalty, and least squares, as learners."""

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl import theory
from toyicl.core.config import require, require_positive
from toyicl.tasks.linear import LinearRegression


class Ridge(nnx.Module):
    """Ridge regression: W = Y^T X (X^T X + penalty I)^-1.

    With penalty sigma^2 / omega^2 it is Bayes-optimal for normal weights of scale omega and normal
    label noise of scale sigma.
    """

    def __init__(self, penalty: float | jax.Array):
        self.penalty = nnx.Param(jnp.asarray(penalty, float))

    @classmethod
    def bayes(cls, task: LinearRegression) -> "Ridge":
        """The ridge that is Bayes-optimal on a task with label noise; see `theory.ridge`."""
        return cls(theory.ridge(task)[1])

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        regularised = x.T @ x + self.penalty[...] * jnp.eye(x.shape[1], dtype=x.dtype)
        return y.T @ x @ jnp.linalg.solve(regularised, x_query)


class AdaptiveRidge(nnx.Module):
    """Ridge regression that estimates the noise from the context; cf. Vladymyrov et al. (2024).

        penalty = sigma^2 / omega^2,   sigma^2 = sum_i |y_i - W_ls x_i|^2 / (m (N - d))

    with W_ls the least-squares solution. The estimate is unbiased, and needs more points than
    inputs. `weight_scale` is omega.
    """

    def __init__(self, weight_scale: float | jax.Array = 1.0):
        require_positive("weight_scale", weight_scale)
        self.weight_scale = nnx.Param(jnp.asarray(weight_scale, float))

    def penalty(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The penalty for a context: (N, d), (N, m) -> (). Raises BadInput unless N > d."""
        count, dim = x.shape
        rule = f"more than the number of inputs, {dim}, to estimate the noise from residuals"
        require(count > dim, "context_size", rule, count)
        # QR, since the rounding errors of the normal equations in float32 can be as large as noise.
        basis, _ = jnp.linalg.qr(x)
        left = y - basis @ (basis.T @ y)
        return jnp.sum(left**2) / (y.shape[1] * (count - dim)) / self.weight_scale[...] ** 2

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        regularised = x.T @ x + self.penalty(x, y) * jnp.eye(x.shape[1], dtype=x.dtype)
        return y.T @ x @ jnp.linalg.solve(regularised, x_query)


class TunedAdaptiveRidge(nnx.Module):
    """Ridge regression with a fitted function of the noise that is estimated from the context.

        penalty = min(factor sigma^2, bound^2)

    with the unbiased estimate sigma^2 of `AdaptiveRidge`, at weights of scale 1. `factor` and `bound`
    are trained. Where the noise of a task has a largest scale, a bound near it corrects estimates that
    are too large; cf. the tuned adaptive ridge of Vladymyrov et al. (2024).
    """

    def __init__(self, factor: float | jax.Array = 1.0, bound: float | jax.Array = 1.0):
        require_positive("factor", factor)
        require_positive("bound", bound)
        self.factor = nnx.Param(jnp.asarray(factor, float))
        self.bound = nnx.Param(jnp.asarray(bound, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,). Raises BadInput unless N > d."""
        estimate = AdaptiveRidge().penalty(x, y)
        penalty = jnp.minimum(self.factor[...] * estimate, self.bound[...] ** 2)
        return Ridge(penalty)(x, y, x_query)


class LeastSquares(nnx.Module):
    """Ordinary least squares; where N < d, the solution of minimum norm.

    At N = d the condition number of the scatter matrix is in the hundreds, so that exact predictions
    need float64.
    """

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return jnp.linalg.lstsq(x, y)[0].T @ x_query
