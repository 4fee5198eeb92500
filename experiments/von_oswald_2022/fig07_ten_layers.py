"""Ten linear layers with the same weights, beside ten steps of GD++.

Figure 7 of von Oswald et al. (2022): K = 10, recurrent, token values clipped to 10; five layers with
weights of their own are trained beside them for as many steps.

Expected: GD++ with one (eta, gamma) loses .0306; the mean of trained and GD++ weights as much.
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
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment, best_references, interpolation, shifts
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training

FULL = Study(
    model=Architecture(depth=10, shared=True, token_clip=10.0),
    training=Training(snapshot_every=500, learning_rate=5e-4, clip_norm=10.0),
)
QUICK = Study(
    model=FULL.model,
    training=Training(
        steps=750, batch_size=128, snapshot_every=250, learning_rate=1e-3, clip_norm=10.0
    ),
    evaluation_episodes=2000,
)


def trainings(settings: Study) -> dict[str, Job]:
    """Ten layers with the same weights, and five with weights of their own."""
    untied = replace(settings.model, depth=5, shared=False)
    return settings.trainings() | {
        "five layers of their own": Job(untied, settings.task, settings.training)
    }


def measure(settings: Study, histories: Histories) -> xr.Dataset:
    """Train, and compare with the best GD and GD++ of ten steps."""
    history, five = histories["model"], histories["five layers of their own"]
    references = best_references(settings.task, settings.model.depth)
    return dataset(
        alignment(settings, history, references),
        interpolation(settings, history.final, references["gdpp"]),
        shifts(settings, history.final, references),
        {"five_loss": ("seed", metrics.losses(five.final, settings.episodes()))},
    )


def draw(results: xr.Dataset) -> Figure:
    """Loss, alignment with GD and GD++, and the four shifts."""
    return panels.deep_figure(results, "ten steps", "Ten linear layers with the same weights.")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-7-1": claim_values.loss_over("gdpp"),
        "VO-7-1-interpolated": lambda results: (
            results.interpolated_loss / claim_values.reference_loss(results, "gdpp")
        ),
        "VO-7-2": lambda results: results.five_loss / claim_values.last(results.loss),
    },
)
