"""Softmax attention is a gradient step on a loss of each query, not on a loss of all queries.

The average of Nadaraya and Watson, stacked and in two heads, is compared with gradient steps on
three functions: the squared error weighted around the query, the squared error in the space of the
exponential kernel, and the energy of a Hopfield network. It is not a step on one loss of a linear
model for all queries; and as a field over queries it is a gradient only if Cov_p(v, k) is
symmetric.

Expected: the identities hold to rounding; two heads with logit scale +-e approximate Cov(z, y) with
error O(e^2), one head with O(e).
Cost: seconds.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.analysis.cost_scaling import slope
from toyicl.core.config import (
    named_in_errors,
    require,
    require_memory,
    require_positive,
    require_size,
)
from toyicl.core.datasets import dataset
from toyicl.core.episode import Episode, predict
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.attention import read_softmax
from toyicl.models.construction import softmax_heads, subtracted_heads
from toyicl.models.layers import LAYER_NUMBERS
from toyicl.plots import panels
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the identities, which are computed in float64."""

    task: LinearRegression = LinearRegression()
    """The task."""
    episodes: int = 200
    """Number of episodes, each with its own context."""
    logit_scale: float = 7.185
    """Factor on the logits; the default is that of the best layer with one head on the task."""
    depth: int = 5
    """Number of layers of the stack."""
    queries: int = 200
    """Number of queries of one context to which an affine function is fitted."""

    def __post_init__(self) -> None:
        require_episodes("episodes", self.episodes, self.task)
        require_size("depth", self.depth)
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)
        require_size("queries", self.queries)
        numbers = self.episodes * self.queries * (self.task.dim + self.task.outputs)
        require_memory("queries", self.queries, numbers)
        least = self.task.dim + 2
        require(
            self.queries >= least, "queries", f"at least {least}, dim + 2, for a fit", self.queries
        )
        require_positive("logit_scale", self.logit_scale)


