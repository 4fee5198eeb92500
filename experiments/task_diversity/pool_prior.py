"""The posterior mean over a pool of tasks fails on new tasks, and approaches ridge regression slowly.

Raventos et al. (2023) compare transformers that are trained on a pool of weights with two Bayesian
estimators: the posterior mean over the pool (dMMSE), which is best on the pool, and ridge regression,
which is best on new weights. Both are evaluated here on the pool and on new weights, for pools of
several sizes, with one linear layer that is trained on each pool: it has too few weights to hold a
large pool, and is compared with both.

Expected: for eight inputs and noise of scale .5 ridge regression has the errors .880 to .181 of the
work for one to eight points. The layer has larger errors than ridge regression everywhere. It is nearer
to the posterior mean for a pool of two weights, and to ridge regression for 32 to 2,048 weights.
Alias: prior
Cost: four minutes on one core; quick: half a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms import PoolPosterior, Ridge
from toyicl.analysis import metrics
from toyicl.core.config import (
    named_in_errors,
    require,
    require_increasing,
    require_positive,
    require_size,
)
from toyicl.core.datasets import dataset, side_by_side
from toyicl.core.episode import Episode, Learner
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.tasks.pool import PooledRegression
from toyicl.training import recipes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training

PUBLISHED_RIDGE = (1.0, 0.880, 0.761, 0.646, 0.534, 0.427, 0.331, 0.247, 0.181)
"""Squared error of ridge regression over d with d = 8 and noise of scale .5, after 0, ..., 8 points,
of Raventos et al. (2023)."""
TOGETHER = 50
"""Number of episodes that are predicted together, since a posterior over a large pool needs memory."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the pools."""

    task: LinearRegression = LinearRegression(
        dim=8, context_size=16, input_distribution="normal", label_noise=0.5
    )
    """Distribution of inputs and noise, of new weights, and of the weights of the pools."""
    counts: tuple[int, ...] = (2, 8, 32, 128, 512, 2048, 8192, 32_768)
    """Numbers of weights in the pools."""
    evaluation_episodes: int = 4000
    """Number of held-out episodes with new weights, and with weights of each pool."""
    points: int = len(PUBLISHED_RIDGE) - 1
    """Largest number of points for which ridge regression is compared with the published errors."""
    model: Architecture = Architecture()
    """The model that is trained on each pool."""
    training: Training = replace(
        recipes.FALLING_FAST, steps=2000, batch_size=256, snapshot_every=500
    )
    """Its training."""

    def __post_init__(self) -> None:
        require_increasing("counts", self.counts)
        for count in self.counts:
            require_size("counts", count)
        require_episodes("evaluation_episodes", self.evaluation_episodes, self.task)
        require_size("points", self.points)
        rule = f"at most {len(PUBLISHED_RIDGE) - 1}, the published ones"
        require(self.points < len(PUBLISHED_RIDGE), "points", rule, self.points)
        noise, outputs = self.task.label_noise, self.task.outputs
        require(noise is not None, "task.label_noise", "above 0, for a posterior", noise)
        require_positive("task.label_noise", noise)
        require(outputs == 1, "task.outputs", "1 here", outputs)

    def pooled(self, count: int) -> PooledRegression:
        """The task with a pool."""
        return PooledRegression(base=self.task, count=count)


