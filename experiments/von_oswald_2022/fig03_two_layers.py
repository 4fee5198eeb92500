"""Two linear layers with the same weights are two steps of GD++, not of gradient descent.

Figure 3 (top) of von Oswald et al. (2022): K = 2, recurrent; and its rows on inputs and targets away
from training, Figure 6b.

Expected: loss .1105, 29% below two steps of GD (.1566); eta 13.5 and gamma .176 of GD++ in the weights.
Alias: fig3a
Cost: four minutes; quick: half a minute.
"""

from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.datasets import dataset
from toyicl.harness import claims
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.studies.alignment import (
    Study,
    alignment,
    best_references,
    interpolation,
    readings,
    shifts,
)
from toyicl.training.loop import Histories
from toyicl.training.step import Training

FULL = Study(model=Architecture(depth=2, shared=True))
QUICK = Study(
    model=FULL.model,
    training=Training(steps=3000, batch_size=512, learning_rate=2e-3, clip_norm=10.0),
    evaluation_episodes=2000,
)
trainings = Study.trainings


def measure(settings: Study, histories: Histories) -> xr.Dataset:
    """Train, and compare with the best GD and GD++ of two steps."""
    history = histories["model"]
    references = best_references(settings.task, settings.model.depth)
    return dataset(
        alignment(settings, history, references),
        interpolation(settings, history.final, references["gdpp"]),
        readings(settings, history.final),
        shifts(settings, history.final, references),
    )


def draw(results: xr.Dataset) -> Figure:
    """Loss, alignment with GD and GD++, and the four shifts."""
    return panels.deep_figure(results, "two steps", "Two linear layers with the same weights.")


def _distance_to_descent(results: xr.Dataset) -> xr.DataArray:
    """Distance of predictions to GD minus that to GD++: below 0, the model is nearer GD."""
    return results.prediction_difference - results.prediction_difference_gdpp


def _after_drop(results: xr.Dataset) -> xr.DataArray:
    """The same where the loss is first halfway down from the start."""
    half = (results.loss.isel(step=0) + results.gdpp_loss) / 2
    first = (results.loss < half).argmax("step")
    return _distance_to_descent(results).isel(step=first)


CLAIMS = claims.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-1-2-K2": claims.loss_over("gd"),
        "VO-3a-1": claims.loss_over("gd"),
        "VO-3a-2": claims.loss_over("gdpp"),
        "VO-3a-3-peak": lambda results: results.model_cosine.max("step"),
        "VO-3a-3": claims.final("model_cosine"),
        "VO-3a-3-order": lambda results: claims.last(
            results.model_cosine_gdpp - results.model_cosine
        ),
        "VO-3a-4": claims.final("model_cosine_gdpp"),
        "VO-3a-4-norm": claims.final("norm_ratio_gdpp"),
        "VO-3a-4-model": claims.final("model_difference_gdpp"),
        "VO-3a-4-predictions": claims.final("prediction_difference_gdpp"),
        "VO-3a-gamma": lambda results: results.learned_curvature,
        "VO-3a-5-early": _after_drop,
        "VO-3a-5-late": lambda results: claims.last(_distance_to_descent(results)),
        "VO-3a-6": lambda results: results.interpolated_loss / results.gdpp_loss,
    },
)
