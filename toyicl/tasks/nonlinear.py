"""Regression on labels that are a mixture of a linear and a nonlinear function."""

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
    """Regression on labels that mix a linear function with a nonlinear teacher.

        y = (1 - fraction) w . x + fraction teacher(x)

    The teacher is sin(gain w . x), or a network with one hidden layer whose weights are new in
    every episode: sum_h v_h tanh(gain u_h . x) / sqrt(hidden), with standard normal v and u.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    base: LinearRegression = LinearRegression()
    """The distribution of the inputs and the linear labels; noise and distractors must be None."""
    teacher: Teacher = static(default="sine")
    """The nonlinear function."""
    fraction: float = 1.0
    """Weight of the teacher in the labels: 0 is linear regression, 1 is the teacher alone."""
    gain: float = 2.0
    """Factor on the argument of the teacher's nonlinear function."""
    hidden: int = static(default=20)
    """Number of hidden units of the network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("teacher", self.teacher, get_args(Teacher))
        require_fraction("fraction", self.fraction)
        require_positive("gain", self.gain)
        require_size("hidden", self.hidden)
        for name in ("label_noise", "distractors"):
            value = getattr(self.base, name)
            require(value is None, f"base.{name}", "None for labels of a teacher", value)

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        base_key, teacher_key = jax.random.split(key)
        x, y, x_query, y_query = self.base.sample(base_key, episodes)
        if self.teacher == "sine":
            taught, taught_query = jnp.sin(self.gain * y), jnp.sin(self.gain * y_query)
        else:
            sizes = (self.hidden, self.dim + self.outputs, episodes)
            drawn = jax.random.normal(teacher_key, sizes, x.dtype)
            inward, outward = drawn[:, : self.dim], drawn[:, self.dim :]

            def network(x: jax.Array) -> jax.Array:
                units = jnp.tanh(self.gain * jnp.einsum("hde,de->he", inward, x))
                return jnp.einsum("hme,he->me", outward, units) / jnp.sqrt(self.hidden)

            taught, taught_query = jax.vmap(network)(x), network(x_query)
        fraction = self.fraction
        return Episode(
            x,
            (1 - fraction) * y + fraction * taught,
            x_query,
            (1 - fraction) * y_query + fraction * taught_query,
        )
