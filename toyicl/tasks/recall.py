"""Associative recall, and its mixture with linear regression.

Associative recall is a standard task of in-context learning: the query repeats one of the context's
inputs, and the answer is that input's label. It needs no regression. Models that are trained on it
are a control for measures of similarity to gradient descent.
"""

import jax
import jax.numpy as jnp

from toyicl.core.config import require_fraction, settings
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression


@settings
class Recall(DerivedTask):
    """Associative recall: the query is one of the context's inputs, the answer is its label.

    Labels are standard normal and independent of the inputs, so that they predict nothing about any
    other input.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    base: LinearRegression = LinearRegression()
    """The distribution of the inputs, and the sizes. Its labels are not used."""

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        base_key, label_key, place_key = jax.random.split(key, 3)
        x, y, _, _ = self.base.sample(base_key, episodes)
        y = jax.random.normal(label_key, y.shape, y.dtype)
        place = jax.random.randint(place_key, (episodes,), 0, self.context_size)
        asked = (jnp.arange(self.context_size)[:, None] == place[None]).astype(y.dtype)
        return Episode(x, y, jnp.einsum("nde,ne->de", x, asked), jnp.einsum("nme,ne->me", y, asked))


@settings
class Mixture(DerivedTask):
    """Associative recall in a fraction of the episodes, linear regression in the others.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    base: LinearRegression = LinearRegression()
    """The regression task. Recall has the same inputs and sizes."""
    recall_fraction: float = 0.5
    """Probability that an episode is one of recall."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("recall_fraction", self.recall_fraction)

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        regression_key, recall_key, choice_key = jax.random.split(key, 3)
        regression = self.base.sample(regression_key, episodes)
        recall = Recall(base=self.base).sample(recall_key, episodes)
        recalls = jax.random.uniform(choice_key, (episodes,)) < self.recall_fraction

        def choose(one: jax.Array, other: jax.Array) -> jax.Array:
            return jax.vmap(jnp.where, (0, -1, -1), -1)(recalls, one, other)

        return jax.tree.map(choose, recall, regression)
