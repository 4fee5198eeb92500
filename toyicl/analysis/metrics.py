"""How far apart two learners are, on the same episodes: loss, predictions, sensitivities."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.config import require_size
from toyicl.core.episode import Episode, Learner, predict, squared_error


class Observation(NamedTuple):
    """What a learner does on a batch of episodes."""

    predictions: jax.Array
    """(m, episodes)."""
    sensitivities: jax.Array
    """Derivative of each prediction by the query's input, (m, d, episodes)."""


class Comparison(NamedTuple):
    """A learner beside a reference, as means over episodes.

    Definitions of von Oswald et al. (2022), section 3, and their released code. The cosine is blind to
    scale, a model at twice the reference's step has cosine 1, so the norm ratio stands beside it.
    """

    loss: jax.Array
    """0.5 * mean squared error of the learner."""
    prediction_difference: jax.Array
    """Mean Euclidean distance of the predictions."""
    model_difference: jax.Array
    """Mean Euclidean distance of the sensitivities."""
    model_cosine: jax.Array
    """Mean cosine between the sensitivities."""
    norm_ratio: jax.Array
    """Mean norm of the learner's sensitivities over that of the reference's; not finite where the
    reference's are all 0."""


def zero_loss(episodes: Episode) -> jax.Array:
    """0.5 * squared error of predicting 0, mean over episodes."""
    return squared_error(jnp.zeros_like(episodes.y_query), episodes)


def loss(learner: Learner, episodes: Episode) -> jax.Array:
    """What training minimises: 0.5 * squared error, mean over episodes, unless they say otherwise."""
    return episodes.loss(learner)


@jax.jit
def trimmed_loss(learner: Learner, episodes: Episode, share: float = 1e-3) -> jax.Array:
    """Loss without the worst `share` of episodes, on which rare eigenvalues can make it any size."""
    errors = 0.5 * jnp.sum((predict(learner, episodes) - episodes.y_query) ** 2, axis=0)
    kept = errors <= jnp.quantile(errors, 1 - share)
    return jnp.sum(jnp.where(kept, errors, 0)) / jnp.sum(kept)


@jax.jit
def best_multiple_loss(learner: Learner, episodes: Episode) -> jax.Array:
    """Loss of a learner's predictions times the one factor that is best on the episodes."""
    answers = predict(learner, episodes)
    factor = jnp.vdot(answers, episodes.y_query) / jnp.vdot(answers, answers)
    return squared_error(factor * answers, episodes)


@jax.jit
def losses(learners: Learner, episodes: Episode) -> jax.Array:
    """Loss of each of some learners, which are stacked on a leading axis of every leaf."""
    return jax.vmap(loss, (0, None))(learners, episodes)


def sensitivity(learner: Learner, episodes: Episode) -> jax.Array:
    """Derivative of the predictions by the query's input, (m, d, episodes)."""
    x, y, x_query, _ = episodes
    derivative = jax.jacobian(learner, argnums=2)
    return jax.vmap(derivative, in_axes=-1, out_axes=-1)(x, y, x_query)


def observe(learner: Learner, episodes: Episode) -> Observation:
    """Predictions and sensitivities of a learner."""
    return Observation(predict(learner, episodes), sensitivity(learner, episodes))


def difference(learner: Observation, reference: Observation, episodes: Episode) -> Comparison:
    """Compare two observations made on the same episodes."""
    own, other = learner.sensitivities, reference.sensitivities
    own_norm, other_norm = _norm(own), _norm(other)
    products = jnp.sum(own * other, axis=(0, 1))
    # A learner that ignores its query has no direction to compare: cosine 0, not a division by 0.
    norms = own_norm * other_norm
    cosine = jnp.where(norms > 0, products / jnp.where(norms > 0, norms, 1), 0)
    distance = jnp.linalg.norm(learner.predictions - reference.predictions, axis=0)
    return Comparison(
        loss=squared_error(learner.predictions, episodes),
        prediction_difference=jnp.mean(distance),
        model_difference=jnp.mean(_norm(own - other)),
        model_cosine=jnp.mean(cosine),
        norm_ratio=jnp.mean(own_norm) / jnp.mean(other_norm),
    )


def compare(learner: Learner, reference: Learner, episodes: Episode) -> Comparison:
    """Observe a learner and a reference on the same episodes and compare them."""
    return difference(observe(learner, episodes), observe(reference, episodes), episodes)


def permutation_sensitivity(
    learner: Learner, episodes: Episode, key: jax.Array, permutations: int = 8
) -> jax.Array:
    """How far predictions move if the context is told in another order, over how far they spread.

        mean |f(permuted context) - f(context)| / root mean square of f - mean f

    over episodes and `permutations` random orders of each; labels go with their inputs. 0 for a learner
    that knows no order, about 1.1 for one that answers a new order as if it were another episode. Where
    all predictions are the same, 0 if they stay so and infinite if not.
    """
    require_size("permutations", permutations)
    x, y, x_query, _ = episodes
    predictions = predict(learner, episodes)
    ranks = jax.random.uniform(key, (permutations, x.shape[0], x.shape[-1]))
    orders = jnp.argsort(ranks, axis=1)

    def moved(order: jax.Array) -> jax.Array:
        rows = order[:, None, :]
        x_told, y_told = (jnp.take_along_axis(given, rows, axis=0) for given in (x, y))
        again = jax.vmap(learner, in_axes=-1, out_axes=-1)(x_told, y_told, x_query)
        return jnp.mean(jnp.linalg.norm(again - predictions, axis=0))

    center = jnp.mean(predictions, axis=1, keepdims=True)
    spread = jnp.sqrt(jnp.mean(jnp.sum((predictions - center) ** 2, axis=0)))
    change = jnp.mean(jax.lax.map(moved, orders))
    return jnp.where(change > 0, change / spread, 0)


def over_snapshots(measure: Callable[..., Any], learners: Any, *context: Any) -> Any:
    """`measure(learner, *context)` of each learner of a history; leaves get the axes (seed, snapshot).

    `learners` has those axes in front on every leaf. Snapshots are taken one after another, so memory
    does not grow with their number. The same function on other histories and contexts of the same
    shapes compiles nothing new.
    """
    by_snapshot = jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, 1), learners)
    values = _over_snapshots(measure, by_snapshot, context)
    return jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, 1), jax.device_get(values))


@partial(jax.jit, static_argnames="measure")
def _over_snapshots(measure: Callable[..., Any], learners: Any, context: tuple) -> Any:
    def measure_one(learner: Any) -> Any:
        return measure(learner, *context)

    return jax.lax.map(jax.vmap(measure_one), learners)


def on_plateau(final_loss: jax.Array, reference_loss: jax.Array, zero_loss: float) -> np.ndarray:
    """Whether a final loss is nearer to that of predicting 0 than to its reference's.

    Training stays on a plateau just below the loss of predicting 0, for a time that depends on the
    seed, before it drops: a seed that was stopped there says nothing about where training leads.
    With two or three inputs the layer can rest at other, lower losses as well, which this does not
    see: every seed's curve is drawn.
    """
    return np.asarray(final_loss) > (np.asarray(reference_loss) + zero_loss) / 2


def _norm(sensitivities: jax.Array) -> jax.Array:
    """Frobenius norm of each episode's (m, d) matrix, (episodes,)."""
    return jnp.sqrt(jnp.sum(sensitivities**2, axis=(0, 1)))
