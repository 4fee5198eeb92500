"""The posterior mean over a pool compared with Bayes' rule in loops, and with what is known of it."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from compiled import drawn, loss, predict
from scipy import stats

from toyicl.algorithms import PoolPosterior, Ridge
from toyicl.core.errors import BadInput
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.pool import PooledRegression

BASE = LinearRegression(
    dim=3, outputs=2, context_size=4, input_distribution="normal", label_noise=0.7
)
TASK = PooledRegression(base=BASE, count=6)


def by_bayes_rule(task, x, y, x_query):
    """The posterior mean with a density of the normal distribution for each label."""
    pool, noise = np.asarray(task.pool()), task.base.label_noise
    joint = np.full(task.count, 1 / task.count)
    for k in range(task.count):
        for i in range(task.context_size):
            for j in range(task.outputs):
                joint[k] *= stats.norm(pool[j, :, k] @ x[i], noise).pdf(y[i, j])
    posterior = joint / joint.sum()
    return sum(posterior[k] * pool[:, :, k] @ x_query for k in range(task.count))


@pytest.mark.parametrize("noise", [0.1, 0.7, 3.0])
def test_is_the_posterior_mean(noise, close):
    task = replace(TASK, base=replace(BASE, label_noise=noise))
    learner = jax.jit(PoolPosterior.bayes(task))
    episodes = drawn(task, 2, 10)
    for index in range(10):
        x, y, x_query, _ = (np.asarray(field[..., index]) for field in episodes)
        close(learner(x, y, x_query), by_bayes_rule(task, x, y, x_query), 1e-9)


def test_no_learner_of_the_tests_is_better_on_the_pool():
    episodes = drawn(TASK, 3, 20_000)
    best = loss(PoolPosterior.bayes(TASK), episodes)
    others = [PoolPosterior(TASK.pool(), noise) for noise in (0.4, 1.2)]
    for other in (*others, Ridge.bayes(BASE)):
        assert best < loss(other, episodes)


def test_a_large_pool_gives_ridge_regression():
    """The pool is then as good as the normal distribution that it is drawn from."""
    task = PooledRegression(base=replace(BASE, outputs=1, dim=2), count=200_000)
    episodes = drawn(task.base, 4, 50)
    ridge = predict(Ridge.bayes(task.base), episodes)
    found = predict(PoolPosterior.bayes(task), episodes)
    assert np.sqrt(np.mean((found - ridge) ** 2)) < 0.02


def test_refuses_what_has_no_posterior():
    with pytest.raises(BadInput, match=r"task.base.label_noise must be above 0"):
        PoolPosterior.bayes(replace(TASK, base=replace(BASE, label_noise=None)))
    with pytest.raises(BadInput, match="noise must be a finite number above 0"):
        PoolPosterior(TASK.pool(), 0.0)
    with pytest.raises(BadInput, match=r"pool must be of shape \(outputs, dim, count\)"):
        PoolPosterior(np.zeros((2, 3)), 1.0)
