"""Tasks that are not regression: recall, a mixture with regression, and a linear dynamical system.

A layer trained on them was never asked to take a step of gradient descent; whether it looks as if it
did is what they are for.
"""

import jax
import jax.numpy as jnp

from toyicl.episode import Episode
from toyicl.settings import require_share, require_size, settings, static
from toyicl.tasks import LinearRegression, OnLaw


@settings
class Recall(OnLaw):
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
class Mixture(OnLaw):
    """Recall in a share of the episodes, linear regression in the others.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    law: LinearRegression = LinearRegression()
    """The regression, whose inputs and sizes are those of recall, too."""
    recall_share: float = 0.5
    """Share of the episodes that ask to recall."""

    def __post_init__(self) -> None:
        require_share("task.recall_share", self.recall_share)

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


@settings
class Dynamics:
    """The next state of a linear dynamical system, after a trajectory of N + 1 states.

        s_{t+1} = A s_t,   A orthogonal and new in every episode,   s_0 ~ N(0, I / d)

    The context's points are (s_t, s_{t+1}), the query is the last state: next-token prediction of the
    kind that language models are trained on, with as many outputs as inputs. A is a product of
    reflections, so that states neither grow nor fade.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    dim: int = static(default=5)
    """Number of entries of a state, d."""
    context_size: int = static(default=10)
    """Number of steps in the context, N."""
    reflections: int = static(default=4)
    """How many reflections make up A."""

    def __post_init__(self) -> None:
        for name in ("dim", "context_size", "reflections"):
            require_size(f"task.{name}", getattr(self, name))

    @property
    def outputs(self) -> int:
        """Number of outputs, that of the state's entries."""
        return self.dim

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises ValueError unless `episodes` is at least 1.
        """
        require_size("episodes", episodes)
        shape = (1 + self.reflections, self.dim, episodes)
        start, *normals = jax.random.normal(key, shape, jnp.result_type(float))
        lines = [normal / jnp.linalg.norm(normal, axis=0, keepdims=True) for normal in normals]

        def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            following = state
            for line in lines:
                along = jnp.sum(line * following, axis=0, keepdims=True)
                following = following - 2 * line * along
            return following, state

        first = start / jnp.sqrt(self.dim)
        last, states = jax.lax.scan(step, first, length=self.context_size + 1)
        return Episode(states[:-1], states[1:], states[-1], last)
