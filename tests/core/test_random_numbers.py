"""The generator of training: its bits, its distributions, and the independence of its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32 as threefry_of_jax
from scipy import stats

from toyicl.core.random_numbers import efficient, threefry_2x32
from toyicl.tasks.linear import LinearRegression

COUNT = 100_000


@given(seed=st.integers(0, 2**31), first=st.integers(0, 2**32 - 40))
@settings(max_examples=30, deadline=None)
def test_words_are_those_of_jax(seed, first):
    key = jax.random.key_data(jax.random.key(seed))
    counters = jnp.uint32(first) + jnp.arange(33, dtype=jnp.uint32)
    words = threefry_2x32(key, counters)
    expected = threefry_of_jax(key, jnp.concatenate([jnp.zeros_like(counters), counters]))
    np.testing.assert_array_equal(jnp.concatenate(words), expected)


def test_known_words():
    """Known answer of the authors' implementation, Random123, for 20 rounds: key and counter 0."""
    zeros = jnp.zeros(2, jnp.uint32)
    first, second = threefry_2x32(zeros, zeros[:1])
    assert [hex(int(first[0])), hex(int(second[0]))] == ["0x6b200159", "0x99ba4efe"]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (4, 3, 2), (1, 6), (0,), (3, 0)])
@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_shapes_and_types(shape, bits):
    drawn = jax.random.bits(efficient(jax.random.key(0)), shape, f"uint{bits}")
    assert drawn.shape == shape
    assert drawn.dtype == f"uint{bits}"


def test_no_word_is_used_twice():
    bits = np.asarray(jax.random.bits(efficient(jax.random.key(3)), (301, 100), "uint32"))
    # Among 30,100 independent words, .1 pairs are equal on average; copies would be thousands.
    assert len(np.unique(bits)) > bits.size - 5


def test_both_words_of_an_evaluation_are_used():
    key = efficient(jax.random.key(3))
    bits = jax.random.bits(key, (4, 6), "uint32")
    words = threefry_2x32(jax.random.key_data(key), jnp.arange(12, dtype=jnp.uint32))
    np.testing.assert_array_equal(bits, jnp.concatenate(words).reshape(4, 6))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(COUNT,), (50, COUNT // 50)])
def test_distributions(precision, shape):
    keys = jax.random.split(efficient(jax.random.key(11)), 3)
    uniform = np.ravel(jax.random.uniform(keys[0], shape, precision))
    normal = np.ravel(jax.random.normal(keys[1], shape, precision))
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    for power, expected in enumerate([0, 1, 0, 3], start=1):
        deviation = np.std(normal**power) / np.sqrt(COUNT)
        assert abs(np.mean(normal**power) - expected) < 4.5 * deviation
    whole = np.ravel(jax.random.randint(keys[2], shape, 0, 10))
    assert stats.chisquare(np.bincount(whole, minlength=10)).pvalue > 1e-3


def batch(seed, step):
    """The episodes of a training step, drawn as `training.step` draws them."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    task = LinearRegression(dim=4, context_size=5, label_noise=0.5)
    return task.sample(efficient(key), 20_000)


def columns(episodes):
    """Every number of an episode as a column, standardised: (episodes, numbers)."""
    rows = np.concatenate([np.reshape(part, (-1, part.shape[-1])) for part in episodes[:3]])
    return ((rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)).T


def largest_correlation(one, other):
    return np.abs(one.T @ other / len(one)).max()


def test_fields_steps_and_seeds_are_independent():
    """No number of an episode is correlated with another, or with any of another step or seed."""
    first = columns(batch(0, 0))
    x, query = first[:, :20], first[:, -4:]
    bound = 5 / np.sqrt(len(x))  # five deviations, for some thousand pairs
    own = x.T @ x / len(x)
    assert np.abs(own - np.eye(20)).max() < bound
    assert largest_correlation(x, query) < bound
    assert largest_correlation(first, np.roll(first, 1, axis=0)) < bound
    for other in map(columns, (batch(0, 1), batch(1, 0), batch(1, 1))):
        assert largest_correlation(first, other) < bound
        assert largest_correlation(first**2 - 1, other**2 - 1) < 3 * bound


def test_numbers_depend_on_key_and_shape_alone():
    """Under vmap and within a loop they are those of a call by itself."""
    keys = jax.random.split(efficient(jax.random.key(5)), 3)
    alone = [jax.random.normal(key, (3, 4)) for key in keys]
    np.testing.assert_array_equal(jax.vmap(lambda key: jax.random.normal(key, (3, 4)))(keys), alone)
    mapped = jax.jit(lambda keys: jax.lax.map(lambda key: jax.random.normal(key, (3, 4)), keys))
    np.testing.assert_allclose(mapped(keys), alone, rtol=1e-14)


def test_keys_derived_from_a_key_are_those_of_jax():
    key = jax.random.key(9)
    for derive in (jax.random.split, lambda key: jax.random.fold_in(key, 7)):
        np.testing.assert_array_equal(
            jax.random.key_data(derive(efficient(key))), jax.random.key_data(derive(key))
        )


@pytest.mark.parametrize("shape", [(9,), (4, 5), (3, 2, 4)])
def test_numbers_of_64_bits_are_those_of_jax_and_others_are_not(shape):
    key = jax.random.key(9)
    for draw in (jax.random.bits, jax.random.uniform, jax.random.normal):
        np.testing.assert_array_equal(draw(efficient(key), shape), draw(key, shape))
    own, other = (jax.random.bits(k, shape, "uint32") for k in (efficient(key), key))
    assert not np.any(own == other)
