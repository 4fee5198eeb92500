"""Next-state prediction in a linear dynamical system, as a task."""

import jax
import jax.numpy as jnp

from toyicl.core.config import require_size, settings, static
from toyicl.core.episode import Episode


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
            require_size(name, getattr(self, name))

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
