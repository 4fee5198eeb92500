"""Recall, its mixture with regression, and dynamics: the contents of their episodes."""

import jax
import numpy as np
import pytest

from toyicl.tasks.dynamics import Dynamics
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.recall import Mixture, Recall

BASE = LinearRegression(dim=3, outputs=2, context_size=5)
TASKS = {
    "recall": Recall(base=BASE),
    "mixture": Mixture(base=BASE, recall_fraction=0.3),
    "dynamics": Dynamics(dim=3, context_size=6, reflections=3),
}
COUNT = 400
sample = jax.jit(lambda task, key: task.sample(key, COUNT))


@pytest.fixture(scope="module")
def batches():
    return {name: sample(task, jax.random.key(0)) for name, task in TASKS.items()}


def asked(episodes):
    """For each point and episode, whether the query is that point and its label that point's."""
    same_input = np.all(np.equal(episodes.x, episodes.x_query[None]), axis=1)
    return same_input & np.all(np.equal(episodes.y, episodes.y_query[None]), axis=1)


def test_the_query_of_recall_is_one_of_the_points(batches):
    found = asked(batches["recall"])
    np.testing.assert_array_equal(found.sum(axis=0), 1)
    often = found.mean(axis=1)
    assert np.all(np.abs(often - 1 / 5) < 4 * np.sqrt(0.16 / COUNT)), (
        "all points are equally likely"
    )


def test_labels_of_recall_are_independent_of_inputs(batches):
    """They have mean 0, variance 1 and no correlation with inputs, which are those of the base task."""
    x, y, *_ = (np.asarray(field) for field in batches["recall"])
    assert abs(y.mean()) < 4 / np.sqrt(y.size)
    assert abs(y.var() - 1) < 4 * np.sqrt(2 / y.size)
    products = np.einsum("nde,nme->dm", x, y) / np.sqrt(y.size / 2) / x.std()
    assert np.abs(products).max() < 4
    assert np.abs(x).max() < 0.5
    assert abs(12 * x.var() - 1) < 0.1


def test_a_mixture_has_its_fraction_of_recall(batches):
    recalls = asked(batches["mixture"]).any(axis=0)
    assert abs(recalls.mean() - 0.3) < 4 * np.sqrt(0.21 / COUNT)


def test_the_other_episodes_of_a_mixture_are_regression(batches, close):
    """Least squares on the N > d points of the context predicts the query exactly."""
    x, y, x_query, y_query = (np.moveaxis(np.asarray(f), -1, 0) for f in batches["mixture"])
    recalls = asked(batches["mixture"]).any(axis=0)
    solved = []
    for one in range(COUNT):
        weights, left, *_ = np.linalg.lstsq(x[one], y[one])
        solved.append(left.max() < 1e-20)
        if solved[-1]:
            close(x_query[one] @ weights, y_query[one], 1e-8)
    np.testing.assert_array_equal(solved, ~recalls)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_mixture_at_fraction_zero_or_one_is_one_task(fraction):
    """The fraction is traced, so that both are one program."""
    drawn = sample(Mixture(base=BASE, recall_fraction=fraction), jax.random.key(1))
    assert asked(drawn).any(axis=0).all() == bool(fraction)
    assert asked(drawn).any(axis=0).any() == bool(fraction)


def test_labels_are_the_next_states_and_the_query_is_the_last(batches):
    x, y, x_query, _ = (np.asarray(field) for field in batches["dynamics"])
    np.testing.assert_array_equal(x[1:], y[:-1])
    np.testing.assert_array_equal(x_query, y[-1])


def test_the_norm_of_the_states_is_constant(batches, close):
    x, y, x_query, y_query = (np.asarray(field) for field in batches["dynamics"])
    norms = np.linalg.norm([*x, *y, x_query, y_query], axis=1)
    close(norms, np.broadcast_to(norms[0], norms.shape))
    assert abs((norms[0] ** 2).mean() - 1) < 4 * np.sqrt(2 / 3 / COUNT), "s_0 ~ N(0, I / d)"


def test_one_orthogonal_matrix_maps_each_state_to_the_next(batches, close):
    """Least squares on more steps than entries finds the matrix, which differs between episodes.

    Three reflections in three dimensions have determinant -1, and the states span the space.
    """
    x, y, x_query, y_query = (np.moveaxis(np.asarray(f), -1, 0) for f in batches["dynamics"])
    maps = []
    for one in range(COUNT):
        if np.linalg.cond(x[one]) > 100:
            continue
        maps.append(np.linalg.lstsq(x[one], y[one])[0].T)
        close(x[one] @ maps[-1].T, y[one], 1e-9)
        close(maps[-1] @ x_query[one], y_query[one], 1e-9)
        close(maps[-1] @ maps[-1].T, np.eye(3), 1e-9)
        close(np.linalg.det(maps[-1]), -1.0, 1e-9)
    assert len(maps) > COUNT / 2
    assert np.abs(np.diff(maps, axis=0)).max(axis=(1, 2)).min() > 1e-3


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (
            Mixture,
            {"recall_fraction": -0.1},
            r"^Mixture\.recall_fraction must be between 0 and 1, got -0",
        ),
        (Dynamics, {"reflections": 0}, r"^Dynamics\.reflections must be a whole number"),
    ],
)
def test_bad_settings_are_named(task, changes, message):
    with pytest.raises(ValueError, match=message):
        task(**changes)
