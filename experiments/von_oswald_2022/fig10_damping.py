"""Without damping a repeated layer diverges, as gradient descent does.

Figure 10 (appendix A.6) of von Oswald et al. (2022): roll-outs of a trained layer with damping 1,
.875 and .75. Rare tasks have eigenvalues on which no such step is stable, so the roll-out at .75 is
measured on ten times as many tasks, too.

Expected: damping 1 blows up; .75 falls on most samples of 10,000 tasks, and diverges on average.
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

from toyicl.core.config import require, require_different, require_size
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment, best_references, roll_outs
from toyicl.training.loop import Histories
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the damping."""

    dampings: tuple[float, ...] = (1.0, 0.875, 0.75)
    """Factors on each update, and on the step of gradient descent; the last is the mildest."""
    depth: int = 50
    """How often the layer is applied."""
    many_episodes: int = 100_000
    """Episodes in which rare eigenvalues show."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("dampings", self.dampings)
        for name in ("depth", "many_episodes"):
            require_size(name, getattr(self, name))
        require(self.model.depth == 1, "model.depth", "1 to be repeated", self.model.depth)


FULL = Settings()
QUICK = Settings(training=Training(steps=2000, batch_size=512), many_episodes=30_000)
trainings = Study.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train one layer, and apply it again and again."""
    history = histories["model"]
    references = best_references(settings.task, 1)
    many = settings.task.sample(jax.random.key(2025), settings.many_episodes)
    mildest = settings.dampings[-1:]
    rare = roll_outs(settings, history.final, mildest, settings.depth, many)
    return dataset(
        alignment(settings, history, references),
        roll_outs(settings, history.final, settings.dampings, settings.depth),
        {"rare_loss": (("seed", "layer"), rare["rolled_loss"][1][0])},
        {"rare_gd_loss": ("layer", rare["rolled_gd_loss"][1][0])},
    )


def draw(results: xr.Dataset) -> Figure:
    """Loss after each layer, for each damping."""

    def panel(axes: Axes, results: xr.Dataset) -> None:
        panels.roll_out_panel(axes, results)
        axes.set(yscale="log")

    each = {
        f"damping {damping:g}": panels.of(panel, damping=damping)
        for damping in results.damping.values
    }
    return panels.figure(results, each, "One trained layer applied again and again.", columns=3)


def _smaller_log(results: xr.Dataset, layer: int) -> xr.DataArray:
    """Log10 of the smaller of the model's and GD's losses, undamped; an overflow counts as 10^300."""
    after = results.sel(damping=1.0, layer=layer)
    smaller = np.fmin(after.rolled_loss, after.rolled_gd_loss).astype(float)
    return np.log10(smaller.where(np.isfinite(smaller), 1e300))


def _share_that_descent_bears_better(results: xr.Dataset) -> xr.DataArray:
    """Share of seeds whose loss after all layers at .875 is above GD's; an overflow is."""
    after = results.sel(damping=0.875).isel(layer=-1)
    return (~(after.rolled_loss < after.rolled_gd_loss)).mean()


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-10-1-20": lambda results: _smaller_log(results, 20),
        "VO-10-1-50": lambda results: _smaller_log(results, 50),
        "VO-10-2": lambda results: results.rolled_loss.sel(damping=0.75).diff("layer").max("layer"),
        "VO-10-2-rare": lambda results: results.rare_loss.diff("layer").max("layer"),
        "VO-10-3": _share_that_descent_bears_better,
    },
)
