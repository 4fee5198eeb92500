"""On shifted distributions, one layer has the losses of gradient descent, and two layers those of GD++.

Figure 6 of von Oswald et al. (2022): one layer, two recurrent layers, and five layers with separate
weights, on larger inputs, larger targets and other input distributions.

Expected: one and two layers stay close to their algorithm; five depart from it under large shifts.
Alias: fig6
Cost: 20 minutes on one core; quick: two minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.deep_references import deep_references, tuned_gdpp
from toyicl.studies.shifts import shifts
from toyicl.training import recipes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the shifts; `model` and `training` are those of one layer and of two layers."""

    deep_model: Architecture = Architecture(depth=5, token_clip=10.0)
    """The model of layers with separate weights."""
    deep_training: Training = recipes.FALLING_FAST
    """Its training."""
    deep_max_seeds: int = 3
    """Largest number of seeds of the deep model."""
    gdpp_training: Training = recipes.TUNED_GDPP
    """Training of GD++ with shared steps as the paper tunes it."""
    deep_gdpp_training: Training = recipes.TUNED_GDPP_PER_LAYER
    """Training of GD++ with two numbers for each layer as the paper tunes it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        depths = [model.depth for model in self.models()]
        rule = "such that the three models differ in depth"
        require(len(set(depths)) == len(depths), "deep_model.depth", rule, depths)

    def models(self) -> tuple[Architecture, Architecture, Architecture]:
        """One layer, two with the same weights, and the deep model."""
        shared = replace(self.model, depth=2, shared=True)
        return self.model, shared, self.deep_model


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=512, clip_norm=10.0, learning_rate=2e-3),
    deep_training=replace(recipes.FALLING_FAST, steps=1000, batch_size=256),
    gdpp_training=replace(recipes.TUNED_GDPP, steps=200, batch_size=128),
    deep_gdpp_training=replace(recipes.TUNED_GDPP_PER_LAYER, steps=500, batch_size=128),
    deep_max_seeds=2,
    evaluation_episodes=2000,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One layer, two with the same weights, the deep model, and GD++ as the paper tunes it."""
    one, two, deep = settings.models()
    task, training = settings.task, settings.training
    return {
        _name(one): Job(one, task, training),
        _name(two): Job(two, task, training),
        _name(deep): Job(deep, task, settings.deep_training, max_seeds=settings.deep_max_seeds),
        _tuned(two): tuned_gdpp(task, two, settings.gdpp_training),
        _tuned(deep): tuned_gdpp(task, deep, settings.deep_gdpp_training, per_layer=True),
    }


def _name(model: Architecture) -> str:
    """Name of a model's training."""
    return f"{model.depth} layers"


def _tuned(model: Architecture) -> str:
    """Name of the training of the GD++ that a model is compared with."""
    return f"GD++ of {_name(model)}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Evaluate the three models on shifted distributions."""
    parts = {}
    for model in settings.models():
        history = histories[_name(model)]
        references = (
            best_references(settings.task, 1)
            if model.depth == 1
            else deep_references(
                settings.task, model, histories[_tuned(model)], per_layer=not model.shared
            )
        )
        parts[model.depth] = dataset(
            alignment(settings, history, references),
            shifts(settings, history.final, references),
        )
    return side_by_side(parts, "layers")


def draw(results: xr.Dataset) -> Figure:
    """A row for each model, a column for each shift."""
    rows = {depth: f"K = {depth}" for depth in results.layers.values}
    shifted = reference_panels.SHIFTS
    drawn = panels.grid(rows, "layers", shifted)
    sentence = (
        "Losses of K layers on distributions that differ from those of the training. References of "
        "models with clipped tokens are clipped as well, but for GD++ without clip."
    )
    return panels.figure(results, drawn, sentence, columns=len(shifted))


def _log_ratios(results: xr.Dataset, reference: str, shifts: Sequence[str]) -> xr.DataArray:
    """Log10 of the ratio of losses, (shift, amount, seed); NaN at amounts that a shift lacks."""
    ratios = [claim_values.shifted_ratio(results, shift, reference) for shift in shifts]
    along = xr.DataArray(list(shifts), dims="shift", name="shift")
    joined: xr.DataArray = xr.concat(ratios, along, join="outer")
    known = joined.where(joined > 0)  # the ratio is 0 where the loss of the reference overflows
    return known.copy(data=np.log10(known.values))


def _under_all_shifts(reference: str) -> Value:
    """The log ratio under each shift at each of its amounts, (place, seed)."""

    def value(results: xr.Dataset) -> xr.DataArray:
        ratios = _log_ratios(results, reference, [str(name) for name in results["shift"].values])
        measured = ratios.stack(place=("shift", "amount")).dropna("place", how="all")
        names = [f"{shift}, {amount:g}" for shift, amount in measured.place.values]
        return measured.drop_vars(["place", "shift", "amount"]).assign_coords(place=names)

    return value


def _five_minus_two(results: xr.Dataset) -> xr.DataArray:
    """Absolute log ratio at amount 5, of five layers minus the mean over seeds of two."""
    ratios = abs(_log_ratios(results, "gdpp", ("targets", "distributions"))).sel(amount=5.0)
    ratios = ratios.max("shift")
    return (ratios.sel(layers=5) - ratios.sel(layers=2).mean("seed")).dropna("seed")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-6-1-K1": _under_all_shifts("gd"),
        "VO-6-1-K2": _under_all_shifts("gdpp"),
        "VO-6-2": _five_minus_two,
    },
)
