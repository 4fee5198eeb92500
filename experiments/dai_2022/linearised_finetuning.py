"""Finetuning of the model linearised in its parameters is as similar to in-context learning.

Finetuning in the tangent space at the trained model, f_lin = f + J (theta - theta_0), is compared
with real finetuning, at the best learning rate and at smaller ones: by the relative error of the
logits, and by the similarity of attention outputs, which are linearised as well. Also the step
itself: J^T (softmax(f) - e_y), computed from explicit Jacobians, is compared with a simplification
in an unfinished report, log softmax(f)_y times the features of y.

Expected: at the best learning rate the relative error of the logits is up to a third, and it falls
with the learning rate; the similarity is that of the real model; the simplified step is not the
gradient.
Cost: some 2 minutes on two cores.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import require_different, require_positive
from toyicl.core.datasets import dataset
from toyicl.finetuning import evaluation
from toyicl.finetuning.evaluation import KINDS, EvaluationSet, FinetuningStudy
from toyicl.finetuning.similarity import cosine
from toyicl.finetuning.updates import (
    PARAMETERS,
    label_step,
    linearised_activations,
    parts,
    published,
    tangent_steps,
)
from toyicl.harness import catalogue, claim_values
from toyicl.harness.evaluation import Value
from toyicl.models.causal import Activations, CausalTransformer
from toyicl.plots import figures, panels
from toyicl.studies.departure_sweep import STAGES
from toyicl.tasks.prompts import cross_entropy
from toyicl.training.loop import Histories

KEYS_AND_VALUES = PARAMETERS["keys and values"]
PUBLISHED = published(cross_entropy)


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the model, its training, and the learning rates of finetuning."""

    factors: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    """Factors on the best learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("factors", self.factors)
        for factor in self.factors:
            require_positive("factors", factor)


FULL = Settings()
QUICK = FULL.quick()
MODELS = ("real", "linearised")
"""Labels of the dimension `model`: what is finetuned."""
DIMS: dict[str, tuple[str, ...]] = {
    "logit_error": ("factor",),
    "accuracy": ("model", "factor"),
    "similarity": ("model", "factor", "kind", "layer"),
    "step_cosine": ("example",),
    "step_ratio": ("example",),
}
"""Dimensions of the variables that are not scalars."""
trainings = FinetuningStudy.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Finetune the trained model and its linearisation, and compare steps on single examples."""
    history = histories["model"]
    found = evaluation.before_and_after(
        partial(_compare, settings), history, settings.evaluation_sets()
    )
    trained = {name: values[:, 1] for name, values in found.items()}
    return dataset(
        {name: (("seed", *DIMS.get(name, ())), values) for name, values in trained.items()},
        {"model_cosine": (("seed", "stage"), found["step_cosine"].mean(axis=-1))},
        {"norm_ratio": (("seed", "stage"), found["step_ratio"].mean(axis=-1))},
        {"prediction_difference": (("seed", "stage"), found["step_distance"])},
        {"seed": history.seeds, "factor": list(settings.factors)},
    ).assign_coords(
        stage=list(STAGES),
        model=list(MODELS),
        kind=list(KINDS),
        layer=np.arange(1, settings.model.depth + 1),
    )


def _compare(
    settings: Settings, model: CausalTransformer, data: EvaluationSet, other_data: EvaluationSet
) -> dict[str, Any]:
    """Real and linearised finetuning at each learning rate, and steps on single examples."""
    best = evaluation.choose_rate(model, other_data, settings.rates, **PUBLISHED).best
    before, with_context = evaluation.zero_shot(model, data), evaluation.in_context(model, data)

    def both(factor: jax.Array) -> dict[str, jax.Array]:
        tuned = evaluation.finetuned(model, data, factor * best, **PUBLISHED)
        ways = (
            evaluation.zero_shot_per_task(tuned, data),
            _linearised(model, data, factor * best),
        )
        error = jnp.linalg.norm(ways[1].logits - ways[0].logits, axis=-1)
        change = jnp.linalg.norm(ways[0].logits - before.logits, axis=-1)
        similarities = [
            evaluation.update_similarity(before.attended, with_context.attended, way.attended)
            for way in ways
        ]
        return {
            "logit_error": jnp.sum(error) / jnp.sum(change),
            "accuracy": jnp.stack([evaluation.accuracy(way.logits, data.labels) for way in ways]),
            "similarity": jnp.stack([found.similarity for found in similarities]),
        }

    found = jax.lax.map(both, jnp.asarray(settings.factors))
    return {
        "chosen_rate": best,
        "logit_error": found["logit_error"],
        "accuracy": found["accuracy"].T,
        "similarity": jnp.swapaxes(found["similarity"], 0, 1),
        **_steps(model, data),
    }


