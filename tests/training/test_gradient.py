"""Gradients accumulated over microbatches, compared with those of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from toyicl.analysis import metrics
from toyicl.core.episode import predict
from toyicl.core.random_numbers import efficient_key
from toyicl.models.causal import CausalArchitecture
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.prompts import Classification
from toyicl.training.gradient import (
    LARGEST,
    LIGHT,
    SMALLEST,
    activations,
    microbatch_size,
    of_batch,
    of_microbatches,
)
from toyicl.training.loop import fit
from toyicl.training.step import Training

TASK = LinearRegression(dim=3, context_size=4)


def drawn(build, task, batch):
    """A learner's loss as a function of its parameters, the parameters, and a batch of episodes."""
    structure, parameters, fixed = nnx.split(build(task, jax.random.key(0)), nnx.Param, ...)

    def value_of(parameters, episodes):
        return metrics.loss(nnx.merge(structure, parameters, fixed), episodes)

    return value_of, parameters, task.sample(jax.random.key(1), batch)


compiled = jax.jit(of_microbatches, static_argnums=0), jax.jit(of_batch, static_argnums=0)


CASES = {
    "five layers": (Architecture(depth=5, token_clip=10.0, init_scale=0.5), TASK),
    "shared layers": (Architecture(depth=3, shared=True, init_scale=0.5), TASK),
    "softmax heads": (Architecture(attention="softmax", heads=2, depth=2, init_scale=1.0), TASK),
    "MLPs and heads": (Architecture(depth=2, heads=2, mlp_size=5, init_scale=0.5), TASK),
    "LayerNorm": (Architecture(depth=2, layer_norm=True, init_scale=0.5), TASK),
    "separate tokens": (Architecture(depth=2, tokens="separate", init_scale=0.1), TASK),
    "prompts": (CausalArchitecture(depth=1, width=8, heads=2), Classification(context_size=3)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("wide", "tolerance"), [(True, 1e-12), pytest.param(False, 1e-5, marks=pytest.mark.slow)]
)
def test_microbatches_give_the_gradient_of_the_batch(case, wide, tolerance):
    with jax.enable_x64(wide):
        arguments = drawn(*CASES[case], 2 * LARGEST)
        assert activations(*arguments) > LIGHT
        parts, whole = (gradient(*arguments) for gradient in compiled)
    for own, expected in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        assert own.dtype == expected.dtype == ("float64" if wide else "float32")
        scale = np.abs(expected).max()
        np.testing.assert_allclose(own, expected, rtol=0, atol=tolerance * max(scale, 1e-9))


def test_microbatches_are_worked_on_one_after_the_other():
    """The compiled program has activations of a microbatch, and none of the whole batch."""
    arguments = drawn(*CASES["five layers"], 4 * LARGEST)
    for gradient, size in zip(compiled, (LARGEST, 4 * LARGEST), strict=True):
        text = gradient.lower(*arguments).as_text()
        sizes = [size for size in (LARGEST, 4 * LARGEST) if f"tensor<4x4x{size}xf64>" in text]
        assert sizes == [size]


def test_activations_are_those_of_the_program_relative_to_the_episodes():
    """Twice each of three inputs, and their sum: four numbers for an episode of 20."""
    _, parameters, episodes = drawn(*CASES["five layers"], 10)

    def value_of(parameters, episodes):
        return jnp.mean(jnp.sum(2 * episodes.x_query, axis=0))

    numbers = 4 * 3 + 4 + 3 + 1
    assert activations(value_of, parameters, episodes) == pytest.approx((3 + 1) / numbers)


@pytest.mark.parametrize(("depth", "light"), [(1, True), (5, False)])
def test_light_models_have_the_whole_batch_at_once(depth, light):
    arguments = drawn(Architecture(depth=depth), LinearRegression(), 4 * LARGEST)
    assert (activations(*arguments) <= LIGHT) == light
    assert ("while" in compiled[0].lower(*arguments).as_text()) != light


@given(st.integers(1, 5000))
def test_microbatches_are_equal_and_neither_too_large_nor_too_small(batch):
    size = microbatch_size(batch)
    assert batch % size == 0
    assert size == batch or SMALLEST <= size <= LARGEST
    if size == batch > LARGEST:
        assert not any(batch % other == 0 for other in range(SMALLEST, LARGEST + 1))


def test_the_papers_batches_are_divided():
    assert [microbatch_size(batch) for batch in (2048, 512, 1000, 64, 1)] == [128, 128, 125, 64, 1]


def test_a_value_that_is_not_finite_is_not_hidden():
    """NaN in one microbatch makes the value NaN, as it does for the whole batch."""
    value_of, parameters, episodes = drawn(*CASES["softmax heads"], 2 * LARGEST)
    broken = episodes._replace(x=episodes.x.at[0, 0, -1].set(jnp.nan))
    assert np.isnan(compiled[0](value_of, parameters, broken)[0])


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.slow
def test_training_in_microbatches_is_training_on_the_batch(close):
    """The loss as the objective has the whole batch; a run without objective has microbatches."""
    build = Architecture(depth=2, init_scale=0.5)
    training = Training(steps=4, batch_size=2 * LARGEST, snapshot_every=2, clip_norm=None)
    own = fit(build, TASK, training)
    whole = fit(build, TASK, training, objective=metrics.loss)
    close(own.training_loss, whole.training_loss, 1e-10)
    for one, other in zip(jax.tree.leaves(own.final), jax.tree.leaves(whole.final), strict=True):
        close(one, other, 1e-8)


def test_a_given_objective_has_the_whole_batch():
    """It need not be a mean over episodes, such as the largest error."""

    def largest(learner, episodes):
        return jnp.max(jnp.abs(predict(learner, episodes) - episodes.y_query))

    build = Architecture(depth=2, init_scale=0.5)
    training = Training(steps=1, batch_size=2 * LARGEST, snapshot_every=1)
    history = fit(build, TASK, training, seeds=[3], objective=largest)
    weights_key, episodes_key = jax.random.split(jax.random.key(3))
    episodes = TASK.sample(efficient_key(jax.random.fold_in(episodes_key, 0)), 2 * LARGEST)
    expected = largest(build(TASK, weights_key), episodes)
    assert history.training_loss[0, 0] == pytest.approx(float(expected))
