"""On normal inputs a softmax head with a fixed scale becomes a linear function as its context grows.

The mean squared distance between one softmax head, with scores .18 x_i . x_q, and its limit .18 w . x_q
is computed by quadrature and simulated, and compared with the distances published in arXiv 2512.11784.
A fixed scale is not the best one: the second panel shows the loss of the best head of each context
size, of the best linear step and of the best centred step, all exact.

Expected: the distance falls as 4.73 / N; the loss of the best head falls as 1 / N too, but remains
above that of the linear step, by a factor that approaches 3.29 in four dimensions.
Alias: large_prompt
Cost: a minute on one core; quick: half a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms.kernel import NadarayaWatson
from toyicl.core.config import (
    named_in_errors,
    require,
    require_increasing,
    require_positive,
    require_size,
)
from toyicl.core.datasets import dataset
from toyicl.core.episode import predict
from toyicl.harness import catalogue
from toyicl.plots import figures, panels
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories

PUBLISHED = {16: 0.297, 64: 0.0727, 256: 0.0178, 1024: 0.0047, 4096: 0.0011}
"""Mean squared distances by context size in arXiv 2512.11784, for d = 4 and scale .18."""
CHUNK = 400_000
"""Context points that are simulated at a time."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the comparison of a softmax head with its limit."""

    task: LinearRegression = LinearRegression(dim=4, input_distribution="normal")
    """The task; its context size is replaced by each of the sizes."""
    scale: float = 0.18
    """Factor on the scores x_i . x_q of the head."""
    sizes: tuple[int, ...] = tuple(PUBLISHED)
    """Context sizes N."""
    points: int = 20_000_000
    """Context points that are simulated for each size: points / N episodes, and at most `episodes`."""
    episodes: int = 100_000
    """Largest number of simulated episodes for each size."""
    best_sizes: tuple[int, ...] = (10, 40, 160, 640, 2560, 10_240, 40_960)
    """Context sizes for which the best head is computed."""

    def __post_init__(self) -> None:
        kind = self.task.input_distribution
        require(kind == "normal", "task.input_distribution", "normal here", kind)
        require_positive("scale", self.scale)
        for name in ("sizes", "best_sizes"):
            require_increasing(name, getattr(self, name))
            for size in getattr(self, name):
                require_size(name, size, least=2)
        require_size("points", self.points, least=2 * max(self.sizes))
        require_size("episodes", self.episodes, least=2)

    def with_size(self, size: int) -> LinearRegression:
        """The task with another context size."""
        return replace(self.task, context_size=size)


