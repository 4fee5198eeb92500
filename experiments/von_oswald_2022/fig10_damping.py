"""Without damping a repeated layer diverges, as gradient descent does.

Figure 10 (appendix A.6) of von Oswald et al. (2022): roll-outs of a trained layer with damping 1,
.875 and .75. Rare tasks have eigenvalues with which none of these steps is stable, so the roll-out
with damping .75 is also measured on ten times as many tasks.

Expected: with damping 1 the loss diverges; with .75 it falls on most samples of 10,000 tasks,
although its mean over all tasks diverges.
Alias: fig10
Cost: a minute.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import require, require_different, require_memory, require_size
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue, claim_values
from toyicl.models.layers import LAYER_NUMBERS
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.roll_outs import roll_outs
from toyicl.tasks.linear import require_episodes
from toyicl.training.loop import Histories
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the damping."""

    dampings: tuple[float, ...] = (1.0, 0.875, 0.75)
    """Factors on each update, and on the steps of gradient descent; the last must be the smallest."""
    depth: int = 50
    """Number of times that the layer is applied."""
    many_episodes: int = 100_000
    """Number of episodes for the last damping, large enough for rare eigenvalues."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("dampings", self.dampings)
        require_size("depth", self.depth)
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)
        require_episodes("many_episodes", self.many_episodes, self.task)
        require(self.model.depth == 1, "model.depth", "1 to be repeated", self.model.depth)


FULL = Settings()
QUICK = Settings(training=Training(steps=2000, batch_size=512), many_episodes=30_000)
trainings = Study.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the repeated layer with repeated steps of gradient descent, for each damping."""
    history = histories["model"]
    references = best_references(settings.task, 1)
    many = settings.task.sample(jax.random.key(2025), settings.many_episodes)
    last = settings.dampings[-1:]
    rare = roll_outs(settings, history.final, references, last, settings.depth, many)
    return dataset(
        alignment(settings, history, references),
        roll_outs(settings, history.final, references, settings.dampings, settings.depth),
        {"many_loss": (("seed", "layer"), rare["rolled_loss"][1][0])},
        {"many_reference_loss": (("reference", "layer"), rare["rolled_reference_loss"][1][:, 0])},
    )


def draw(results: xr.Dataset) -> Figure:
    """Loss after each layer, for each damping."""

    def panel(axes: Axes, results: xr.Dataset) -> None:
        reference_panels.roll_out_panel(axes, results)
        axes.set(yscale="log")

    each = {
        f"damping {damping:g}": panels.of(panel, damping=damping)
        for damping in results.damping.values
    }
    return panels.figure(results, each, "One trained layer applied repeatedly.", columns=3)


def _smaller_log(results: xr.Dataset, layer: int) -> xr.DataArray:
    """Log10 of the smaller of the model's and GD's losses, undamped; an overflow counts as 10^300."""
    after = results.sel(damping=1.0, layer=layer)
    gd = claim_values.of(after, "rolled_reference_loss", "gd")
    smaller = np.fmin(after.rolled_loss, gd).astype(float)
    return np.log10(smaller.where(np.isfinite(smaller), 1e300))


def _above_descent(results: xr.Dataset) -> xr.DataArray:
    """Whether a seed's final loss with damping .875 is above GD's, or overflows."""
    after = results.sel(damping=0.875).isel(layer=-1)
    gd = claim_values.of(after, "rolled_reference_loss", "gd")
    return ~(after.rolled_loss < gd)


def _largest_rise(losses: xr.DataArray) -> xr.DataArray:
    """Largest increase of a loss from one layer to the next."""
    return losses.diff("layer").max("layer")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-10-1-20": lambda results: _smaller_log(results, 20),
        "VO-10-1-50": lambda results: _smaller_log(results, 50),
        "VO-10-2": lambda results: _largest_rise(results.rolled_loss.sel(damping=0.75)),
        "VO-10-2-rare": lambda results: (~(_largest_rise(results.many_loss) < 0)).mean(),
        "VO-10-3": _above_descent,
    },
)
