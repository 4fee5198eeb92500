"""Pools of weights: what they hold, and episodes whose weights are in them."""

from dataclasses import replace

import numpy as np
import pytest
from compiled import drawn

from toyicl.core.errors import BadSetting
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.pool import PooledRegression

BASE = LinearRegression(dim=3, outputs=2, context_size=6, input_distribution="normal")
TASK = PooledRegression(base=BASE, count=4)


def weights_of(task, episodes):
    """The matrix of each episode, by least squares, (episodes, m, d)."""
    x, y, _, _ = (np.asarray(field) for field in drawn(task, 0, episodes))
    return np.array([np.linalg.lstsq(x[..., i], y[..., i])[0].T for i in range(episodes)])


def test_every_episode_has_a_matrix_of_the_pool_and_all_are_drawn_equally_often():
    pool = np.moveaxis(np.asarray(TASK.pool()), -1, 0)
    found = weights_of(TASK, 1000)
    distances = np.linalg.norm(found[:, None] - pool[None], axis=(2, 3))
    assert distances.min(axis=1).max() < 1e-8
    counts = np.bincount(distances.argmin(axis=1), minlength=4)
    assert np.abs(counts - 250).max() < 4 * np.sqrt(250 * 0.75)


def test_the_query_has_the_label_of_the_same_matrix(close):
    _, _, x_query, y_query = (np.asarray(field) for field in drawn(TASK, 0, 20))
    close(np.einsum("emd,de->me", weights_of(TASK, 20), x_query), y_query, 1e-8)


def test_the_pool_is_that_of_its_seed():
    assert np.all(TASK.pool() == replace(TASK, base=replace(BASE, context_size=9)).pool())
    assert not np.any(TASK.pool() == replace(TASK, pool_seed=1).pool())


def test_a_pool_may_be_on_a_sphere(close):
    task = replace(TASK, weight_norm=1.7, count=50)
    close(np.linalg.norm(task.pool(), axis=(0, 1)), np.full(50, 1.7), 1e-12)
    directions = np.asarray(task.pool()) / np.asarray(replace(task, weight_norm=None).pool())
    assert np.ptp(directions, axis=(0, 1)).max() < 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "count must be a whole number of at least 1"),
        ({"pool_seed": -1}, "pool_seed must be a whole number of at least 0"),
        ({"weight_norm": 0.0}, "weight_norm must be a finite number above 0"),
        ({"base": TASK}, "base must be a LinearRegression"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(BadSetting, match=message):
        replace(TASK, **changes)
