"""Several steps of gradient descent and GD++ on correlated normal inputs, with scalar step sizes.

The prediction after K steps is w^T (I - R(S)) x_q, where the residual R is a polynomial in the scatter
matrix S = sum_i x_i x_i^T. For inputs of covariance Lambda and rows of W of covariance omega^2 C,

    loss = (m / 2) omega^2 E tr[C R(S) Lambda R(S)]
         = (m / 2) omega^2 E sum_kl R(s_k) R(s_l) (v_k . C v_l) (v_l . Lambda v_k)

with the eigenvalues s_k and eigenvectors v_k of S. The expectation is over a fixed sample of contexts,
so that the mean over the weights and the query is exact. A rotation of all inputs of a context leaves
the loss if C = I. Losses are those of `toyicl.theory.closed_form`; without correlation
`toyicl.theory.optimal_steps` is more precise. Other than these methods, a layer of a transformer can
have a matrix in place of the step size (`toyicl.theory.correlated_inputs`).
"""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.config import require, require_positive, require_size
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import Optimum
from toyicl.theory.correlated_inputs import input_covariance, weight_covariance
from toyicl.theory.step_search import Minimum, Steps, descent_residual, minimise

CONTEXTS = 20_000
"""Number of sampled contexts."""


def correlated_gd(task: LinearRegression, steps: int, *, per_step: bool = False) -> Optimum:
    """The best K steps of gradient descent with one learning rate, or `per_step` each with its own.

    Raises BadInput for tasks that `input_covariance` refuses, apart from rotated inputs, for label
    noise, for weights of scale 0, and for rotated inputs together with a covariance of the weights.
    """
    require_size("steps", steps)
    sample = _sample(task)
    best = _shared(sample, steps)
    if per_step and steps > 1:
        starts = [
            Steps(best.parameters.rates * np.geomspace(top, 1 / top, steps)) for top in (1.5, 3.0)
        ]
        found = minimise(_log_loss, starts, *sample, steps)
        best = Minimum(Steps(np.sort(found.parameters.rates)[::-1]), found.value)
    return _optimum(task, steps, best)


def correlated_gdpp(task: LinearRegression, steps: int, *, per_layer: bool = False) -> Optimum:
    """The best K steps of GD++ with one (eta, gamma), or `per_layer` each with its own.

    A local optimum, searched for from shared steps without and with a curvature. With a few steps that
    each have their own parameters the loss depends on rare eigenvalues, as `gdpp_per_layer` explains.
    Raises BadInput as `correlated_gd` does.
    """
    require_size("steps", steps)
    sample = _sample(task)
    shared = _shared(sample, steps)
    if steps > 1:
        rate = shared.parameters.rates
        starts = [Steps(rate, np.zeros(1)), *(Steps(rate * f, rate / 3) for f in (1.0, 1.5, 2.0))]
        shared = minimise(_log_loss, starts, *sample, steps)
    if per_layer and steps > 1:
        shared = minimise(_log_loss, _starts_per_layer(sample, shared, steps), *sample, steps)
    return _optimum(task, steps, shared)


def _log_loss(
    parameters: Steps, values: jax.Array, overlaps: jax.Array, steps: int | jax.Array
) -> jax.Array:
    """Logarithm of twice the loss of some steps on sampled contexts, at weight scale 1."""
    left = descent_residual(parameters, values, steps)
    return jnp.log(jnp.mean(jnp.einsum("tk,tkl,tl->t", left, overlaps, left)))


def _shared(sample: tuple[np.ndarray, np.ndarray], steps: int) -> Minimum[Steps]:
    """The best shared step, searched from one that suits the mean eigenvalue and smaller ones."""
    values, _ = sample
    starts = [Steps(np.array([factor / values.mean()])) for factor in (0.2, 0.5, 1.0)]
    return minimise(_log_loss, starts, *sample, steps)


def _starts_per_layer(
    sample: tuple[np.ndarray, np.ndarray], shared: Minimum[Steps], steps: int
) -> list[Steps]:
    """The best shared steps, and steps with |R| <= 1 for eigenvalues up to a bound.

    h_k = gamma_k = 9^(k - 1) 4 / (3 bound).
    """
    values, _ = sample
    starts = [
        Steps(
            np.full(steps, shared.parameters.rates),
            np.full(steps - 1, shared.parameters.curvatures),
        )
    ]
    for bound in (1.0, 2.0):
        rates = 4 / (3 * bound * values.max()) * 9.0 ** np.arange(steps)
        starts.append(Steps(rates, rates[:-1]))
    return starts


def _sample(task: LinearRegression) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (contexts, d) and overlaps (contexts, d, d) of sampled contexts of a task."""
    require(not task.label_noise, "task.label_noise", "None or 0 here", task.label_noise)
    require_positive("task.weight_scale", task.weight_scale)
    equal = task.weight_covariance is None or not task.rotated
    rule = "None for rotated inputs"
    require(equal, "task.weight_covariance", rule, task.weight_covariance)
    covariance = input_covariance(replace(task, rotated=False))
    prior = weight_covariance(task)
    return _contexts(task.context_size, tuple(covariance.ravel()), tuple(prior.ravel()))


@lru_cache(maxsize=4)
def _contexts(
    count: int, covariance: tuple[float, ...], prior: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    dim = round(len(covariance) ** 0.5)
    inputs, weights = (np.reshape(matrix, (dim, dim)) for matrix in (covariance, prior))
    normal = np.random.default_rng(0).standard_normal((CONTEXTS, count, dim))
    x = normal @ np.linalg.cholesky(inputs).T
    values, vectors = np.linalg.eigh(x.swapaxes(1, 2) @ x)
    transposed = vectors.swapaxes(1, 2)
    overlaps = (transposed @ weights @ vectors) * (transposed @ inputs @ vectors)
    return np.maximum(values, 0.0), overlaps


def _optimum(task: LinearRegression, steps: int, found: Minimum[Steps]) -> Optimum:
    rates, curvatures = (np.ravel(part) for part in found.parameters)
    loss = task.outputs / 2 * float(task.weight_scale) ** 2 * float(np.exp(found.value))
    etas = tuple(float(rate) * task.context_size for rate in rates)
    return Optimum(steps, loss, etas, tuple(map(float, curvatures)))
