"""One softmax head on normal inputs: quadrature against enumeration, simulation, and limits."""

from dataclasses import replace

import numpy as np
import pytest
from compiled import drawn, predict

from toyicl import theory
from toyicl.algorithms.kernel import NadarayaWatson
from toyicl.core.errors import BadInput
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.softmax_head import head_moments

TASK = LinearRegression(
    dim=3, outputs=2, context_size=5, input_distribution="normal", input_range=0.8, weight_scale=1.5
)


def within(values, expected, errors=4):
    values = np.asarray(values)
    error = values.std() / np.sqrt(values.size)
    assert abs(values.mean() - expected) < errors * error, (values.mean(), expected, error)


def two_points(slope):
    """Moments for two points by a fine sum over both scores."""
    z = np.linspace(-9, 9, 1201)
    normal = np.exp(-(z**2) / 2)
    mass = np.outer(normal, normal) / normal.sum() ** 2
    first = 1 / (1 + np.exp(slope * (z[None] - z[:, None])))
    mean = first * z[:, None] + (1 - first) * z[None]
    return [np.sum(mass * f) for f in (mean, mean**2, first**2 + (1 - first) ** 2)]


@pytest.mark.parametrize("slope", [-1.5, 0.0, 0.4, 3.0])
def test_moments_of_two_points_are_a_sum_over_both(slope):
    found = head_moments(np.array([slope]), 2)
    actual = [found.mean[0], found.square[0], found.concentration[0]]
    np.testing.assert_allclose(actual, two_points(slope), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("points", [1, 7, 40])
def test_moments_are_those_of_simulated_weights(points):
    z = np.random.default_rng(points).normal(size=(100_000, points))
    weights = np.exp(0.9 * z)
    weights /= weights.sum(axis=1, keepdims=True)
    means = np.sum(weights * z, axis=1)
    found = head_moments(np.array([0.9]), points)
    if points > 1:
        within(means, found.mean[0])
        within(np.sum(weights**2, axis=1), found.concentration[0])
    else:
        assert found.concentration[0] == pytest.approx(1)
        assert found.mean[0] == pytest.approx(0, abs=1e-12)
    within(means**2, found.square[0])


@pytest.mark.parametrize("noise", [None, 0.7])
def test_loss_and_distance_are_those_of_a_simulated_head(noise):
    task, scale, factor = replace(TASK, label_noise=noise), 0.6, 1.4
    episodes = drawn(task, 0, 100_000)
    answers = np.asarray(predict(NadarayaWatson(scale), episodes))
    label = np.asarray(episodes.y_query)
    losses = 0.5 * np.sum((factor * answers - label) ** 2, axis=0)
    within(losses, theory.softmax_head_loss(task, scale, factor))
    limit = scale * 0.8**2 * label
    within(np.sum((answers - limit) ** 2, axis=0), theory.softmax_head_distance(task, scale))


def test_the_optimum_is_below_its_neighbours_and_above_the_linear_step():
    best = theory.softmax_head_optimum(TASK)
    assert theory.softmax_head_loss(TASK, best.scale, best.factor) == pytest.approx(best.loss)
    assert theory.softmax_head_loss(TASK, -best.scale, -best.factor) == pytest.approx(best.loss)
    for scale in (0.97, 1.03):
        for factor in (0.97, 1.0, 1.03):
            other = theory.softmax_head_loss(TASK, scale * best.scale, factor * best.factor)
            assert other > best.loss
    assert theory.gradient_descent_optimum(TASK).loss < best.loss < theory.predict_zero_loss(TASK)


def test_the_optimum_depends_on_the_range_of_inputs_through_its_units_alone():
    best, unit = (theory.softmax_head_optimum(replace(TASK, input_range=r)) for r in (0.8, 1.0))
    assert best.scale * 0.8**2 == pytest.approx(unit.scale, rel=1e-4)
    assert best.loss == pytest.approx(0.8**2 * unit.loss)


def test_the_distance_is_proportional_to_1_over_n_in_large_contexts():
    task = LinearRegression(dim=4, context_size=100_000, input_distribution="normal")
    t = 0.18**2
    expected = 4 * (1 - 2 * t) ** -2 + 4 * t * (1 - 2 * t) ** -3
    assert 100_000 * theory.softmax_head_distance(task, 0.18) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dim", [1, 4])
def test_the_ratio_to_the_linear_step_approaches_its_limit(dim):
    limit = theory.softmax_head_limit_ratio(dim)
    distances = []
    for size in (1000, 100_000):
        task = LinearRegression(dim=dim, context_size=size, input_distribution="normal")
        step = theory.gradient_descent_optimum(task).loss
        distances.append(limit - theory.softmax_head_optimum(task).loss / step)
    assert 0 < distances[1] < 0.005 * limit
    assert distances[1] < distances[0] / 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_distribution": "uniform"}, r"task\.input_distribution must be normal"),
        ({"covariance": (1.0, 2.0, 3.0)}, r"task\.covariance must be None"),
        ({"distractors": 1}, r"task\.distractors must be None or 0"),
    ],
)
def test_other_tasks_are_refused(change, message):
    with pytest.raises(BadInput, match=message):
        theory.softmax_head_loss(replace(TASK, **change), 0.5, 1.0)


def test_a_number_of_points_that_is_no_size_is_refused():
    with pytest.raises(BadInput, match="points must be a whole number of at least 1"):
        head_moments(np.array([0.1]), 0)


def test_weights_of_scale_0_have_no_best_head():
    with pytest.raises(BadInput, match=r"task\.weight_scale must be a finite number above 0"):
        theory.softmax_head_optimum(replace(TASK, weight_scale=0.0))
