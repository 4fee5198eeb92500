"""Episodes and learners: the two types that the rest of the package is built on."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from toyicl.core.config import require


class Episode(NamedTuple):
    """One in-context task: N labelled points and a query, or a batch of them.

    A batch has its episodes on the LAST axis of every field. Vector units of a CPU need this
    layout; with episodes first, a training step takes several times as long.
    """

    x: jax.Array
    """Context inputs, (N, d)."""
    y: jax.Array
    """Context labels, (N, m)."""
    x_query: jax.Array
    """The query's input, (d,)."""
    y_query: jax.Array
    """The query's noise-free label, (m,): the correct answer."""

    def loss(self, learner: "Learner") -> jax.Array:
        """The objective of a batch: 0.5 * squared error, mean over episodes.

        Episodes with another error are a subclass that overrides this method. All losses of the
        package follow it. It must be a mean over episodes: a training step may take it on
        microbatches, and average.
        """
        return squared_error(predict(learner, self), self)


class Learner(Protocol):
    """Anything that maps one context and one query to a prediction.

    Gradient descent, ridge regression, a constructed transformer and a trained one are all
    learners. A learner is a pure function. A trainable learner is a `flax.nnx.Module`, whose
    variables are `flax.nnx.Param`s, which are trained, or `Fixed`; every learner of this library is
    a pytree.
    """

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        ...


Objective = Callable[[Learner, Episode], jax.Array]
"""A pure function of a learner and a batch of episodes, whose scalar value training minimises."""


def predict(learner: Learner, episodes: Episode) -> jax.Array:
    """Predictions of a learner on a batch of episodes, (m, episodes)."""
    x, y, x_query, _ = episodes
    return jax.vmap(learner, in_axes=-1, out_axes=-1)(x, y, x_query)


def squared_error(predictions: jax.Array, episodes: Episode) -> jax.Array:
    """0.5 * squared error summed over outputs, mean over episodes."""
    return 0.5 * jnp.mean(jnp.sum((predictions - episodes.y_query) ** 2, axis=0))


def require_squared_error(name: str, kind: type[Episode]) -> None:
    """Check that episodes of a class are scored by the squared error of the query's prediction.

    Raises BadInput that names them for a class with another loss, such as the cross-entropy.
    """
    rule = "scored by the squared error of the query's prediction"
    require(kind.loss is Episode.loss, name, rule, kind.__name__)
