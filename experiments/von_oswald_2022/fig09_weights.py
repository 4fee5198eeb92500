"""Trained weights equal the constructed weights up to one scalar factor.

Figure 9 of von Oswald et al. (2022): W_K^T W_Q and P W_V of one layer, and of three layers with the
same weights, whose P W_V has the curvature of GD++ on its diagonal. The losses of trained layers
with one to four heads, and of random layers, are compared with that of the best step (appendix
A.9).

Expected: step .606 I, curvature .18 to .21, and no loss below that of the best step.
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
from toyicl.core.config import require_memory, require_size
from toyicl.core.datasets import Variables, dataset, part, side_by_side
from toyicl.harness import catalogue
from toyicl.models.layers import LAYER_NUMBERS
from toyicl.models.transformer import Transformer
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.weights import circuits, learned_steps
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the weights; `model` and `training` are those of one layer."""

    depth: int = 3
    """Number of layers of the recurrent model."""
    most_heads: int = 4
    """Largest number of heads of the layers whose loss is compared with that of the best step."""
    random_layers: int = 100
    """Number of layers with random weights, for each number of heads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_size("most_heads", self.most_heads)
        require_size("random_layers", self.random_layers)
        require_size("depth", self.depth, least=2)
        weights = self.most_heads * (self.task.dim + self.task.outputs) ** 2
        require_memory("random_layers", self.random_layers, self.random_layers * weights)
        require_memory("most_heads", self.most_heads, self.most_heads * LAYER_NUMBERS)
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=256, learning_rate=2e-3, clip_norm=10.0),
    evaluation_episodes=2000,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One layer with each number of heads, and the recurrent layers."""
    task, model = settings.task, settings.model
    of_heads = {
        _name(heads): Job(replace(model, heads=heads), task, settings.training)
        for heads in range(1, settings.most_heads + 1)
    }
    recurrent = replace(model, depth=settings.depth, shared=True)
    return of_heads | {"recurrent layers": Job(recurrent, task, settings.training)}


def _name(heads: int) -> str:
    """Name of the training of one layer with a number of heads."""
    return f"{heads} heads"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the weights of one layer and of the recurrent layers with the construction."""
    one = histories[_name(1)]
    parts = {
        1: dataset(
            alignment(settings, one, best_references(settings.task, 1)),
            learned_steps(settings, one.final),
            circuits(one.final),
            _distances(settings, one.final),
        ),
        settings.depth: _recurrent(settings, histories["recurrent layers"]),
    }
    heads = list(range(1, settings.most_heads + 1))
    ratios = [_least_ratios(settings, count, histories[_name(count)].final) for count in heads]
    return (
        side_by_side(parts, "layers")
        .isel(head=0)
        .assign(least_loss_ratio=(("heads", "weights"), np.array(ratios)))
        .assign_coords(heads=heads, weights=["trained", "random"])
    )


def _recurrent(settings: Settings, history: History) -> xr.Dataset:
    """Loss, curvature and circuits of the recurrent layers."""
    references = best_references(settings.task, settings.depth)
    aligned = dataset(
        alignment(settings, history, references),
        learned_steps(settings, history.final),
        circuits(history.final),
    )
    kept = ["loss", "on_plateau", "learned_curvature", "key_query", "value_output"]
    return aligned[kept]


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

    initial = np.linalg.norm(last_row[:, :d], axis=1) / abs(last_row[:, d])
    return {
        "score_distance": ("seed", norm(scores - scale) / norm(scores)),
        "step_distance": ("seed", norm(steps - best) / norm(best)),
        "initial_weights_ratio": ("seed", initial),
    }


def _least_ratios(settings: Settings, heads: int, trained: Transformer) -> list[float]:
    """Least loss of trained layers, and of random ones, divided by that of the best step of GD."""
    keys = jax.random.split(jax.random.key(2026), settings.random_layers)
    architecture = replace(settings.model, heads=heads, init_scale=1.0)
    random = jax.vmap(partial(architecture, settings.task))(keys)
    episodes = settings.episodes()
    best = metrics.loss(GradientDescent.shared(settings.task), episodes)
    return [float((metrics.losses(models, episodes) / best).min()) for models in (trained, random)]


def draw(results: xr.Dataset) -> Figure:
    """Both circuits of the first seed that left its plateau, for each number of layers."""
    shown, seeds = {}, []
    for layers in results.layers.values:
        own = part(results, layers=layers)
        first = int(own.on_plateau.values.argmin())
        seeds.append(
            f"seed {int(own.seed[first])} of {layers} {'layer' if layers == 1 else 'layers'}"
        )
        for name, label in (("key_query", "$W_K^T W_Q$"), ("value_output", "$P W_V$")):
            shown[f"{label}, K = {layers}"] = own[name].isel(seed=first).reset_coords(drop=True)
    drawn = {name: panels.heat_map(name, "") for name in shown}
    sentence = f"Trained circuits, {' and '.join(seeds)} with the same weights."
    pictured = xr.Dataset(shown, attrs=results.attrs)
    return panels.figure(pictured, drawn, sentence)


def _relative_spread(results: xr.Dataset) -> xr.DataArray:
    """Standard deviation divided by mean, of the diagonal of P W_V's input block."""
    block = results.value_output[:, :-1, :-1]
    diagonal = np.diagonal(block.values, axis1=1, axis2=2)
    spread = diagonal.std(axis=1) / abs(diagonal.mean(axis=1))
    return results.learned_curvature.copy(data=spread)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-9-1": lambda results: results.score_distance,
        "VO-9-1-step": lambda results: results.step_distance,
        "VO-9-2": _relative_spread,
        "VO-9-2-curvature": lambda results: results.learned_curvature.median("seed"),
        "VO-A9-1": lambda results: results.least_loss_ratio.min(),
        "VO-P1-6": lambda results: results.initial_weights_ratio,
    },
)
