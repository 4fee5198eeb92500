"""GD and GD++ as a transformer with clipped tokens takes them.

Models of more than three layers clip their token entries after each layer, as the released code of
von Oswald et al. (2022) does, and so does its reference for GD++. A clipped model cannot take steps
whose intermediate tokens exceed the bound, so that the best steps under the clip, which are searched
for here, have other parameters and a higher loss than the best steps without it.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree

from toyicl import theory
from toyicl.algorithms.gradient_descent import Rates, as_rates
from toyicl.core.config import require_positive, require_size
from toyicl.core.episode import Episode, predict, squared_error
from toyicl.core.products import contract
from toyicl.core.variables import Fixed
from toyicl.tasks.linear import LinearRegression

SEARCH_EPISODES = 20_000
"""Number of sampled episodes on which steps are searched for."""
RATE_FACTORS = np.geomspace(0.1, 1.0, 9)
"""Factors on the best step without a clip, from which a search starts."""
CURVATURE_FACTORS = np.linspace(0.25, 1.0, 4)
"""Factors on its curvature."""


class TokenDescent(nnx.Module):
    """K steps of GD++ on tokens, whose entries are clipped after each step.

        y_j <- clip(y_j - h_k sum_i y_i x_i . x_j)
        x_j <- clip(x_j - gamma_k sum_i x_i x_i . x_j)

    for all points at once, including the query with label 0, where clip bounds each entry by
    `token_clip`; None means no bound. von Oswald et al. (2022), appendix A.10. `step` is h = eta / N
    and `curvature` is gamma, both of the plain sum and therefore of the scale of a transformer's
    weights. Each is a number that all `steps` share, or one for each step, (steps,). With gamma = 0
    the steps are those of gradient descent from W_0 = 0.

    Raises BadInput for other shapes and for a `token_clip` that is not positive.
    """

    def __init__(
        self, step: Rates, curvature: Rates = 0.0, steps: int = 1, *, token_clip: Any = None
    ):
        require_size("steps", steps)
        if token_clip is not None:
            require_positive("token_clip", token_clip)
        self.step = as_rates(step, steps, "step")
        self.curvature = as_rates(curvature, steps, "curvature")
        self.steps = steps
        self.token_clip = None if token_clip is None else Fixed(jnp.asarray(token_clip, float))

    @classmethod
    def gd(cls, task: LinearRegression, steps: int, token_clip: float | None) -> "TokenDescent":
        """The best K steps of gradient descent with one step size under a clip; see `gdpp`."""
        best = theory.gd_shared(task, steps).learning_rates[0] / task.context_size
        if token_clip is None:
            return cls(best, 0.0, steps)
        starts = [(best * factor,) for factor in RATE_FACTORS]
        build = partial(_without_curvature, steps=steps, token_clip=token_clip)
        return build(searched(build, starts, task))

    @classmethod
    def gdpp(cls, task: LinearRegression, steps: int, token_clip: float | None) -> "TokenDescent":
        """The best K steps of GD++ with one (h, gamma) under a clip: a local optimum.

        Under a clip there is no closed form: the loss is minimised on sampled episodes of the task,
        from the best point of a grid below the best steps without a clip (see `theory.gdpp_shared`).
        """
        free = theory.gdpp_shared(task, steps)
        step, curvature = free.learning_rates[0] / task.context_size, free.curvatures[0]
        if token_clip is None:
            return cls(step, curvature, steps)
        starts = [
            (step * one, curvature * other) for one in RATE_FACTORS for other in CURVATURE_FACTORS
        ]
        build = partial(_shared, steps=steps, token_clip=token_clip)
        return build(searched(build, starts, task))

    @classmethod
    def gdpp_per_layer(
        cls, task: LinearRegression, steps: int, token_clip: float | None
    ) -> "TokenDescent":
        """K steps of GD++ under a clip, each with its own (h, gamma): a local optimum.

        The search starts from the best steps without a clip (see `theory.gdpp_per_layer`) and from
        the best shared steps under the clip. The gamma of the last step has no effect and is 0.
        """
        free = theory.gdpp_per_layer(task, steps)
        rates = np.array(free.learning_rates) / task.context_size
        own = cls(jnp.asarray(rates), (*free.curvatures, 0.0), steps, token_clip=token_clip)
        if token_clip is None:
            return own
        shared = cls.gdpp(task, steps, token_clip)
        repeated = (
            np.full(steps, float(shared.step[...])),
            np.full(steps - 1, float(shared.curvature[...])),
        )
        build = partial(_per_layer, steps=steps, token_clip=token_clip)
        starts = [(rates, np.array(free.curvatures)), repeated]
        return build(searched(build, starts, task))

    @classmethod
    def tuning_start(
        cls,
        task: LinearRegression,
        steps: int,
        token_clip: float | None = None,
        *,
        per_layer: bool = False,
    ) -> "TokenDescent":
        """The steps from which the released code of von Oswald et al. (2022) tunes GD++ by Adam.

        The step size is the best shared one of gradient descent, which the code searches for on a
        grid, and gamma = eta / N^2, in every layer. `per_layer` is whether layers are tuned apart.
        """
        step = theory.gd_shared(task, steps).learning_rates[0] / task.context_size
        rates = jnp.full((steps,) if per_layer else (), step)
        return cls(rates, rates / task.context_size, steps, token_clip=token_clip)

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        steps = jnp.broadcast_to(self.step[...], (self.steps,))
        curvatures = jnp.broadcast_to(self.curvature[...], (self.steps,))
        y_query = jnp.zeros(y.shape[1], y.dtype)
        for step, curvature in zip(steps, curvatures, strict=True):
            scatter, moments = contract(x, x, (0, 0)), contract(x, y, (0, 0))
            y, y_query = (
                self._clipped(labels - step * contract(inputs, moments))
                for labels, inputs in ((y, x), (y_query, x_query))
            )
            x, x_query = (
                self._clipped(inputs - curvature * contract(inputs, scatter))
                for inputs in (x, x_query)
            )
        return -y_query

    def _clipped(self, entries: jax.Array) -> jax.Array:
        if self.token_clip is None:
            return entries
        bound = self.token_clip[...]
        return jnp.clip(entries, -bound, bound)


def _without_curvature(parameters: Any, steps: int, token_clip: float) -> TokenDescent:
    (step,) = parameters
    return TokenDescent(step, 0.0, steps, token_clip=token_clip)


def _shared(parameters: Any, steps: int, token_clip: float) -> TokenDescent:
    step, curvature = parameters
    return TokenDescent(step, curvature, steps, token_clip=token_clip)


def _per_layer(parameters: Any, steps: int, token_clip: float) -> TokenDescent:
    rates, curvatures = parameters
    return TokenDescent(rates, jnp.append(curvatures, 0.0), steps, token_clip=token_clip)


def searched(
    build: Any, starts: list[Any], task: LinearRegression, count: int | None = None
) -> Any:
    """Parameters of the lowest loss of `build(parameters)`, from the best of some starts.

    They are scaled by their start, and the logarithm of the loss is minimised by L-BFGS. With many
    parameters the search can fit rare eigenvalues of its sample: the start is kept if its loss is lower
    on other episodes. `count` is the number of episodes of each kind, by default `SEARCH_EPISODES`.
    """
    from scipy.optimize import minimize  # its import takes long, and few commands search

    count = SEARCH_EPISODES if count is None else count
    episodes = task.sample(jax.random.key(2024), count)
    first = jax.tree.map(jnp.asarray, starts)

    @jax.jit
    def log_loss(factors: Any, start: Any, episodes: Episode) -> jax.Array:
        learner = build(jax.tree.map(jnp.multiply, factors, start))
        return jnp.log(squared_error(predict(learner, episodes), episodes))

    slopes = jax.jit(jax.value_and_grad(log_loss))
    ones = jax.tree.map(jnp.ones_like, first[0])
    values = [float(log_loss(ones, start, episodes)) for start in first]
    start = first[int(np.nanargmin(values))]
    flat, unflatten = ravel_pytree(ones)

    def value_and_slopes(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, found = slopes(unflatten(jnp.asarray(point, flat.dtype)), start, episodes)
        slope = np.asarray(ravel_pytree(found)[0], np.float64)
        return float(value), slope

    options = {"ftol": 1e-9, "gtol": 1e-6, "maxiter": 300}
    found = minimize(
        value_and_slopes, np.asarray(flat, np.float64), jac=True, method="L-BFGS-B", options=options
    )
    factors = unflatten(jnp.asarray(found.x, flat.dtype))
    others = task.sample(jax.random.key(2031), count)
    best = min((factors, ones), key=lambda one: float(log_loss(one, start, others)))
    return jax.tree.map(jnp.multiply, best, start)
