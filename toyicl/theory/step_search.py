"""Search for the parameters of an iterative method that give the smallest loss.

A method that is a polynomial in S = sum_i x_i x_i^T is described by its residual R(s), the fraction
of the weights that remains to be found in an eigendirection of S of eigenvalue s, as in
`toyicl.theory.gram_spectrum`. Its loss is a weighted mean over eigenvalues, which is minimised over
the method's parameters. All searches are in float64, whatever the precision of JAX is set to.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.config import require_positive
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.gram_spectrum import (
    MOST_NODES,
    eigenvalue_quadrature,
    input_moments,
    require_no_distractors,
)

Parameters = TypeVar("Parameters")
Residual = Callable[..., jax.Array]
"""R(s) of a method: a function of its parameters, eigenvalues (n,), and further arguments; (n,)."""

TINY = 1e-300
"""Losses below this are equally good, so that the logarithm of a loss is finite."""
REJECTED = 1e3
"""Value of the objective where it overflows: larger than the logarithm of any finite loss."""


class Problem(NamedTuple):
    """Distribution of the eigenvalues of S, and label noise, at input range and weight scale 1."""

    values: np.ndarray
    """Eigenvalues s, (n,)."""
    weights: np.ndarray
    """Their weights, (n,)."""
    noise: float
    """lambda = (sigma / (omega r))^2, the variance of the label noise in units of the weights'."""


def unit_problem(task: LinearRegression) -> Problem:
    """The problem of a task. Raises BadInput for tasks without eigenvalues that determine the loss.

    These are tasks that `input_moments` refuses, tasks with distractors, and weights of scale 0.
    """
    input_moments(task)
    require_no_distractors(task)
    require_positive("task.weight_scale", task.weight_scale)
    scale = float(task.weight_scale) * float(task.input_range)
    values, weights = eigenvalue_quadrature(task)
    # Nodes of weight 0 make the shapes of all problems equal, so that they share programs.
    padding = (0, MOST_NODES - values.size)
    values, weights = np.pad(values, padding, mode="edge"), np.pad(weights, padding)
    return Problem(values, weights, (float(task.label_noise or 0.0) / scale) ** 2)


class Steps(NamedTuple):
    """Parameters of K steps of gradient descent or GD++; an array of one entry is for all steps."""

    rates: Any
    """h = eta / N, (1,) or (K,)."""
    curvatures: Any = ()
    """gamma: (0,) for gradient descent; (1,) or (K - 1,) for GD++, without the last, which is 0."""


class Minimum(NamedTuple, Generic[Parameters]):
    """The result of a search."""

    parameters: Parameters
    """The parameters, in the form of the start, as arrays of float64."""
    value: float
    """The value of the objective there."""


