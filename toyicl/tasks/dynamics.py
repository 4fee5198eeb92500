"""Next-state prediction in a linear dynamical system, as a task."""

import jax
import jax.numpy as jnp

from toyicl.core.config import require_size, settings, static
from toyicl.core.episode import Episode
from toyicl.tasks.linear import require_episodes


@settings
class Dynamics:
    """Prediction of the next state of a linear dynamical system from N + 1 states.

        s_{t+1} = A s_t,   A orthogonal and new in every episode,   s_0 ~ N(0, I / d)

    The context's pairs are (s_t, s_{t+1}) and the query is the last state. This is next-token
    prediction, the task of language models, with as many outputs as inputs. A is a product of
    Householder reflections, so that the norm of the states is constant.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    dim: int = static(default=5)
    """Number of entries of a state, d."""
    context_size: int = static(default=10)
    """Number of steps in the context, N."""
    reflections: int = static(default=4)
    """Number of reflections whose product is A."""

    def __post_init__(self) -> None:
        for name in ("dim", "context_size", "reflections"):
            require_size(name, getattr(self, name))

    @property
    def outputs(self) -> int:
        """Number of outputs, m: the number of entries of a state."""
        return self.dim

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        require_episodes("episodes", episodes, self)
        shape = (1 + self.reflections, self.dim, episodes)
        start, *normals = jax.random.normal(key, shape, jnp.result_type(float))
        units = [normal / jnp.linalg.norm(normal, axis=0, keepdims=True) for normal in normals]

        def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            following = state
            for unit in units:
                along = jnp.sum(unit * following, axis=0, keepdims=True)
                following = following - 2 * unit * along
            return following, state

        first = start / jnp.sqrt(self.dim)
        last, states = jax.lax.scan(step, first, length=self.context_size + 1)
        return Episode(states[:-1], states[1:], states[-1], last)
