"""Two linear layers with the same weights are two steps of GD++, not of gradient descent.

Figure 3 (top) of von Oswald et al. (2022): K = 2, recurrent; and the same model on shifted inputs
and targets, Figure 6b.

Expected: loss .1105, 29% below that of two steps of GD (.1566); the weights have the eta 13.5 and
the gamma .176 of GD++.
Alias: fig3a
Cost: four minutes; quick: half a minute.
"""

from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.datasets import dataset
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import reference_panels
from toyicl.studies.alignment import DeepStudy, alignment
from toyicl.studies.deep_references import TUNED, deep_references, tuned_gdpp
from toyicl.studies.shifts import shifts
from toyicl.studies.weights import interpolation, learned_steps
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training

FULL = DeepStudy(model=Architecture(depth=2, shared=True))
QUICK = DeepStudy(
    model=FULL.model,
    training=Training(steps=3000, batch_size=512, learning_rate=2e-3, clip_norm=10.0),
    evaluation_episodes=2000,
)


def trainings(settings: DeepStudy) -> dict[str, Job]:
    """Two layers with the same weights, and GD++ as the paper tunes it."""
    return settings.trainings() | {
        TUNED: tuned_gdpp(settings.task, settings.model, settings.gdpp_training)
    }


def measure(settings: DeepStudy, histories: Histories) -> xr.Dataset:
    """Compare two layers with the best two steps of GD and of GD++."""
    history = histories["model"]
    references = deep_references(settings.task, settings.model, histories[TUNED])
    return dataset(
        alignment(settings, history, references),
        interpolation(settings, history.final, references["gdpp"]),
        learned_steps(settings, history.final),
        shifts(settings, history.final, references),
    )


def draw(results: xr.Dataset) -> Figure:
    """Loss, alignment with GD and GD++, and the four shifts."""
    return reference_panels.deep_figure(results, "Two linear layers with the same weights.")


def _distance_to_descent(results: xr.Dataset) -> xr.DataArray:
    """Distance of the predictions to GD minus that to GD++; negative if GD is nearer."""
    to_gd, to_gdpp = (
        claim_values.of(results, "prediction_difference", name) for name in ("gd", "gdpp")
    )
    return to_gd - to_gdpp


def _after_drop(results: xr.Dataset) -> xr.DataArray:
    """The same at the first step at which half of the decrease to the loss of GD++ is reached."""
    half = (results.loss.isel(step=0) + claim_values.reference_loss(results, "gdpp")) / 2
    first = (results.loss < half).argmax("step")
    return _distance_to_descent(results).isel(step=first)


def _cosine_below_descent(results: xr.Dataset) -> xr.DataArray:
    """Cosine with GD at the first snapshot whose loss is below that of GD.

    It is the cosine before training if there is no such snapshot.
    """
    first = (results.loss < claim_values.reference_loss(results, "gd")).argmax("step")
    return claim_values.of(results, "model_cosine", "gd").isel(step=first)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-1-2-K2": claim_values.loss_over("gd"),
        "VO-3a-1": claim_values.loss_over("gd"),
        "VO-3a-2": claim_values.loss_over("gdpp"),
        "VO-3a-3-rise": lambda results: (
            _cosine_below_descent(results) - claim_values.untrained("model_cosine", "gd")(results)
        ),
        "VO-3a-3-fall": lambda results: (
            claim_values.final("model_cosine", "gd")(results) - _cosine_below_descent(results)
        ),
        "VO-3a-3": claim_values.final("model_cosine", "gd"),
        "VO-3a-3-order": lambda results: claim_values.last(
            claim_values.of(results, "model_cosine", "gdpp")
            - claim_values.of(results, "model_cosine", "gd")
        ),
        "VO-3a-4": claim_values.final("model_cosine", "gdpp"),
        "VO-3a-4-norm": claim_values.final("norm_ratio", "gdpp"),
        "VO-3a-4-model": claim_values.ratio_of_references("model_difference", "gdpp", "gd"),
        "VO-3a-gamma": lambda results: results.learned_curvature,
        "VO-3a-5-early": _after_drop,
        "VO-3a-5-late": lambda results: claim_values.last(_distance_to_descent(results)),
        "VO-3a-6": claim_values.interpolated_over("gdpp"),
        "VO-3a-7": claim_values.log10(claim_values.shift("inputs", "gdpp", low=0.5, high=2.0)),
    },
)
