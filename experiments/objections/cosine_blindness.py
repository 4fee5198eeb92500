"""The cosine of two sensitivities does not depend on the size of a step.

Gradient descent with c times the best step is compared with the best step: the cosine is 1 for
every c, while twice the step is no better than predicting 0. Also the reason why one layer does not
learn GD++: the curvature of the last layer has no effect on the predictions, so the loss has no
derivative with respect to it; in the first of several layers it has.

Expected: cosine 1 and loss .4167 at c = 2; the derivative for the last gamma is exactly 0.
Cost: seconds.
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
from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.analysis import metrics
from toyicl.core.config import named_in_errors, require_memory, require_positive, require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import Episode, Learner
from toyicl.harness import catalogue, claims
from toyicl.models.construction import gradient_descent_circuits, with_circuits
from toyicl.models.layers import LAYER_NUMBERS
from toyicl.plots import figures, panels
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of both comparisons, which are computed in float64."""

    task: LinearRegression = LinearRegression()
    """The task."""
    episodes: int = 100_000
    """Number of episodes on which learners are compared."""
    curvature: float = 0.1
    """gamma of GD++ in each layer."""
    depth: int = 4
    """Largest number of layers of GD++."""

    def __post_init__(self) -> None:
        require_episodes("episodes", self.episodes, self.task)
        require_size("depth", self.depth, least=2)
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)
        require_positive("curvature", self.curvature)


FULL = Settings()
QUICK = Settings(episodes=20_000)
FACTORS = 2.0 ** np.linspace(-2, 2, 33)
"""Steps relative to the best step."""


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare steps of all sizes with the best, and differentiate the loss with respect to gamma."""
    with jax.enable_x64(True):
        task = settings.task
        episodes = task.sample(jax.random.key(2022), settings.episodes)
        best = GradientDescent.shared(task)
        (rate,) = theory.gd_shared(task, 1).learning_rates
        steps = jax.vmap(jax.vmap(GradientDescent))(jnp.asarray(FACTORS[:, None] * rate))
        compared = metrics.over_snapshots(metrics.compare, steps, best, episodes)
        exact = [theory.gradient_descent_loss(task, factor * rate) for factor in FACTORS]
        few = jax.tree.map(lambda field: field[..., :1000], episodes)
        slopes = _slopes(settings, few)
    names = ("loss", "model_cosine", "norm_ratio")
    return dataset(
        {name: ("multiple", getattr(compared, name)[:, 0]) for name in names},
        {"exact_loss": ("multiple", exact), "multiple": FACTORS},
        {
            "slope": (("learner", "depth", "layer"), slopes),
            "learner": ["GD++", "constructed layers"],
        },
        {"depth": range(1, settings.depth + 1), "layer": range(1, settings.depth + 1)},
        predict_zero=theory.predict_zero_loss(task),
    ).set_coords(("multiple", "learner", "depth", "layer"))


def _slopes(settings: Settings, episodes: Episode) -> np.ndarray:
    """Derivatives d log(loss) / d log(gamma) for each layer, of GD++ and of constructed layers."""
    task = settings.task

    def reference(curvatures: jax.Array, rate: float) -> Learner:
        return GradientDescentPlusPlus(rate, curvatures, len(curvatures))

    def layers(curvatures: jax.Array, rate: float) -> Learner:
        circuits = [
            gradient_descent_circuits(
                rate, task.context_size, task.dim, task.outputs, curvature=curvature
            )
            for curvature in curvatures
        ]
        return with_circuits(circuits, task.dim, task.outputs)

    slopes = np.full((2, settings.depth, settings.depth), np.nan)
    for depth in range(1, settings.depth + 1):
        (rate,) = theory.gd_shared(task, depth).learning_rates
        curvatures = jnp.full(depth, settings.curvature)
        for row, build in enumerate((reference, layers)):

            def loss(
                curvatures: jax.Array, build: Callable = build, rate: float = rate
            ) -> jax.Array:
                return jnp.log(metrics.loss(build(curvatures, rate), episodes))

            slopes[row, depth - 1, :depth] = curvatures * jax.jit(jax.grad(loss))(curvatures)
    return slopes


def draw(results: xr.Dataset) -> Figure:
    """Cosine, norm ratio and loss by the size of the step, and the derivatives for gamma."""

    def sizes(axes: Axes, results: xr.Dataset) -> None:
        labels = {"model_cosine": "cosine", "norm_ratio": "norm ratio"}
        for (name, label), (color, style) in zip(labels.items(), panels.LOOKS, strict=False):
            axes.semilogx(results.multiple, results[name], style, color=color, label=label)
        _label_steps(axes, "compared with the best step")

    def losses(axes: Axes, results: xr.Dataset) -> None:
        color = figures.MODEL
        axes.semilogx(results.multiple, results.loss, "o", color=color, markersize=3, label="loss")
        axes.semilogx(results.multiple, results.exact_loss, color="0.4", label="exact")
        zero = results.attrs["predict_zero"]
        axes.axhline(zero, color="0.4", linestyle=":", label=f"predicting 0: {zero:.4f}")
        axes.set_ylim(0, None)
        _label_steps(axes, "loss")

    def slopes(axes: Axes, results: xr.Dataset) -> None:
        for depth, (color, style) in zip(results.depth.values[::-1], panels.LOOKS, strict=False):
            for learner, marker in zip(results.learner.values, "ox", strict=True):
                found = results.slope.sel(learner=learner, depth=depth)
                label = f"K = {depth}" if marker == "o" else None
                axes.plot(results.layer, found, marker + style, color=color, label=label)
        axes.axhline(0, color="0.4", linewidth=0.8)
        axes.set(xlabel="layer", ylabel="d log(loss) / d log(gamma)", xticks=results.layer)
        axes.legend()

    drawn = {"sensitivities": sizes, "loss": losses, "effect of each layer's gamma": slopes}
    sentence = (
        "(a), (b): one step of GD of any size. (c): GD++ (o) and constructed layers (x), K layers."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _label_steps(axes: Axes, ylabel: str) -> None:
    axes.set(xlabel="step relative to the best step", ylabel=ylabel)
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    axes.minorticks_off()
    axes.legend()


def _at_twice(name: str) -> claims.Value:
    return lambda results: results[name].sel(multiple=2.0)


def _last(results: xr.Dataset) -> xr.DataArray:
    """The largest derivative for the last layer's gamma, of all depths."""
    return abs(results.slope.where(results.layer == results.depth)).max()


def _before(results: xr.Dataset) -> xr.DataArray:
    """The smallest derivative for the gamma of the first of two or more layers."""
    return abs(results.slope.sel(layer=1).where(results.depth > 1)).min()


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "CR-4": _last,
        "CR-4-first": _before,
        "CR-6": lambda results: abs(results.model_cosine - 1).max(),
        "CR-6-ratio": _at_twice("norm_ratio"),
        "CR-6-loss": _at_twice("loss"),
    },
)
