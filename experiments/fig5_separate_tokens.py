"""fig5: with inputs and labels in separate tokens, two layers first copy, then take one step.

Figure 5 of von Oswald et al. (2022): tokens x_1, y_1, ..., each with its position beside it; a softmax
layer, then a linear one. The first is to copy each label to its input, the second to take one step of
gradient descent. A linear first layer is trained beside it, at three learning rates.

Expected: the loss of one step, .206, not of two, .157; no training with a linear first layer.
Cost: 20 minutes; quick: two minutes.
"""

from dataclasses import dataclass

import xarray as xr

from toyicl import study
from toyicl.experiment import Fit
from toyicl.training import Training
from toyicl.transformer import Architecture


@dataclass(frozen=True, kw_only=True)
class Settings(study.Study):
    """Settings of separate tokens."""

    model: Architecture = Architecture(
        tokens="separate", depth=2, first_attention="softmax", key_size=20
    )
    training: Training = Training(steps=10_000, clip_norm=10.0)
    linear_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rates at which a linear first layer is tried."""
    linear_seeds: int = 1
    """Seeds for each of those rates, at most."""
    sensitivity_episodes: int = 64
    """Episodes over which the tokens' sensitivities are averaged."""


FULL = Settings()
QUICK = Settings(training=Training(steps=1000, batch_size=128, clip_norm=10.0, learning_rate=3e-3))
from dataclasses import replace


def measure(settings: study.Study, fit: Fit) -> xr.Dataset:
    history = fit(settings.model, settings.task, settings.training, label="softmax, then linear")
    for rate in settings.linear_rates:
        linear = fit(
            replace(settings.model, first_attention=None),
            settings.task,
            replace(settings.training, learning_rate=rate),
            label=f"linear, rate {rate:g}",
            at_most=settings.linear_seeds,
        )
    raise SystemExit("trained")


def draw(results): ...


CLAIMS = ()
