"""Losses of learners, and comparisons of two learners on the same episodes.

Losses are in the episodes' own error: 0.5 * squared error, unless their `loss` defines another one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.config import require_size
from toyicl.core.episode import (
    Episode,
    Learner,
    predict,
    require_squared_error,
    squared_error,
)
from toyicl.core.variables import require_no_state

RESOLUTION = 0.03
"""Excess of a loss over the optimum, relative to that of predicting 0, up to which it is not
distinguished from the optimum.

Training at a constant learning rate ends above its optimum. With 50 inputs and the settings of the
released code the excess is 0.012, more than half of that of a layer that has not learned one of the 50
directions, although the layer has learned all of them to within 15%."""


class Observation(NamedTuple):
    """Predictions and sensitivities of a learner on a batch of episodes."""

    predictions: jax.Array
    """(m, episodes)."""
    sensitivities: jax.Array
    """Derivative of each prediction with respect to the query's input, (m, d, episodes)."""


class Comparison(NamedTuple):
    """A learner compared with a reference, in means over episodes.

    The definitions are those of von Oswald et al. (2022), section 3, and their released code. The
    cosine does not depend on scale: a model with twice the reference's step size has cosine 1.
    Therefore the norm ratio is reported with it.
    """

    loss: jax.Array
    """Loss of the learner, in the episodes' own error."""
    prediction_difference: jax.Array
    """Mean Euclidean distance between the predictions."""
    model_difference: jax.Array
    """Mean Euclidean distance between the sensitivities."""
    model_cosine: jax.Array
    """Mean cosine between the sensitivities."""
    norm_ratio: jax.Array
    """Mean norm of the learner's sensitivities divided by that of the reference's; not finite where
    the reference's are all 0."""


class ZeroLearner:
    """Predicts 0 for every query; as logits, that is the uniform distribution over classes."""

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Shapes (N, d), (N, m), (d,) -> (m,)."""
        return jnp.zeros(y.shape[1:], y.dtype)

    def answers(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predictions at all inputs of a prompt: (N, d), (N, m), (d,) -> (N + 1, m)."""
        return jnp.zeros((y.shape[0] + 1, y.shape[1]), y.dtype)


def loss(learner: Learner, episodes: Episode) -> jax.Array:
    """Mean loss on a batch of episodes, in their own error: what training minimises by default."""
    return episodes.loss(learner)


def zero_loss(episodes: Episode) -> jax.Array:
    """Loss of predicting 0."""
    return loss(ZeroLearner(), episodes)


def errors(learner: Learner, episodes: Episode) -> jax.Array:
    """Loss on each episode of a batch, (episodes,)."""

    def error(episode: Episode) -> jax.Array:
        return loss(learner, jax.tree.map(lambda field: field[..., None], episode))

    return jax.vmap(error, in_axes=-1)(episodes)


@jax.jit
def trimmed_loss(learner: Learner, episodes: Episode, fraction: float = 1e-3) -> jax.Array:
    """Mean loss without the given fraction of episodes with the largest loss.

    Rare eigenvalues of the context's scatter matrix can make the loss on these arbitrarily large.
    """
    values = errors(learner, episodes)
    kept = values <= jnp.quantile(values, 1 - fraction)
    return jnp.sum(jnp.where(kept, values, 0)) / jnp.sum(kept)


@jax.jit
def best_multiple_loss(learner: Learner, episodes: Episode) -> jax.Array:
    """Loss of a learner's predictions multiplied by the factor that is best on these episodes.

    The factor is a least-squares fit. Raises BadInput for episodes that are not scored by the squared
    error of the query's prediction.
    """
    require_squared_error("episodes", type(episodes))
    answers = predict(learner, episodes)
    factor = jnp.vdot(answers, episodes.y_query) / jnp.vdot(answers, answers)
    return squared_error(factor * answers, episodes)


