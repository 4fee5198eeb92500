"""Finetuning brings attention maps and ranks of demonstrations closer to those in context.

Similarity of attention maps (Dai et al., 2022): cosines of the scores of a query for its own tokens
in context, with those zero-shot and with those after finetuning; and rank correlations of the
weights of demonstrations. Models have one token or two for each input; a map over one token has a
single entry.

Expected: maps do not come closer: with one token they carry no information, and finetuning hardly
changes longer ones. Ranks of demonstrations are correlated with one token for each input, and
hardly with two.
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
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.causal import CausalTransformer
from toyicl.plots import panels
from toyicl.studies.departure_sweep import STAGES
from toyicl.tasks.prompts import cross_entropy
from toyicl.training.loop import Histories, Job


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the model, its training, and the lengths of its inputs."""

    max_seeds: int = 3
    """Largest number of seeds."""
    lengths: tuple[int, ...] = (1, 2)
    """Tokens per input, the lengths of attention maps; each has its own training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("lengths", self.lengths)
        for length in self.lengths:
            require_size("lengths", length)
            whole = self.task.dim % length == 0
            require(whole, "lengths", f"divisors of task.dim ({self.task.dim})", length)
        tokens = self.model.input_tokens
        require(tokens == 1, "model.input_tokens", "1: set `lengths` instead", tokens)


FULL = Settings()
QUICK = FULL.quick(rates=(0.01, 0.1, 0.4, 1.6), max_seeds=2)
PUBLISHED = published(cross_entropy)


def trainings(settings: Settings) -> dict[str, Job]:
    """A model for each length."""
    return {
        _name(length): Job(
            replace(settings.model, input_tokens=length),
            settings.task,
            settings.training,
            max_seeds=settings.max_seeds,
        )
        for length in settings.lengths
    }


def _name(length: int) -> str:
    """Name of the training with a number of tokens per input."""
    return f"{length} {'token' if length == 1 else 'tokens'} per input"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare maps and ranks of a model for each length, before and after training."""
    compare = partial(_compare, settings.rates)
    found = []
    for length in settings.lengths:
        history = histories[_name(length)]
        found.append(evaluation.before_and_after(compare, history, settings.evaluation_sets()))
    return dataset(
        {
            name: (
                ("tokens", "seed", "stage", *(["layer"] if found[0][name].ndim > 2 else [])),
                [part[name] for part in found],
            )
            for name in found[0]
        },
        {"seed": history.seeds},
    ).assign_coords(
        tokens=list(settings.lengths),
        stage=list(STAGES),
        layer=np.arange(1, settings.model.depth + 1),
    )


def _compare(
    rates: tuple[float, ...],
    model: CausalTransformer,
    data: EvaluationSet,
    other_data: EvaluationSet,
) -> dict[str, jax.Array]:
    """Similarities of maps, and rank correlations of demonstrations, of each layer."""
    rate = evaluation.choose_rate(model, other_data, rates, **PUBLISHED).best
    tuned = evaluation.finetuned(model, data, rate, **PUBLISHED)
    ways = (
        evaluation.zero_shot(model, data),
        evaluation.in_context(model, data),
        evaluation.zero_shot_per_task(tuned, data),
    )
    maps = similarity.map_similarity(*(evaluation.own_scores(model, way) for way in ways))
    ranks = similarity.kendall(*evaluation.demonstration_weights(model, tuned, data))
    return {
        **maps._asdict(),
        "kendall": jnp.nanmean(ranks, axis=(0, 1)),
        "tied": jnp.sum(jnp.isnan(ranks), axis=(0, 1)),
        "chosen_rate": rate,
    }


def draw(results: xr.Dataset) -> Figure:
    """Similarity of maps by their length, and rank correlations, at the last layer."""

    def maps(axes: Axes, results: xr.Dataset) -> None:
        labels = {
            "before": "in context and zero-shot",
            "after": "in context and finetuned",
            "delta": "of the changes",
        }
        trained = results.sel(stage="trained")[list(labels)].to_dataarray("pair")
        shown = trained.assign_coords(pair=list(labels.values())).to_dataset(name="similarity")
        sets = {
            _name(length): panels.selected("similarity", tokens=length)
            for length in results.tokens.values
        }
        panels.rows(sets, "pair", xlim=(-1.05, 1.05), xlabel="similarity")(axes, shown)

    stages = {stage: panels.selected("kendall", stage=stage) for stage in reversed(STAGES)}
    drawn = {
        "attention maps, last layer": maps,
        "ranks of demonstrations, last layer": panels.rows(
            stages,
            "tokens",
            levels={"0": 0.0},
            xlabel="Kendall's rank correlation",
            ylabel="tokens per input",
        ),
    }
    sentence = "Finetuning of W_K and W_V compared with in-context learning."
    return panels.figure(results.isel(layer=-1), drawn, sentence)


def _change(length: int) -> Value:
    """Similarity of the last layer's maps after finetuning minus that before."""

    def value(results: xr.Dataset) -> xr.DataArray:
        trained = results.sel(stage="trained", tokens=length).isel(layer=-1)
        return trained.after - trained.before

    return value


def _ranks(length: int, stage: str = "trained") -> Value:
    """Rank correlation at the last layer."""
    return lambda results: results.kendall.sel(tokens=length, stage=stage).isel(layer=-1)


def _rank_gain(results: xr.Dataset) -> xr.DataArray:
    """Rank correlation of the trained model minus that of the untrained one, with 1 token."""
    return _ranks(1)(results) - _ranks(1, "untrained")(results)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "DAI-5": _change(1),
        "DAI-5-longer": _change(2),
        "DAI-6": _ranks(1),
        "DAI-6-longer": _ranks(2),
        "DAI-6-gain": _rank_gain,
    },
)