FULL = QUICK = Settings()
SCALES = np.geomspace(1e-3, 1.0, 31)
"""Logit scales of heads whose limit is a covariance."""
FITTED = 0.1
"""Largest logit scale that is used to fit slopes."""
RATE = 0.5
"""Step size of the stack."""
EXACT = {
    "local": "a step on the query's own loss",
    "functional": "a step in the space of the kernel",
    "boosted": "layers: as many such steps",
    "hopfield": "a step on Hopfield's energy",
    "covariance": "Jacobian: beta times a covariance",
    "keys": "values equal to keys: asymmetry",
}
"""Statements that hold exactly, by their labels."""
FALSE = {
    "general": "other values: asymmetry",
    "affine": "nearest affine function of the queries",
}
"""Statements that do not hold, by their labels."""


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Relative difference of each statement, (identity, episode), and errors of the heads."""
    with jax.enable_x64(True):
        episodes = settings.task.sample(jax.random.key(2022), settings.episodes)
        keys = jax.random.split(jax.random.key(0), settings.episodes)
        each = jax.jit(jax.vmap(partial(_differences, settings), in_axes=(0, -1, -1, -1)))
        found = each(keys, *episodes[:3])
        names = [*EXACT, *FALSE]
        return dataset(
            {"difference": (("identity", "episode"), np.stack([found[name] for name in names]))},
            {"error": (("heads", "logit_scale"), np.stack(_errors(settings, episodes)))},
        ).assign_coords(identity=names, heads=[1, 2], logit_scale=SCALES)


def _differences(
    settings: Settings, key: jax.Array, x: jax.Array, y: jax.Array, x_query: jax.Array
) -> dict[str, jax.Array]:
    """Relative differences of all statements on one episode."""
    beta, task = settings.logit_scale, settings.task
    start_key, values_key, queries_key = jax.random.split(key, 3)
    layer = softmax_heads([beta], [1.0], task.dim, task.outputs)
    stack = softmax_heads([beta], [RATE], task.dim, task.outputs, depth=settings.depth)
    answer = layer(x, y, x_query)
    start = jax.random.normal(start_key, answer.shape)

    def energy(state: jax.Array) -> jax.Array:
        return state @ state / 2 - jax.nn.logsumexp(beta * x @ state) / beta

    def field(query: jax.Array, values: jax.Array) -> jax.Array:
        return read_softmax(beta * query, x, values)

    jacobian, values = jax.jacobian(field), jax.random.normal(values_key, x.shape)
    general, of_keys = jacobian(x_query, values), jacobian(x_query, x)
    weights = jax.nn.softmax(beta * x @ x_query)
    covariance = (weights[:, None] * (values - (weights @ values)[None])).T @ (
        x - (weights @ x)[None]
    )
    _, _, others, _ = task.sample(queries_key, settings.queries)
    answers = jax.vmap(layer, in_axes=(None, None, -1))(x, y, others)
    stacked = _functional_steps(x, y, x_query, beta, RATE, settings.depth)
    return {
        "local": _gap(_local_step(x, y, x_query, beta, start), answer),
        "functional": _gap(_functional_steps(x, y, x_query, beta, 1.0, 1), answer),
        "boosted": _gap(stacked, stack(x, y, x_query)),
        "hopfield": _gap(x_query - jax.grad(energy)(x_query), field(x_query, x)),
        "covariance": _gap(general, beta * covariance),
        "keys": _gap(of_keys, of_keys.T),
        "general": _gap(general, general.T),
        "affine": _gap(_affine(others.T, answers), answers),
    }


def _gap(one: jax.Array, other: jax.Array) -> jax.Array:
    """Norm of the difference, relative to that of the second argument."""
    return jnp.linalg.norm(one - other) / jnp.linalg.norm(other)


def _local_step(
    x: jax.Array, y: jax.Array, x_query: jax.Array, beta: float, start: jax.Array
) -> jax.Array:
    """One step of size 1 / sum_i k_i from any prediction f on 1/2 sum_i k_i (f - y_i)^2."""
    near = jnp.exp(beta * x @ x_query)
    gradient = jax.grad(lambda f: near @ jnp.sum((f - y) ** 2, axis=1) / 2)(start)
    return start - gradient / near.sum()


def _functional_steps(
    x: jax.Array, y: jax.Array, x_query: jax.Array, beta: float, rate: float, steps: int
) -> jax.Array:
    """Steps from f = 0 along the gradient of 1/2 sum_i (f(x_i) - y_i)^2 in the space of the kernel.

    The step size at a point is `rate` divided by the sum of its kernels with the context. A function is
    given by its values at the context and the query; the gradient is that of the space's inner product.
    """
    points = jnp.concatenate([x, x_query[None]])
    gram = jnp.exp(beta * points @ points.T)
    sizes = rate / jnp.sum(gram[:, :-1], axis=1, keepdims=True)

    def error(coefficients: jax.Array) -> jax.Array:
        return jnp.sum(((gram @ coefficients)[:-1] - y) ** 2) / 2

    values = jnp.zeros((len(points), y.shape[1]))
    for _ in range(steps):
        slopes = jax.grad(error)(jnp.linalg.solve(gram, values))
        values = values - sizes * (gram @ jnp.linalg.solve(gram, slopes))
    return values[-1]


def _affine(queries: jax.Array, answers: jax.Array) -> jax.Array:
    """The affine function of the queries nearest to the answers, as steps of a linear model give."""
    design = jnp.concatenate([queries, jnp.ones_like(queries[:, :1])], axis=1)
    return design @ jnp.linalg.lstsq(design, answers)[0]


def _errors(settings: Settings, episodes: Episode) -> list[jax.Array]:
    """Relative errors of estimates of Cov(z, y): one head minus the mean label, and two heads."""
    dim, outputs = settings.task.dim, settings.task.outputs

    def covariance(x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        return (y - y.mean(axis=0)).T @ x @ x_query / len(x)

    def one(scale: jax.Array) -> jax.Array:
        ends, signs = jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0])
        heads = softmax_heads(scale * ends, signs / scale, dim, outputs)
        return _gap(predict(heads, episodes), limit)

    def two(scale: jax.Array) -> jax.Array:
        return _gap(predict(subtracted_heads(scale, dim, outputs), episodes), limit)

    limit = predict(covariance, episodes)
    return [jax.lax.map(f, jnp.asarray(SCALES)) for f in (one, two)]


def draw(results: xr.Dataset) -> Figure:
    """Differences by statement, and errors of the heads by their logit scale."""

    def heads(axes: Axes, results: xr.Dataset) -> None:
        labels = {1: "one head minus the mean", 2: "two heads, subtracted"}
        for (count, label), (color, style) in zip(labels.items(), panels.LOOKS, strict=False):
            text = f"{label}: slope {float(_slope(count)(results)):.3f}"
            errors = results.error.sel(heads=count)
            axes.loglog(results.logit_scale, errors, style, color=color, label=text)
        axes.set(xlabel="logit scale", ylabel="relative error of Cov(z, y)")
        axes.legend()

    statements = {
        label: panels.selected("difference", identity=name)
        for name, label in {**EXACT, **FALSE}.items()
    }
    drawn = {
        "relative differences": panels.magnitudes(statements, limits=(1e-10, 0.05)),
        "heads with small logits": heads,
    }
    sentence = (
        f"Softmax attention compared with gradient steps, on {results.sizes['episode']} contexts in "
        "float64. The last two statements do not hold."
    )
    return panels.figure(results, drawn, sentence)


def _slope(heads: int) -> Value:
    """Slope of an error on log axes, for small logits."""
    return lambda results: xr.DataArray(
        slope(results.logit_scale, results.error.sel(heads=heads), most=FITTED)
    )


def _largest(identity: str) -> Value:
    return lambda results: results.difference.sel(identity=identity).max(skipna=False)


def _smallest(identity: str) -> Value:
    return lambda results: results.difference.sel(identity=identity).min(skipna=False)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        **{f"CR-11-{name}": _largest(name) for name in EXACT},
        **{f"CR-11-{name}": _smallest(name) for name in FALSE},
        "CR-11-one": _slope(1),
        "CR-11-two": _slope(2),
    },
)
