"""Classification and regression tasks for sequence models.

An episode is read as the sequence BOS x_1 y_1 ... x_N y_N x_q. A sequence model predicts a label at
every input, at the first one before it has seen any label. In classification all episodes share
part of their weights, so that this zero-shot prediction can be better than chance.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.config import (
    require,
    require_fraction,
    require_size,
    require_whole,
    settings,
    static,
)
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression, Task, require_episodes

Cost = Callable[[jax.Array, jax.Array], jax.Array]
"""Loss of one answer, given its label: (m,), (m,) -> ()."""


class Sequential(Protocol):
    """A learner that reads an episode as a sequence and predicts a label at every input."""

    def answers(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predictions at x_1, ..., x_N and x_q, each from the sequence up to it: (N + 1, m)."""
        ...


class PromptTask(Task, Protocol):
    """A distribution over prompts whose number of demonstrations can be changed."""

    def of_size(self, context_size: int) -> "PromptTask":
        """The same task with another number of demonstrations."""
        ...


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Cross-entropy of logits, -sum_c label_c log softmax(logits)_c: (m,), (m,) -> ()."""
    return -jnp.sum(label * jax.nn.log_softmax(logits))


def half_squared(answer: jax.Array, label: jax.Array) -> jax.Array:
    """Half the squared error, 1/2 |answer - label|^2: (m,), (m,) -> ()."""
    return jnp.sum((answer - label) ** 2) / 2


class Prompt(Episode):
    """An episode, or a batch, that is read as a sequence; its loss is a mean over all inputs.

    Labels are one-hot. Predictions are logits, whose loss is the cross-entropy.
    """

    __slots__ = ()
    cost: ClassVar[Cost] = staticmethod(cross_entropy)

    def loss(self, learner: Sequential) -> jax.Array:  # type: ignore[override]
        """Mean loss of the predictions at all inputs, the first without any demonstration."""
        answers = jax.vmap(learner.answers, in_axes=-1, out_axes=-1)(*self[:3])
        labels = jnp.concatenate([self.y, self.y_query[None]])
        over_places = jax.vmap(jax.vmap(type(self).cost), in_axes=-1, out_axes=-1)
        return jnp.mean(over_places(answers, labels))


class RegressionPrompt(Prompt):
    """A prompt whose labels are numbers; the loss is half the squared error."""

    __slots__ = ()
    cost: ClassVar[Cost] = staticmethod(half_squared)


@settings
class Classification:
    """Classification with labels y = argmax_c w_c . x, as one-hot vectors.

        W = a W_0 + sqrt(1 - a^2) E,   E new in every episode,   x, W_0, E ~ N(0, I)

    W_0 is the same in all episodes. It is what can be known about a task before its first label.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    dim: int = static(default=4)
    """Number of inputs, d."""
    outputs: int = static(default=4)
    """Number of classes, m."""
    context_size: int = static(default=16)
    """Number of demonstrations, N."""
    prior: float = 0.6
    """a, between 0 and 1: at 0 the weights of different episodes are independent, at 1 equal."""
    prior_seed: int = static(default=0)
    """Seed of W_0."""

    def __post_init__(self) -> None:
        require_size("dim", self.dim)
        require_size("outputs", self.outputs, least=2)
        require_size("context_size", self.context_size)
        require_fraction("prior", self.prior)
        require_whole("prior_seed", self.prior_seed, least=0)

    def of_size(self, context_size: int) -> "Classification":
        """The same task with another number of demonstrations."""
        return replace(self, context_size=context_size)

    def sample(self, key: jax.Array, episodes: int) -> Prompt:
        """Draw a batch of prompts, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        require_episodes("episodes", episodes, self)
        input_key, weight_key = jax.random.split(key)
        dtype, (d, m) = jnp.result_type(float), (self.dim, self.outputs)
        x = jax.random.normal(input_key, (self.context_size + 1, d, episodes), dtype)
        own = jax.random.normal(weight_key, (m, d, episodes), dtype)
        shared = jax.random.normal(jax.random.key(self.prior_seed), (m, d), dtype)
        weights = self.prior * shared[..., None] + jnp.sqrt(1 - self.prior**2) * own
        scores = jnp.einsum("mde,nde->nme", weights, x)
        y = jax.nn.one_hot(jnp.argmax(scores, axis=1), m, axis=1, dtype=dtype)
        return Prompt(x[:-1], y[:-1], x[-1], y[-1])


@settings
class SequenceRegression(DerivedTask):
    """Linear regression for sequence models, with inputs and labels in separate tokens.

    The weights of different episodes are independent.

    Raises BadSetting, at construction, for a setting that is not allowed.
    """

    base: LinearRegression = LinearRegression(dim=4, context_size=16, input_distribution="normal")
    """The distribution of inputs and labels, and the sizes."""

    def of_size(self, context_size: int) -> "SequenceRegression":
        """The same task with another number of demonstrations."""
        return replace(self, base=replace(self.base, context_size=context_size))

    def sample(self, key: jax.Array, episodes: int) -> RegressionPrompt:
        """Draw a batch of prompts, on the last axis; the same key gives the same batch.

        Raises BadInput unless `episodes` is a whole number of at least 1.
        """
        return RegressionPrompt(*self.base.sample(key, episodes))


def with_false_labels(key: jax.Array, y: jax.Array, fraction: float | jax.Array) -> jax.Array:
    """One-hot labels (N, m) of which round(fraction N) are replaced, each by another class.

    Which demonstrations are replaced, and by which classes, depends on the key alone: a larger
    fraction replaces those of a smaller one and more. Raises BadInput for a fraction outside [0, 1]
    and for a single class.
    """
    require_fraction("fraction of false labels", fraction)
    count, classes = y.shape
    require(classes > 1, "classes", "at least 2, for a label to be false", classes)
    place_key, class_key = jax.random.split(key)
    rank = jax.random.permutation(place_key, count)
    shift = jax.random.randint(class_key, (count,), 1, classes)
    false = jax.vmap(jnp.roll)(y, shift)
    replaced = rank < jnp.round(jnp.asarray(fraction) * count)
    return jnp.where(replaced[:, None], false, y)


def require_each_class(field: str, y: jax.Array) -> None:
    """Check that every class of one-hot labels (N, m) has a demonstration.

    Raises BadInput, which names the field, the number of demonstrations, and the classes without
    one.
    """
    missing = np.flatnonzero(np.asarray(y).sum(axis=0) == 0).tolist()
    rule = f"large enough for a demonstration of every class, also of {missing}"
    require(not missing, field, rule, len(y))
