"""Gradient descent as layers that update labels only, with labels in the scores of attention.

A layer of linear attention that updates labels only can score a pair of tokens by their labels too,
which gradient descent does not. This learner has exactly that freedom, one number for each step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from toyicl import theory
from toyicl.algorithms import token_descent
from toyicl.algorithms.gradient_descent import Rates, as_rates
from toyicl.algorithms.token_descent import searched
from toyicl.core.config import require_size
from toyicl.core.products import contract
from toyicl.tasks.linear import LinearRegression

START_KEY, START_EPISODES = 2019, 2000
"""Key and number of the episodes that set the scale of the label weights at the start of a search."""
SEARCHES = 4
"""Episodes of a search, in units of those for clipped tokens: rare ones matter more here."""
START = 0.05
"""Relative change of the labels by their own scores at the start of a search."""


class LabelDescent(nnx.Module):
    """K steps on labels, whose scores are inner products of inputs plus weighted ones of labels.

        y_j <- y_j - h_k sum_i y_i (x_i . x_j + c_k y_i . y_j)

    for all points at once, including the query with label 0, where the prediction is minus the query's
    label. With c = 0 it is gradient descent from 0. With one output the second term multiplies all
    labels by 1 - h_k c_k sum_i y_i^2, so that the steps depend on how large the labels are. Up to
    rotations and reflections of the inputs, a layer of linear attention with one head, one output and
    inputs that it does not update has no further freedom.

    `step` is h = eta / N, of the plain sum, and `label_weight` is c. Each is a number that all `steps`
    share, or one for each step, (steps,). The first c does not change the first prediction. Raises
    BadInput for other shapes.
    """

    def __init__(self, step: Rates, label_weight: Rates = 0.0, steps: int = 1):
        require_size("steps", steps)
        self.step = as_rates(step, steps, "step")
        self.label_weight = as_rates(label_weight, steps, "label_weight")
        self.steps = steps

    @classmethod
    def best(
        cls, task: LinearRegression, steps: int, *, smallest_first: bool = False
    ) -> "LabelDescent":
        """The best K steps, each with its own (h, c): a local optimum on sampled episodes.

        The order of the steps matters, unlike that of gradient descent. The search starts from the best
        steps of gradient descent, the largest or the smallest first, and small label weights. On tasks
        with few points rare large labels have such an effect that the search can fit its sample;
        gradient descent is returned if its loss is lower on other episodes. Raises BadInput for tasks
        that `theory.gd_per_step` refuses.
        """
        rates = np.sort(theory.gd_per_step(task, steps).learning_rates) / task.context_size
        rates = rates if smallest_first else rates[::-1]
        x, y, *_ = task.sample(jax.random.key(START_KEY), START_EPISODES)
        weights = []
        for rate in rates:
            weights.append(START / (rate * float(jnp.mean(jnp.sum(y**2, axis=(0, 1))))))
            y = y - rate * jnp.einsum("nde,mde->nme", x, jnp.einsum("nde,nme->mde", x, y))

        def build(parameters: Any) -> "LabelDescent":
            step, label_weight = parameters
            return cls(step, label_weight, steps)

        start = (rates, np.array(weights))
        found = build(searched(build, [start], task, SEARCHES * token_descent.SEARCH_EPISODES))
        others = task.sample(jax.random.key(START_KEY + 1), 2 * token_descent.SEARCH_EPISODES)
        candidates = [found, cls(jnp.asarray(rates), 0.0, steps)]
        return min(candidates, key=lambda one: float(jax.jit(others.loss)(one)))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        steps = jnp.broadcast_to(self.step[...], (self.steps,))
        weights = jnp.broadcast_to(self.label_weight[...], (self.steps,))
        y_query = jnp.zeros(y.shape[1], y.dtype)
        for step, weight in zip(steps, weights, strict=True):
            moments, scatter = contract(x, y, (0, 0)), contract(y, y, (0, 0))
            y, y_query = (
                labels - step * (contract(inputs, moments) + weight * contract(labels, scatter))
                for labels, inputs in ((y, x), (y_query, x_query))
            )
        return -y_query
