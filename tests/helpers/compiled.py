"""Episodes, predictions and losses for tests, each from one program.

One operation after another compiles a program for each: some thirty for a batch of episodes, and some
twenty for a loss.
"""

from functools import partial

import jax

from toyicl.analysis import metrics
from toyicl.core import episode

loss = jax.jit(metrics.loss)
predict = jax.jit(episode.predict)
answer = jax.jit(lambda learner, *one: learner(*one))
"""A learner's prediction for one episode."""


def drawn(task, seed, episodes):
    """What `task.sample` draws with the key of a seed, on the host."""
    return jax.device_get(_draw(task, jax.random.key(seed), episodes))


@partial(jax.jit, static_argnums=2)
def _draw(task, key, episodes):
    return task.sample(key, episodes)