FULL = Settings()
QUICK = Settings(points=4_000_000, best_sizes=(10, 640, 40_960))


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Distances from the limit, simulated and exact, and exact losses of the best predictors."""
    simulated = [_simulated(settings, size) for size in settings.sizes]
    tasks = [settings.with_size(size) for size in settings.sizes]
    distances = [theory.softmax_head_distance(task, settings.scale) for task in tasks]
    best_tasks = [settings.with_size(size) for size in settings.best_sizes]
    heads = [theory.softmax_head_optimum(task) for task in best_tasks]
    linear = [theory.gradient_descent_optimum(task).loss for task in best_tasks]
    centred = [theory.centred_optimum(task).loss for task in best_tasks]
    found = dataset(
        {"simulated_distance": ("points", [mean for mean, _ in simulated])},
        {"standard_error": ("points", [error for _, error in simulated])},
        {"exact_distance": ("points", distances)},
        {"published_distance": ("points", [PUBLISHED.get(n, np.nan) for n in settings.sizes])},
        {"head_loss": ("best_points", [head.loss for head in heads])},
        {"head_scale": ("best_points", [head.scale for head in heads])},
        {"linear_loss": ("best_points", linear)},
        {"centred_loss": ("best_points", centred)},
        limit_ratio=theory.softmax_head_limit_ratio(settings.task.dim),
    )
    return found.assign_coords(points=list(settings.sizes), best_points=list(settings.best_sizes))


def _simulated(settings: Settings, size: int) -> tuple[float, float]:
    """Mean squared distance from the limit over simulated episodes, and its standard error."""
    task, head = settings.with_size(size), NadarayaWatson(settings.scale)
    slope = settings.scale * settings.task.input_range**2
    episodes = min(settings.points // size, settings.episodes)
    most = max(CHUNK // size, 1)

    @jax.jit
    def squares(key: jax.Array) -> jax.Array:
        batch = task.sample(key, most)
        return ((predict(head, batch) - slope * batch.y_query) ** 2).sum(axis=0)

    keys = jax.random.split(jax.random.key(2022), -(-episodes // most))
    values = np.concatenate([np.asarray(squares(key), float) for key in keys])[:episodes]
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def draw(results: xr.Dataset) -> Figure:
    """Distance from the limit, and losses of the best predictors, over the context size."""
    drawn = {"distance from the limit": _distances, "best loss": _losses, "loss ratio": _ratios}
    sentence = (
        "One softmax head on normal inputs. Left: mean squared distance of a head of fixed scale from "
        "its limit, with three standard errors. Middle and right: exact losses of the best head, the "
        "best linear step and the best centred step for each context size."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _distances(axes: Axes, results: xr.Dataset) -> None:
    points = results.points.values
    axes.errorbar(
        points,
        results.simulated_distance,
        3 * results.standard_error,
        fmt="o",
        color=figures.MODEL,
        label="simulated",
    )
    published = results.published_distance
    axes.plot(points, published, "x", color=figures.REFERENCE, label="published", markersize=8)
    axes.plot(points, results.exact_distance, "k:", label="exact")
    axes.set(xscale="log", yscale="log", xlabel="context size N", ylabel="mean squared distance")
    axes.legend()


def _losses(axes: Axes, results: xr.Dataset) -> None:
    names = {
        "head_loss": "softmax head",
        "linear_loss": "linear step",
        "centred_loss": "centred step",
    }
    for (name, label), (color, style) in zip(names.items(), panels.LOOKS, strict=False):
        axes.plot(results.best_points, results[name], style, color=color, label=label)
    axes.set(xscale="log", yscale="log", xlabel="context size N", ylabel="loss")
    axes.legend()


def _ratios(axes: Axes, results: xr.Dataset) -> None:
    axes.plot(
        results.best_points,
        results.head_loss / results.linear_loss,
        "o-",
        color=figures.MODEL,
        label="softmax head",
    )
    axes.plot(
        results.best_points,
        results.centred_loss / results.linear_loss,
        "s--",
        color=figures.THIRD,
        label="centred step",
    )
    figures.floor_line(axes, results.attrs["limit_ratio"], "limit of the head")
    axes.set(xscale="log", xlabel="context size N", ylabel="loss / loss of the linear step")
    axes.set_ylim(0, None)
    axes.legend()


def _from_published(results: xr.Dataset) -> xr.DataArray:
    """Common logarithm of the exact distance over the published one, at each published size."""
    ratio = results.exact_distance / results.published_distance
    return ratio.copy(data=np.log10(ratio.values)).dropna("points")


def _errors(results: xr.Dataset) -> xr.DataArray:
    """Difference of the simulated and the exact distance, in standard errors."""
    return (results.simulated_distance - results.exact_distance) / results.standard_error


def _exponent(results: xr.Dataset) -> xr.DataArray:
    """Slope of the log distance in the log context size."""
    logs = np.log(results.points.values), np.log(results.exact_distance.values)
    return xr.DataArray(np.polyfit(*logs, 1)[0])


def _last_ratio(results: xr.Dataset) -> xr.DataArray:
    """Loss of the best head over that of the best linear step, at the largest context size."""
    return (results.head_loss / results.linear_loss).isel(best_points=-1)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "LARGE-numbers": _from_published,
        "LARGE-falls": _exponent,
        "LARGE-simulation": _errors,
        "LARGE-rate": _exponent,
        "LARGE-ratio": _last_ratio,
    },
)
