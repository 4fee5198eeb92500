"""Regression on labels that are not linear, as far as a dial is turned."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from toyicl.core.config import (
    require,
    require_choice,
    require_fraction,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression

Teacher = Literal["sine", "network"]


@settings
class TeacherRegression(DerivedTask):
    """Linear regression whose labels turn into those of a teacher that is not linear.

        y = (1 - share) w . x + share teacher(x)

    The teacher is sin(gain w . x), or a network of one hidden layer, new in every episode:
    sum_h v_h tanh(gain u_h . x) / sqrt(hidden), with standard normal v and u.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    law: LinearRegression = LinearRegression()
    """Inputs and linear labels, without noise."""
    teacher: Teacher = static(default="sine")
    """What the labels turn into."""
    share: float = 1.0
    """How far: 0 is linear, 1 the teacher alone."""
    gain: float = 2.0
    """How strongly the teacher bends."""
    hidden: int = static(default=20)
    """Hidden units of the network."""

    def __post_init__(self) -> None:
        require_choice("teacher", self.teacher, get_args(Teacher))
        require_fraction("share", self.share)
        require_positive("gain", self.gain)
        require_size("hidden", self.hidden)
        for name in ("label_noise", "distractors"):
            value = getattr(self.law, name)
            require(value is None, f"law.{name}", "None under a teacher", value)

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises ValueError unless `episodes` is at least 1.
        """
        law_key, teacher_key = jax.random.split(key)
        x, y, x_query, y_query = self.law.sample(law_key, episodes)
        if self.teacher == "sine":
            bent, bent_query = jnp.sin(self.gain * y), jnp.sin(self.gain * y_query)
        else:
            sizes = (self.hidden, self.dim + self.outputs, episodes)
            drawn = jax.random.normal(teacher_key, sizes, x.dtype)
            inward, outward = drawn[:, : self.dim], drawn[:, self.dim :]

            def network(x: jax.Array) -> jax.Array:
                units = jnp.tanh(self.gain * jnp.einsum("hde,de->he", inward, x))
                return jnp.einsum("hme,he->me", outward, units) / jnp.sqrt(self.hidden)

            bent, bent_query = jax.vmap(network)(x), network(x_query)
        share = self.share
        return Episode(
            x,
            (1 - share) * y + share * bent,
            x_query,
            (1 - share) * y_query + share * bent_query,
        )
