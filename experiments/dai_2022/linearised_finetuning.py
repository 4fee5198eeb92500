"""A model linearised in its parameters is alike enough to in-context learning.

Finetuning in the tangent space at the trained model, f_lin = f + J (theta - theta_0), beside the real
one, at the rate that does best and at smaller ones: relative error of the logits, and the similarity of
attention outputs, which are linearised, too. And the step itself: J^T (softmax(f) - e_y), from
Jacobians written out, beside what an unfinished report simplifies it to, log softmax(f)_y times the
features of y.

Expected: at the rate that does best logits are off by up to a third, and nearer as the rate falls;
the similarity is that of the real model; the simplified step is not the gradient.
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
from toyicl.harness import catalogue, claim_values, claims
from toyicl.models.causal import Activations, CausalTransformer
from toyicl.plots import figures, panels
from toyicl.tasks.prompts import cross_entropy
from toyicl.training.loop import Histories

KEYS_AND_VALUES = PARAMETERS["keys and values"]
PUBLISHED = published(cross_entropy)


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the vehicle, and the rates."""

    factors: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    """Factors on the rate that does best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("factors", self.factors)
        for factor in self.factors:
            require_positive("factors", factor)


FULL = Settings()
QUICK = FULL.quick()


trainings = FinetuningStudy.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train the vehicle, and finetune it and its linearisation."""
    history = histories["model"]
    found = evaluation.before_and_after(
        partial(_look, settings), history, settings.evaluation_sets()
    )
    trained = {name: values[:, 1] for name, values in found.items()}
    dims: dict[str, tuple[str, ...]] = {
        "logit_error": ("factor",),
        "accuracy": ("tuning", "factor"),
        "similarity": ("tuning", "factor", "kind", "layer"),
        "step_cosine": ("example",),
        "step_ratio": ("example",),
    }
    return dataset(
        {name: (("seed", *dims.get(name, ())), values) for name, values in trained.items()},
        {"model_cosine": (("seed", "stage"), found["step_cosine"].mean(axis=-1))},
        {"norm_ratio": (("seed", "stage"), found["step_ratio"].mean(axis=-1))},
        {"prediction_difference": (("seed", "stage"), found["step_gap"])},
        {"seed": history.seeds, "factor": list(settings.factors)},
    ).assign_coords(
        stage=["untrained", "trained"],
        tuning=["real", "linearised"],
        kind=list(KINDS),
        layer=np.arange(1, settings.model.depth + 1),
    )


def _look(
    settings: Settings, model: CausalTransformer, trial: EvaluationSet, held_out: EvaluationSet
) -> dict[str, Any]:
    """Both ways of finetuning at each rate, and the steps on each demonstration."""
    best = evaluation.choose_rate(model, held_out, settings.rates, **PUBLISHED).best
    zero, told = evaluation.zero_shot(model, trial), evaluation.in_context(model, trial)

    def both(factor: jax.Array) -> dict[str, jax.Array]:
        tuned = evaluation.finetuned(model, trial, factor * best, **PUBLISHED)
        seen = evaluation.zero_shot_per_task(tuned, trial), _linearised(model, trial, factor * best)
        gap = jnp.linalg.norm(seen[1].logits - seen[0].logits, axis=-1)
        moved = jnp.linalg.norm(seen[0].logits - zero.logits, axis=-1)
        alike = [
            evaluation.update_similarity(zero.attended, told.attended, one.attended).similarity
            for one in seen
        ]
        return {
            "logit_error": jnp.sum(gap) / jnp.sum(moved),
            "accuracy": jnp.stack([evaluation.accuracy(one.logits, trial.labels) for one in seen]),
            "similarity": jnp.stack(alike),
        }

    found = jax.lax.map(both, jnp.asarray(settings.factors))
    return {
        "chosen_rate": best,
        "logit_error": found["logit_error"],
        "accuracy": found["accuracy"].T,
        "similarity": jnp.swapaxes(found["similarity"], 0, 1),
        **_steps(model, trial),
    }


def _linearised(model: CausalTransformer, trial: EvaluationSet, rate: jax.Array) -> Activations:
    """What the linearised model of each task sees of its queries."""

    def one(x: jax.Array, y: jax.Array, queries: jax.Array) -> Activations:
        change = tangent_steps(model, x, y, rate, which=KEYS_AND_VALUES, cost=cross_entropy)
        see = partial(linearised_activations, model, change, which=KEYS_AND_VALUES)
        return jax.vmap(see)(queries)

    return jax.vmap(one)(trial.x, trial.y, trial.queries)


