"""What a task is, and linear regression.

A task is a distribution over episodes: a frozen dataclass with `sample(key, episodes) -> Episode`.
Sizes are static and scales are leaves of a pytree, so that a sweep over scales is one `jax.vmap`
over tasks of the same sizes.
"""

import functools
import math
import operator
from dataclasses import replace
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.config import (
    ARRAYS,
    named_in_errors,
    require,
    require_choice,
    require_finite,
    require_memory,
    require_not_negative,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.core.episode import Episode
from toyicl.core.products import LONGEST_SUM

InputDistribution = Literal[
    "uniform",
    "normal",
    "exponential",
    "laplace",
    "frobenius_normal",
    "frobenius_exponential",
    "frobenius_laplace",
]
FROBENIUS = "frobenius_"
"""Prefix of the distributions whose contexts are rescaled to a given Frobenius norm."""

COPIES = 2
"""How often episodes exist at once: as random numbers and as episodes, or as two batches of a loop."""


class Task(Protocol):
    """A distribution over episodes."""

    @property
    def dim(self) -> int:
        """Number of inputs, d."""
        ...

    @property
    def outputs(self) -> int:
        """Number of outputs, m."""
        ...

    @property
    def context_size(self) -> int:
        """Number of labelled points in the context, N."""
        ...

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch."""
        ...


@settings
class LinearRegression:
    """Linear regression: labels y = W x, with a new random matrix W in each episode.

    The entries of W are independent, N(weight_mean, weight_scale^2). The defaults are those of the code
    that von Oswald et al. (2022) released: ten inputs, U(-1/2, 1/2), and ten context points. Their text
    gives U(-1, 1), but their losses and eigenvalues are those of inputs of range 1.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    dim: int = static(default=10)
    """Number of inputs, d."""
    outputs: int = static(default=1)
    """Number of outputs, m."""
    context_size: int = static(default=10)
    """Number of labelled points in the context, N."""
    input_distribution: InputDistribution = static(default="uniform")
    """Distribution of each input coordinate. The frobenius_ distributions are those of the same name
    without the prefix, with each context rescaled to the Frobenius norm input_range."""
    input_range: float = 1.0
    """Width r of the uniform distribution U(-r/2, r/2); standard deviation of the normal distribution;
    mean of the exponential; scale b of the Laplace; Frobenius norm of the context for frobenius_."""
    covariance: tuple[float, ...] | None = None
    """A d x d matrix C, row by row, or its diagonal, d numbers. Inputs are multiplied by the Cholesky
    factor of C, so that normal inputs of scale 1 have the covariance C."""
    rotated: bool = static(default=False)
    """Whether all inputs of an episode, the query too, are multiplied by an orthogonal matrix O that is
    drawn anew, uniformly, in each episode. The covariance of its inputs is then O C O^T."""
    weight_scale: float = 1.0
    """Standard deviation of the entries of W."""
    weight_covariance: tuple[float, ...] | None = None
    """A d x d matrix, row by row, or its diagonal, d numbers: the covariance of each row of W, times
    weight_scale^2. None means the identity. It is not rotated with the inputs."""
    weight_mean: float | None = None
    """Mean of every entry of W; None means 0."""
    label_noise: float | None = None
    """Standard deviation of the noise on context labels; None draws none. The query has none."""
    distractors: int | None = None
    """Number D of context labels, the first ones, that are replaced by noise; None draws none."""
    distractor_scale: float = 1.0
    """Standard deviation of the labels that replace them."""

    def __post_init__(self) -> None:
        require_size("dim", self.dim)
        require_size("outputs", self.outputs)
        require_size("context_size", self.context_size)
        require_choice("input_distribution", self.input_distribution, get_args(InputDistribution))
        require_positive("input_range", self.input_range)
        require_not_negative("weight_scale", self.weight_scale)
        if self.weight_mean is not None:
            require_finite("weight_mean", self.weight_mean)
        if self.label_noise is not None:
            require_not_negative("label_noise", self.label_noise)
        require_not_negative("distractor_scale", self.distractor_scale)
        if self.distractors is not None and not isinstance(self.distractors, ARRAYS):
            counts = range(self.context_size + 1)
            allowed = self.distractors in counts and not isinstance(self.distractors, bool)
            rule = f"a whole number between 0 and context_size ({self.context_size})"
            require(allowed, "distractors", rule, self.distractors)
        for name in ("covariance", "weight_covariance"):
            matrix = getattr(self, name)
            traced = any(isinstance(entry, jax.core.Tracer) for entry in jax.tree.leaves(matrix))
            if matrix is not None and not traced:
                _require_covariance(name, matrix, self.dim)

    def scaled(self, factor: float | jax.Array) -> "LinearRegression":
        """The task with its inputs scaled by a factor, which may be traced."""
        return replace(self, input_range=self.input_range * factor)  # type: ignore[arg-type]

    def sample(self, key: jax.Array, episodes: int) -> Episode:
        """Draw a batch of episodes, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.

        All numbers come from one uniform draw, each distribution by its quantile function, because
        every draw has to be compiled, and drawing takes half the time of a training step of one layer.
        """
        require_episodes("episodes", episodes, self)
        part = self._uniform_numbers(key, episodes, self.outputs * self.dim)
        return self._episodes(part, self._weights(part["weights"]))

    def sample_weights(self, key: jax.Array, count: int) -> jax.Array:
        """Draw matrices W, (m, d, count)."""
        return self._weights(_symmetric_uniform(key, (self.outputs * self.dim, count)))

    def sample_given(self, key: jax.Array, weights: jax.Array) -> Episode:
        """Draw one episode for each of given matrices W, (m, d, episodes), on the last axis.

        Raises BadInput for matrices of another shape.
        """
        shape = (self.outputs, self.dim)
        rule = f"of shape {(*shape, 'episodes')}"
        require(weights.shape[:2] == shape and weights.ndim == 3, "weights", rule, weights.shape)
        require_episodes("episodes", weights.shape[-1], self)
        return self._episodes(self._uniform_numbers(key, weights.shape[-1], 0), weights)

    def _uniform_numbers(self, key: jax.Array, episodes: int, weights: int) -> dict[str, jax.Array]:
        """Numbers that are uniform in (-1, 1), (count, episodes), for each part of the episodes.

        `weights` is the number of entries of W that are to be drawn in each episode.
        """
        d, m, n = self.dim, self.outputs, self.context_size
        sizes = {
            "x": n * d,
            "x_query": d,
            "weights": weights,
            "noise": 0 if self.label_noise is None else n * m,
            "distractors": 0 if self.distractors is None else n * m,
            "rotation": d * d if self.rotated else 0,
        }
        u = _symmetric_uniform(key, (sum(sizes.values()), episodes))
        starts = np.cumsum([0, *sizes.values()])
        return {
            name: u[start : start + size]
            for (name, size), start in zip(sizes.items(), starts, strict=False)
        }

    def _episodes(self, part: dict[str, jax.Array], weights: jax.Array) -> Episode:
        """Episodes with matrices W, (m, d, episodes), from uniform numbers for their other parts."""
        d, n, episodes = self.dim, self.context_size, weights.shape[-1]
        x = self._inputs(part["x"].reshape(n, d, episodes))
        x_query = self._inputs(part["x_query"])
        if self.input_distribution.startswith(FROBENIUS):
            scale = self.input_range / jnp.sqrt(jnp.sum(x**2, axis=(0, 1), keepdims=True))
            x, x_query = x * scale, x_query * scale[0]
        if self.rotated:
            normal = _normal(part["rotation"]).reshape(d, d, episodes)
            x, x_query = _rotated(x, normal), _rotated(x_query[None], normal)[0]
        y = _sum_products(x[:, None], weights[None])
        y_query = _sum_products(x_query[None], weights)
        if self.label_noise is not None:
            y = y + self.label_noise * _normal(part["noise"]).reshape(y.shape)
        if self.distractors is not None:
            noise = self.distractor_scale * _normal(part["distractors"]).reshape(y.shape)
            replaced = jnp.arange(n)[:, None, None] < self.distractors
            y = jnp.where(replaced, noise, y)
        return Episode(x, y, x_query, y_query)

    def _weights(self, u: jax.Array) -> jax.Array:
        """Matrices W, (m, d, episodes), from numbers (m d, episodes) that are uniform in (-1, 1)."""
        weights = self.weight_scale * _normal(u).reshape(self.outputs, self.dim, -1)
        weights = _correlated(weights, self.weight_covariance)
        return weights if self.weight_mean is None else weights + self.weight_mean

    def _inputs(self, u: jax.Array) -> jax.Array:
        """Inputs (..., d, episodes), from numbers of the same shape that are uniform in (-1, 1)."""
        distribution = self.input_distribution.removeprefix(FROBENIUS)
        scale = 1.0 if self.input_distribution.startswith(FROBENIUS) else self.input_range
        x = scale * QUANTILES[distribution](u)
        return _correlated(x, self.covariance)


@named_in_errors
class DerivedTask:
    """Base class of tasks that are built on a linear regression task and have its sizes."""

    base: LinearRegression

    def __post_init__(self) -> None:
        is_linear = isinstance(self.base, LinearRegression)
        require(is_linear, "base", "a LinearRegression", self.base)

    @property
    def dim(self) -> int:
        """Number of inputs, d."""
        return self.base.dim

    @property
    def outputs(self) -> int:
        """Number of outputs, m."""
        return self.base.outputs

    @property
    def context_size(self) -> int:
        """Number of labelled points in the context, N."""
        return self.base.context_size


def episode_size(task: Task) -> int:
    """Numbers of one episode of a task: N labelled points, and a query with its label."""
    return (task.context_size + 1) * (task.dim + task.outputs)


def require_episodes(name: str, count: Any, task: Task) -> None:
    """Check that a number of episodes of a task is a size, and that so many fit into memory."""
    require_size(name, count)
    sizes = {"dim": task.dim, "outputs": task.outputs, "context_size": task.context_size}
    require_memory(name, count, COPIES * count * episode_size(task), **sizes)


def _symmetric_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw from U(-1, 1) without both ends, so that no quantile is infinite."""
    dtype = jnp.result_type(float)
    least = np.nextafter(np.array(-1, dtype), np.array(0, dtype))
    return jax.random.uniform(key, shape, dtype, minval=least, maxval=1)


def _normal(u: jax.Array) -> jax.Array:
    return math.sqrt(2) * jax.lax.erf_inv(u)


QUANTILES = {
    "uniform": lambda u: u / 2,
    "normal": _normal,
    "exponential": lambda u: -jnp.log((1 - u) / 2),
    "laplace": lambda u: -jnp.sign(u) * jnp.log1p(-jnp.abs(u)),
}
"""Quantile functions of the input distributions at scale 1, as functions of u ~ U(-1, 1)."""


def _correlated(values: jax.Array, covariance: Any) -> jax.Array:
    """Values (..., d, episodes) multiplied by the Cholesky factor of a covariance, if there is one."""
    if covariance is None:
        return values
    matrix = _matrix(jnp.asarray(covariance, values.dtype), values.shape[-2])
    return jnp.einsum("ab,...be->...ae", jnp.linalg.cholesky(matrix), values)


def _rotated(x: jax.Array, normal: jax.Array) -> jax.Array:
    """Inputs (rows, d, episodes) multiplied by an orthogonal matrix of each episode.

    The matrix is a product of reflections: the one of `normal[k]`, (d, episodes), maps the unit vector
    e_k to the direction of the entries k, ..., d - 1 of `normal[k]`, and leaves the entries before
    them. For independent standard normal numbers the product is uniform over all orthogonal matrices
    (Diaconis and Shahshahani, 1987). Reflections need no decomposition of a matrix, and keep episodes
    last.
    """
    for k in reversed(range(normal.shape[0])):
        tail = normal[k, k:]
        length = jnp.sqrt(jnp.sum(tail**2, axis=0, keepdims=True))
        mirror = jnp.concatenate([tail[:1] - length, tail[1:]])[None]  # (1, d - k, episodes)
        square = jnp.sum(mirror**2, axis=1, keepdims=True)
        seen = square > 0  # not where the direction is that of e_k, which needs no reflection
        factor = jnp.where(seen, 2 / jnp.where(seen, square, 1), 0)
        along = factor * jnp.sum(x[:, k:] * mirror, axis=1, keepdims=True)
        x = jnp.concatenate([x[:, :k], x[:, k:] - along * mirror], axis=1)
    return x


def _sum_products(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum of products over the inputs, which are the last axis but one; episodes stay last.

    The loop is unrolled, because XLA's CPU code for a reduction over a middle axis is many times
    slower. A long sum is not, because it would take long to compile.
    """
    if weights.shape[-2] > LONGEST_SUM:
        return jnp.sum(x * weights, axis=-2)
    terms = (x[..., a, :] * weights[..., a, :] for a in range(weights.shape[-2]))
    return functools.reduce(operator.add, terms)


def _matrix(covariance: Any, dim: int) -> Any:
    """The d x d matrix that is given by its diagonal, d numbers, or by all its entries."""
    if covariance.size == dim and dim > 1:
        return covariance.reshape(dim, 1) * np.eye(dim)
    return covariance.reshape(dim, dim)


def _require_covariance(name: str, covariance: Any, dim: int) -> None:
    rule = f"{dim} positive numbers, or a symmetric positive definite {dim} x {dim} matrix"
    try:
        matrix = _matrix(np.asarray(covariance, float), dim)
    except (TypeError, ValueError):
        require(False, name, rule, covariance)
    symmetric = np.allclose(matrix, matrix.T)
    definite = symmetric and bool(np.all(np.linalg.eigvalsh(matrix) > 0))
    require(definite, name, rule, covariance)
