"""Labels that mix a linear function with a nonlinear teacher, against loops in NumPy."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.nonlinear import TeacherRegression

BASE = LinearRegression(dim=3, outputs=2, context_size=4, input_range=2.0)
KEY, EPISODES = jax.random.key(3), 5
sample = jax.jit(lambda task, key: task.sample(key, EPISODES))


def task(**changes):
    return TeacherRegression(base=BASE, gain=1.7, hidden=6, **changes)


def linear():
    """The batch that the base task draws from the key that it is given."""
    return sample(BASE, jax.random.split(KEY)[0])


def network(x, inward, outward, gain):
    """sum_h v_h tanh(gain u_h . x) / sqrt(hidden), for one point of one episode."""
    total = np.zeros(outward.shape[1])
    for u, v in zip(inward, outward, strict=True):
        total += v * np.tanh(gain * sum(u * x))
    return total / np.sqrt(len(inward))


@pytest.mark.parametrize("teacher", ["sine", "network"])
def test_at_fraction_zero_episodes_are_those_of_the_base_task(teacher, close):
    """Up to rounding of the labels: two programs may add the products of a sum in other orders."""
    drawn, plain = sample(task(teacher=teacher, fraction=0.0), KEY), linear()
    for name in ("x", "x_query"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(plain, name))
    for name in ("y", "y_query"):
        close(getattr(drawn, name), getattr(plain, name), 1e-14)


def test_the_sine_teacher_is_a_function_of_the_linear_label(close):
    drawn, plain = sample(task(teacher="sine"), KEY), linear()
    np.testing.assert_array_equal(drawn.x, plain.x)
    for own, label in ((drawn.y, plain.y), (drawn.y_query, plain.y_query)):
        close(own, np.sin(1.7 * np.asarray(label)))


def test_the_network_teacher_equals_a_loop_over_its_units(close):
    drawn = sample(task(teacher="network"), KEY)
    weights = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (6, 5, EPISODES)))
    x, x_query = np.asarray(drawn.x), np.asarray(drawn.x_query)
    for episode in range(EPISODES):
        inward, outward = weights[:, :3, episode], weights[:, 3:, episode]
        close(drawn.y_query[:, episode], network(x_query[:, episode], inward, outward, 1.7))
        for point in range(4):
            expected = network(x[point, :, episode], inward, outward, 1.7)
            close(drawn.y[point, :, episode], expected)
    assert np.std(weights[0, 0]) > 0, "new in every episode"


@pytest.mark.parametrize("teacher", ["sine", "network"])
def test_between_zero_and_one_labels_are_a_weighted_mean(teacher, close):
    """The fraction is traced, so that all three are one program."""
    none, some, all_of_it = (
        sample(task(teacher=teacher, fraction=fraction), KEY) for fraction in (0.0, 0.3, 1.0)
    )
    close(some.y, 0.7 * np.asarray(none.y) + 0.3 * np.asarray(all_of_it.y))
    close(some.y_query, 0.7 * np.asarray(none.y_query) + 0.3 * np.asarray(all_of_it.y_query))


def test_a_network_of_small_gain_is_nearly_linear(close):
    """Labels are then linear in the inputs: least squares on N > d points has no residual."""
    flat = replace(task(teacher="network"), gain=1e-4)
    x, y, *_ = (np.asarray(field)[..., 0] for field in sample(flat, KEY))
    close(x @ np.linalg.lstsq(x, y)[0], y, 1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction": 1.5}, r"^TeacherRegression\.fraction must be between 0 and 1, got 1\.5$"),
        ({"gain": 0.0}, r"^TeacherRegression\.gain must be a finite number above 0, got 0\.0$"),
        ({"hidden": 0}, r"^TeacherRegression\.hidden must be a whole number of at least 1, got 0$"),
        (
            {"base": LinearRegression(label_noise=0.1)},
            r"^TeacherRegression\.base\.label_noise must be None for labels of a teacher, got 0\.1$",
        ),
        (
            {"base": LinearRegression(distractors=2)},
            r"^TeacherRegression\.base\.distractors must be None for labels of a teacher, got 2$",
        ),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TeacherRegression(**changes)
