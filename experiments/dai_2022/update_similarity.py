"""Finetuning on the demonstrations changes attention as having them in the context does.

A small causal transformer, trained on in-context classification with a shared prior, answers
queries in three ways: without demonstrations, with them in its context, and after finetuning W_K
and W_V on them, one example at a time. The measures of Dai et al. (2022), as published and centred,
are compared with those of other methods of finetuning, another task's update, random updates of the
same norm, the best of many random updates by the loss on the demonstrations, noise, and the same
model before and during training.

Expected: similar, as published; but a random update that happens to help is similar as well, and so
is finetuning of an untrained model. After a third of the training the similarity and the gain of
finetuning decrease.
Alias: dai_similarity
Cost: some 3 minutes on two cores.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.core.config import require_different, require_memory, require_size
from toyicl.core.datasets import dataset
from toyicl.finetuning import evaluation, similarity
from toyicl.finetuning.evaluation import KINDS, FinetuningStudy
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.plots import figures, panels
from toyicl.studies import update_comparison
from toyicl.studies.departure_sweep import STAGES
from toyicl.studies.update_comparison import DIMS, METHODS, PUBLISHED_NAME
from toyicl.training.loop import Histories

NOISE_PAIRS = 64
"""Pairs of noises whose similarity is measured."""


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the model, its training, and the controls."""

    draws: tuple[int, ...] = (64, 1024)
    """Numbers of random updates of which the best is taken."""
    noise_width: int = 4096
    """Width of the noise whose similarity is known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for count in self.draws:
            require_size("draws", count)
            require_memory("draws", count, count)  # a key for each
        require_different("draws", self.draws)
        require_size("noise_width", self.noise_width)
        require_memory("noise_width", self.noise_width, 3 * NOISE_PAIRS * self.noise_width)


FULL = Settings()
QUICK = FULL.quick(rates=(0.01, 0.1, 0.4, 1.6), draws=(64,), max_seeds=2)
NOISE_RATIO = 3.0
"""|r|^2 / |z|^2 of the noise."""
WAYS = ("in context", "finetuned")
"""Labels of the dimension `way`."""
trainings = FinetuningStudy.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare updates of the model with the changes that demonstrations make."""
    history = histories["model"]
    sets = settings.evaluation_sets()
    compare = partial(update_comparison.compare, rates=settings.rates, draws=settings.draws)
    found = evaluation.before_and_after(compare, history, sets)
    by_step = metrics.over_snapshots(
        update_comparison.by_step(settings.rates), history.learners, sets
    )
    # Untrained models choose rates that are 2 to 16 times as large as those of trained models.
    rates = found["chosen_rate"][:, -1, 0]
    at_trained_rate = evaluation.untrained_with(
        update_comparison.similarity_at, history, rates, sets[:1]
    )
    noise = similarity.noise_similarity(
        jax.random.key(0), NOISE_RATIO, settings.noise_width, pairs=NOISE_PAIRS
    )
    return dataset(
        {name: (("seed", "stage", *DIMS[name]), values) for name, values in found.items()},
        {"similarity_by_step": (("seed", "step", "kind"), by_step["similarity_by_step"])},
        {"gain_by_step": (("seed", "step", "way"), by_step["gain_by_step"])},
        {"untrained_similarity_at_trained_rate": (("seed", "kind", "layer"), at_trained_rate)},
        {"model_cosine": (("seed", "stage", "layer"), found["similarity"][:, :, 0, 0])},
        {"norm_ratio": (("seed", "stage", "layer"), found["update_norm_ratio"][:, :, 0])},
        {"noise_similarity": ("kind", [*map(float, noise), np.nan, np.nan])},
        {"seed": history.seeds, "step": history.steps},
        undemonstrated=int(jnp.sum(jnp.sum(sets[0].y, axis=1) == 0)),
    ).assign_coords(
        stage=list(STAGES),
        method=list(METHODS),
        update=update_comparison.update_names(settings.draws),
        kind=list(KINDS),
        layer=np.arange(1, settings.model.depth + 1),
        rate=list(settings.rates),
        way=list(WAYS),
    )


def _by_update(stage: str, kind: str) -> Value:
    """SimAOU at the last layer, (update, seed)."""
    return lambda results: (
        results.similarity.sel(stage=stage, kind=kind).isel(layer=-1).transpose("update", "seed")
    )


