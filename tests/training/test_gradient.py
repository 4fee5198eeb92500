"""Gradients of parts of a batch compared with those of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from toyicl.analysis import metrics
from toyicl.models.causal import CausalArchitecture
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.prompts import Classification
from toyicl.training.gradient import (
    FEWEST,
    LIGHT,
    MOST,
    activations,
    of_batch,
    of_parts,
    part_size,
)

TASK = LinearRegression(dim=3, context_size=4)


def drawn(build, task, batch):
    """A learner's loss as a function of its parameters, the parameters, and a batch of episodes."""
    structure, parameters, fixed = nnx.split(build(task, jax.random.key(0)), nnx.Param, ...)

    def value_of(parameters, episodes):
        return metrics.loss(nnx.merge(structure, parameters, fixed), episodes)

    return value_of, parameters, task.sample(jax.random.key(1), batch)


compiled = jax.jit(of_parts, static_argnums=0), jax.jit(of_batch, static_argnums=0)


CASES = {
    "five layers": (Architecture(depth=5, token_clip=10.0, init_scale=0.5), TASK),
    "shared layers": (Architecture(depth=3, shared=True, init_scale=0.5), TASK),
    "softmax heads": (Architecture(attention="softmax", heads=2, depth=2, init_scale=1.0), TASK),
    "one layer": (Architecture(init_scale=1.0), TASK),
    "MLPs and heads": (Architecture(depth=2, heads=2, mlp_size=5, init_scale=0.5), TASK),
    "LayerNorm": (Architecture(depth=2, layer_norm=True, init_scale=0.5), TASK),
    "separate tokens": (Architecture(depth=2, tokens="separate", init_scale=0.1), TASK),
    "prompts": (CausalArchitecture(depth=1, width=8, heads=2), Classification(context_size=3)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("wide", "tolerance"), [(True, 1e-12), (False, 1e-5)])
def test_parts_give_the_gradient_of_the_whole(case, wide, tolerance):
    with jax.enable_x64(wide):
        arguments = drawn(*CASES[case], 2 * MOST)
        parts, whole = (gradient(*arguments) for gradient in compiled)
    for own, expected in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        assert own.dtype == expected.dtype == ("float64" if wide else "float32")
        scale = np.abs(expected).max()
        np.testing.assert_allclose(own, expected, rtol=0, atol=tolerance * max(scale, 1e-9))


def test_parts_are_worked_on_one_after_the_other():
    """The compiled program has activations of a part, and none of the whole batch."""
    arguments = drawn(*CASES["five layers"], 4 * MOST)
    for gradient, size in zip(compiled, (MOST, 4 * MOST), strict=True):
        text = gradient.lower(*arguments).as_text()
        sizes = [size for size in (MOST, 4 * MOST) if f"tensor<4x4x{size}xf64>" in text]
        assert sizes == [size]


def test_activations_are_those_of_the_program_relative_to_the_episodes():
    """Twice each of three inputs, and their sum: four numbers for an episode of 20."""
    _, parameters, episodes = drawn(*CASES["one layer"], 10)

    def value_of(parameters, episodes):
        return jnp.mean(jnp.sum(2 * episodes.x_query, axis=0))

    numbers = 4 * 3 + 4 + 3 + 1
    assert activations(value_of, parameters, episodes) == pytest.approx((3 + 1) / numbers)


@pytest.mark.parametrize(("depth", "light"), [(1, True), (5, False)])
def test_light_models_have_the_whole_batch_at_once(depth, light):
    arguments = drawn(Architecture(depth=depth), LinearRegression(), 4 * MOST)
    assert (activations(*arguments) <= LIGHT) == light
    assert ("while" in compiled[0].lower(*arguments).as_text()) != light


@given(st.integers(1, 5000))
def test_parts_are_equal_and_neither_too_large_nor_too_small(batch):
    size = part_size(batch)
    assert batch % size == 0
    assert size == batch or FEWEST <= size <= MOST
    if size == batch > MOST:
        assert not any(batch % other == 0 for other in range(FEWEST, MOST + 1))


def test_the_papers_batches_are_divided():
    assert [part_size(batch) for batch in (2048, 512, 1000, 64, 1)] == [128, 128, 125, 64, 1]


def test_an_error_outside_the_episodes_is_not_hidden():
    """NaN in one part makes the value NaN, as it does for the whole batch."""
    value_of, parameters, episodes = drawn(*CASES["softmax heads"], 2 * MOST)
    broken = episodes._replace(x=episodes.x.at[0, 0, -1].set(jnp.nan))
    assert np.isnan(compiled[0](value_of, parameters, broken)[0])
