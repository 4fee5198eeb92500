"""A hand-set linear attention layer is one step of gradient descent, K of them are K steps.

Proposition 1 of von Oswald et al. (2022), at the sizes of their notebook: 12 inputs, 8 outputs, 45
points, 100 layers with the same weights, and random W_0. The predictions after each layer are
compared with those of the weights of gradient descent after as many steps.

Expected: differences of rounding only: after 100 layers below 1e-12 in float64, 1e-4 in float32.
Alias: prop1
Cost: seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.core.config import named_in_errors, require_memory, require_positive, require_size
from toyicl.core.episode import Episode
from toyicl.harness import catalogue
from toyicl.models.construction import gradient_descent_transformer
from toyicl.models.layers import LAYER_NUMBERS
from toyicl.models.transformer import Transformer
from toyicl.plots import figures
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories


@dataclass(frozen=True)
@named_in_errors
class Settings:
    """Settings of the equivalence."""

    task: LinearRegression = LinearRegression(dim=12, outputs=8, context_size=45, input_range=2.0)
    """The task; the paper's notebook draws inputs from U(-1, 1)."""
    depth: int = 100
    """Number of layers, and of steps of gradient descent."""
    learning_rate: float = 1.0
    """eta, the same in every step."""
    episodes: int = 20
    """Number of episodes, each with its own context; W_0 is one random matrix for all."""

    def __post_init__(self) -> None:
        require_size("depth", self.depth)
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)
        require_episodes("episodes", self.episodes, self.task)
        require_positive("learning_rate", self.learning_rate)


FULL = Settings()
QUICK = Settings(depth=20)


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """The largest difference between layers and steps, after each of them, in both precisions."""
    differences, tokens = {}, []
    for precision, wide in (("float32", False), ("float64", True)):
        with jax.enable_x64(wide):
            differences[precision] = np.asarray(_differences(settings))
            tokens.append(float(_token_difference(settings)))
    return xr.Dataset(
        {
            "largest_difference": (("precision", "layer"), np.array([*differences.values()])),
            "token_difference": ("precision", tokens),
        },
        coords={"precision": [*differences], "layer": np.arange(1, settings.depth + 1)},
    )


def _drawn(settings: Settings) -> tuple[Episode, jax.Array, Transformer]:
    """Episodes, W_0, and the constructed layers."""
    task = settings.task
    episodes_key, weights_key = jax.random.split(jax.random.key(2022))
    initial = jax.random.normal(weights_key, (task.outputs, task.dim))
    model = gradient_descent_transformer(
        settings.learning_rate,
        task.context_size,
        task.dim,
        task.outputs,
        depth=settings.depth,
        initial_weights=initial,
    )
    return task.sample(episodes_key, settings.episodes), initial, model


@partial(jax.jit, static_argnames="settings")
def _token_difference(settings: Settings) -> jax.Array:
    """Largest difference of the context's tokens after one layer from (x_j, y_j - (W_1 - W_0) x_j)."""
    (x, y, x_query, _), initial, model = _drawn(settings)
    once = GradientDescent(settings.learning_rate, initial_weights=initial)

    def difference(x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        context, _ = model.arrange(x, y, x_query)
        inputs, labels = jnp.split(model.after_first_layer(context), [x.shape[1]], axis=1)
        moved = y - x @ (once.weights(x, y) - initial).T
        return jnp.maximum(jnp.max(jnp.abs(inputs - x)), jnp.max(jnp.abs(labels - moved)))

    return jnp.max(jax.vmap(difference, in_axes=-1)(x, y, x_query))


@partial(jax.jit, static_argnames="settings")
def _differences(settings: Settings) -> jax.Array:
    """Largest difference over episodes and outputs after each layer, (depth,)."""
    (x, y, x_query, _), initial, model = _drawn(settings)
    layers = jax.vmap(model.layerwise, in_axes=-1, out_axes=-1)(x, y, x_query)

    def descend(x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        def step(weights: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            once = GradientDescent(settings.learning_rate, initial_weights=weights)
            weights = once.weights(x, y)
            return weights, weights @ x_query

        return jax.lax.scan(step, initial, length=settings.depth)[1]

    steps = jax.vmap(descend, in_axes=-1, out_axes=-1)(x, y, x_query)
    return jnp.max(jnp.abs(layers - steps), axis=(1, 2))


def draw(results: xr.Dataset) -> Figure:
    """The largest difference after each layer."""
    figure = figures.panels(1, 1)
    (axes,) = figure.axes
    for precision, style in (("float32", "-"), ("float64", "--")):
        values = results.largest_difference.sel(precision=precision)
        axes.semilogy(results.layer, values, style, label=precision)
    axes.set(xlabel="number of layers or steps", ylabel="largest difference", ylim=(1e-17, 1))
    axes.legend()
    figures.caption(
        figure,
        [
            "Constructed layers compared with gradient descent on weights, from random $W_0$.",
            figures.command_sentence(results),
        ],
    )
    return figure


def _largest(precision: str, layers: slice) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda results: results.largest_difference.sel(precision=precision, layer=layers).max()


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-P1-1": lambda results: np.fmax(
            _largest("float64", slice(1))(results),
            results.token_difference.sel(precision="float64"),
        ),
        "VO-P1-3": _largest("float64", slice(None)),
        "VO-P1-3-float32": _largest("float32", slice(None)),
    },
)