@jax.jit
def losses(learners: Learner, episodes: Episode) -> jax.Array:
    """Loss of each of several learners, stacked on a leading axis of every leaf: (learners,)."""
    return jax.lax.map(lambda learner: loss(learner, episodes), learners)


def sensitivity(learner: Learner, episodes: Episode) -> jax.Array:
    """Derivative of the predictions with respect to the query's input, (m, d, episodes)."""
    return observe(learner, episodes).sensitivities


def observe(learner: Learner, episodes: Episode) -> Observation:
    """Predictions and sensitivities of a learner.

    Raises BadInput for a learner with state that is neither a parameter nor `Fixed`.
    """
    require_no_state(learner)
    x, y, x_query, _ = episodes

    def one(x: jax.Array, y: jax.Array, x_query: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        prediction, pulled_back = jax.vjp(partial(learner, x, y), x_query)
        units = jnp.eye(prediction.size, dtype=prediction.dtype)
        return prediction, [pulled_back(unit)[0] for unit in units]

    predictions, rows = jax.vmap(one, in_axes=-1, out_axes=-1)(x, y, x_query)
    return Observation(predictions, jnp.stack(rows))


def observed_loss(observation: Observation, learner: Learner, episodes: Episode) -> jax.Array:
    """`loss` of an observed learner, from its predictions if they are all that the loss depends on."""
    if type(episodes).loss is Episode.loss:
        return squared_error(observation.predictions, episodes)
    return loss(learner, episodes)


def difference(learner: Observation, reference: Observation, learner_loss: jax.Array) -> Comparison:
    """Compare two observations on the same episodes, given the learner's loss on them."""
    own, other = learner.sensitivities, reference.sensitivities
    own_norm, other_norm = _norm(own), _norm(other)
    products = jnp.sum(own * other, axis=(0, 1))
    # The sensitivities of a learner that ignores its query are 0 and have no direction: cosine 0.
    norms = own_norm * other_norm
    cosine = jnp.where(norms > 0, products / jnp.where(norms > 0, norms, 1), 0)
    distance = jnp.linalg.norm(learner.predictions - reference.predictions, axis=0)
    return Comparison(
        loss=learner_loss,
        prediction_difference=jnp.mean(distance),
        model_difference=jnp.mean(_norm(own - other)),
        model_cosine=jnp.mean(cosine),
        norm_ratio=jnp.mean(own_norm) / jnp.mean(other_norm),
    )


def compare(learner: Learner, reference: Learner, episodes: Episode) -> Comparison:
    """Compare a learner with a reference on the same episodes."""
    own, other = observe(learner, episodes), observe(reference, episodes)
    return difference(own, other, observed_loss(own, learner, episodes))


def permutation_sensitivity(
    learner: Learner, episodes: Episode, key: jax.Array, permutations: int = 8
) -> jax.Array:
    """Mean change of predictions under permutation of the context, relative to their deviation.

        mean |f(permuted context) - f(context)| / root mean square of f - mean f

    The means are over episodes and over `permutations` random orders of each; labels are permuted with
    their inputs. The value is 0 for a learner that does not depend on the order, and about 1.1 for one
    whose predictions for two orders are as different as for two episodes. Where all predictions are
    equal, it is 0 if permutation changes none of them and infinite otherwise.
    """
    require_size("permutations", permutations)
    x, y, x_query, _ = episodes
    predictions = predict(learner, episodes)
    ranks = jax.random.uniform(key, (permutations, x.shape[0], x.shape[-1]))
    orders = jnp.argsort(ranks, axis=1)

    def mean_change(order: jax.Array) -> jax.Array:
        rows = order[:, None, :]
        x_permuted, y_permuted = (jnp.take_along_axis(values, rows, axis=0) for values in (x, y))
        changed = jax.vmap(learner, in_axes=-1, out_axes=-1)(x_permuted, y_permuted, x_query)
        return jnp.mean(jnp.linalg.norm(changed - predictions, axis=0))

    center = jnp.mean(predictions, axis=1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.sum((predictions - center) ** 2, axis=0)))
    change = jnp.mean(jax.lax.map(mean_change, orders))
    return jnp.where(change > 0, change / deviation, 0)


