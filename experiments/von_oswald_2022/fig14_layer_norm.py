"""LayerNorm raises the loss, but lowers it on much larger inputs.

Figure 14 of von Oswald et al. (2022): linear attention with LayerNorm on its inputs, in one layer,
and in the second of two layers with separate weights.

Expected: losses above those of GD (.2062, .1566), and below them on much larger inputs.
Alias: fig14
Cost: an hour on one core; quick: half a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.deep_references import TUNED, deep_references, tuned_gdpp
from toyicl.studies.shifts import shifts
from toyicl.training import recipes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of LayerNorm; `model` is that of one layer."""

    model: Architecture = Architecture(layer_norm=True)
    training: Training = replace(recipes.RELEASED_TOKENS, steps=50_000, snapshot_every=500)
    gdpp_training: Training = recipes.TUNED_GDPP
    """Training of the GD++ that two layers are compared with, as the paper tunes it."""


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=256, learning_rate=3e-3, clip_norm=10.0),
    gdpp_training=replace(recipes.TUNED_GDPP, steps=200, batch_size=128),
    evaluation_episodes=2000,
)


def _models(settings: Settings) -> dict[str, Architecture]:
    """One layer and two layers, by the names of their trainings."""
    deeper = replace(settings.model, depth=2, norm_first_layer=False)
    return {f"{model.depth} layers": model for model in (settings.model, deeper)}


def trainings(settings: Settings) -> dict[str, Job]:
    """One layer, two layers, and GD++ as the paper tunes it."""
    depth = settings.model.depth
    require(depth == 1, "model.depth", "1: two layers are trained as well", depth)
    jobs = {
        name: Job(model, settings.task, settings.training)
        for name, model in _models(settings).items()
    }
    tuning = tuned_gdpp(settings.task, _models(settings)["2 layers"], settings.gdpp_training)
    return jobs | {TUNED: tuning}


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare both with as many steps of GD and GD++."""
    parts = {}
    for name, model in _models(settings).items():
        history = histories[name]
        references = (
            best_references(settings.task, 1)
            if model.depth == 1
            else deep_references(settings.task, model, histories[TUNED])
        )
        parts[model.depth] = dataset(
            alignment(settings, history, references),
            shifts(settings, history.final, references),
        )
    return side_by_side(parts, "layers")


def draw(results: xr.Dataset) -> Figure:
    """A row for each number of layers."""
    drawn = panels.grid(
        {1: "one layer", 2: "two layers"}, "layers", reference_panels.COMPARED_WITH_GD
    )
    return panels.figure(
        results, drawn, "Linear attention with LayerNorm on its inputs.", columns=4
    )


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-14-1": claim_values.loss_over("gd"),
        "VO-14-1-K2": claim_values.loss_over("gd"),
        "VO-14-1-K2-gdpp": claim_values.loss_over("gdpp"),
        "VO-14-3": claim_values.final("model_cosine", "gd"),
        "VO-14-3-K2": claim_values.final("model_cosine", "gdpp"),
        "VO-14-2": lambda results: claim_values.shifted_ratio(results, "inputs", "gd").sel(
            amount=2.0
        ),
    },
)