FULL = Settings()
QUICK = Settings(
    counts=(2, 128, 8192),
    evaluation_episodes=1000,
    training=replace(FULL.training, steps=1000, batch_size=128),
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training on each pool."""
    return {
        _name(count): Job(settings.model, settings.pooled(count), settings.training)
        for count in settings.counts
    }


def _name(count: int) -> str:
    """Name of the training on a pool."""
    return f"pool of {count}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the model with both estimators on new weights and on the pool, for each pool."""
    parts = {
        count: _compared(settings, count, histories[_name(count)]) for count in settings.counts
    }
    points = np.arange(settings.points + 1)
    ridge = [1.0] + [2 * _ridge_loss(settings.task, int(n)) / settings.task.dim for n in points[1:]]
    same = (settings.task.dim, settings.task.label_noise) == (8, 0.5)
    published = np.array(PUBLISHED_RIDGE[: len(points)]) if same else np.full(len(points), np.nan)
    found = side_by_side(parts, "count").assign_coords(points=points)
    return found.assign(ridge_error=("points", ridge), published_ridge=("points", published))


def _ridge_learner(task: LinearRegression) -> Ridge:
    """The Bayes-optimal ridge regression, without the computation of its loss."""
    return Ridge((float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2)


def _ridge_loss(task: LinearRegression, points: int) -> float:
    """Exact loss of ridge regression after a number of points."""
    return theory.ridge(replace(task, context_size=points))[0]


def _compared(settings: Settings, count: int, history: History) -> xr.Dataset:
    """Squared errors and distances over d, of the model and of both estimators, with one pool."""
    task = settings.pooled(count)
    new_key, pool_key = jax.random.split(jax.random.key(2023))
    tests = {
        "new": settings.task.sample(new_key, settings.evaluation_episodes),
        "pool": task.sample(pool_key, settings.evaluation_episodes),
    }
    references = {"bayes": PoolPosterior.bayes(task), "ridge": _ridge_learner(settings.task)}
    values: dict[str, object] = {}
    for place, episodes in tests.items():
        own = np.asarray(_each(history.final, episodes))  # (seed, outputs, episodes)
        values[f"model_{place}"] = ("seed", _mean_square(own - episodes.y_query))
        for name, reference in references.items():
            answers = np.asarray(_predictions(reference, episodes))
            values[f"{name}_{place}"] = float(_mean_square(answers - episodes.y_query))
            values[f"to_{name}_{place}"] = ("seed", _mean_square(own - answers))
    scaled = dataset(values, {"seed": history.seeds}) / settings.task.dim
    # On a plateau, the loss on the pool is nearer to that of predicting 0 than to that of one step.
    step = 2 * theory.gradient_descent_optimum(settings.task).loss / settings.task.dim
    stuck = metrics.on_plateau(scaled.model_pool.values, step, 1.0)
    return scaled.assign(on_plateau=("seed", stuck))


def _mean_square(values: np.ndarray | jax.Array) -> np.ndarray:
    """Mean over episodes of the sum of squares over outputs: (..., outputs, episodes) -> (...)."""
    return np.mean(np.sum(np.asarray(values, np.float64) ** 2, axis=-2), axis=-1)


@jax.jit
def _predictions(learner: Learner, episodes: Episode) -> jax.Array:
    """Predictions of a learner on a few episodes at a time, (outputs, episodes)."""
    rows = tuple(jnp.moveaxis(field, -1, 0) for field in episodes[:3])
    return jax.lax.map(lambda one: learner(*one), rows, batch_size=TOGETHER).T


@jax.jit
def _each(learners: Learner, episodes: Episode) -> jax.Array:
    """Predictions of learners that are stacked on a leading axis, (seed, outputs, episodes)."""
    return jax.lax.map(lambda learner: _predictions(learner, episodes), learners)


def draw(results: xr.Dataset) -> Figure:
    """Errors over the size of the pool, distances from both estimators, and ridge regression."""
    drawn = {
        "new weights": _errors_panel("new"),
        "weights of the pool": _errors_panel("pool"),
        "distance from the estimators, new weights": _distance_panel,
        "ridge regression on new weights": _ridge_panel,
    }
    sentence = (
        "Squared errors and squared distances, divided by the number of inputs. Points: layers trained "
        "on a pool of weights, each seed."
    )
    return panels.figure(results, drawn, sentence)


def _errors_panel(place: str) -> panels.Panel:
    """Errors of the model and of both estimators over the size of the pool."""

    def panel(axes: Axes, results: xr.Dataset) -> None:
        color = figures.MODEL
        values = results[f"model_{place}"]
        figures.every_seed(axes, values, "count", label="trained", color=color, style="o")
        axes.plot(results["count"], results[f"bayes_{place}"], "k-", label="posterior mean of pool")
        axes.plot(results["count"], results[f"ridge_{place}"], "k--", label="ridge regression")
        axes.set(xlabel="weights in the pool", ylabel="squared error / d")
        axes.set(xscale="log", yscale="log")
        axes.legend()

    return panel


def _distance_panel(axes: Axes, results: xr.Dataset) -> None:
    """Distance of the model from both estimators on new weights, over the size of the pool."""
    looks = {"bayes": ("posterior mean of pool", "o"), "ridge": ("ridge regression", "s")}
    for number, (name, (label, marker)) in enumerate(looks.items()):
        values, color = results[f"to_{name}_new"], panels.LOOKS[number][0]
        figures.every_seed(axes, values, "count", label=label, color=color, style=marker)
    axes.set(xlabel="weights in the pool", ylabel="squared distance / d")
    axes.set(xscale="log", yscale="log")
    axes.legend()


def _ridge_panel(axes: Axes, results: xr.Dataset) -> None:
    """Exact error of ridge regression over the number of points, and the published one."""
    axes.plot(results.points, results.ridge_error, "k--", label="exact")
    color = figures.REFERENCE
    axes.plot(results.points, results.published_ridge, "x", color=color, label="published")
    axes.set(xlabel="number of context points", ylabel="squared error / d", ylim=(0, None))
    axes.legend()


def _ridge(results: xr.Dataset) -> xr.DataArray:
    """Exact error of ridge regression by number of points."""
    return results.ridge_error


def _nearer_to_ridge(results: xr.Dataset) -> xr.DataArray:
    """Distance from ridge regression divided by that from the posterior mean, on new weights."""
    return results.to_ridge_new / results.to_bayes_new


VALUES: dict[str, Value] = {
    **{f"RAV-ridge-{points}": _ridge for points in (1, 4, 8)},
    "PRIOR-ridge": lambda results: abs(results.ridge_error - results.published_ridge).max(),
    "PRIOR-memory": lambda results: results.bayes_new,
    "PRIOR-pool": lambda results: (results.bayes_pool / results.ridge_pool).max(),
    "PRIOR-layer": _nearer_to_ridge,
}
CLAIMS = catalogue.read(Path(__file__).with_name("claims.toml"), VALUES)
