"""Trained on larger contexts, one softmax head stays the best head there is, and above the linear step.

One softmax head is trained on normal inputs with several context sizes. Its key-query circuit sets
the temperature, so that the temperature is trained. It is compared with the best head of the form
c sum_i softmax_i(s x_i . x_q) y_i, the best linear step and the best centred step, whose losses are
exact. Held-out episodes come in pairs that differ in the sign of the context, because a head with
-s and -c is as good.

Expected: the loss of the best head at every size. The excess over the linear step falls as N^-.62
between 10 and 640 points, while the ratio of the two losses rises from 1.61 to 3.14.
Alias: softmax_sizes
Cost: two minutes on one core; quick: half a minute.
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
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.algorithms.kernel import CentredDescent, NadarayaWatson
from toyicl.analysis import metrics
from toyicl.analysis.confidence_set import Scaled
from toyicl.core.config import named_in_errors, require, require_increasing, require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import Episode
from toyicl.harness import catalogue
from toyicl.harness.evaluation import NotMeasured, Value
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training

STUCK = 1.5
"""Loss over that of the best head above which a training counts as being on its plateau."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the softmax heads."""

    task: LinearRegression = LinearRegression(dim=4, input_distribution="normal")
    """The task; its context size is replaced by each of the sizes."""
    model: Architecture = Architecture(attention="softmax", init_scale=0.05)
    """The softmax head. With an init_scale of 1 many seeds end at a loss several times as large, where
    the head reads one direction from the inputs of the points instead of from their labels."""
    training: Training = Training(
        steps=2000,
        batch_size=64,
        snapshot_every=500,
        learning_rate=2e-2,
        final_learning_rate=0.0,
        clip_norm=1.0,
    )
    """The training at every size."""
    sizes: tuple[int, ...] = (10, 20, 40, 80, 160, 320, 640)
    """Context sizes N."""
    evaluation_episodes: int = 5000
    """Number of held-out pairs of episodes."""

    def __post_init__(self) -> None:
        kind, attention = self.task.input_distribution, self.model.attention
        require(kind == "normal", "task.input_distribution", "normal here", kind)
        require(attention == "softmax", "model.attention", "softmax here", attention)
        require(len(self.sizes) > 1, "sizes", "two or more", self.sizes)
        require_increasing("sizes", self.sizes)
        for size in self.sizes:
            require_size("sizes", size, least=2)
        largest = self.with_size(max(self.sizes))
        require_episodes("evaluation_episodes", self.evaluation_episodes, largest)

    def with_size(self, size: int) -> LinearRegression:
        """The task with another context size."""
        return replace(self.task, context_size=size)


