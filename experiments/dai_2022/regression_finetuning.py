"""Where finetuning gains nothing, its similarity to in-context learning carries no information.

The causal transformer of `update_similarity` is trained on linear regression with tasks that share
nothing, so that the best zero-shot prediction is 0. Measured are the errors zero-shot, in context
and after finetuning on the demonstrations, and the similarity of the changes of attention outputs.

Expected: in-context learning removes most of the error; finetuning, one example at a time, removes
none.
Alias: dai_regression
Cost: a minute on two cores.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.datasets import dataset
from toyicl.finetuning import evaluation
from toyicl.finetuning.evaluation import KINDS, EvaluationSet, FinetuningStudy
from toyicl.finetuning.updates import published
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.causal import CausalTransformer
from toyicl.plots import panels
from toyicl.tasks.prompts import SequenceRegression, half_squared
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the model and its training on linear regression."""

    task: SequenceRegression = SequenceRegression()  # type: ignore[assignment]
    """The task."""
    max_seeds: int = 3
    """Largest number of seeds."""
    rates: tuple[float, ...] = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    """Learning rates of finetuning; the best one turns out to be the smallest."""


FULL = Settings()
QUICK = FULL.quick(max_seeds=2)
PUBLISHED = published(half_squared)
WAYS = ("zero-shot", "in context", "finetuned")
trainings = FinetuningStudy.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Measure errors of the three ways, and similarities."""
    history = histories["model"]
    found = evaluation.trained(
        partial(_compare, settings.rates), history, settings.evaluation_sets()
    )
    return dataset(
        {
            "error": (("way", "seed"), np.transpose(found["error"])),
            "similarity": (("seed", "kind", "layer"), found["similarity"]),
            "chosen_rate": ("seed", found["rate"]),
        },
        {"seed": history.seeds},
    ).assign_coords(way=list(WAYS), kind=list(KINDS), layer=np.arange(1, settings.model.depth + 1))


def _compare(
    rates: tuple[float, ...],
    model: CausalTransformer,
    data: EvaluationSet,
    other_data: EvaluationSet,
) -> dict[str, Any]:
    """Errors of the three ways with the best learning rate, and similarities."""
    rate = evaluation.choose_rate(
        model, other_data, rates, **PUBLISHED, score=evaluation.negative_error
    ).best
    ways = evaluation.three_ways(model, data, rate, **PUBLISHED)
    return {
        "error": -jnp.stack([evaluation.negative_error(way.logits, data.labels) for way in ways]),
        "similarity": evaluation.update_similarity(*(way.attended for way in ways)).similarity,
        "rate": rate,
    }


def draw(results: xr.Dataset) -> Figure:
    """Errors of the three ways, and each kind of similarity."""
    drawn = {
        "error": panels.rows(
            {"trained": panels.selected("error")}, "way", xlabel="1/2 squared error"
        ),
        "similarity, last layer": panels.rows(
            {"trained": lambda r: r.similarity.isel(layer=-1)},
            "kind",
            levels={"0": 0.0},
            xlabel="similarity of attention outputs",
        ),
    }
    sentence = "Linear regression; finetuning of W_K and W_V compared with in-context learning."
    return panels.figure(results, drawn, sentence)


def _over_zero_shot(way: str) -> Value:
    return lambda results: results.error.sel(way=way) / results.error.sel(way="zero-shot")


CLAIMS = catalogue.read(
    Path(__file__).parents[1] / "objections" / "claims.toml",
    {
        "CR-10-regression-icl": _over_zero_shot("in context"),
        "CR-10-regression": _over_zero_shot("finetuned"),
    },
)
