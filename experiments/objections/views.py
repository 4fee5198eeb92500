"""Changing targets is changing weights for a linear model with squared error, and for no other model.

The data view of von Oswald et al. (2022), section 2: instead of changing its weights by dW, a model
changes its targets by the first-order change of its outputs. It is compared for a linear model, a
tanh model, and softmax with cross-entropy: by the difference of the two losses, as a function of
the size of dW, and of the predictions of repeated steps of gradient descent from W_0 = 0.

Expected: rounding for the linear model; differences above .05 for the others once dW is as large as
W.
Cost: seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import named_in_errors, require_memory, require_positive, require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import Episode
from toyicl.harness import catalogue, claims
from toyicl.plots import panels
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the two views, which are computed in float64."""

    task: LinearRegression = LinearRegression(outputs=3)
    """The task; the targets of each model are functions of its labels."""
    episodes: int = 500
    """Number of episodes, each with its own context."""
    learning_rate: float = 3.0
    """eta of the steps."""
    steps: int = 50
    """Number of steps."""

    def __post_init__(self) -> None:
        require_episodes("episodes", self.episodes, self.task)
        require_size("steps", self.steps)
        answers = 3 * self.steps * self.task.outputs * self.episodes
        require_memory("steps", self.steps, answers)
        require_positive("learning_rate", self.learning_rate)


FULL = QUICK = Settings()
SIZES = np.geomspace(0.01, 10.0, 31)
"""Sizes of dW relative to that of W, including 1."""


class Model(NamedTuple):
    """Functions that make outputs of W x, and targets of labels, (N, m), and the loss."""

    link: Callable[[jax.Array], jax.Array]
    target: Callable[[jax.Array], jax.Array]
    loss: Callable[[jax.Array, jax.Array], jax.Array]


def _squared(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sum((outputs - y) ** 2, axis=-1)) / 2


def _cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.mean(jnp.sum(y * jnp.log(outputs), axis=-1))


def _largest(z: jax.Array) -> jax.Array:
    return jax.nn.one_hot(jnp.argmax(z, axis=-1), z.shape[-1], dtype=z.dtype)


MODELS = {
    "linear": Model(lambda z: z, lambda z: z, _squared),
    "tanh": Model(jnp.tanh, jnp.tanh, _squared),
    "cross-entropy": Model(jax.nn.softmax, _largest, _cross_entropy),
}


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Differences of the losses and of the predictions, for each model, over all episodes."""
    with jax.enable_x64(True):
        episodes = settings.task.sample(jax.random.key(2022), settings.episodes)
        found = [_gaps(settings, model, episodes) for model in MODELS.values()]
    return dataset(
        {
            "gap": (("model", "size"), [gap for gap, _ in found]),
            "size": SIZES,
            "model": list(MODELS),
        },
        {"drift": (("model", "repeat"), [drift for _, drift in found])},
        {"repeat": np.arange(1, settings.steps + 1)},
    ).set_coords(("size", "model", "repeat"))


def _gaps(settings: Settings, model: Model, episodes: Episode) -> tuple[jax.Array, jax.Array]:
    """Relative differences by the size of a change, and by the number of steps, of one model."""
    shape = (settings.task.outputs, settings.task.dim, settings.episodes)
    weights, change = jax.random.normal(jax.random.key(0), (2, *shape))

    @partial(jax.vmap, in_axes=(-1, -1, None, -1, -1))
    def losses(
        x: jax.Array, y: jax.Array, size: jax.Array, weights: jax.Array, change: jax.Array
    ) -> jax.Array:
        return jnp.stack(_losses(model, x, model.target(y), weights, size * change))

    @partial(jax.vmap, in_axes=(-1, -1, -1))
    def answers(x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        return _answers(settings, model, x, model.target(y), x_query)

    def gap(size: jax.Array) -> jax.Array:
        by_weights, by_targets = losses(episodes.x, episodes.y, size, weights, change).T
        return jnp.sum(jnp.abs(by_weights - by_targets)) / jnp.sum(by_weights)

    first, moved, shifted = jnp.moveaxis(answers(*episodes[:3]), 1, 0)
    apart, length = (jnp.linalg.norm(moved - v, axis=(0, 2)) for v in (shifted, first))
    return jax.lax.map(gap, jnp.asarray(SIZES)), apart / length


def _losses(
    model: Model, x: jax.Array, y: jax.Array, weights: jax.Array, change: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The loss with changed weights, and with changed targets."""
    outputs, moved = jax.jvp(model.link, (x @ weights.T,), (x @ change.T,))
    return model.loss(model.link(x @ (weights + change).T), y), model.loss(outputs, y - moved)


def _answers(
    settings: Settings, model: Model, x: jax.Array, y: jax.Array, x_query: jax.Array
) -> jax.Array:
    """Predictions, (3, steps, m): before any step, and after each step on weights and on targets."""
    zero = jnp.zeros((y.shape[1], x.shape[1]))

    def step(weights: jax.Array, y: jax.Array) -> jax.Array:
        slope = jax.grad(lambda weights: model.loss(model.link(x @ weights.T), y))(weights)
        return -settings.learning_rate * slope

    def both(state: tuple, _: None) -> tuple[tuple, jax.Array]:
        weights, targets, total = state
        change = step(zero, targets)
        _, moved = jax.jvp(model.link, (x @ zero.T,), (x @ change.T,))
        state = weights + step(weights, y), targets - moved, total + change
        return state, jnp.stack([model.link(w @ x_query) for w in (zero, state[0], state[2])])

    _, found = jax.lax.scan(both, (zero, y, zero), length=settings.steps)
    return jnp.swapaxes(found, 0, 1)


def draw(results: xr.Dataset) -> Figure:
    """Differences of the losses by the size of the change, and of the predictions by steps."""

    def panel(name: str, along: str, xlabel: str, ylabel: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            for model, (color, style) in zip(results.model.values, panels.LOOKS, strict=False):
                values = np.maximum(results[name].sel(model=model), 1e-17)
                axes.loglog(results[along], values, style, color=color, label=model)
            axes.axhline(0.05, color="0.4", linestyle=":")
            axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(3e-18, 300))
            axes.legend(loc="center right")

        return draw

    drawn = {
        "one change": panel("gap", "size", "size of dW relative to W", "difference of the losses"),
        "repeated steps": panel(
            "drift", "repeat", "number of steps", "difference of the predictions"
        ),
    }
    sentence = (
        "Changed targets compared with changed weights: relative differences in float64. Dotted: .05; "
        "values below 1e-17 are drawn there."
    )
    return panels.figure(results, drawn, sentence)


def _gap(model: str) -> claims.Value:
    """The difference for a change as large as the weights."""
    return lambda results: results.gap.sel(model=model).sel(size=1.0, method="nearest")


def _drift(model: str) -> claims.Value:
    """The difference after the last step."""
    return lambda results: results.drift.sel(model=model).isel(repeat=-1)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "CR-9-linear": lambda results: results.gap.sel(model="linear").max(),
        "CR-9-linear-repeated": lambda results: results.drift.sel(model="linear").max(),
        **{f"CR-9-{model}": _gap(model) for model in ("tanh", "cross-entropy")},
        **{f"CR-9-{model}-repeated": _drift(model) for model in ("tanh", "cross-entropy")},
    },
)
