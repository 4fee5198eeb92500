"""The posterior mean over a finite pool of weights, as a learner."""

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import require, require_positive
from toyicl.core.variables import Fixed
from toyicl.tasks.pool import PooledRegression


class PoolPosterior(nnx.Module):
    """The mean of the weights of a finite pool under their posterior.

        W = sum_k p_k W_k,   p = softmax_k(-sum_i |y_i - W_k x_i|^2 / (2 sigma^2))

    It is the Bayes-optimal prediction where W is one of the matrices of the pool, with the same
    probability for each, and labels have normal noise of scale sigma: the discrete minimum mean squared
    error estimator (dMMSE) of Raventos et al. (2023). `pool` is (m, d, count), and `noise` is sigma.
    Raises BadInput for a pool of another rank, and unless `noise` is positive.
    """

    def __init__(self, pool: jax.Array, noise: float | jax.Array):
        matrices = jnp.asarray(pool, float)
        require(matrices.ndim == 3, "pool", "of shape (outputs, dim, count)", matrices.shape)
        require_positive("noise", noise)
        self.pool = Fixed(matrices)
        self.noise = nnx.Param(jnp.asarray(noise, float))

    @classmethod
    def bayes(cls, task: PooledRegression) -> "PoolPosterior":
        """The Bayes-optimal learner of a task. Raises BadInput for a task without label noise."""
        noise = task.base.label_noise
        rule = "above 0, for a posterior over the pool"
        require(noise is not None, "task.base.label_noise", rule, noise)
        require_positive("task.base.label_noise", noise)
        return cls(task.pool(), noise)  # type: ignore[arg-type]

    def posterior(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Posterior probabilities of the matrices of the pool: (N, d), (N, m) -> (count,)."""
        left = y[..., None] - jnp.tensordot(x, self.pool[...], (1, 1))
        return jax.nn.softmax(-jnp.sum(left**2, axis=(0, 1)) / (2 * self.noise[...] ** 2))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return jnp.tensordot(x_query, self.pool[...], (0, 1)) @ self.posterior(x, y)
