"""Linear regression whose weights come from a finite pool."""

import jax
import jax.numpy as jnp

from toyicl.core.config import (
    ARRAYS,
    require_memory,
    require_positive,
    require_size,
    require_whole,
    settings,
    static,
)
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression


@settings
class PooledRegression(DerivedTask):
    """Linear regression with weights from a fixed pool of matrices, each with the same probability.

    Inputs and label noise are new in every episode. The pool has `count` matrices, drawn once from the
    distribution of the weights of `base`. The number of them is the diversity of tasks of Raventos et
    al. (2023) and of Lu et al. (2025).

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    base: LinearRegression = LinearRegression(dim=8, input_distribution="normal", label_noise=0.5)
    """The distribution of inputs, noise and, once, of the matrices in the pool."""
    count: int = static(default=8)
    """Number of matrices in the pool."""
    pool_seed: int = 0
    """Seed of the pool, a whole number of at least 0, which may be traced."""
    weight_norm: float | None = None
    """Frobenius norm to which every matrix of the pool is scaled; None leaves them as drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_size("count", self.count)
        entries = self.count * self.outputs * self.dim
        require_memory("count", self.count, entries, dim=self.dim, outputs=self.outputs)
        if not isinstance(self.pool_seed, ARRAYS):
            require_whole("pool_seed", self.pool_seed, least=0)
        if self.weight_norm is not None:
            require_positive("weight_norm", self.weight_norm)

    def pool(self) -> jax.Array:
        """The matrices of the pool, (m, d, count)."""
        drawn = self.base.sample_weights(jax.random.key(self.pool_seed), self.count)
        if self.weight_norm is None:
            return drawn
        return self.weight_norm * drawn / jnp.sqrt(jnp.sum(drawn**2, axis=(0, 1)))[None, None]

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        require_size("episodes", episodes)
        choice_key, episode_key = jax.random.split(key)
        chosen = jax.random.randint(choice_key, (episodes,), 0, self.count)
        return self.base.sample_given(episode_key, self.pool()[..., chosen])
