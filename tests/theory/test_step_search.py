"""The search for parameters: problems with known minima, derivatives, precision and compilations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import step_search
from toyicl.theory.step_search import (
    LogLoss,
    Steps,
    descent_residual,
    lowest,
    minimise,
    unit_problem,
)

TASK = LinearRegression(dim=3, context_size=6, label_noise=0.2)


def rosenbrock(parameters, scale):
    """Minimum 0 where the first is 1 and the others are its square."""
    first, others = parameters["first"], parameters["others"]
    return (1 - first) ** 2 + scale * jnp.sum((others - first**2) ** 2)


def two_wells(x):
    """Minima near -1 and 1, of which the first is lower; not finite above 2."""
    return jnp.where(x > 2, jnp.nan, (x**2 - 1) ** 2 + 0.1 * x)


def valley(parameters, target):
    return jnp.sum((parameters / target - 1) ** 2)


def eager_loss(steps, count):
    values, weights, noise = unit_problem(TASK)
    left, moved = np.ones_like(values), values
    rates = np.broadcast_to(steps.rates, count)
    inner = steps.curvatures if len(steps.curvatures) else np.zeros(1)
    curvatures = np.append(np.broadcast_to(inner, count - 1), 0.0)
    for rate, curvature in zip(rates, curvatures, strict=True):
        left, moved = left * (1 - rate * moved), moved * (1 - curvature * moved) ** 2
    return np.log(weights @ (left**2 + noise / values * (1 - left) ** 2) / weights.sum())


def test_minimum_of_a_pytree_of_parameters():
    start = {"first": np.array(-1.2), "others": np.array([1.0, 0.5])}
    found = minimise(rosenbrock, [start], 10.0)
    assert found.value < 1e-12
    np.testing.assert_allclose(found.parameters["first"], 1, atol=1e-6)
    np.testing.assert_allclose(found.parameters["others"], [1, 1], atol=1e-6)


def test_the_lowest_of_several_minima_is_found():
    right = minimise(two_wells, [np.array(0.8)])
    both = minimise(two_wells, [np.array(0.8), np.array(-0.8)])
    assert float(right.parameters) == pytest.approx(0.987, abs=1e-2)
    assert float(both.parameters) == pytest.approx(-1.012, abs=1e-2)
    assert both.value < right.value


def test_points_that_are_not_finite_are_rejected():
    found = minimise(two_wells, [np.array(3.0), np.array(0.8)])
    assert float(found.parameters) == pytest.approx(0.987, abs=1e-2)
    assert minimise(two_wells, [np.array(3.0)]).value == step_search.REJECTED
    assert lowest(two_wells, [np.array(3.0), np.array(0.5), np.array(1.0)]) == 1.0


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_units_of_parameters_do_not_matter(scale):
    target = scale * np.array([1.0, -3.0])
    found = minimise(valley, [scale * np.array([2.0, 0.0])], target)
    np.testing.assert_allclose(found.parameters, target, rtol=1e-6)


STEPS = {
    "gradient descent": Steps(np.array([0.9])),
    "its own rate in each step": Steps(np.array([0.4, 1.1, 0.7])),
    "GD++": Steps(np.array([0.9]), np.array([0.2])),
    "GD++, its own in each step": Steps(np.array([0.5, 1.0, 1.5]), np.array([0.2, 0.1])),
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_the_objective_is_the_loop_and_its_derivative_the_difference(steps):
    """Compared with a loop in NumPy, and with differences of that loop."""
    count, objective, problem = 3, LogLoss(descent_residual), unit_problem(TASK)
    flat, shaped = jax.flatten_util.ravel_pytree(steps)
    gradient = jax.jacfwd(lambda point: objective(shaped(point), problem, count))(flat)
    np.testing.assert_allclose(objective(steps, problem, count), eager_loss(steps, count), 1e-12)
    for index, slope in enumerate(gradient):
        change = 1e-6 * np.eye(flat.size)[index]
        ends = [eager_loss(shaped(flat + sign * change), count) for sign in (1, -1)]
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, 1e-5)


def test_more_entries_than_steps_have_no_effect():
    values = jnp.linspace(0, 1, 5)
    three = Steps(np.array([0.5, 1.0, 1.5]), np.array([0.2, 0.1]))
    longer = Steps(np.append(three.rates, 9.0), np.append(three.curvatures, [7.0, 8.0]))
    np.testing.assert_array_equal(
        descent_residual(three, values, 3), descent_residual(longer, values, 3)
    )


@pytest.mark.parametrize("wide", [True, False])
def test_searches_are_in_float64_also_where_jax_is_not(wide):
    """And in a function that is being traced, whose own precision stays as it is."""

    def within(x):
        return x * GradientDescent.shared(TASK, 3).learning_rate[...]

    with jax.enable_x64(wide):
        found = theory.gd_shared(TASK, 3)
        traced = jax.jit(within)(jnp.ones(()))
        assert traced.dtype == ("float64" if wide else "float32")
    with jax.enable_x64(True):
        assert found == theory.gd_shared(TASK, 3)
    assert float(traced) == pytest.approx(found.learning_rates[0], 1e-6)
    assert minimise(valley, [np.ones(1, np.float32)], np.ones(1)).parameters.dtype == np.float64


def test_tasks_and_numbers_of_steps_share_compiled_programs():
    def search(task, steps):
        theory.gd_shared(task, steps)
        theory.gd_per_step(task, steps)
        theory.gdpp_shared(task, steps)

    search(TASK, 2)
    compiled = step_search._value_and_slopes._cache_size()
    for steps in (3, 5):
        search(replace(TASK, context_size=4, input_distribution="normal"), steps)
    assert step_search._value_and_slopes._cache_size() == compiled


def test_problems_without_eigenvalues_that_determine_the_loss_are_refused():
    for changes, name in (
        ({"distractors": 2}, "task.distractors"),
        ({"weight_scale": 0.0}, "task.weight_scale"),
        ({"covariance": (1.0, 2.0, 3.0)}, "task.covariance"),
        ({"weight_covariance": (1.0, 2.0, 3.0)}, "task.weight_covariance"),
        ({"rotated": True}, "task.rotated"),
    ):
        with pytest.raises(ValueError, match=name):
            unit_problem(replace(TASK, **changes))
