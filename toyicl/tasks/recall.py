"""Tasks that are not regression: recall, a mixture with regression, and a linear dynamical system.

A layer trained on them was never asked to take a step of gradient descent; whether it looks as if it
did is what they are for.
"""

import jax
import jax.numpy as jnp

from toyicl.core.config import require_fraction, settings
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression


@settings
class Recall(DerivedTask):
    """The query is one of the context's inputs, and its label is to be recalled.

    Labels are independent of inputs, of variance 1, so nothing can be said of any other input.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    law: LinearRegression = LinearRegression()
    """The law of the inputs, and the sizes."""

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises ValueError unless `episodes` is at least 1.
        """
        law_key, label_key, place_key = jax.random.split(key, 3)
        x, y, _, _ = self.law.sample(law_key, episodes)
        y = jax.random.normal(label_key, y.shape, y.dtype)
        place = jax.random.randint(place_key, (episodes,), 0, self.context_size)
        asked = (jnp.arange(self.context_size)[:, None] == place[None]).astype(y.dtype)
        return Episode(x, y, jnp.einsum("nde,ne->de", x, asked), jnp.einsum("nme,ne->me", y, asked))


@settings
class Mixture(DerivedTask):
    """Recall in a share of the episodes, linear regression in the others.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    law: LinearRegression = LinearRegression()
    """The regression, whose inputs and sizes are those of recall, too."""
    recall_share: float = 0.5
    """Share of the episodes that ask to recall."""

    def __post_init__(self) -> None:
        require_fraction("recall_share", self.recall_share)

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises ValueError unless `episodes` is at least 1.
        """
        regression_key, recall_key, choice_key = jax.random.split(key, 3)
        regression = self.law.sample(regression_key, episodes)
        recall = Recall(law=self.law).sample(recall_key, episodes)
        recalls = jax.random.uniform(choice_key, (episodes,)) < self.recall_share

        def choose(one: jax.Array, other: jax.Array) -> jax.Array:
            return jax.vmap(jnp.where, (0, -1, -1), -1)(recalls, one, other)

        return jax.tree.map(choose, recall, regression)
