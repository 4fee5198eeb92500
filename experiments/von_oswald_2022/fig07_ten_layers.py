"""Ten linear layers with the same weights have the loss of ten steps of GD++.

Figure 7 of von Oswald et al. (2022): K = 10, recurrent, token values clipped to 10. Five layers
with separate weights are trained for the same number of steps as a comparison.

Expected: GD++ with one (eta, gamma) has loss .0306, and so has the mean of trained and GD++
weights.
Alias: fig7
Cost: an hour at full settings, 25 minutes as checked in; quick: two minutes.
"""

from dataclasses import replace
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import reference_panels
from toyicl.studies.alignment import DeepStudy, alignment, best_references
from toyicl.studies.shifts import shifts
from toyicl.studies.weights import interpolation
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training

FULL = DeepStudy(
    model=Architecture(depth=10, shared=True, token_clip=10.0),
    training=Training(snapshot_every=500, learning_rate=5e-4, clip_norm=10.0),
)
QUICK = DeepStudy(
    model=FULL.model,
    training=Training(
        steps=750, batch_size=128, snapshot_every=250, learning_rate=1e-3, clip_norm=10.0
    ),
    evaluation_episodes=2000,
)


def trainings(settings: DeepStudy) -> dict[str, Job]:
    """Ten layers with the same weights, and five with separate weights."""
    untied = replace(settings.model, depth=5, shared=False)
    return settings.trainings() | {
        "five separate layers": Job(untied, settings.task, settings.training)
    }


def measure(settings: DeepStudy, histories: Histories) -> xr.Dataset:
    """Compare ten layers with the best ten steps of GD and of GD++."""
    history, five = histories["model"], histories["five separate layers"]
    references = best_references(settings.task, settings.model.depth)
    return dataset(
        alignment(settings, history, references),
        interpolation(settings, history.final, references["gdpp"]),
        shifts(settings, history.final, references),
        {"five_loss": ("seed", metrics.losses(five.final, settings.episodes()))},
    )


def draw(results: xr.Dataset) -> Figure:
    """Loss, alignment with GD and GD++, and the four shifts."""
    return reference_panels.deep_figure(results, "Ten linear layers with the same weights.")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-7-1": claim_values.loss_over("gdpp"),
        "VO-7-1-interpolated": claim_values.interpolated_over("gdpp"),
        "VO-7-2": lambda results: results.five_loss / claim_values.last(results.loss),
    },
)
