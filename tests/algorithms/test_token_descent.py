"""Descent on clipped tokens against a loop in NumPy, the unclipped methods, and other parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.token_descent import TokenDescent
from toyicl.analysis.metrics import loss
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(dim=3, context_size=4)
CLIP = 1.0
"""A bound that the tokens of several steps on TASK exceed."""
STEPS = 3


def random_context(seed, n=5, d=3, m=2):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)), generator.normal(size=(n, m)), generator.normal(size=d)


def by_loops(x, y, x_query, steps, curvatures, clip):
    """The steps token by token, as plain loops."""
    tokens = [np.concatenate([inputs, labels]) for inputs, labels in zip(x, y, strict=True)]
    query, d = np.concatenate([x_query, np.zeros(y.shape[1])]), x.shape[1]

    def moved(token, step, curvature):
        new = token.copy()
        for other in tokens:
            score = other[:d] @ token[:d]
            new[d:] -= step * other[d:] * score
            new[:d] -= curvature * other[:d] * score
        return np.clip(new, -clip, clip)

    for step, curvature in zip(steps, curvatures, strict=True):
        query, tokens = (
            moved(query, step, curvature),
            [moved(token, step, curvature) for token in tokens],
        )
    return -query[d:]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rates=st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
    curvatures=st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3),
    clip=st.floats(0.3, 5.0),
)
def test_steps_are_those_of_a_loop_over_tokens(seed, rates, curvatures, clip):
    with jax.enable_x64(True):
        x, y, x_query = random_context(seed)
        learner = TokenDescent(rates, curvatures, 3, token_clip=clip)
        expected = by_loops(x, y, x_query, rates, curvatures, clip)
        np.testing.assert_allclose(learner(x, y, x_query), expected, atol=1e-10)


def test_without_a_bound_steps_are_those_of_gd_and_gdpp():
    with jax.enable_x64(True):
        x, y, x_query = random_context(0)
        rates, curvatures = [0.1, 0.2, 0.05], [0.01, 0.02, 0.0]
        for own, other in (
            (TokenDescent(rates, 0.0, 3), GradientDescent(5 * np.array(rates), 3)),
            (
                TokenDescent(rates, curvatures, 3),
                GradientDescentPlusPlus(5 * np.array(rates), curvatures, 3),
            ),
        ):
            np.testing.assert_allclose(own(x, y, x_query), other(x, y, x_query), rtol=1e-10)


@pytest.mark.parametrize("method", ["gd", "gdpp"])
def test_the_best_steps_under_a_bound_are_a_minimum_under_it(method):
    episodes = drawn(TASK, 7, 20_000)
    best = getattr(TokenDescent, method)(TASK, STEPS, CLIP)
    free = getattr(TokenDescent, method)(TASK, STEPS, None)
    step, curvature = float(best.step[...]), float(best.curvature[...])
    own = float(loss(best, episodes))
    for factors in ((0.8, 1.0), (1.25, 1.0), (1.0, 0.8), (1.0, 1.25)):
        if curvature or factors[0] != 1:
            other = TokenDescent(factors[0] * step, factors[1] * curvature, STEPS, token_clip=CLIP)
            assert own < float(loss(other, episodes))
    if method == "gd":
        return  # the bound hardly changes labels, and GD changes nothing else
    clipped = TokenDescent(free.step[...], free.curvature[...], STEPS, token_clip=CLIP)
    assert own < 0.99 * float(loss(clipped, episodes)), "the bound changes the best steps"
    assert own > 1.01 * float(loss(free, episodes)), "the bound costs something"


def test_a_bound_that_no_token_reaches_changes_nothing():
    free, bounded = (TokenDescent.gdpp(TASK, 2, clip) for clip in (None, 1e4))
    exact = theory.gdpp_shared(TASK, 2)
    assert float(bounded.step[...]) == pytest.approx(float(free.step[...]), rel=0.05)
    assert float(free.step[...]) * TASK.context_size == pytest.approx(exact.learning_rates[0])
    assert float(free.curvature[...]) == pytest.approx(exact.curvatures[0])


@pytest.mark.slow
def test_steps_of_their_own_are_no_worse_than_shared_steps_under_a_bound():
    episodes = drawn(TASK, 8, 20_000)
    shared = TokenDescent.gdpp(TASK, 3, CLIP)
    own = TokenDescent.gdpp_per_layer(TASK, 3, CLIP)
    assert float(loss(own, episodes)) < 1.005 * float(loss(shared, episodes))
    assert own.step[...].shape == (3,)
    free = TokenDescent.gdpp_per_layer(TASK, 3, None)
    exact = theory.gdpp_per_layer(TASK, 3)
    np.testing.assert_allclose(free.step[...] * 4, exact.learning_rates, rtol=1e-5)


@pytest.mark.parametrize("per_layer", [False, True])
def test_tuning_starts_at_the_best_step_of_gd(per_layer):
    start = TokenDescent.tuning_start(TASK, 3, CLIP, per_layer=per_layer)
    step = theory.gd_shared(TASK, 3).learning_rates[0] / TASK.context_size
    assert start.step[...].shape == ((3,) if per_layer else ())
    np.testing.assert_allclose(start.step[...], step, rtol=1e-6)
    np.testing.assert_allclose(start.curvature[...], step / TASK.context_size, rtol=1e-6)
    assert float(start.token_clip[...]) == CLIP


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.1, "token_clip": 0.0}, "token_clip must be a finite number above 0"),
        ({"step": [0.1, 0.2], "steps": 3}, "step must be one number, or one for each of 3 steps"),
        ({"step": 0.1, "steps": 0}, "steps must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TokenDescent(**arguments)


def test_the_parameters_can_be_trained():
    x, y, x_query = (jnp.asarray(part, jnp.float32) for part in random_context(1))
    slope = jax.grad(lambda one: one(x, y, x_query)[0])(TokenDescent(0.05, 0.01, 2, token_clip=9.0))
    assert float(abs(slope.step[...])) > 0
    assert float(abs(slope.curvature[...])) > 0
