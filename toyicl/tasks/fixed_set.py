"""Fixed sets of episodes, for training on the same tasks again and again."""

import jax

from toyicl.core.config import ARRAYS, require, require_size, require_whole, settings, static
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression, require_episodes


@settings
class FixedSet(DerivedTask):
    """A fixed set of episodes; a batch is the whole set, or a random part of it.

    The data sets of von Oswald et al. (2022), Figures 15 and 16. A batch as large as the set is the
    set itself, so that training takes full-batch steps. Smaller batches are drawn with replacement.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    base: LinearRegression = LinearRegression()
    """The distribution that the set is drawn from, once."""
    count: int = static(default=8192)
    """Number of episodes in the set."""
    set_seed: int = 0
    """Seed of the set, a whole number of at least 0, which may be traced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_size("count", self.count)
        if not isinstance(self.set_seed, ARRAYS):
            require_whole("set_seed", self.set_seed, least=0)

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Return the whole set, or draw a smaller batch from it; episodes are on the last axis.

        The key has no effect where `episodes` is the size of the set. Raises BadInput unless
        `episodes` is a whole number between 1 and the size of the set.
        """
        require_episodes("episodes", episodes, self)
        rule = f"at most the number of episodes in the set, task.count ({self.count})"
        require(episodes <= self.count, "episodes", rule, episodes)
        whole = self.base.sample(jax.random.key(self.set_seed), self.count)
        if episodes == self.count:
            return whole
        chosen = jax.random.randint(key, (episodes,), 0, self.count)
        return jax.tree.map(lambda values: values[..., chosen], whole)
