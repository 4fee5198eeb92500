"""A layer trained with ten points keeps its step per point for contexts of other sizes.

Gradient descent with the best step for ten points, unchanged, on contexts of other sizes: the sum
over points grows with their number, and with fifty points the step is so large that predicting 0
would be better.

Expected: losses .2849, .2084, .6101 and 1.490 with 5, 20, 35 and 50 points, those of gradient
descent.
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
from toyicl.harness import catalogue, claim_values
from toyicl.plots import figures, panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.training.loop import Histories
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of other context sizes."""

    sizes: tuple[int, ...] = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50)
    """Context sizes at which the layer is evaluated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("sizes", self.sizes)
        for size in self.sizes:
            require_size("sizes", size)


FULL = Settings()
QUICK = Settings(training=Training(steps=1500, batch_size=256, learning_rate=2e-3))
trainings = Study.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Evaluate the layer, and gradient descent with the same step, at other context sizes."""
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
        {"size_loss": (("points", "seed"), np.stack(own))},
        {"size_reference_loss": (("reference", "points"), np.stack([other]))},
        {"exact_size_reference_loss": (("reference", "points"), np.stack([exact]))},
    )


def draw(results: xr.Dataset) -> Figure:
    """The loss at each size."""

    def panel(axes: Axes, results: xr.Dataset) -> None:
        color = figures.MODEL
        figures.every_seed(axes, results.size_loss, "points", label="trained", color=color)
        gd = results.sel(reference="gd")
        axes.plot(gd.points, gd.size_reference_loss, "x--", color=figures.REFERENCE, label="GD")
        axes.plot(gd.points, gd.exact_size_reference_loss, "k:", label="GD, exact")
        axes.set(xlabel="context size", ylabel="loss", yscale="log")
        axes.legend()

    drawn = {
        "loss during training": reference_panels.training_panel,
        "loss at other context sizes": panel,
    }
    return panels.figure(results, drawn, "One linear layer, trained with one context size.")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        f"CR-7-{size}": lambda results: (
            results.size_loss / claim_values.of(results, "exact_size_reference_loss", "gd")
        )
        for size in (5, 20, 35, 50)
    },
)
