"""A layer trained at ten points keeps its step per point, whatever the context's size.

Gradient descent with the best step for ten points, left as it is, on contexts of other sizes: the sum
over points grows with them, and at fifty the step is so large that predicting 0 would be better.

Expected: losses .2849, .2084, .6101, 1.490 at 5, 20, 35 and 50 points, as gradient descent's.
Cost: half a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.core.config import require_different, require_size
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue
from toyicl.plots import figures, panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.training.loop import Histories
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of other context sizes."""

    sizes: tuple[int, ...] = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50)
    """Context sizes at which the layer is measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("sizes", self.sizes)
        for size in self.sizes:
            require_size("sizes", size)


FULL = Settings()
QUICK = Settings(training=Training(steps=1500, batch_size=256, learning_rate=2e-3))
trainings = Study.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train at the task's own size, and measure at others."""
    history = histories["model"]
    best = theory.gd_shared(settings.task, 1).learning_rates[0]
    own, other, exact = [], [], []
    for size in settings.sizes:
        task = replace(settings.task, context_size=size)
        elsewhere = replace(settings, task=task).episodes()
        rate = best * size / settings.task.context_size  # the same step for each point
        own.append(metrics.losses(history.final, elsewhere))
        other.append(metrics.loss(GradientDescent(rate), elsewhere))
        exact.append(theory.gradient_descent_loss(task, rate))
    return dataset(
        alignment(settings, history, best_references(settings.task, 1)),
        {"points": list(settings.sizes)},
        {"size_loss": (("points", "seed"), np.stack(own)), "size_gd_loss": ("points", other)},
        {"exact_size_gd_loss": ("points", exact)},
    )


def draw(results: xr.Dataset) -> Figure:
    """The loss at each size."""

    def panel(axes: Axes, results: xr.Dataset) -> None:
        color = figures.MODEL
        figures.every_seed(axes, results.size_loss, "points", label="trained", color=color)
        axes.plot(results.points, results.size_gd_loss, "x--", color=figures.REFERENCE, label="GD")
        axes.plot(results.points, results.exact_size_gd_loss, "k:", label="GD, exact")
        axes.set(xlabel="context size", ylabel="loss", yscale="log")
        axes.legend()

    drawn = {"loss during training": panels.training_panel, "other context sizes": panel}
    return panels.figure(results, drawn, "One linear layer, trained at one context size.")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        f"CR-7-{size}": lambda results: results.size_loss / results.exact_size_gd_loss
        for size in (5, 20, 35, 50)
    },
)
