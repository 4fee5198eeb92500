"""Finetuning brings attention maps and ranks of demonstrations nearer to those in context.

Similarity of attention maps (Dai et al., 2022): cosines of a query's scores over its own tokens, in
context beside zero-shot and beside finetuned; and how both ways rank the demonstrations. Of models
that are told an input in one token, whose maps have one entry, and in several.

Expected: maps come no nearer: one of one token says nothing, and finetuning hardly moves longer ones.
Ranks of demonstrations are alike where an input is one token, and hardly where it is two.
Alias: dai_maps
Cost: some 2 minutes on two cores.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import require, require_different, require_size
from toyicl.core.datasets import dataset
from toyicl.finetuning import evaluation, similarity
from toyicl.finetuning.evaluation import EvaluationSet, FinetuningStudy
from toyicl.finetuning.updates import published
from toyicl.harness import catalogue, claims
from toyicl.models.causal import CausalTransformer
from toyicl.plots import panels
from toyicl.tasks.prompts import cross_entropy
from toyicl.training.loop import Histories, Job


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the vehicle, and the lengths of its queries."""

    max_seeds: int = 3
    """Largest number of seeds."""
    lengths: tuple[int, ...] = (1, 2)
    """Tokens in which models are told an input: the lengths of their maps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("lengths", self.lengths)
        for length in self.lengths:
            require_size("lengths", length)
            whole = self.task.dim % length == 0
            require(whole, "lengths", f"divisors of task.dim ({self.task.dim})", length)
        told = self.model.input_tokens
        require(told == 1, "model.input_tokens", "1: set `lengths`, which takes its place", told)


FULL = Settings()
QUICK = FULL.quick(rates=(0.01, 0.1, 0.4, 1.6), max_seeds=2)
PUBLISHED = published(cross_entropy)


def trainings(settings: Settings) -> dict[str, Job]:
    """A model for each length."""
    return {
        f"inputs in {length} tokens": Job(
            replace(settings.model, input_tokens=length),
            settings.task,
            settings.training,
            max_seeds=settings.max_seeds,
        )
        for length in settings.lengths
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train a model for each length, and compare its maps and ranks before and after training."""
    look = partial(_look, settings.rates)
    found = []
    for length in settings.lengths:
        history = histories[f"inputs in {length} tokens"]
        found.append(evaluation.before_and_after(look, history, settings.evaluation_sets()))
    return dataset(
        {
            name: (
                ("map_length", "seed", "model", *(["layer"] if found[0][name].ndim > 2 else [])),
                [part[name] for part in found],
            )
            for name in found[0]
        },
        {"seed": history.seeds},
    ).assign_coords(
        map_length=list(settings.lengths),
        model=["untrained", "trained"],
        layer=np.arange(1, settings.model.depth + 1),
    )


def _look(
    rates: tuple[float, ...],
    model: CausalTransformer,
    trial: EvaluationSet,
    held_out: EvaluationSet,
) -> dict[str, jax.Array]:
    """Similarities of maps, and rank correlations of demonstrations, layer by layer."""
    rate = evaluation.choose_rate(model, held_out, rates, **PUBLISHED).best
    tuned = evaluation.finetuned(model, trial, rate, **PUBLISHED)
    ways = evaluation.zero_shot(model, trial), evaluation.in_context(model, trial)
    scores = (
        evaluation.own_scores(model, seen)
        for seen in (*ways, evaluation.zero_shot_per_task(tuned, trial))
    )
    maps = similarity.map_similarity(*scores)
    ranks = similarity.kendall(*evaluation.demonstration_weights(model, tuned, trial))
    return {
        **maps._asdict(),
        "kendall": jnp.nanmean(ranks, axis=(0, 1)),
        "tied": jnp.sum(jnp.isnan(ranks), axis=(0, 1)),
        "chosen_rate": rate,
    }


def draw(results: xr.Dataset) -> Figure:
    """Similarity of maps of each length, and rank correlations, at the last layer."""
    last = results.isel(layer=-1)

    def maps(axes: Axes, results: xr.Dataset) -> None:
        names = {"before": "before: ICL, ZSL", "after": "after: ICL, FT", "delta": "of the changes"}
        trained = last.sel(model="trained")[list(names)].to_dataarray("pair")
        shown = trained.assign_coords(pair=list(names.values()))
        sets = {
            f"map of {length}": partial(
                lambda r, length: shown.sel(map_length=length), length=length
            )
            for length in results.map_length.values
        }
        panels.rows(sets, "pair", xlim=(-1.05, 1.05), xlabel="similarity")(axes, results)

    def ranks(axes: Axes, results: xr.Dataset) -> None:
        sets = {
            name: partial(lambda r, name: last.kendall.sel(model=name), name=name)
            for name in ("trained", "untrained")
        }
        panels.rows(sets, "map_length", levels={"0": 0.0}, xlabel="rank correlation")(axes, results)
        axes.set(ylabel="tokens of an input")

    drawn = {"attention maps, last layer": maps, "ranks of demonstrations, last layer": ranks}
    return panels.figure(results, drawn, "Finetuning of W_K and W_V beside in-context learning.")


def _nearer(length: int) -> claims.Value:
    """How much nearer finetuning brings the last layer's maps of a length."""

    def value(results: xr.Dataset) -> xr.DataArray:
        trained = results.sel(model="trained", map_length=length).isel(layer=-1)
        return trained.after - trained.before

    return value


def _rank_gain(length: int) -> claims.Value:
    """How much more alike a trained model's ranks are than an untrained one's, at the last layer."""

    def value(results: xr.Dataset) -> xr.DataArray:
        ranks = results.kendall.sel(map_length=length).isel(layer=-1)
        return ranks.sel(model="trained") - ranks.sel(model="untrained")

    return value


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "DAI-5": _nearer(1),
        "DAI-5-longer": _nearer(2),
        "DAI-6": _rank_gain(1),
        "DAI-6-longer": _rank_gain(2),
    },
)
