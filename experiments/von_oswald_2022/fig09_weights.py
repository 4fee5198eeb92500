"""Trained weights are the construction, up to one scalar.

Figure 9 of von Oswald et al. (2022): W_K^T W_Q and P W_V of one layer, and of three with the same
weights, whose P W_V has the curvature of GD++ on its diagonal. With the losses of trained
layers of one to four heads, and of random ones, beside the best step's (appendix A.9).

Expected: step .606 I, curvature .18 to .21, no loss below that of the best step.
Alias: fig9
Cost: four minutes; quick: half a minute.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.analysis.weights import implied_step
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue
from toyicl.models.transformer import Transformer
from toyicl.plots import panels
from toyicl.studies.alignment import Study, Variables, alignment, best_references, readings
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the weights."""

    depth: int = 3
    """Layers of the recurrent model."""
    most_heads: int = 4
    """Most heads of the layers whose exact loss is compared with the best."""
    random_layers: int = 100
    """Untrained layers, with random weights, for each number of heads."""


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=256, learning_rate=2e-3, clip_norm=10.0),
    evaluation_episodes=2000,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One layer with each number of heads, and the recurrent layers."""
    task, model = settings.task, settings.model
    of_heads = {
        f"{heads} heads": Job(replace(model, heads=heads), task, settings.training)
        for heads in range(1, settings.most_heads + 1)
    }
    deep = replace(model, depth=settings.depth, shared=True)
    return of_heads | {"recurrent layers": Job(deep, task, settings.training)}


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train the two models, and layers with more heads, and read their weights."""
    task, model = settings.task, settings.model
    found, over_best = {}, []
    for heads in range(1, settings.most_heads + 1):
        own = replace(model, heads=heads)
        history = histories[f"{heads} heads"]
        keys = jax.random.split(jax.random.key(2026), settings.random_layers)
        random = jax.vmap(partial(replace(own, init_scale=1.0), task))(keys)
        over_best += [_over_best(settings, models) for models in (history.final, random)]
        if heads == 1:
            found = alignment(settings, history, best_references(task, 1))
            found |= readings(settings, history.final) | _circuits(history.final, "")
            found |= _distances(settings, history.final)
    history = histories["recurrent layers"]
    deep_references = best_references(task, settings.depth)
    aligned = alignment(settings, history, deep_references)
    return dataset(
        found,
        _circuits(history.final, "deep_"),
        {"deep_curvature": readings(settings, history.final)["learned_curvature"]},
        {"deep_on_plateau": aligned["on_plateau"], "deep_loss": aligned["loss"]},
        {"over_best": ("layer", over_best)},
    )


def _circuits(models: Transformer, prefix: str) -> Variables:
    attention = models.blocks[0].attention
    matrices = {"key_query": attention.key_query, "value_output": attention.value_output}
    dims = ("seed", "row", "column")
    return {f"{prefix}{name}": (dims, values[:, 0]) for name, values in matrices.items()}


def _distances(settings: Settings, models: Transformer) -> Variables:
    """Relative Frobenius distances of each seed's weights from the construction."""
    d = settings.task.dim
    eye = np.eye(d)
    scores = np.asarray(models.blocks[0].attention.key_query)[:, 0, :d, :d]
    scale = np.trace(scores, axis1=1, axis2=2)[:, None, None] / d * eye
    steps = np.asarray(jax.vmap(partial(implied_step, dim=d))(models))
    best = theory.optimal_scale(settings.task) * eye
    last_row = np.asarray(models.blocks[0].attention.value_output)[:, 0, -1]

    def norm(matrices: np.ndarray) -> np.ndarray:
        return np.linalg.norm(matrices, axis=(-2, -1))

    return {
        "score_distance": ("seed", norm(scores - scale) / norm(scores)),
        "step_distance": ("seed", norm(steps - best) / norm(best)),
        "start_share": ("seed", np.linalg.norm(last_row[:, :d], axis=1) / abs(last_row[:, d])),
    }


def _over_best(settings: Settings, models: Transformer) -> float:
    """The least of the models' losses, over that of the best step of GD on the same episodes."""
    episodes = settings.episodes()
    best = metrics.loss(GradientDescent.shared(settings.task), episodes)
    return float((metrics.losses(models, episodes) / best).min())


def draw(results: xr.Dataset) -> Figure:
    """The circuits of the first seed that left its plateau."""
    first = int(results.on_plateau.values.argmin())
    deep = int(results.deep_on_plateau.values.argmin())
    shown = results[["key_query", "value_output"]].isel(seed=first, drop=True)
    shown = shown.merge(results[["deep_key_query", "deep_value_output"]].isel(seed=deep, drop=True))
    drawn = {
        "one layer": panels.heat_map("key_query", "$W_K^T W_Q$"),
        "one layer ": panels.heat_map("value_output", "$P W_V$"),
        "three layers": panels.heat_map("deep_key_query", "$W_K^T W_Q$"),
        "three layers ": panels.heat_map("deep_value_output", "$P W_V$"),
    }
    seeds = int(results.seed[first]), int(results.seed[deep])
    sentence = (
        f"One trained layer, of seed {seeds[0]}, "
        f"and three with the same weights, of seed {seeds[1]}."
    )
    return panels.figure(shown.assign_attrs(results.attrs), drawn, sentence)


def _relative_spread(results: xr.Dataset) -> xr.DataArray:
    """Standard deviation over mean of the input block's diagonal of P W_V, three layers."""
    block = results.deep_value_output[:, :-1, :-1]
    diagonal = np.diagonal(block.values, axis1=1, axis2=2)
    spread = diagonal.std(axis=1) / abs(diagonal.mean(axis=1))
    return results.deep_curvature.copy(data=spread)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-9-1": lambda results: results.score_distance,
        "VO-9-1-step": lambda results: results.step_distance,
        "VO-9-2": _relative_spread,
        "VO-9-2-curvature": lambda results: results.deep_curvature,
        "VO-A9-1": lambda results: results.over_best.min(),
        "VO-P1-6": lambda results: results.start_share,
    },
)
