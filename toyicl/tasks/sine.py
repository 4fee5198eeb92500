"""Regression on sine waves, a family of tasks that no linear model solves."""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from toyicl.core.config import (
    require_at_most,
    require_choice,
    require_not_negative,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.core.episode import Episode
from toyicl.tasks.linear import require_episodes

Draws = Literal["independent", "single_key"]


@settings
class SineRegression:
    """Labels y = amplitude sin(x + phase) of one input, with a new sine wave in each episode.

    The defaults are those of von Oswald et al. (2022), Figure 4, after Finn et al. (2017), except
    that amplitude and phase are independent. The released code draws both from the same random key,
    which makes one a function of the other; this is the variant "single_key".

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    context_size: int = static(default=10)
    """Number of labelled points in the context, N."""
    draws: Draws = static(default="independent")
    """Whether amplitude and phase are independent, or drawn from a single key as in the released
    code."""
    input_range: float = 10.0
    """Width r of the inputs' distribution U(-r/2, r/2)."""
    least_amplitude: float = 0.1
    """Smallest amplitude; amplitudes are uniform."""
    greatest_amplitude: float = 0.5
    """Greatest amplitude."""
    greatest_phase: float = math.pi
    """Greatest phase in radians; phases are uniform between 0 and this."""

    def __post_init__(self) -> None:
        require_size("context_size", self.context_size)
        require_choice("draws", self.draws, get_args(Draws))
        require_positive("input_range", self.input_range)
        require_not_negative("least_amplitude", self.least_amplitude)
        require_positive("greatest_amplitude", self.greatest_amplitude)
        require_not_negative("greatest_phase", self.greatest_phase)
        least, greatest = self.least_amplitude, self.greatest_amplitude
        require_at_most("least_amplitude", least, "greatest_amplitude", greatest)

    @property
    def dim(self) -> int:
        """Number of inputs, 1."""
        return 1

    @property
    def outputs(self) -> int:
        """Number of outputs, 1."""
        return 1

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        require_episodes("episodes", episodes, self)
        u = jax.random.uniform(key, (self.context_size + 3, episodes), jnp.result_type(float))
        x = self.input_range * (u[3:, None] - 0.5)
        x_query = self.input_range * (u[2:3] - 0.5)
        amplitudes = self.greatest_amplitude - self.least_amplitude
        amplitude = self.least_amplitude + amplitudes * u[0]
        phase = self.greatest_phase * u[0 if self.draws == "single_key" else 1]

        def label(x: jax.Array) -> jax.Array:
            height, start = (values.reshape(1, -1) for values in (amplitude, phase))
            return height * jnp.sin(x + start) if x.ndim == 2 else jax.vmap(label)(x)

        return Episode(x, label(x), x_query, label(x_query))
