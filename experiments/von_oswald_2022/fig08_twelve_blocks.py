"""Twelve blocks with MLPs and four heads, beside GD++, ridge regression and the true weights.

Figure 8 of von Oswald et al. (2022): K = 12, weights of their own, four heads of linear attention and
an MLP in each block, no LayerNorm, token values clipped to 10. Beside twelve steps of GD++ with one
(eta, gamma) stand ridge regression, of the penalty that is nearest the model, and the true weights.

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
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment, best_references, shifts
from toyicl.training.loop import Histories, History
from toyicl.training.step import Training

FULL = Study(
    model=Architecture(depth=12, heads=4, mlp_size=40, token_clip=10.0),
    training=Training(steps=50_000, snapshot_every=500, learning_rate=5e-4, clip_norm=10.0),
)
QUICK = Study(
    model=replace(FULL.model, depth=4),
    training=Training(
        steps=500, batch_size=128, snapshot_every=250, learning_rate=1e-3, clip_norm=10.0
    ),
    evaluation_episodes=2000,
)
ALMOST_NONE = 1e-5
"""The penalty with which ridge regression finds the true weights, of labels without noise."""
trainings = Study.trainings


def measure(settings: Study, histories: Histories) -> xr.Dataset:
    """Train, and compare with twelve steps of GD and GD++, with ridge and with the true weights."""
    task = settings.task
    history = histories["model"]
    references = best_references(task, settings.model.depth)
    rivals = {"ridge": _nearest_ridge(settings, history), "truth": Ridge(ALMOST_NONE)}
    return dataset(
        alignment(settings, history, {**references, **rivals}),
        shifts(settings, history.final, references),
    )


def _nearest_ridge(settings: Study, history: History) -> Ridge:
    """The ridge regression whose predictions are nearest those of the trained models."""
    episodes = settings.episodes()
    answers = jax.jit(jax.vmap(predict, (0, None)))(history.final, episodes)

    def distance(penalty: jax.Array) -> jax.Array:
        return jnp.mean(jnp.abs(answers - predict(Ridge(penalty), episodes)))

    penalties = jnp.geomspace(1e-4, 1.0, 41)
    distances = jax.lax.map(distance, penalties)
    return Ridge(penalties[jnp.argmin(distances)])


def draw(results: xr.Dataset) -> Figure:
    """Loss, alignment with GD++ and ridge, distances to all references, and the four shifts."""
    drawn = {
        "loss during training": panels.training_panel,
        "alignment with twelve steps of GD++": panels.alignment_panel("gdpp"),
        "alignment with ridge regression": panels.alignment_panel("ridge"),
        "distance of predictions": panels.compared_panel("prediction_difference", ylim=(0, 0.6)),
        **panels.SHIFTS,
    }
    return panels.figure(results, drawn, "Twelve blocks with four heads and an MLP.", columns=4)


def _over_next(results: xr.Dataset) -> xr.DataArray:
    """Distance to GD++ over that to the nearer of ridge and the true weights."""
    to = {
        name: claim_values.last(claim_values.of(results, "prediction_difference", name))
        for name in ("gdpp", *RIVALS)
    }
    return to["gdpp"] / xr.concat([to[name] for name in RIVALS], "rival").min("rival")


def _cosine_over_next(results: xr.Dataset) -> xr.DataArray:
    to = {
        name: claim_values.last(claim_values.of(results, "model_cosine", name))
        for name in ("gdpp", *RIVALS)
    }
    return to["gdpp"] - xr.concat([to[name] for name in RIVALS], "rival").max("rival")


RIVALS = ("ridge", "truth")
CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-8-1": _over_next,
        "VO-8-1-cosine": _cosine_over_next,
        "VO-8-1-loss": claim_values.loss_over("gdpp"),
    },
)
