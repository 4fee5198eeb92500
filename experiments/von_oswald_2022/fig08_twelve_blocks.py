"""Twelve blocks with MLPs and four heads predict like GD++ rather than ridge regression.

Figure 8 of von Oswald et al. (2022): K = 12, separate weights, four heads of linear attention and
an MLP in each block, no LayerNorm, token values clipped to 10. The references are twelve steps of
GD++ with one (eta, gamma), ridge regression with the penalty that is nearest to the model, and the
true weights.

Expected: GD++ is nearest.
Alias: fig8
Cost: a day at full settings, 20 minutes as checked in; quick: two minutes, with four blocks.
"""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import xarray as xr
from matplotlib.figure import Figure

from toyicl.algorithms.ridge import Ridge
from toyicl.core.datasets import dataset
from toyicl.core.episode import predict
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import DeepStudy, alignment, best_references
from toyicl.studies.shifts import shifts
from toyicl.training.loop import Histories, History
from toyicl.training.step import Training

FULL = DeepStudy(
    model=Architecture(depth=12, heads=4, mlp_size=40, token_clip=10.0),
    training=Training(steps=50_000, snapshot_every=500, learning_rate=5e-4, clip_norm=10.0),
)
QUICK = DeepStudy(
    model=replace(FULL.model, depth=4),
    training=Training(
        steps=500, batch_size=128, snapshot_every=250, learning_rate=1e-3, clip_norm=10.0
    ),
    evaluation_episodes=2000,
)
SMALL_PENALTY = 1e-5
"""Penalty of ridge regression with which it finds the true weights from labels without noise."""
trainings = DeepStudy.trainings


def measure(settings: DeepStudy, histories: Histories) -> xr.Dataset:
    """Compare with twelve steps of GD and GD++, with ridge regression and with the true weights."""
    task = settings.task
    history = histories["model"]
    references = best_references(task, settings.model.depth)
    others = {"ridge": _nearest_ridge(settings, history), "truth": Ridge(SMALL_PENALTY)}
    aligned = dataset(alignment(settings, history, {**references, **others}))
    return xr.merge([aligned, dataset(shifts(settings, history.final, references))], join="outer")


def _nearest_ridge(settings: DeepStudy, history: History) -> Ridge:
    """The ridge regression whose predictions are nearest to those of the trained models."""
    episodes = settings.episodes()
    answers = jax.lax.map(lambda model: predict(model, episodes), history.final)

    def distance(penalty: jax.Array) -> jax.Array:
        return jnp.mean(jnp.abs(answers - predict(Ridge(penalty), episodes)))

    penalties = jnp.geomspace(1e-4, 1.0, 41)
    distances = jax.lax.map(distance, penalties)
    return Ridge(penalties[jnp.argmin(distances)])


def draw(results: xr.Dataset) -> Figure:
    """Loss, alignment with GD++ and ridge, distances to all references, and the four shifts."""
    drawn = {
        "loss during training": reference_panels.training_panel,
        "alignment with GD++": reference_panels.alignment_panel("gdpp"),
        "alignment with ridge regression": reference_panels.alignment_panel("ridge"),
        "distance of the predictions": reference_panels.compared_panel(
            "prediction_difference", ylim=(0, 0.6), ylabel="prediction difference"
        ),
        **reference_panels.SHIFTS,
    }
    sentence = (
        "Blocks with four heads and an MLP, compared with as many steps of GD and GD++, ridge "
        "regression, and the true weights."
    )
    return panels.figure(results, drawn, sentence, columns=4)


def _final(results: xr.Dataset, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Final values compared with GD++, (seed,), and with ridge and the true weights, stacked."""
    values = claim_values.last(results[name])
    return values.sel(reference="gdpp", drop=True), values.sel(reference=["ridge", "truth"])


def _over_next(results: xr.Dataset) -> xr.DataArray:
    """Distance to GD++ divided by that to the nearer of ridge and the true weights."""
    to_gdpp, others = _final(results, "prediction_difference")
    return to_gdpp / others.min("reference")


def _cosine_over_next(results: xr.Dataset) -> xr.DataArray:
    """Cosine with GD++ minus the larger of those with ridge and the true weights."""
    with_gdpp, others = _final(results, "model_cosine")
    return with_gdpp - others.max("reference")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-8-1": _over_next,
        "VO-8-1-cosine": _cosine_over_next,
        "VO-8-1-loss": claim_values.loss_over("gdpp"),
    },
)
