"""Descent on labels against a loop, gradient descent, transformers, and its best parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn

from toyicl import theory
from toyicl.algorithms import token_descent
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.algorithms.label_descent import LabelDescent
from toyicl.analysis.metrics import loss
from toyicl.analysis.weights import label_steps
from toyicl.models.construction import with_circuits
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(dim=3, context_size=4)
STEPS, WEIGHTS = (0.3, -0.1, 0.2), (0.4, 0.2, -0.5)


def random_context(seed, n=5, d=3, m=2):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)), generator.normal(size=(n, m)), generator.normal(size=d)


def by_loops(x, y, x_query, steps, weights):
    """The steps label by label, as plain loops."""
    query = np.zeros(y.shape[1])
    for step, weight in zip(steps, weights, strict=True):

        def moved(label, inputs, labels=y, step=step, weight=weight):
            new = label.copy()
            for one, other in zip(x, labels, strict=True):
                new -= step * other * (one @ inputs + weight * (other @ label))
            return new

        query, y = (
            moved(query, x_query),
            np.array([moved(label, inputs) for label, inputs in zip(y, x, strict=True)]),
        )
    return -query


@pytest.mark.parametrize("seed", range(3))
def test_steps_are_those_of_a_loop_over_labels(seed):
    with jax.enable_x64(True):
        context = random_context(seed)
        expected = by_loops(*context, STEPS, WEIGHTS)
        np.testing.assert_allclose(LabelDescent(STEPS, WEIGHTS, 3)(*context), expected, atol=1e-10)


def test_without_label_weights_it_is_gradient_descent():
    with jax.enable_x64(True):
        x, y, x_query = random_context(3)
        expected = GradientDescent(5 * np.array(STEPS), 3)(x, y, x_query)
        np.testing.assert_allclose(LabelDescent(STEPS, 0.0, 3)(x, y, x_query), expected, atol=1e-12)


def test_layers_that_update_labels_only_take_its_steps_and_are_read_back():
    """With the label's own entry in W_K^T W_Q."""
    with jax.enable_x64(True):
        circuits = [
            (jnp.diag(jnp.array([1.0, 1.0, 1.0, weight])), jnp.diag(jnp.array([0, 0, 0, -step])))
            for step, weight in zip(STEPS, WEIGHTS, strict=True)
        ]
        model = with_circuits(circuits, 3)
        model.update_inputs = False
        context = random_context(4, m=1)
        expected = LabelDescent(STEPS, WEIGHTS, 3)(*context)
        np.testing.assert_allclose(model(*context), expected, atol=1e-12)
        for found, given in zip(label_steps(model, 3), (STEPS, WEIGHTS), strict=True):
            np.testing.assert_allclose(found, given, atol=1e-12)


@pytest.mark.slow
def test_the_best_steps_are_better_than_those_of_gradient_descent(monkeypatch):
    monkeypatch.setattr(token_descent, "SEARCH_EPISODES", 4000)
    task = LinearRegression(dim=5, context_size=10)
    best = LabelDescent.best(task, 2)
    episodes = drawn(task, 1, 20_000)
    plain = GradientDescent.per_step(task, 2)
    ratio = float(loss(best, episodes) / loss(plain, episodes))
    assert 0.9 < ratio < 0.998
    assert float(loss(plain, episodes)) == pytest.approx(theory.gd_per_step(task, 2).loss, rel=0.05)
