"""Linear regression whose label noise has another scale in every episode."""

import jax

from toyicl.core.config import require, require_not_negative, settings
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression, require_episodes


@settings
class MixedNoise(DerivedTask):
    """Linear regression with label noise of scale sigma ~ U(0, largest_noise), drawn once per episode.

    The defaults are those of Vladymyrov et al. (2024): ten inputs, twenty points, and standard normal
    inputs and weights. The query's label has no noise.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    base: LinearRegression = LinearRegression(dim=10, context_size=20, input_distribution="normal")
    """The distribution of inputs and of labels without noise; its `label_noise` must be None."""
    largest_noise: float = 5.0
    """Largest standard deviation of the noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("largest_noise", self.largest_noise)
        noise = self.base.label_noise
        require(noise is None, "base.label_noise", "None where noise is mixed", noise)

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        return self.sample_with_noise(key, episodes)[0]

    def sample_with_noise(self, key: jax.Array, episodes: int) -> tuple[Episode, jax.Array]:
        """The episodes that `sample` draws, and the scale of the noise in each, (episodes,)."""
        require_episodes("episodes", episodes, self)
        base_key, scale_key, noise_key = jax.random.split(key, 3)
        x, y, x_query, y_query = self.base.sample(base_key, episodes)
        scale = self.largest_noise * jax.random.uniform(scale_key, (episodes,), y.dtype)
        noise = scale[None, None] * jax.random.normal(noise_key, y.shape, y.dtype)
        return Episode(x, y + noise, x_query, y_query), scale
