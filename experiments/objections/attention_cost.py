"""Linear attention costs N, not N^2, and on linear tasks loses nothing by it.

Operations, as XLA counts them, of N tokens that read each other: the products (Q K^T) V, Q (K^T V),
and softmax, which has no second order. Beside them the loss of one layer on linear regression: linear
attention at its best, and softmax averages of labels by their logit scale, one head and two of opposite
logits, each times its best factor. Nothing is trained.

Expected: slopes 1 and 2, a crossover at N = D; losses .2062, .2912 and .2153.
Cost: half a minute.
"""

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
from toyicl.core.config import require_size
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue, claims
from toyicl.models.attention import read_by_scatter, read_by_scores, read_linear, read_softmax
from toyicl.models.construction import softmax_heads
from toyicl.models.tokens import Tokens
from toyicl.plots import figures, panels
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of costs and losses."""

    width: int = 64
    """Entries of a token, D, and of keys and values."""
    points: int = 200
    """Tokens on which the two orders are compared, in float64."""
    task: LinearRegression = LinearRegression()
    """The task."""
    episodes: int = 50_000
    """Episodes on which losses are measured."""

    def __post_init__(self) -> None:
        for name in ("width", "points", "episodes"):
            require_size(name, getattr(self, name))


FULL = Settings()
QUICK = Settings(episodes=10_000)
SIZES = 2 ** np.arange(2, 17)
"""Numbers of tokens, N."""
SCALES = np.geomspace(0.5, 20.0, 38)
"""Factors on the logits."""
HEADS = {"one": ((1.0,), (1.0,)), "two": ((1.0, -1.0), (1.0, -1.0))}
"""Logit scales and gains of the heads."""


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Count operations, compare the orders, and measure losses."""

    def softmax(queries: Tokens, keys: Tokens, values: Tokens) -> Tokens:
        return read_softmax(queries, keys, values, settings.width)

    reads = {
        "scores": read_by_scores,
        "scatter": read_by_scatter,
        "linear": read_linear,
        "softmax": softmax,
    }
    shapes = [(jax.ShapeDtypeStruct((size, settings.width), float),) for size in SIZES]
    counted = {
        name: ("tokens", [operations(read, tokens, tokens, tokens) for tokens in shapes])
        for name, read in reads.items()
    }
    episodes = settings.task.sample(jax.random.key(2022), settings.episodes)

    def loss(name: str) -> np.ndarray:
        scales, gains = map(jnp.array, HEADS[name])
        task = settings.task
        models = jax.vmap(lambda s: softmax_heads(s * scales, gains, task.dim, task.outputs))
        stacked = models(jnp.asarray(SCALES, float))
        row = jax.tree.map(lambda leaf: leaf[:, None], stacked)
        return metrics.over_snapshots(metrics.best_multiple_loss, row, episodes)[:, 0]

    return dataset(
        counted,
        {"order_difference": _order_difference(settings), "tokens": SIZES},
        {f"{name}_loss": ("logit_scale", loss(name)) for name in HEADS},
        {"linear_loss": metrics.loss(GradientDescent.shared(settings.task), episodes)},
        {"logit_scale": SCALES},
        width=settings.width,
        exact=theory.gradient_descent_optimum(settings.task).loss,
    ).set_coords(("tokens", "logit_scale"))


def _order_difference(settings: Settings) -> float:
    """The largest difference of the two orders, over the largest entry."""
    with jax.enable_x64(True):
        shape = (settings.points, settings.width)
        rows, context = ((jax.random.normal(jax.random.key(k), shape),) for k in (0, 1))
        (one,), (other,) = (
            read(rows, context, context) for read in (read_by_scores, read_by_scatter)
        )
        return float(jnp.max(jnp.abs(one - other)) / jnp.max(jnp.abs(one)))


def draw(results: xr.Dataset) -> Figure:
    """Operations against the number of tokens, and losses against the logit scale."""

    def operations(axes: Axes, results: xr.Dataset) -> None:
        labels = {"scores": "$(QK^T)V$", "scatter": "$Q(K^TV)$"}
        for (name, label), (color, style) in zip(labels.items(), panels.LOOKS, strict=False):
            axes.loglog(results.tokens, results[name], style, color=color, label=label)
        axes.loglog(results.tokens, results.softmax, "o", color=figures.THIRD, label="softmax")
        width = results.attrs["width"]
        axes.axvline(width, color="0.4", linestyle=":", label=f"N = D = {width}")
        axes.set(xlabel="tokens N", ylabel="operations")
        axes.legend()

    def losses(axes: Axes, results: xr.Dataset) -> None:
        for name, (color, style) in zip(HEADS, panels.LOOKS, strict=False):
            found = results[f"{name}_loss"]
            label = f"softmax, {name} head{'s' * (name == 'two')}: {float(found.min()):.4f}"
            axes.semilogx(results.logit_scale, found, style, color=color, label=label)
        own, exact = float(results.linear_loss), results.attrs["exact"]
        axes.axhline(own, color=figures.THIRD, label=f"best linear: {own:.4f}", linestyle="-.")
        axes.axhline(exact, color="black", linestyle=":", label=f"exact: {exact:.4f}")
        axes.set(xlabel="logit scale", ylabel="loss", ylim=(0, None))
        axes.legend()

    drawn = {"cost of a layer": operations, "what one layer loses": losses}
    sentence = (
        "Operations as XLA counts them, exponentials aside; losses with the best factor on labels."
    )
    return panels.figure(results, drawn, sentence)


def _slope(name: str) -> claims.Value:
    """How the operations grow, well above the crossover."""

    def value(results: xr.Dataset) -> xr.DataArray:
        least = 8 * results.attrs["width"]
        return xr.DataArray(slope(results.tokens, results[name], least))

    return value


def _crossing(results: xr.Dataset) -> xr.DataArray:
    found = crossing(results.tokens, results.scores, results.scatter)
    return xr.DataArray(found / results.attrs["width"])


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "CR-cost-linear": _slope("linear"),
        "CR-cost-softmax": _slope("softmax"),
        "CR-cost-order": lambda results: results.order_difference,
        "CR-cost-crossing": _crossing,
        "CR-8": lambda results: results.linear_loss / results.two_loss.min(),
        "CR-8-one": lambda results: results.linear_loss / results.one_loss.min(),
    },
)