FULL = Settings()
QUICK = replace(
    FULL,
    training=replace(FULL.training, steps=1000),
    sizes=(10, 40, 160),
    evaluation_episodes=1000,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each context size."""
    return {
        f"{size} points": Job(settings.model, settings.with_size(size), settings.training)
        for size in settings.sizes
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the head of every size with the best head, the linear step and the centred step."""
    parts = []
    for size in settings.sizes:
        history = histories[f"{size} points"]
        parts.append(_compared(settings.with_size(size), history, settings.evaluation_episodes))
    seeds = histories[f"{settings.sizes[0]} points"].seeds
    joined = {
        name: (("points", *dims), np.stack([part[name][1] for part in parts]))
        for name, (dims, _) in parts[0].items()
    }
    found = dataset(
        joined, {"seed": seeds}, limit_ratio=theory.softmax_head_limit_ratio(settings.task.dim)
    )
    return found.assign_coords(points=list(settings.sizes))


def _compared(
    task: LinearRegression, history: History, count: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Losses at one size: of every seed and of the references, measured and exact.

    The excess is the loss of a head minus the exact loss of the linear step. That loss is the exact
    loss of the best head times the ratio of both heads' losses on the same episodes, since most of
    their sampling error is common.
    """
    episodes = both_signs(task.sample(jax.random.key(2022), count))
    best = theory.softmax_head_optimum(task)
    head = Scaled(NadarayaWatson(best.scale), best.factor)
    first = jax.tree.map(lambda leaf: leaf[:, 0], history.learners)
    own = np.asarray(metrics.losses(history.final, episodes), float)
    ratio = own / float(metrics.loss(head, episodes))
    linear, centred = theory.gradient_descent_optimum(task), theory.centred_optimum(task)
    numbers = {
        "best_loss": best.loss,
        "best_scale": best.scale,
        "linear_loss": linear.loss,
        "centred_loss": centred.loss,
        "sampled_linear_loss": float(metrics.loss(GradientDescent.shared(task, 1), episodes)),
        "sampled_centred_loss": float(metrics.loss(CentredDescent.best(task), episodes)),
    }
    of_seeds = {
        "sampled_loss": own,
        "untrained_loss": np.asarray(metrics.losses(first, episodes), float),
        "over_best": ratio,
        "head_loss": ratio * best.loss,
        "excess": ratio * best.loss - linear.loss,
        "on_plateau": ratio > STUCK,
    }
    return {name: (("seed",), values) for name, values in of_seeds.items()} | {
        name: ((), np.asarray(value)) for name, value in numbers.items()
    }


def both_signs(episodes: Episode) -> Episode:
    """Episodes, and the same ones with the sign of every context point and its label reversed."""
    x, y, x_query, y_query = episodes
    mirrored = (-x, -y, x_query, y_query)
    pairs = zip(episodes, mirrored, strict=True)
    return Episode(*(jnp.concatenate(pair, axis=-1) for pair in pairs))


def draw(results: xr.Dataset) -> Figure:
    """Loss, excess over the linear step, and ratio of losses, over the context size."""
    drawn = {"loss": _losses, "excess over the linear step": _excess, "loss ratio": _ratios}
    sentence = (
        "One softmax head trained on normal inputs with different context sizes. Lines: exact losses "
        "of the best head, the best linear step and the best centred step for each size. Right: ratios "
        "of seeds on their plateau are drawn at the upper edge if they are above it."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _trained(axes: Axes, results: xr.Dataset, values: xr.DataArray) -> None:
    kept = values.where(~results.on_plateau)
    figures.every_seed(axes, kept, "points", label="trained head", color=figures.MODEL, style="o")
    stuck = values.where(results.on_plateau)
    if bool(results.on_plateau.any()):
        figures.every_seed(axes, stuck, "points", label="on its plateau", color="0.6", style="x")
    axes.set(xscale="log", xlabel="context size N")


def _losses(axes: Axes, results: xr.Dataset) -> None:
    _trained(axes, results, results.head_loss)
    axes.plot(results.points, results.best_loss, "k:", label="best head")
    axes.plot(
        results.points, results.linear_loss, "--", color=figures.REFERENCE, label="linear step"
    )
    centred = results.centred_loss
    axes.plot(results.points, centred, "-.", color=figures.THIRD, label="centred step")
    axes.set(yscale="log", ylabel="loss", ylim=(float(results.linear_loss.min()) / 20, None))
    axes.legend(loc="lower left")


def _excess(axes: Axes, results: xr.Dataset) -> None:
    _trained(axes, results, results.excess)
    axes.plot(results.points, results.best_loss - results.linear_loss, "k:", label="best head")
    axes.set(yscale="log", ylabel="loss above the linear step")
    axes.legend(loc="lower left")


def _ratios(axes: Axes, results: xr.Dataset) -> None:
    limit, ratio = results.attrs["limit_ratio"], results.head_loss / results.linear_loss
    top = 2.1 * limit
    _trained(axes, results, ratio.clip(max=0.97 * top))
    axes.plot(results.points, results.best_loss / results.linear_loss, "k:", label="best head")
    centred = results.centred_loss / results.linear_loss
    axes.plot(results.points, centred, "-.", color=figures.THIRD, label="centred step")
    axes.axhline(limit, color="0.5", linewidth=0.8, label=f"limit of the best head, {limit:.2f}")
    axes.set(ylabel="loss / loss of the linear step", ylim=(0, top))
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.92), ncols=2, fontsize=6.5)


def _exponents(results: xr.Dataset) -> xr.DataArray:
    """Slope of the log excess over the linear step in log N, for each seed."""
    excess = results.excess.transpose("points", "seed")
    slopes, _ = np.polyfit(np.log(results.points.values), np.log(excess.values), 1)
    return excess.isel(points=0, drop=True).copy(data=slopes)


def _ratio_at(size: int) -> Value:
    """Loss of the head over the exact loss of the linear step at a size, for each seed."""

    def value(results: xr.Dataset) -> xr.DataArray:
        if size not in results.points:
            raise NotMeasured(f"there is no training with {size} points")
        chosen = results.sel(points=size)
        return chosen.head_loss / chosen.linear_loss

    return value


def _last_exponent(results: xr.Dataset) -> xr.DataArray:
    """The same slope of the best head, between the two largest sizes."""
    last = results.isel(points=slice(-2, None))
    logs = np.log((last.best_loss - last.linear_loss).values), np.log(last.points.values)
    return xr.DataArray(np.diff(logs[0])[0] / np.diff(logs[1])[0])


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "CONTEXT-best": lambda results: results.over_best,
        "CONTEXT-exponent": _exponents,
        "CONTEXT-last-exponent": _last_exponent,
        "CONTEXT-ratio-10": _ratio_at(10),
        "CONTEXT-ratio-640": _ratio_at(640),
    },
)
