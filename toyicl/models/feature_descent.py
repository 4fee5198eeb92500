"""Gradient descent on learned features: the reference for transformers with an MLP before attention."""

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import require_positive, require_size, settings, static
from toyicl.core.products import contract
from toyicl.core.variables import Fixed
from toyicl.models.layers import Embedding
from toyicl.tasks.linear import Task


@settings
class MetaLearner:
    """Settings of a meta-learned step; calling them with a task and a key builds one.

    The reference of von Oswald et al. (2022), Figure 4: features from an embedding with an MLP, as
    wide as the transformer's, and one step of gradient descent of a fixed size on the last layer.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    width: int = static(default=40)
    """Number of features."""
    hidden: int = static(default=160)
    """Hidden width of the residual GELU MLP."""
    learning_rate: float = 1.0
    """The step size eta in (eta / N) sum_i; the released code's .1 is eta / N for ten points."""

    def __post_init__(self) -> None:
        require_size("width", self.width)
        require_size("hidden", self.hidden)
        require_positive("learning_rate", self.learning_rate)

    def __call__(self, task: Task, key: jax.Array) -> "FeatureDescent":
        """Build a learner with fresh weights for the episodes of a task."""
        features = Embedding(task.dim, self.width, self.hidden, key)
        start = jnp.zeros((task.outputs, self.width))
        return FeatureDescent(features, start, self.learning_rate)


class FeatureDescent(nnx.Module):
    """One step of gradient descent on the last layer of a network, from learned weights W_0.

        W = W_0 - (eta / N) sum_i (W_0 m(x_i) - y_i) m(x_i)^T

    for features m; von Oswald et al. (2022), section 4 and Proposition 2. `features` and
    `initial_weights`, (outputs, width), are trained; the step size is fixed.
    """

    def __init__(
        self, features: Embedding, initial_weights: jax.Array, learning_rate: float | jax.Array
    ):
        self.features = features
        self.initial_weights = nnx.Param(initial_weights)
        self.learning_rate = Fixed(jnp.asarray(learning_rate, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        start, step = self.initial_weights[...], self.learning_rate[...] / x.shape[0]
        inputs, query = self.features(x), self.features(x_query)
        gradient = contract(contract(inputs, start, (1, 1)) - y, inputs, (0, 0))
        return contract(query, start, (1, 1)) - step * contract(query, gradient, (1, 1))

    def before(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """The prediction before the step, which does not depend on the context: (m,)."""
        return self.initial_weights[...] @ self.features(x_query)
