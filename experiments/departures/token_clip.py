"""A bound on token entries limits which GD++ deep models can take, and they take the best within it.

Models of more than three layers clip their token entries after each layer, by 10 in the released code
of von Oswald et al. (2022). Layers with shared weights are trained with several bounds and without
one, and compared with the best GD++ under the same bound: by loss, by the eta and gamma in their
weights, and by the fraction of episodes whose prediction the bound changes.

Expected: with ten layers the best GD++ has loss .0306 without a bound and .049 under a bound of 10;
two layers do not reach the bound.
Alias: clip
Cost: half an hour on one core; quick: a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.algorithms.token_descent import TokenDescent
from toyicl.analysis import metrics
from toyicl.core.config import require_increasing, require_positive, require_size
from toyicl.core.datasets import Variables, dataset, side_by_side
from toyicl.core.episode import Episode, predict
from toyicl.harness import catalogue
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.studies.alignment import Study
from toyicl.studies.weights import learned_steps
from toyicl.training import recipes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the bounds; `model` is that of all depths and bounds."""

    model: Architecture = Architecture(depth=2, shared=True)
    training: Training = replace(recipes.FALLING, steps=10_000)
    model_max_seeds: int = 2
    """Largest number of seeds of each model."""
    depths: tuple[int, ...] = (2, 5, 10)
    """Numbers of layers."""
    clips: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0)
    """Bounds on token entries; every depth is trained without a bound too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_size("model_max_seeds", self.model_max_seeds)
        require_increasing("depths", self.depths)
        require_increasing("clips", self.clips)
        for depth in self.depths:
            require_size("depths", depth, least=2)
        for clip in self.clips:
            require_positive("clips", clip)

    def bounds(self) -> tuple[float | None, ...]:
        """All bounds; None is none."""
        return (*self.clips, None)


FULL = Settings()
QUICK = Settings(
    training=replace(recipes.FALLING, steps=1000, batch_size=128),
    model_max_seeds=1,
    depths=(2, 5),
    clips=(3.0, 10.0),
    evaluation_episodes=2000,
)
SAME = 1e-5
"""Largest difference of two predictions that count as equal, relative to the size of a label."""


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each number of layers and each bound."""
    return {
        _name(depth, clip): Job(
            replace(settings.model, depth=depth, token_clip=clip),
            settings.task,
            settings.training,
            max_seeds=settings.model_max_seeds,
        )
        for depth in settings.depths
        for clip in settings.bounds()
    }


def _name(depth: int, clip: float | None) -> str:
    """Name of the training of a number of layers with a bound."""
    return f"{depth} layers, {'no clip' if clip is None else f'clip {clip:g}'}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the models with the best GD++ under their bound."""
    by_depth = {}
    for depth in settings.depths:
        by_clip = {
            np.inf if clip is None else clip: _compared(settings, histories, depth, clip)
            for clip in settings.bounds()
        }
        by_depth[depth] = side_by_side(by_clip, "clip")
    return side_by_side(by_depth, "layers")


def _compared(
    settings: Settings, histories: Histories, depth: int, clip: float | None
) -> xr.Dataset:
    """One model and the best GD++ under its bound."""
    history, episodes = histories[_name(depth, clip)], settings.episodes()
    models, best = history.final, TokenDescent.gdpp(settings.task, depth, clip)
    losses = metrics.losses(models, episodes)
    reference_loss = metrics.loss(best, episodes)
    zero = float(metrics.zero_loss(episodes))
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], models) for i in range(len(history.seeds))]
    own: Variables = {
        "seed": history.seeds,
        "loss": ("seed", losses),
        "on_plateau": ("seed", metrics.on_plateau(losses, reference_loss, zero)),
        "clipped": ("seed", [_clipped_fraction(model, episodes) for model in each]),
        **learned_steps(settings, models),
    }
    own["learned_rate"] = ("seed", settings.task.context_size * own.pop("learned_step")[1])
    exact: Variables = {
        "exact_loss": float(reference_loss),
        "exact_rate": settings.task.context_size * float(best.step[...]),
        "exact_curvature": float(best.curvature[...]),
        "exact_clipped": _clipped_fraction(best, episodes),
    }
    return dataset(own, exact)


def _clipped_fraction(learner: Any, episodes: Episode) -> float:
    """Fraction of episodes whose prediction the bound on tokens changes; 0 without a bound."""
    if learner.token_clip is None:
        return 0.0
    free = nnx.clone(learner)
    free.token_clip = None
    bounded, unbounded = (jax.jit(predict)(one, episodes) for one in (learner, free))
    scale = jnp.sqrt(jnp.mean(episodes.y_query**2))
    return float(jnp.mean(~(jnp.abs(bounded - unbounded) <= SAME * scale).all(axis=0)))


def draw(results: xr.Dataset) -> Figure:
    """Loss, eta, gamma and the fraction of clipped episodes over the bound."""
    drawn = {
        "loss": _panel("loss", "exact_loss", "loss"),
        r"learned $\eta$": _panel("learned_rate", "exact_rate", r"$\eta$"),
        r"learned $\gamma$": _panel("learned_curvature", "exact_curvature", r"$\gamma$"),
        "episodes that the bound changes": _panel("clipped", "exact_clipped", "fraction"),
    }
    sentence = (
        "Layers with the same weights whose token entries are bounded, after each layer. Points: "
        "trained models, each seed; lines: the best GD++ under the same bound."
    )
    diverged = int(results.loss.isnull().sum())
    if diverged:
        sentence += f" {diverged} of {results.loss.size} trainings diverged and have no point."
    return panels.figure(results, drawn, sentence)


def _panel(own: str, exact: str, label: str) -> panels.Panel:
    """A variable of every seed and of the best GD++, over the bound, with a colour for each depth."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        names = [f"{clip:g}" if np.isfinite(clip) else "none" for clip in results["clip"].values]
        places = np.arange(len(names))
        for (color, line), depth in zip(panels.LOOKS, results.layers.values, strict=False):
            chosen = results.sel(layers=depth)
            axes.plot(places, chosen[exact], line, color=color, label=f"{depth} layers")
            for _, seed in chosen[own].groupby("seed"):
                axes.plot(places, seed.values.ravel(), "o", color=color, markersize=4)
        axes.set_xticks(places, names)
        axes.set(xlabel="bound on token entries", ylabel=label, ylim=(0, None))
        axes.legend()

    return draw


def _over_exact(results: xr.Dataset) -> xr.DataArray:
    """Loss divided by that of the best GD++ under the same bound."""
    return results.loss / results.exact_loss


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "CLIP-loss": _over_exact,
        "CLIP-binds": lambda results: results.exact_loss,
        "CLIP-two": lambda results: results.exact_clipped,
    },
)
