"""Softmax attention is a gradient step, but on the query's own loss.

Nadaraya and Watson's average, stacked and in two heads, beside gradient steps on three functions: the
squared error weighted around the query, the squared error in the space of the exponential kernel, and
the energy of a Hopfield network. And what it is not: a step on one loss of a linear model that all
queries share, or, as a field over queries, any gradient, unless Cov_p(v, k) is symmetric.

Expected: the identities to rounding; two heads +-e miss Cov(z, y) by O(e^2), one head by O(e).
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
from toyicl.core.config import require, require_positive, require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import Episode, predict
from toyicl.harness import catalogue, claim_values, claims
from toyicl.models.attention import read_softmax
from toyicl.models.construction import softmax_heads, subtracted_heads
from toyicl.plots import panels
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the identities; everything is computed in float64."""

    task: LinearRegression = LinearRegression()
    """The task."""
    episodes: int = 200
    """Episodes, each with its own context."""
    logit_scale: float = 7.185
    """Factor on the logits: that of the best layer with one head on the default task."""
    depth: int = 5
    """Layers of the stack."""
    queries: int = 200
    """Queries of one context to which an affine function is fitted."""

    def __post_init__(self) -> None:
        require_size("episodes", self.episodes)
        require_size("depth", self.depth)
        least = self.task.dim + 2
        require(
            self.queries >= least, "queries", f"at least {least}, dim + 2, for a fit", self.queries
        )
        require_positive("logit_scale", self.logit_scale)


FULL = QUICK = Settings()
SCALES = np.geomspace(1e-3, 1.0, 31)
"""Logit scales of the heads whose limit is a covariance."""
FITTED = 0.1
"""The largest of them to which slopes are fitted."""
RATE = 0.5
"""Step size of the stack."""


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """The largest difference of each identity, the least of each failure, and the heads' errors."""
    with jax.enable_x64(True):
        episodes = settings.task.sample(jax.random.key(2022), settings.episodes)
        keys = jax.random.split(jax.random.key(0), settings.episodes)

        each = jax.jit(jax.vmap(partial(_differences, settings), in_axes=(0, -1, -1, -1)))
        differences = each(keys, *episodes[:3])
        return dataset(
            {name: ("episode", values) for name, values in differences.items()},
            {name: ("logit_scale", v) for name, v in _errors(settings, episodes).items()},
            {"logit_scale": SCALES},
        )


def _differences(
    settings: Settings, key: jax.Array, x: jax.Array, y: jax.Array, x_query: jax.Array
) -> dict[str, jax.Array]:
    """Identities and failures on one episode, relative to what they are about."""
    beta, task = settings.logit_scale, settings.task
    start_key, values_key, queries_key = jax.random.split(key, 3)
    layer = softmax_heads([beta], [1.0], task.dim, task.outputs)
    stack = softmax_heads([beta], [RATE], task.dim, task.outputs, depth=settings.depth)
    answer = layer(x, y, x_query)
    start = jax.random.normal(start_key, answer.shape)

    def energy(state: jax.Array) -> jax.Array:
        return state @ state / 2 - jax.nn.logsumexp(beta * x @ state) / beta

    def field(query: jax.Array, values: jax.Array) -> jax.Array:
        (read,) = read_softmax((beta * query,), (x,), (values,))
        return read

    jacobian, values = jax.jacobian(field), jax.random.normal(values_key, x.shape)
    general, of_keys = jacobian(x_query, values), jacobian(x_query, x)
    weights = jax.nn.softmax(beta * x @ x_query)
    covariance = (weights[:, None] * (values - weights @ values)).T @ (x - weights @ x)
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
    """Norm of the difference over that of the second."""
    return jnp.linalg.norm(one - other) / jnp.linalg.norm(other)


def _local_step(
    x: jax.Array, y: jax.Array, x_query: jax.Array, beta: float, start: jax.Array
) -> jax.Array:
    """One step of size 1 / sum_i k_i from any answer on 1/2 sum_i k_i (f - y_i)^2."""
    near = jnp.exp(beta * x @ x_query)
    gradient = jax.grad(lambda f: near @ jnp.sum((f - y) ** 2, axis=1) / 2)(start)
    return start - gradient / near.sum()


def _functional_steps(
    x: jax.Array, y: jax.Array, x_query: jax.Array, beta: float, rate: float, steps: int
) -> jax.Array:
    """Steps from f = 0 along the gradient of 1/2 sum_i (f(x_i) - y_i)^2 in the kernel's space.

    Their size at a point is `rate` over the sum of its kernels with the context. A function is known by
    its values at the context and the query; the gradient is that in the space's own inner product.
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
    """The affine function of the queries nearest to the answers; a linear model's steps end in one."""
    design = jnp.concatenate([queries, jnp.ones_like(queries[:, :1])], axis=1)
    return design @ jnp.linalg.lstsq(design, answers)[0]


def _errors(settings: Settings, episodes: Episode) -> dict[str, jax.Array]:
    """Relative errors of two heads, and of one minus the mean label, as estimates of Cov(z, y)."""
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
    return {name: jax.lax.map(f, jnp.asarray(SCALES)) for name, f in (("one", one), ("two", two))}


IDENTITIES = {
    "local": "a step on the query's own loss",
    "functional": "a step in the kernel's space",
    "boosted": "layers: as many such steps",
    "hopfield": "a step on Hopfield's energy",
    "covariance": "Jacobian: covariance",
    "keys": "values are keys: asymmetry",
    "general": "other values: asymmetry",
    "affine": "nearest linear model",
}


def draw(results: xr.Dataset) -> Figure:
    """Differences by identity, and errors of the heads against their logit scale."""

    def heads(axes: Axes, results: xr.Dataset) -> None:
        scales = results.logit_scale
        labels = {"one": "one head minus the mean", "two": "two heads, subtracted"}
        for (name, label), (color, style) in zip(labels.items(), panels.LOOKS, strict=False):
            text = f"{label}: slope {float(_slope(name)(results)):.3f}"
            axes.loglog(scales, results[name], style, color=color, label=text)
        axes.set(xlabel="logit scale", ylabel="relative error, as Cov(z, y)")
        axes.legend()

    drawn = {
        "relative differences": panels.magnitudes(IDENTITIES, limits=(1e-10, 0.05)),
        "heads whose logits shrink": heads,
    }
    sentence = (
        f"Softmax attention beside gradient steps, {results.sizes['episode']} contexts, float64."
    )
    return panels.figure(results, drawn, sentence)


def _slope(name: str) -> claims.Value:
    """Slope of an error on log axes where logits are small."""
    return lambda results: xr.DataArray(slope(results.logit_scale, results[name], most=FITTED))


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        **{f"CR-11-{name}": claim_values.largest(name) for name in list(IDENTITIES)[:6]},
        "CR-11-general": claim_values.least("general"),
        "CR-11-affine": claim_values.least("affine"),
        "CR-11-one": _slope("one"),
        "CR-11-two": _slope("two"),
    },
)
