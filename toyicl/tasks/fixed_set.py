"""Fixed pools of episodes: what training on the same tasks again and again needs."""

import jax

from toyicl.core.config import require, require_size, settings, static
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression


@settings
class FixedSet(DerivedTask):
    """A fixed set of episodes to train on, all of them in each batch or some drawn anew every time.

    The data sets of von Oswald et al. (2022), Figures 15 and 16. A batch as large as the set is the
    set itself, so that training takes full-batch steps; smaller ones are drawn with replacement.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    law: LinearRegression = LinearRegression()
    """Where the set is drawn from, once."""
    count: int = static(default=8192)
    """How many episodes are in the set."""
    set_seed: int = 0
    """Which set: another seed draws another."""

    def __post_init__(self) -> None:
        require_size("count", self.count)

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """The whole set if it has as many episodes, else so many drawn from it; on the last axis.

        Raises ValueError unless `episodes` is at least 1 and at most the size of the set.
        """
        require_size("episodes", episodes)
        require(episodes <= self.count, "episodes", f"at most task.count ({self.count})", episodes)
        pool = self.law.sample(jax.random.key(self.set_seed), self.count)
        if episodes == self.count:
            return pool
        chosen = jax.random.randint(key, (episodes,), 0, self.count)
        return jax.tree.map(lambda values: values[..., chosen], pool)
