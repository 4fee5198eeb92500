"""Layers of linear attention that are fitted by least squares to contexts of a finite pool of tasks."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.core.episode import Episode, Learner, predict
from toyicl.models.reduced_attention import ReducedAttention, least_squares_attention
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.pool import PooledRegression

NEW_SEED = 2**31 - 1
"""Seed of the weights that learners are tested on; pools have small seeds."""


class Errors(NamedTuple):
    """Squared errors against labels with noise, as Lu et al. (2025) give them."""

    new: jax.Array
    """On weights drawn anew."""
    pool: jax.Array
    """On weights of the pool."""


def pool_task(
    dim: int, kappa: float, alpha: float, noise_variance: float, seed: int = 0
) -> PooledRegression:
    """The task of Lu et al. (2025): x ~ N(0, I / d) and weights on the sphere of squared norm d.

    There are alpha d context points and kappa d weights, both rounded to whole numbers.
    """
    base = LinearRegression(
        dim=dim,
        context_size=round(alpha * dim),
        input_distribution="normal",
        input_range=dim**-0.5,
        label_noise=noise_variance**0.5,
    )
    return PooledRegression(
        base=base, count=round(kappa * dim), pool_seed=seed, weight_norm=dim**0.5
    )


def pool_noise(task: PooledRegression) -> float | jax.Array:
    """Standard deviation of the label noise of a task."""
    return 0.0 if task.base.label_noise is None else task.base.label_noise


def fit(task: PooledRegression, contexts: int, key: jax.Array) -> ReducedAttention:
    """The layer with the least squared error on contexts of the pool; queries have noisy labels."""
    episode_key, noise_key = jax.random.split(key)
    episodes = task.sample(episode_key, contexts)
    noise = pool_noise(task) * jax.random.normal(noise_key, episodes.y_query.shape)
    noisy = episodes._replace(y_query=episodes.y_query + noise)
    return least_squares_attention(noisy, task.base.input_range**2)


def held_out(task: PooledRegression, episodes: int) -> tuple[Episode, Episode]:
    """Episodes of new weights, and of weights of the pool; the same for every learner on a pool.

    New weights have the distribution of those of the pool, which may be a sphere: they are a pool of
    as many weights as episodes, with another seed.
    """
    new_key, pool_key = jax.random.split(jax.random.fold_in(jax.random.key(2025), task.pool_seed))
    others = replace(task, count=episodes, pool_seed=NEW_SEED)
    new = task.base.sample_given(new_key, others.pool())
    return new, task.sample(pool_key, episodes)


def errors(learner: Learner, task: PooledRegression, tests: tuple[Episode, Episode]) -> Errors:
    """Errors of a learner on new weights and on those of the pool."""
    noise = pool_noise(task) ** 2
    return Errors(*(jnp.mean((predict(learner, one) - one.y_query) ** 2) + noise for one in tests))


@partial(jax.jit, static_argnames=("contexts", "episodes"))
def fitted_errors(task: PooledRegression, key: jax.Array, contexts: int, episodes: int) -> Errors:
    """Errors of a layer that is fitted to a number of contexts, on a number of test episodes each."""
    layer = fit(task, contexts, key)
    return errors(layer, task, held_out(task, episodes))
