"""An MLP and a linear layer on top of it take one step of gradient descent on the MLP's features.

Proposition 2 (appendix A.8) of von Oswald et al. (2022), and two statements about weights: GD++ is
one linear head (appendix A.10), and changed targets are changed weights (section 2).

Expected: differences of rounding, about 1e-15; GD++ with W_0 different from 0 is not exact.
Alias: prop2
Cost: seconds.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.core.config import named_in_errors, require_memory, require_positive, require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import Learner
from toyicl.harness import catalogue
from toyicl.models.construction import gradient_descent_transformer
from toyicl.models.feature_descent import FeatureDescent
from toyicl.models.layers import LAYER_NUMBERS, Embedding
from toyicl.models.transformer import Transformer
from toyicl.plots import panels
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the statements; everything is computed in float64."""

    task: LinearRegression = LinearRegression()
    """The task."""
    episodes: int = 200
    """Number of episodes, each with its own context."""
    width: int = 40
    """Number of features."""
    learning_rate: float = 1.0
    """eta of the step."""
    curvature: float = 0.1
    """gamma of GD++."""
    depth: int = 5
    """Largest number of layers of GD++."""

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            require_size(name, getattr(self, name))
        require_episodes("episodes", self.episodes, self.task)
        features = self.width * max(self.episodes * self.task.context_size, 4 * self.width)
        require_memory("width", self.width, features)
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)
        for name in ("learning_rate", "curvature"):
            require_positive(name, getattr(self, name))


FULL = QUICK = Settings()


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """The largest difference of each statement, over episodes and outputs."""
    with jax.enable_x64(True):
        return dataset(
            {"feature_difference": _features(settings)},
            {"view_difference": _views(settings)},
            {"rescaled_difference": _rescaled(settings)},
            {"curved_difference": ("layers", _curved(settings, start=False))},
            {"started_difference": ("layers", _curved(settings, start=True))},
            {
                "query_difference": (
                    "query_layers",
                    [_query_among_keys(settings, k) for k in (1, 2)],
                )
            },
        )


def _sampled(settings: Settings) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, y, x_query, _ = settings.task.sample(jax.random.key(2022), settings.episodes)
    return x, y, x_query


def _largest(one: Learner, other: Learner, settings: Settings) -> jax.Array:
    """The largest difference of two learners' predictions."""
    predictions = [jax.vmap(f, in_axes=-1, out_axes=-1)(*_sampled(settings)) for f in (one, other)]
    return jnp.max(jnp.abs(predictions[0] - predictions[1]))


def _features(settings: Settings) -> jax.Array:
    """A constructed layer on the MLP's outputs, compared with a step on its features."""
    task, rate = settings.task, settings.learning_rate
    keys = jax.random.split(jax.random.key(0))
    features = Embedding(task.dim, settings.width, 4 * settings.width, keys[0])
    start = jax.random.normal(keys[1], (task.outputs, settings.width))
    descent = FeatureDescent(features, start, rate)
    layer = gradient_descent_transformer(
        rate, task.context_size, settings.width, task.outputs, initial_weights=start
    )

    def above(x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        return layer(features(x), y, features(x_query))

    return _largest(above, descent, settings)


def _views(settings: Settings) -> jax.Array:
    """The context loss with changed weights, compared with that with changed targets (equation 4)."""
    x, y, _ = _sampled(settings)
    keys = jax.random.split(jax.random.key(1))
    shape = (settings.task.outputs, settings.task.dim)
    weights, change = (jax.random.normal(key, shape) for key in keys)

    def loss(weights: jax.Array, y: jax.Array) -> jax.Array:
        return 0.5 * jnp.mean(jnp.sum((jnp.einsum("nde,md->nme", x, weights) - y) ** 2, axis=1))

    moved = y - jnp.einsum("nde,md->nme", x, change)
    first, second = loss(weights + change, y), loss(weights, moved)
    return jnp.abs(first - second) / first


def _constructed(
    settings: Settings, depth: int, curvature: float = 0.0, start: jax.Array | None = None
) -> Transformer:
    task = settings.task
    return gradient_descent_transformer(
        settings.learning_rate,
        task.context_size,
        task.dim,
        task.outputs,
        depth=depth,
        curvature=curvature,
        initial_weights=start,
    )


def _rescaled(settings: Settings) -> jax.Array:
    """A layer, compared with itself with W_K^T W_Q times 7 and P W_V divided by 7."""
    model, other = _constructed(settings, 1), _constructed(settings, 1)
    attention = other.blocks[0].attention
    attention.query[...] *= 7.0
    attention.output[...] /= 7.0
    return _largest(model, other, settings)


def _curved(settings: Settings, *, start: bool) -> list[jax.Array]:
    """K layers with a curvature, compared with K steps of GD++ on y_i - W_0 x_i, for each K."""
    task, rate, bend = settings.task, settings.learning_rate, settings.curvature
    weights = jnp.ones((task.outputs, task.dim)) * float(start)
    found = []
    for depth in range(1, settings.depth + 1):
        model = _constructed(settings, depth, bend, weights)
        steps = GradientDescentPlusPlus(rate, bend, depth)

        def descend(
            x: jax.Array,
            y: jax.Array,
            x_query: jax.Array,
            steps: GradientDescentPlusPlus = steps,
        ) -> jax.Array:
            return steps(x, y - x @ weights.T, x_query) + weights @ x_query

        found.append(_largest(model, descend, settings))
    return found


def _query_among_keys(settings: Settings, depth: int) -> jax.Array:
    """Layers with the query among the keys, compared with layers without it."""
    rate = settings.learning_rate / settings.task.context_size

    def among(x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        rows = jnp.concatenate([x, x_query[None]])
        labels = jnp.concatenate([y, jnp.zeros_like(y[:1])])
        for _ in range(depth):
            labels = labels - rate * rows @ (rows.T @ labels)
        return -labels[-1]

    return _largest(among, GradientDescent(settings.learning_rate, depth), settings)


def draw(results: xr.Dataset) -> Figure:
    """Differences of GD++ by depth, with W_0 = 0 and with another W_0."""

    def panel(axes: Axes, results: xr.Dataset) -> None:
        layers = range(1, results.sizes["layers"] + 1)
        axes.semilogy(layers, results.curved_difference, "o-", label="$W_0 = 0$")
        axes.semilogy(layers, results.started_difference, "s--", label="$W_0$ of ones")
        axes.set(xlabel="number of layers", ylabel="largest difference", ylim=(1e-17, 100))
        axes.legend()

    sentence = "Layers with one constructed head each, compared with GD++, in float64."
    return panels.figure(results, {"layers of GD++": panel}, sentence, columns=1)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-P2-1": lambda results: results.feature_difference,
        "VO-P1-2": lambda results: results.view_difference,
        "VO-P1-4": lambda results: results.rescaled_difference,
        "VO-P1-5": lambda results: results.query_difference[0],
        "VO-P1-5-K2": lambda results: results.query_difference[1],
        "VO-PP-1": lambda results: results.curved_difference.max(),
        "VO-PP-1-start": lambda results: results.started_difference[1:].max(),
    },
)
