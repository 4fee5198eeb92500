"""In-context classification with a shared prior, and regression, both told as a sequence.

BOS x_1 y_1 ... x_N y_N x_q: a learner of sequences answers at every input, at the first of them before
it has seen any label. Since tasks share part of their weights, that zero-shot answer means something.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.config import require, require_fraction, require_size, settings, static
from toyicl.core.episode import Episode
from toyicl.tasks.linear import DerivedTask, LinearRegression, Task

Cost = Callable[[jax.Array, jax.Array], jax.Array]
"""What an answer costs beside a label: (m,), (m,) -> ()."""


class Sequential(Protocol):
    """A learner that reads an episode as a sequence and answers at every input."""

    def answers(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Answers at x_1, ..., x_N and x_q, each from what stands before: (N + 1, m)."""
        ...


class PromptTask(Task, Protocol):
    """A distribution over prompts, as long as one likes."""

    def of_size(self, context_size: int) -> "PromptTask":
        """The task with contexts of another size."""
        ...


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """-sum_c label_c log softmax(logits)_c."""
    return -jnp.sum(label * jax.nn.log_softmax(logits))


def half_squared(answer: jax.Array, label: jax.Array) -> jax.Array:
    """1/2 |answer - label|^2."""
    return jnp.sum((answer - label) ** 2) / 2


class Prompt(Episode):
    """An episode, or a batch, that is told as a sequence: its loss is a mean over every input.

    Labels are one-hot, and an answer, logits, costs its cross-entropy.
    """

    __slots__ = ()
    cost: ClassVar[Cost] = staticmethod(cross_entropy)

    def loss(self, learner: Sequential) -> jax.Array:  # type: ignore[override]
        """Mean cost of the answers at all inputs, the first without any demonstration."""
        answers = jax.vmap(learner.answers, in_axes=-1, out_axes=-1)(*self[:3])
        labels = jnp.concatenate([self.y, self.y_query[None]])
        over_places = jax.vmap(jax.vmap(type(self).cost), in_axes=-1, out_axes=-1)
        return jnp.mean(over_places(answers, labels))


class RegressionPrompt(Prompt):
    """A prompt of numbers, whose answers cost half their squared error."""

    __slots__ = ()
    cost: ClassVar[Cost] = staticmethod(half_squared)


@settings
class Classification:
    """Labels y = argmax_c w_c . x of weights that tasks share in part, as one-hot vectors.

        W = a W_0 + sqrt(1 - a^2) E,   E new in every episode,   x, W_0, E ~ N(0, I)

    W_0 is the same in all episodes: what can be known of a task before its first label.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    dim: int = static(default=4)
    """Number of inputs, d."""
    outputs: int = static(default=4)
    """Number of classes, m."""
    context_size: int = static(default=16)
    """Number of demonstrations, N."""
    prior: float = 0.6
    """a: 0 shares nothing, 1 everything."""
    prior_seed: int = static(default=0)
    """Seed of W_0."""

    def __post_init__(self) -> None:
        require_size("dim", self.dim)
        require_size("outputs", self.outputs, least=2)
        require_size("context_size", self.context_size)
        require_fraction("prior", self.prior)
        require_size("prior_seed", self.prior_seed, least=0)

    def of_size(self, context_size: int) -> "Classification":
        """The task with another number of demonstrations."""
        return replace(self, context_size=context_size)

    def sample(self, key: jax.Array, episodes: int) -> Prompt:
        """Draw a batch of prompts, on the last axis; the same key gives the same batch.

        Raises ValueError unless `episodes` is at least 1.
        """
        require_size("episodes", episodes)
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
    """Linear regression told as a sequence, x and y in tokens of their own; tasks share nothing."""

    law: LinearRegression = LinearRegression(dim=4, context_size=16, input_distribution="normal")
    """The law of inputs and labels, and the sizes."""

    def of_size(self, context_size: int) -> "SequenceRegression":
        """The task with contexts of another size."""
        return replace(self, law=replace(self.law, context_size=context_size))

    def sample(self, key: jax.Array, episodes: int) -> RegressionPrompt:
        """Draw a batch of prompts, on the last axis; the same key gives the same batch.

        Raises ValueError unless `episodes` is at least 1.
        """
        return RegressionPrompt(*self.law.sample(key, episodes))


def with_false_labels(key: jax.Array, y: jax.Array, share: float | jax.Array) -> jax.Array:
    """One-hot labels (N, m) of which round(share N) are replaced by another class each.

    Which demonstrations, and which classes, depends on the key alone: a larger share replaces those
    of a smaller one and more. Raises BadInput for a share outside [0, 1] and for a single class.
    """
    require_fraction("share of false labels", share)
    count, classes = y.shape
    require(classes > 1, "classes", "at least 2, for a label to be false", classes)
    place_key, class_key = jax.random.split(key)
    rank = jax.random.permutation(place_key, count)
    shift = jax.random.randint(class_key, (count,), 1, classes)
    false = jax.vmap(jnp.roll)(y, shift)
    replaced = rank < jnp.round(jnp.asarray(share) * count)
    return jnp.where(replaced[:, None], false, y)


def require_each_class(field: str, y: jax.Array) -> None:
    """Check that every class of one-hot labels (N, m) has a demonstration.

    Raises BadInput that names the field, how many there are, and the classes without one: a mean
    over a class needs it.
    """
    missing = np.flatnonzero(np.asarray(y).sum(axis=0) == 0).tolist()
    rule = f"large enough for a demonstration of each class, of {missing}, too"
    require(not missing, field, rule, len(y))