def descent_residual(steps: Steps, values: jax.Array, count: int | jax.Array) -> jax.Array:
    """Residual of `count` steps of gradient descent or GD++ at eigenvalues (n,); (n,).

        R <- R (1 - h s),   s <- s (1 - gamma s)^2

    `count` may be traced, so that one compiled program serves any number of shared steps.
    """
    rates, curvatures = (jnp.asarray(part, values.dtype) for part in steps)

    def step(index: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, values = state
        left = left * (1 - rates[jnp.minimum(index, rates.size - 1)] * values)
        if curvatures.size:
            curvature = curvatures[jnp.minimum(index, curvatures.size - 1)]
            values = values * (1 - curvature * values) ** 2
        return left, values

    return jax.lax.fori_loop(0, count, step, (jnp.ones_like(values), values))[0]


@dataclass(frozen=True)
class LogLoss:
    """Objective of a method with a residual: the log of the mean of R^2 + lambda (1 - R)^2 / s.

    An eigendirection with s = 0 has no data, and therefore no noise. Objectives of the same
    residual are equal, so that they share compiled programs.
    """

    residual: Residual

    def __call__(self, parameters: Any, problem: Problem, *arguments: Any) -> jax.Array:
        """The objective at some parameters; further arguments are those of the residual."""
        values, weights, noise = problem
        left = self.residual(parameters, values, *arguments)
        seen = values > 0
        noise_gain = jnp.where(seen, noise / jnp.where(seen, values, 1), 0)
        loss = jnp.vdot(weights, left**2 + noise_gain * (1 - left) ** 2) / jnp.sum(weights)
        return jnp.log(loss + TINY)


def minimise(
    objective: Callable[..., jax.Array], starts: Sequence[Parameters], *arguments: Any
) -> Minimum[Parameters]:
    """The lowest of the local minima of an objective that are reached from some starts.

    `objective` maps parameters, a pytree of arrays, and the arguments to a number. It is compiled
    once for each shape, so it should be a function of a module, or equal to others of its kind.
    JAX differentiates it in forward mode, which suits few parameters and loops whose length is
    traced. The optimiser is L-BFGS-B of scipy, and each parameter is measured in units of its
    start. A point where the objective or its derivative is not finite is rejected.
    """
    with _in_float64():
        arguments = _as_float64(arguments)
        found = [_descend(objective, jax.tree.map(np.float64, one), arguments) for one in starts]
    return min(found, key=lambda minimum: minimum.value)


def lowest(
    objective: Callable[..., jax.Array], candidates: Sequence[Parameters], *arguments: Any
) -> Parameters:
    """The candidate with the smallest finite value of an objective."""
    with _in_float64():
        arguments = _as_float64(arguments)
        values = [float(_value(objective, _as_float64(one), arguments)) for one in candidates]
    return candidates[int(np.argmin([value if np.isfinite(value) else np.inf for value in values]))]


@contextmanager
def _in_float64() -> Iterator[None]:
    """Computations are in float64, on the CPU, and immediate also where a caller is traced."""
    with jax.enable_x64(True), jax.default_device(_cpu()), jax.ensure_compile_time_eval():
        yield


def _cpu() -> jax.Device | None:
    """The CPU of this process, or None where the setting JAX_PLATFORMS excludes it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _as_float64(tree: Any) -> Any:
    """A pytree of arrays of JAX, with all floating-point numbers in float64."""

    def convert(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        wide = np.issubdtype(array.dtype, np.floating)
        return jnp.asarray(array.astype(np.float64) if wide else array)

    return jax.tree.map(convert, tree)


def _descend(
    objective: Callable[..., jax.Array], start: Any, arguments: tuple[Any, ...]
) -> Minimum[Any]:
    """The local minimum that is reached from one start."""
    from scipy.optimize import minimize  # its import takes long, and few commands search

    leaves, structure = jax.tree.flatten(start)
    flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
    unit = np.where(flat == 0, np.abs(flat).max() or 1.0, flat)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def shaped(points: np.ndarray) -> Any:
        """Vectors (..., n) as pytrees of the start's shapes, with the leading axes of `points`."""
        parts = zip(np.split(points, ends, axis=-1), leaves, strict=True)
        shapes = [part.reshape(points.shape[:-1] + leaf.shape) for part, leaf in parts]
        return jax.tree.unflatten(structure, shapes)

    directions = _as_float64(shaped(np.diag(unit)))

    def value_and_slopes(point: np.ndarray) -> tuple[float, np.ndarray]:
        found = _value_and_slopes(objective, shaped(point * unit), directions, arguments)
        value, slopes = (np.asarray(part) for part in found)
        if not (np.isfinite(value) and np.all(np.isfinite(slopes))):
            return REJECTED, np.zeros_like(point)
        return float(value), slopes

    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
    found = minimize(value_and_slopes, flat / unit, jac=True, method="L-BFGS-B", options=options)
    return Minimum(shaped(found.x * unit), float(found.fun))


@partial(jax.jit, static_argnums=0)
def _value(
    objective: Callable[..., jax.Array], parameters: Any, arguments: tuple[Any, ...]
) -> jax.Array:
    return objective(parameters, *arguments)


@partial(jax.jit, static_argnums=0)
def _value_and_slopes(
    objective: Callable[..., jax.Array],
    parameters: Any,
    directions: Any,
    arguments: tuple[Any, ...],
) -> tuple[jax.Array, jax.Array]:
    """The objective, (), and its derivatives along n directions, (n,)."""

    def along(direction: Any) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(lambda at: objective(at, *arguments), (parameters,), (direction,))

    return jax.vmap(along, out_axes=(None, 0))(directions)
