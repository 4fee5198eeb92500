"""The generator of training: its bits, its distributions, and the independence of its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32 as threefry_of_jax
from scipy import stats

from toyicl.core.random_numbers import GENERATOR, efficient_key, threefry_2x32
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import fit
from toyicl.training.step import Training

COUNT = 100_000
RECORDED_BITS = [1182209586, 1291299651, 521782358, 1770190225, 3284938081, 1716055540]


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
    drawn = jax.random.bits(efficient_key(jax.random.key(0)), shape, f"uint{bits}")
    assert drawn.shape == shape
    assert drawn.dtype == f"uint{bits}"


def test_no_word_is_used_twice():
    bits = np.asarray(jax.random.bits(efficient_key(jax.random.key(3)), (301, 100), "uint32"))
    # Among 30,100 independent words, .1 pairs are equal on average; copies would be thousands.
    assert len(np.unique(bits)) > bits.size - 5


def test_both_words_of_an_evaluation_are_used():
    key = efficient_key(jax.random.key(3))
    bits = jax.random.bits(key, (4, 6), "uint32")
    words = threefry_2x32(jax.random.key_data(key), jnp.arange(12, dtype=jnp.uint32))
    np.testing.assert_array_equal(bits, jnp.concatenate(words).reshape(4, 6))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(COUNT,), (50, COUNT // 50)])
def test_distributions(precision, shape):
    keys = jax.random.split(efficient_key(jax.random.key(11)), 3)
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
    with jax.enable_x64(False):
        episodes = task.sample(efficient_key(key), 20_000)
    assert episodes.x.dtype == "float32"
    return [np.asarray(part, float) for part in episodes]


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


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_numbers_depend_on_key_and_shape_alone(precision):
    """Under vmap and within a loop they are those of a call by itself."""

    def draw(key):
        return jax.random.uniform(key, (3, 4), precision)

    keys = jax.random.split(efficient_key(jax.random.key(5)), 3)
    alone = [draw(key) for key in keys]
    np.testing.assert_array_equal(jax.vmap(draw)(keys), alone)
    mapped = jax.jit(lambda keys: jax.lax.map(draw, keys))
    np.testing.assert_array_equal(mapped(keys), alone)


def test_the_same_name_means_the_same_numbers():
    """A change of these numbers needs another `GENERATOR`, by which earlier runs are refused."""
    assert GENERATOR == "threefry2x32_both_words_1"
    bits = jax.random.bits(efficient_key(jax.random.key(2022)), (3, 2), "uint32")
    assert bits.ravel().tolist() == RECORDED_BITS


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_keys_of_other_generators_are_unchanged(generator):
    key = jax.random.key(0, impl=generator)
    assert efficient_key(key) is key
    with jax.default_prng_impl(generator):
        training = Training(steps=2, batch_size=8, snapshot_every=2)
        history = fit(Architecture(), LinearRegression(dim=2, context_size=3), training)
    assert np.isfinite(history.training_loss).all()


def test_keys_derived_from_a_key_are_those_of_jax():
    key = jax.random.key(9)
    for derive in (jax.random.split, lambda key: jax.random.fold_in(key, 7)):
        np.testing.assert_array_equal(
            jax.random.key_data(derive(efficient_key(key))), jax.random.key_data(derive(key))
        )


@pytest.mark.parametrize("shape", [(9,), (4, 5), (3, 2, 4)])
def test_numbers_of_64_bits_are_those_of_jax_and_others_are_not(shape):
    key = jax.random.key(9)
    for draw in (jax.random.bits, jax.random.uniform, jax.random.normal):
        np.testing.assert_array_equal(draw(efficient_key(key), shape), draw(key, shape))
    own, other = (jax.random.bits(k, shape, "uint32") for k in (efficient_key(key), key))
    assert not np.any(own == other)
