"""Twelve blocks with MLPs and four heads pass GD++ in training, and end near the exact solution.

Figure 8 of von Oswald et al. (2022): K = 12, separate weights, four heads of linear attention and
an MLP in each block, no LayerNorm, token values clipped to 10. The references are twelve steps of
GD++ with one (eta, gamma) under the same clip, ridge regression with the penalty that is nearest to
the model, and the true weights. The released code has no configuration for twelve blocks; they are
trained at a rate that falls to 0.

Expected: GD++ is nearest after some 3,000 steps; at the end the blocks are nearest to the true weights.
Alias: fig8
Cost: an hour on one core, three seeds; quick: two minutes, with four blocks.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import xarray as xr
from matplotlib.figure import Figure

from toyicl.algorithms.ridge import Ridge
from toyicl.analysis import metrics
from toyicl.core.config import require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import predict
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import DeepStudy, alignment
from toyicl.studies.deep_references import TUNED, deep_references, tuned_gdpp
from toyicl.studies.shifts import shifts
from toyicl.training import recipes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(DeepStudy):
    """Settings of twelve blocks."""

    model: Architecture = Architecture(depth=12, heads=4, mlp_size=40, token_clip=10.0)
    training: Training = replace(recipes.FALLING, steps=30_000)
    model_max_seeds: int = 3
    """Largest number of seeds of the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_size("model_max_seeds", self.model_max_seeds)


FULL = Settings()
QUICK = Settings(
    model=replace(FULL.model, depth=4),
    training=replace(recipes.FALLING, steps=500, batch_size=128, snapshot_every=250),
    gdpp_training=replace(recipes.TUNED_GDPP, steps=200, batch_size=128),
    evaluation_episodes=2000,
)
SMALL_PENALTY = 1e-5
"""Penalty of ridge regression with which it finds the true weights from labels without noise."""


def trainings(settings: Settings) -> dict[str, Job]:
    """The blocks, and GD++ as the paper tunes it."""
    task, model = settings.task, settings.model
    return {
        "model": Job(model, task, settings.training, max_seeds=settings.model_max_seeds),
        TUNED: tuned_gdpp(task, model, settings.gdpp_training),
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare with twelve steps of GD and GD++, with ridge regression and with the true weights."""
    history = histories["model"]
    references = deep_references(settings.task, settings.model, histories[TUNED])
    others = {"ridge": _nearest_ridge(settings, history), "truth": Ridge(SMALL_PENALTY)}
    episodes = settings.episodes()
    trimmed = jax.lax.map(lambda model: metrics.trimmed_loss(model, episodes), history.final)
    aligned = dataset(
        alignment(settings, history, {**references, **others}),
        {"trimmed_loss": ("seed", trimmed)},
    )
    return xr.merge([aligned, dataset(shifts(settings, history.final, references))], join="outer")


def _nearest_ridge(settings: Settings, history: History) -> Ridge:
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
        "regression, and the true weights. Tokens of the blocks, of GD and of GD++ are clipped to 10; "
        "the best GD++ without a clip is out of reach. Final losses of the seeds: "
        f"{_losses(claim_values.last(results.loss))}; without the worst 0.1% of the episodes: "
        f"{_losses(results.trimmed_loss)}."
    )
    return panels.figure(results, drawn, sentence, columns=4)


def _losses(values: xr.DataArray) -> str:
    """Losses of the trained seeds, as text."""
    return ", ".join(f"{value:.4f}" for value in values.dropna("seed").values)


def _final(results: xr.Dataset, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Final values compared with GD++, (seed,), and with ridge and the true weights, stacked."""
    values = claim_values.last(results[name])
    return values.sel(reference="gdpp", drop=True), values.sel(reference=["ridge", "truth"])


def _passing(results: xr.Dataset) -> xr.DataArray:
    """Smallest distance to GD++ during training, divided by that to the nearest other reference."""
    distance = results.prediction_difference
    others = distance.sel(reference=["ridge", "truth"]).min("reference")
    return (distance.sel(reference="gdpp", drop=True) / others).min("step")


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
        "VO-8-passing": _passing,
        "VO-8-1-loss": claim_values.log10(claim_values.loss_over("gdpp")),
        "VO-8-1-gdpp": claim_values.final("model_cosine", "gdpp"),
    },
)