def _steps(model: CausalTransformer, trial: EvaluationSet) -> dict[str, jax.Array]:
    """Steps on single demonstrations: the first of each task, and where they start."""
    divided = parts(model, KEYS_AND_VALUES)
    start, unravel = ravel_pytree(divided.chosen)

    def steps(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        def logits(values: jax.Array) -> jax.Array:
            return divided.model(unravel(values)).zero_shot(x).logits

        written_out = jax.jacrev(logits)(start).T @ (jax.nn.softmax(logits(start)) - y)
        change = tangent_steps(
            model, x[None], y[None], 1.0, which=KEYS_AND_VALUES, cost=cross_entropy
        )
        step = -ravel_pytree(change)[0]
        gradient, simplified = (
            ravel_pytree(part)[0] for part in label_step(model, x, y, which=KEYS_AND_VALUES)
        )
        norms = [jnp.linalg.norm(part) for part in (step - written_out, simplified, gradient)]
        apart = jnp.linalg.norm(simplified - gradient)
        return (
            norms[0] / norms[2],
            cosine(simplified, gradient),
            norms[1] / norms[2],
            apart / norms[2],
        )

    gap, cosines, ratios, apart = jax.vmap(steps)(trial.x[:, 0], trial.y[:, 0])
    still = jax.tree.map(jnp.zeros_like, divided.chosen)
    see = partial(linearised_activations, model, still, which=KEYS_AND_VALUES)
    query = trial.queries[0, 0]
    begins = jnp.max(jnp.abs(see(query).logits - model.zero_shot(query).logits))
    return {
        "start_gap": begins,
        "jacobian_gap": jnp.max(gap),
        "step_cosine": cosines,
        "step_ratio": ratios,
        "step_gap": jnp.mean(apart),
    }


def _similarity(tuning: str) -> claims.Value:
    """As published, at the last layer: (seed, factor)."""
    return lambda results: results.similarity.sel(tuning=tuning, kind="normalised").isel(layer=-1)


def draw(results: xr.Dataset) -> Figure:
    """Error of the logits, similarity and accuracy by the rate, and the simplified step."""

    def errors(axes: Axes, results: xr.Dataset) -> None:
        figures.every_seed(axes, results.logit_error, "factor", label="logits", color=figures.MODEL)
        axes.set(xscale="log", yscale="log", xlabel="factor on the best rate")
        axes.set(ylabel="|f_lin - f| / |f - f_0|")
        axes.legend()

    def by_rate(values: claims.Value, ylabel: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            looks = zip(results.tuning.values, panels.LOOKS, strict=False)
            for tuning, (color, style) in looks:
                shown = values(results).sel(tuning=tuning)
                figures.every_seed(axes, shown, "factor", label=tuning, color=color, style=style)
            axes.set(xscale="log", xlabel="factor on the best rate", ylabel=ylabel)
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
        axes.set(xlabel="cosine with the gradient", ylabel="norm over the gradient's")
        axes.legend()

    drawn = {
        "distance from the real model": errors,
        "similarity to in-context learning": by_rate(_alike_at_last, "similarity, last layer"),
        "accuracy": by_rate(lambda r: r.accuracy, "accuracy"),
        "the simplified step, per example": simplified,
    }
    sentence = "Finetuning W_K and W_V, really and linearised where the trained model is."
    return panels.figure(results, drawn, sentence)


def _alike_at_last(results: xr.Dataset) -> xr.DataArray:
    return results.similarity.sel(kind="normalised").isel(layer=-1)


def _falls(results: xr.Dataset) -> xr.DataArray:
    """By how much the error of the logits falls from a tenth of the best rate to a hundredth."""
    return results.logit_error.sel(factor=0.1) / results.logit_error.sel(factor=0.01)


def _difference(results: xr.Dataset) -> xr.DataArray:
    """Similarity of the linearised model minus the real one's, at the best rate."""
    both = [_similarity(name)(results).sel(factor=1.0) for name in ("linearised", "real")]
    return both[0] - both[1]


CLAIMS = catalogue.read(
    Path(__file__).with_name("unfinished_report.toml"),
    {
        "REP-0-start": claim_values.largest("start_gap"),
        "REP-0-step": claim_values.largest("jacobian_gap"),
        "REP-1": _difference,
        "REP-1-logits": _falls,
        "REP-2": lambda results: results.step_cosine.mean("example"),
        "REP-2-ratio": lambda results: results.step_ratio.mean("example"),
    },
)
