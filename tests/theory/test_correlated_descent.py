"""Several scalar steps on correlated inputs, against simulations and other closed forms."""

from dataclasses import replace

import numpy as np
import pytest
from compiled import drawn, predict

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.iterative import PreconditionedGradientDescent
from toyicl.tasks.linear import LinearRegression

VARIANCES = (1.0, 0.5, 0.25)
SPREAD = LinearRegression(
    dim=3, context_size=8, input_distribution="normal", covariance=VARIANCES, weight_scale=1.3
)
PRIOR = replace(SPREAD, weight_covariance=(1.0, 2.0, 4.0))
PLAIN = replace(SPREAD, covariance=None)
TASKS = {"fixed": SPREAD, "rotated": replace(SPREAD, rotated=True), "prior": PRIOR}


def errors_of(learner, task):
    """Losses of episodes of a task, (episodes,)."""
    episodes = drawn(task, 7, 40_000)
    return 0.5 * np.sum(np.asarray(predict(learner, episodes) - episodes.y_query) ** 2, axis=0)


def near(losses, expected):
    """Whether simulated losses have the expected mean, which has an error of a few per cent itself."""
    error = losses.std() / np.sqrt(losses.size)
    assert abs(losses.mean() - expected) < 3 * error + 0.03 * expected


@pytest.mark.parametrize(
    "name",
    ["rotated", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fixed", "prior"))],
)
def test_losses_are_those_of_learners_that_take_the_steps(name):
    task = TASKS[name]
    for per_step in (False, True):
        best = theory.correlated_gd(task, 2, per_step=per_step)
        rates = best.learning_rates if per_step else best.learning_rates[0]
        near(errors_of(GradientDescent(np.array(rates), 2), task), best.loss)
        curved = theory.correlated_gdpp(task, 2, per_layer=per_step)
        rates = np.array(curved.learning_rates if per_step else curved.learning_rates[0])
        learner = GradientDescentPlusPlus(rates, curved.curvatures[0], 2)
        near(errors_of(learner, task), curved.loss)
        assert curved.loss < best.loss


@pytest.mark.parametrize("task", [SPREAD, PRIOR])
def test_one_step_is_the_closed_form(task):
    """Up to the error of the sample, which the closed form does not have."""
    exact, found = theory.best_scalar_step(task), theory.correlated_gd(task, 1)
    assert found.loss == pytest.approx(exact.loss, rel=0.02)
    assert found.learning_rates[0] == pytest.approx(exact.learning_rates[0], rel=0.02)


@pytest.mark.slow
def test_without_correlation_it_is_the_spectrum_of_isotropic_inputs():
    for steps in (1, 2):
        found = (
            theory.correlated_gd(PLAIN, steps),
            theory.correlated_gd(PLAIN, steps, per_step=True),
        )
        exact = theory.gd_shared(PLAIN, steps), theory.gd_per_step(PLAIN, steps)
        for one, other in zip(found, exact, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=0.03)
    curved = theory.correlated_gdpp(PLAIN, 2)
    assert curved.loss == pytest.approx(theory.gdpp_shared(PLAIN, 2).loss, rel=0.04)


def test_a_rotation_leaves_the_loss_of_scalar_steps():
    assert theory.correlated_gd(SPREAD, 2) == theory.correlated_gd(replace(SPREAD, rotated=True), 2)


def test_preconditioning_by_the_covariance_makes_the_task_isotropic():
    """With weights of covariance Lambda^-1 the steps are those of gradient descent on normal inputs."""
    task = replace(SPREAD, weight_covariance=tuple(1 / np.array(VARIANCES)), weight_scale=1.0)
    plain = replace(PLAIN, weight_scale=1.0)
    best = theory.gd_per_step(plain, 2)
    matrices = np.array(best.learning_rates)[:, None, None] * np.diag(1 / np.array(VARIANCES))
    losses = errors_of(PreconditionedGradientDescent(matrices, 2), task)
    assert abs(losses.mean() - best.loss) < 3 * losses.std() / np.sqrt(losses.size)
    one = theory.best_step_matrix(task)
    assert one.loss == pytest.approx(theory.gradient_descent_optimum(plain).loss, 1e-12)
    np.testing.assert_allclose(one.matrix, np.diag(1 / np.array(VARIANCES)) / 12, atol=1e-14)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"label_noise": 0.3}, "task.label_noise"),
        ({"weight_scale": 0.0}, "task.weight_scale"),
        ({"input_distribution": "uniform"}, "task.input_distribution"),
        ({"rotated": True, "weight_covariance": (1.0, 2.0, 3.0)}, "task.weight_covariance"),
    ],
)
def test_tasks_without_such_a_loss_are_refused(changes, name):
    with pytest.raises(ValueError, match=name):
        theory.correlated_gd(replace(SPREAD, **changes), 2)
