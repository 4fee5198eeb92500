"""Linear attention costs O(N), not O(N^2), and has no higher loss on linear tasks.

Floating point operations, as counted by XLA, of N tokens that attend to each other: with the
products (Q K^T) V and Q (K^T V), and with softmax attention, which has no second order of products.
Also the loss of one layer on linear regression: of the best linear attention, and of softmax
attention by its logit scale, with one head and with two heads of opposite logits, each times its
best factor. Nothing is trained.

Expected: slopes 1 and 2, equal costs at N = D; losses .2062, .2912 and .2153.
Cost: half a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.analysis.cost_scaling import crossing, operations, slope
from toyicl.core.config import named_in_errors, require_memory, require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import Episode
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.attention import read_by_scatter, read_by_scores, read_linear, read_softmax
from toyicl.models.construction import softmax_heads
from toyicl.plots import figures, panels
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of costs and losses."""

    width: int = 64
    """Size D of tokens, keys and values."""
    points: int = 200
    """Number of tokens on which the two orders of products are compared, in float64."""
    task: LinearRegression = LinearRegression()
    """The task."""
    episodes: int = 50_000
    """Number of episodes on which losses are measured."""

    def __post_init__(self) -> None:
        for name in ("width", "points"):
            size = getattr(self, name)
            require_size(name, size)
            require_memory(name, size, size**2)  # of scores, and of the scatter matrix
        require_memory("points", self.points, self.points * self.width)
        require_episodes("episodes", self.episodes, self.task)


FULL = Settings()
QUICK = Settings(episodes=10_000)
SIZES = 2 ** np.arange(2, 17)
"""Numbers of tokens, N."""
SCALES = np.geomspace(0.5, 20.0, 38)
"""Factors on the logits."""
HEADS = {1: ((1.0,), (1.0,)), 2: ((1.0, -1.0), (1.0, -1.0))}
"""Logit scales and output gains of the heads, by number of heads."""


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Count operations, compare the orders of products, and measure losses."""

    def softmax(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        return read_softmax(queries, keys, values, settings.width)

    reads: dict[str, Callable[..., jax.Array]] = {
        "scores": read_by_scores,
        "scatter": read_by_scatter,
        "linear": read_linear,
        "softmax": softmax,
    }
    shapes = [jax.ShapeDtypeStruct((size, settings.width), float) for size in SIZES]
    counted = [
        [operations(read, tokens, tokens, tokens) for tokens in shapes] for read in reads.values()
    ]
    episodes = settings.task.sample(jax.random.key(2022), settings.episodes)
    losses = [_softmax_losses(settings.task, heads, episodes) for heads in HEADS]
    return dataset(
        {"operations": (("attention", "tokens"), counted)},
        {"order_difference": _order_difference(settings)},
        {"softmax_loss": (("heads", "logit_scale"), losses)},
        {"linear_loss": metrics.loss(GradientDescent.shared(settings.task), episodes)},
        width=settings.width,
        exact=theory.gradient_descent_optimum(settings.task).loss,
    ).assign_coords(attention=list(reads), tokens=SIZES, heads=list(HEADS), logit_scale=SCALES)


def _softmax_losses(task: LinearRegression, heads: int, episodes: Episode) -> np.ndarray:
    """Loss of softmax attention times its best factor, for each logit scale."""
    scales, gains = map(jnp.array, HEADS[heads])
    models = jax.vmap(lambda s: softmax_heads(s * scales, gains, task.dim, task.outputs))
    stacked = models(jnp.asarray(SCALES, float))
    row = jax.tree.map(lambda leaf: leaf[:, None], stacked)
    return metrics.over_snapshots(metrics.best_multiple_loss, row, episodes)[:, 0]


def _order_difference(settings: Settings) -> float:
    """The largest difference of the two orders, relative to the largest entry."""
    with jax.enable_x64(True):
        shape = (settings.points, settings.width)
        rows, context = (jax.random.normal(jax.random.key(k), shape) for k in (0, 1))
        one, other = (read(rows, context, context) for read in (read_by_scores, read_by_scatter))
        return float(jnp.max(jnp.abs(one - other)) / jnp.max(jnp.abs(one)))


def draw(results: xr.Dataset) -> Figure:
    """Operations by the number of tokens, and losses by the logit scale."""

    def operations(axes: Axes, results: xr.Dataset) -> None:
        labels = {"scores": "$(QK^T)V$", "scatter": "$Q(K^TV)$"}
        for (name, label), (color, style) in zip(labels.items(), panels.LOOKS, strict=False):
            counted = results.operations.sel(attention=name)
            axes.loglog(results.tokens, counted, style, color=color, label=label)
        softmax = results.operations.sel(attention="softmax")
        axes.loglog(results.tokens, softmax, "o", color=figures.THIRD, label="softmax")
        width = results.attrs["width"]
        axes.axvline(width, color="0.4", linestyle=":", label=f"N = D = {width}")
        axes.set(xlabel="number of tokens N", ylabel="operations")
        axes.legend()

    def losses(axes: Axes, results: xr.Dataset) -> None:
        for found, (color, style) in zip(results.softmax_loss, panels.LOOKS, strict=False):
            heads = int(found.heads)
            label = (
                f"softmax, {heads} {'head' if heads == 1 else 'heads'}: {float(found.min()):.4f}"
            )
            axes.semilogx(results.logit_scale, found, style, color=color, label=label)
        own, exact = float(results.linear_loss), results.attrs["exact"]
        axes.axhline(own, color=figures.THIRD, label=f"best linear: {own:.4f}", linestyle="-.")
        axes.axhline(exact, color="black", linestyle=":", label=f"exact: {exact:.4f}")
        axes.set(xlabel="logit scale", ylabel="loss", ylim=(0, None))
        axes.legend()

    drawn = {"cost of a layer": operations, "loss of one layer": losses}
    sentence = (
        "Operations as counted by XLA, without exponentials. Losses with the best factor on the "
        "predictions."
    )
    return panels.figure(results, drawn, sentence)


def _slope(attention: str) -> Value:
    """Slope of the operations on log axes, for numbers of tokens far above D."""

    def value(results: xr.Dataset) -> xr.DataArray:
        least = 8 * results.attrs["width"]
        counted = results.operations.sel(attention=attention)
        return xr.DataArray(slope(results.tokens, counted, least))

    return value


def _crossing(results: xr.Dataset) -> xr.DataArray:
    """Number of tokens at which both orders cost the same, relative to D."""
    scores, scatter = (results.operations.sel(attention=name) for name in ("scores", "scatter"))
    found = crossing(results.tokens, scores, scatter)
    return xr.DataArray(found / results.attrs["width"])


def _linear_over_softmax(heads: int) -> Value:
    """Loss of linear attention divided by the lowest of softmax attention."""
    return lambda results: results.linear_loss / results.softmax_loss.sel(heads=heads).min()


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "CR-cost-linear": _slope("linear"),
        "CR-cost-softmax": _slope("softmax"),
        "CR-cost-order": lambda results: results.order_difference,
        "CR-cost-crossing": _crossing,
        "CR-8": _linear_over_softmax(2),
        "CR-8-one": _linear_over_softmax(1),
    },
)