def _linearised(model: CausalTransformer, data: EvaluationSet, rate: jax.Array) -> Activations:
    """Activations of the finetuned linearised model of each task at its queries."""

    def one(x: jax.Array, y: jax.Array, queries: jax.Array) -> Activations:
        change = tangent_steps(model, x, y, rate, which=KEYS_AND_VALUES, cost=cross_entropy)
        activations = partial(linearised_activations, model, change, which=KEYS_AND_VALUES)
        return jax.vmap(activations)(queries)

    return jax.vmap(one)(data.x, data.y, data.queries)


def _steps(model: CausalTransformer, data: EvaluationSet) -> dict[str, jax.Array]:
    """Steps on the first demonstration of each task, compared with its gradient."""
    divided = parts(model, KEYS_AND_VALUES)
    start, unravel = ravel_pytree(divided.chosen)

    def steps(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        def logits(values: jax.Array) -> jax.Array:
            return divided.model(unravel(values)).zero_shot(x).logits

        explicit = jax.jacrev(logits)(start).T @ (jax.nn.softmax(logits(start)) - y)
        change = tangent_steps(
            model, x[None], y[None], 1.0, which=KEYS_AND_VALUES, cost=cross_entropy
        )
        step = -ravel_pytree(change)[0]
        gradient, simplified = (
            ravel_pytree(part)[0] for part in label_step(model, x, y, which=KEYS_AND_VALUES)
        )
        norms = [jnp.linalg.norm(part) for part in (step - explicit, simplified, gradient)]
        distance = jnp.linalg.norm(simplified - gradient)
        return (
            norms[0] / norms[2],
            cosine(simplified, gradient),
            norms[1] / norms[2],
            distance / norms[2],
        )

    differences, cosines, ratios, distances = jax.vmap(steps)(data.x[:, 0], data.y[:, 0])
    unchanged = jax.tree.map(jnp.zeros_like, divided.chosen)
    query = data.queries[0, 0]
    linearised = linearised_activations(model, unchanged, query, which=KEYS_AND_VALUES)
    start_differences = jnp.abs(linearised.logits - model.zero_shot(query).logits)
    return {
        "start_difference": jnp.max(start_differences),
        "jacobian_difference": jnp.max(differences),
        "step_cosine": cosines,
        "step_ratio": ratios,
        "step_distance": jnp.mean(distances),
    }


def draw(results: xr.Dataset) -> Figure:
    """Error of the logits, similarity and accuracy by learning rate, and the simplified step."""
    xlabel = "factor on the best learning rate"

    def errors(axes: Axes, results: xr.Dataset) -> None:
        figures.every_seed(axes, results.logit_error, "factor", label="logits", color=figures.MODEL)
        axes.set(xscale="log", yscale="log", xlabel=xlabel)
        axes.set(ylabel="|f_lin - f| / |f - f_0|")
        axes.legend()

    def by_rate(value: Value, ylabel: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            for model, (color, style) in zip(MODELS, panels.LOOKS, strict=False):
                shown = value(results).sel(model=model)
                figures.every_seed(axes, shown, "factor", label=model, color=color, style=style)
            axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
            axes.legend()

        return draw

    def simplified(axes: Axes, results: xr.Dataset) -> None:
        for number, seed in enumerate(results.seed.values):
            shown = results.sel(seed=seed)
            axes.semilogy(
                shown.step_cosine,
                shown.step_ratio,
                "osD^v"[number % 5],
                markersize=3,
                alpha=0.6,
                color=panels.LOOKS[number % 4][0],
                label=f"seed {seed}",
            )
        axes.plot([1], [1], "*", color="black", markersize=10, label="the gradient")
        axes.set(xlabel="cosine with the gradient", ylabel="norm relative to the gradient")
        axes.legend()

    drawn = {
        "error of the linearised model": errors,
        "similarity to in-context learning": by_rate(_similarity, "similarity, last layer"),
        "accuracy": by_rate(panels.selected("accuracy"), "accuracy"),
        "simplified step on each example": simplified,
    }
    sentence = "Finetuning of W_K and W_V in the real model and in its linearisation."
    return panels.figure(results, drawn, sentence)


def _similarity(results: xr.Dataset) -> xr.DataArray:
    """Similarity as published, at the last layer."""
    return results.similarity.sel(kind="normalised").isel(layer=-1)


def _error_ratio(results: xr.Dataset) -> xr.DataArray:
    """Error of the logits at a tenth of the best learning rate divided by that at a hundredth."""
    return results.logit_error.sel(factor=0.1) / results.logit_error.sel(factor=0.01)


def _difference(results: xr.Dataset) -> xr.DataArray:
    """Similarity of the linearised model minus the real one's, at the best learning rate."""
    best = _similarity(results).sel(factor=1.0)
    return best.sel(model="linearised") - best.sel(model="real")


CLAIMS = catalogue.read(
    Path(__file__).with_name("unfinished_report.toml"),
    {
        "REP-0-start": claim_values.largest("start_difference"),
        "REP-0-step": claim_values.largest("jacobian_difference"),
        "REP-1": _difference,
        "REP-1-logits": _error_ratio,
        "REP-2": lambda results: results.step_cosine.mean("example"),
        "REP-2-ratio": lambda results: results.step_ratio.mean("example"),
    },
)