def over_snapshots(measure: Callable[..., Any], learners: Any, *context: Any) -> Any:
    """`measure(learner, *context)` for each learner of a history.

    Every leaf of `learners` has leading axes (seed, snapshot), and so have the leaves of the result.
    Learners are measured one after another: memory use does not grow with their number, and the
    products with a learner's weights are those of large matrices. The same function with other
    histories and contexts of the same shapes is not compiled again.
    """
    seeds, snapshots = np.shape(jax.tree.leaves(learners)[0])[:2]

    def flat(leaf: np.ndarray) -> np.ndarray:
        return np.reshape(leaf, (seeds * snapshots, *np.shape(leaf)[2:]))

    rows = jax.tree.map(flat, learners)
    values = jax.device_get(_over_learners(measure, rows, context))
    return jax.tree.map(lambda leaf: leaf.reshape(seeds, snapshots, *leaf.shape[1:]), values)


@partial(jax.jit, static_argnames="measure")
def _over_learners(measure: Callable[..., Any], learners: Any, context: tuple) -> Any:
    return jax.lax.map(lambda learner: measure(learner, *context), learners)


def nearest_saddle(
    final_loss: jax.Array | np.ndarray,
    reference_loss: jax.Array | np.ndarray | float,
    zero_loss: float,
    saddle_losses: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Index m of the saddle point whose loss is nearest to a final loss, (seed,); NaN for no number.

    `saddle_losses` are the losses at which training can rest, in decreasing order: the first is that of
    predicting 0 and the last that of the reference, such as those of `theory.saddle_losses`. Only their
    relative distances matter. They are moved to the losses that were measured for the reference and for
    predicting 0 on the same episodes as `final_loss`, (seed,): that removes most sampling error.

    Saddle points whose loss exceeds that of the reference by at most `RESOLUTION` of its distance from
    predicting 0 count as the reference, as do losses that are equally near to both. Losses alone do not
    show whether training is at rest: a loss that is still falling counts for the level that it passes.
    """
    final, levels = np.asarray(final_loss, float), np.asarray(saddle_losses, float)
    reference, last = np.asarray(reference_loss, float), len(levels) - 1
    span = levels[0] - levels[-1]
    fractions = (levels - levels[-1]) / (span if span > 0 else 1.0)
    places = reference[..., None] + fractions * (zero_loss - reference[..., None])
    # Of equal distances the last one counts.
    nearest = last - np.argmin(np.abs(final[..., None] - places)[..., ::-1], axis=-1)
    resolved = np.where(fractions[nearest] > RESOLUTION, nearest, last)
    return np.where(np.isfinite(final), resolved, np.nan)


def on_plateau(
    final_loss: jax.Array | np.ndarray,
    reference_loss: jax.Array | np.ndarray | float,
    zero_loss: float,
    saddle_losses: Sequence[float] | np.ndarray = (1.0, 0.0),
) -> np.ndarray:
    """Whether a final loss is nearer to that of a saddle point than to its reference's, (seed,).

    The loss stays near that of a saddle point, for a time that depends on the seed, before it drops: a
    run that ends there does not show where training leads. By default predicting 0 is the only saddle
    point, as the others are known for one linear attention layer only (`theory.saddle_losses`): a model
    of another kind can end above its reference without being on a plateau. A loss that is not finite
    is on no plateau. See `nearest_saddle`.
    """
    nearest = nearest_saddle(final_loss, reference_loss, zero_loss, saddle_losses)
    return nearest < len(saddle_losses) - 1


def _norm(sensitivities: jax.Array) -> jax.Array:
    """Frobenius norm of each episode's (m, d) matrix, (episodes,)."""
    return jnp.sqrt(jnp.sum(sensitivities**2, axis=(0, 1)))