def draw(results: xr.Dataset) -> Figure:
    """Accuracies, similarities by update, layer and training step, and Rec2FTP."""

    def accuracies(axes: Axes, results: xr.Dataset) -> None:
        trained = results.sel(stage="trained")
        for name, style in (("zero_shot", ":"), ("in_context", "--")):
            value = float(trained[name].mean())
            label = f"{name.replace('_', ' ')}: {value:.2f}"
            axes.axvline(value, color="0.3", linestyle=style, label=label)
        with_models = trained.dropna("update", how="all", subset=["accuracy"])
        sets = {"after the update": panels.selected("accuracy")}
        panels.rows(sets, "update", xlabel="accuracy")(axes, with_models)

    def by_update(kind: str) -> panels.Panel:
        sets = {stage: _by_update(stage, kind) for stage in reversed(STAGES)}
        return panels.rows(sets, "update", levels={"0": 0.0}, xlabel=f"{kind} similarity")

    def by_step(name: str, dim: str, labels: dict[str, str], ylabel: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            for (label, shown), (color, style) in zip(labels.items(), panels.LOOKS, strict=False):
                values = results[name].sel({dim: label})
                figures.every_seed(axes, values, "step", label=shown, color=color, style=style)
            axes.set(xlabel="training step", ylabel=ylabel)
            axes.legend()

        return draw

    layers = {
        f"layer {layer}": panels.selected(
            "similarity", update=PUBLISHED_NAME, stage="trained", layer=layer
        )
        for layer in results.layer.values
    }
    recoveries = {
        "score": panels.selected("recovered", stage="trained"),
        "by chance": panels.selected("recovered_by_chance", stage="trained"),
    }
    kinds = {"normalised": "as published", "centred": "centred"}
    drawn: dict[str, panels.Panel] = {
        "accuracy after each update": accuracies,
        "similarity, as published, last layer": by_update("normalised"),
        "similarity, centred, last layer": by_update("centred"),
        "kinds of similarity, keys and values": panels.rows(
            layers, "kind", levels={"0": 0.0}, xlabel="similarity"
        ),
        "Rec2FTP by method": panels.rows(recoveries, "method", xlabel="fraction recovered"),
        "similarity during training, last layer": by_step(
            "similarity_by_step", "kind", kinds, "similarity, keys and values"
        ),
        "gains during training": by_step(
            "gain_by_step", "way", {way: way for way in WAYS}, "accuracy minus zero-shot accuracy"
        ),
    }
    sentence = (
        "Classification in context. Similarity: mean cosine of the changes of attention outputs by an "
        "update and by demonstrations in the context."
    )
    return panels.figure(results, drawn, sentence, columns=4)


def _trained(name: str, **where: Any) -> Value:
    """A variable of trained models at some coordinates."""
    return panels.selected(name, stage="trained", **where)


def _similarity(
    update: str = PUBLISHED_NAME, stage: str = "trained", kind: str = "normalised"
) -> Value:
    """SimAOU at the last layer."""
    return lambda results: _by_update(stage, kind)(results).sel(update=update)


def _difference(one: Value, other: Value) -> Value:
    return lambda results: one(results) - other(results)


def _ratio(one: Value, other: Value) -> Value:
    return lambda results: one(results) / other(results)


BEST, RANDOM, OTHER = (
    _similarity(update) for update in ("best of 64 random", "random", "another task's")
)


def _own(stage: str) -> Value:
    """Similarity of finetuning on the task minus that of finetuning on another task."""
    return _difference(_similarity(stage=stage), _similarity("another task's", stage=stage))


def _since_a_third(results: xr.Dataset) -> xr.DataArray:
    """Similarity at the end minus that at the snapshot nearest to a third of the training."""
    values, last = results.similarity_by_step.sel(kind="normalised"), results.step[-1]
    return values.sel(step=last) - values.sel(step=last / 3, method="nearest")


def _at_trained_rate(results: xr.Dataset) -> xr.DataArray:
    found = results.untrained_similarity_at_trained_rate
    return found.sel(kind="normalised").isel(layer=-1)


CLAIMS = (
    *catalogue.read(
        Path(__file__).with_name("claims.toml"),
        {
            "DAI-icl": _difference(_trained("in_context"), _trained("zero_shot")),
            "DAI-ft": _difference(
                _trained("accuracy", update=PUBLISHED_NAME), _trained("zero_shot")
            ),
            "DAI-3": _trained("recovered", method=PUBLISHED_NAME),
            "DAI-3-chance": _difference(
                _trained("recovered", method=PUBLISHED_NAME),
                _trained("recovered_by_chance", method=PUBLISHED_NAME),
            ),
            "DAI-4": _trained("similarity", update=PUBLISHED_NAME, kind="normalised"),
            "DAI-4-random": _difference(_similarity(), _similarity("uniform noise")),
            "DAI-4-gaussian": _similarity("Gaussian noise"),
            "DAI-4-other": _ratio(OTHER, _similarity()),
            "DAI-4-untrained-rate": lambda results: (
                _difference(_similarity(), _at_trained_rate)(results) > 0
            ).mean(),
            "DAI-4-centred": _difference(
                _similarity(kind="centred"), _similarity(stage="untrained", kind="centred")
            ),
            "DAI-4-training": _since_a_third,
            "DAI-4-own": _difference(_own("trained"), _own("untrained")),
            "DAI-4-mlps": _difference(_similarity(), _similarity("MLPs")),
            "DAI-4-best": _difference(_similarity(), BEST),
        },
    ),
    *catalogue.read(
        Path(__file__).with_name("later_paper.toml"),
        {
            "DEU-untrained": _difference(_similarity(), _similarity(stage="untrained")),
            "DEU-raw": _similarity(kind="raw"),
            "DEU-causal": _difference(_similarity("layer-causal"), _similarity()),
        },
    ),
    *catalogue.read(
        Path(__file__).parents[1] / "objections" / "claims.toml",
        {
            "CR-10": _difference(BEST, RANDOM),
            "CR-10-1024": _difference(_similarity("best of 1024 random"), BEST),
            "CR-10-between": _ratio(_difference(BEST, RANDOM), _difference(_similarity(), RANDOM)),
            "CR-10-noise": lambda results: results.noise_similarity.sel(kind="normalised"),
            "CR-10-noise-raw": lambda results: abs(results.noise_similarity.sel(kind="raw")),
        },
    ),
)
