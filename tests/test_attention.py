"""Attention against loops over heads, tokens and points, on concatenated tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toyicl import tokens
from toyicl.attention import Attention, read_linear, read_softmax

few = settings(max_examples=8, deadline=None, derandomize=True)


def oracle(layer, rows, context, kind):
    """Update of each row: sum_h P_h sum_i W_V,h e_i weigh((W_K,h e_i) . (W_Q,h e_j))."""
    weights = (layer.query, layer.key, layer.value, layer.output)
    rows, context, updates = np.asarray(rows), np.asarray(context), []
    for row in rows:
        update = np.zeros_like(row)
        for query, key, value, output in zip(*(np.asarray(w[...]) for w in weights), strict=True):
            scores = np.array([(key @ point) @ (query @ row) for point in context])
            if kind == "softmax":
                scores = np.exp(scores / np.sqrt(len(key)))
                scores = scores / scores.sum()
            for score, point in zip(scores, context, strict=True):
                update += output @ (value @ point) * score
        updates.append(update)
    return np.array(updates)


def random_blocks(count, sizes=(3, 2), seed=0):
    draw = np.random.default_rng(seed)
    return tuple(jnp.asarray(draw.normal(size=(count, size))) for size in sizes)


def build(kind, heads=1, key_size=None, seed=0):
    """A layer whose scores are of order 1, so that a softmax is neither flat nor hard."""
    key = jax.random.key(seed)
    return Attention(5, key, heads=heads, key_size=key_size, kind=kind, init_scale=1.0)


@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize(
    ("heads", "key_size", "points", "count"), [(1, None, 4, 4), (2, 3, 2, 1), (3, 7, 12, 9)]
)
def test_matches_the_oracle(kind, heads, key_size, points, count, close):
    layer = build(kind, heads, key_size)
    rows, context = random_blocks(count, seed=1), random_blocks(points, seed=2)
    expected = oracle(layer, tokens.merge(rows), tokens.merge(context), kind)
    update = layer(rows, context)
    assert [block.shape for block in update] == [(count, 3), (count, 2)]
    close(tokens.merge(update), expected)


@few
@given(count=st.integers(1, 12), points=st.integers(1, 12), split=st.integers(1, 4))
def test_linear_reading_is_the_same_in_either_order(count, points, split, close):
    """Small counts take the scores, large ones the scatter; both are rows C^T C."""
    rows, context = (random_blocks(n, (split, 5 - split), n) for n in (count, points))
    whole = np.asarray(tokens.merge(context))
    read = read_linear(rows, context)
    close(tokens.merge(read), np.asarray(tokens.merge(rows)) @ whole.T @ whole)


def products(count, points):
    """Shapes of all matrix products that linear reading takes."""
    rows, context = random_blocks(count), random_blocks(points)
    equations = jax.make_jaxpr(read_linear)(rows, context).eqns
    return {e.outvars[0].aval.shape for e in equations if e.primitive.name == "dot_general"}


def test_linear_reading_takes_the_cheaper_order():
    assert (40, 40) not in products(40, 40)
    assert (2, 3) in products(2, 3)
    assert (3, 2) not in products(2, 3) | products(1, 3)


def test_softmax_weights_add_up_to_one(close):
    context = (jnp.ones((6, 3)), jnp.ones((6, 2)))
    read = read_softmax(random_blocks(2), context, 5)
    close(tokens.merge(read), np.ones((2, 5)))


def test_softmax_ignores_a_constant_in_the_scores(close):
    layer = build("softmax", heads=2)
    rows, (x, y) = random_blocks(2, seed=3), random_blocks(4, seed=4)
    large = tuple(1e3 * block for block in rows)
    assert np.isfinite(tokens.merge(layer(large, (x, y)))).all()


@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_a_row_without_an_axis_is_that_row_of_a_matrix(kind, close):
    layer = build(kind, heads=2, key_size=3)
    rows, context = random_blocks(4, seed=5), random_blocks(4, seed=6)
    together = layer(rows, context)
    for index in range(4):
        alone = layer(tuple(block[index] for block in rows), context)
        assert [block.shape for block in alone] == [(3,), (2,)]
        close(tokens.merge(alone), tokens.merge(together)[index])


def test_circuits_are_the_products_of_the_weights(close):
    layer = build("linear", heads=2, key_size=3)
    query, key, value, output = (
        np.asarray(w[...]) for w in (layer.query, layer.key, layer.value, layer.output)
    )
    assert layer.key_query.shape == layer.value_output.shape == (2, 5, 5)
    for head in range(2):
        close(layer.key_query[head], key[head].T @ query[head])
        close(layer.value_output[head], output[head] @ value[head])


def test_weights_start_at_the_papers_deviation():
    layers = jax.vmap(lambda key: Attention(11, key))(jax.random.split(jax.random.key(0), 200))
    for weights in (layers.query, layers.key, layers.value, layers.output):
        assert weights[...].shape == (200, 1, 11, 11)
        assert abs(np.std(weights[...]) / np.sqrt(0.002 / 11) - 1) < 0.02
        assert abs(np.mean(weights[...])) < 3 * 0.0135 / np.sqrt(200 * 121)
    assert abs(np.sqrt(0.002 / 11) - 0.0135) < 5e-5


def test_fan_in_counts_what_a_weight_sums_over():
    layer = Attention(6, jax.random.key(0), heads=500, key_size=3, init_scale=1.0)
    for inward in (layer.query, layer.key, layer.value):
        assert inward[...].shape == (500, 3, 6)
        assert abs(np.std(inward[...]) * np.sqrt(6) - 1) < 0.03
    assert layer.output[...].shape == (500, 6, 3)
    assert abs(np.std(layer.output[...]) * np.sqrt(500 * 3) - 1) < 0.03


def test_the_four_weights_are_drawn_from_different_keys():
    layer = build("linear")
    flat = [np.ravel(w[...]) for w in (layer.query, layer.key, layer.value, layer.output)]
    for index, one in enumerate(flat):
        for other in flat[index + 1 :]:
            assert not np.any(one == other)


def test_the_same_key_gives_the_same_weights():
    one, same, other = build("linear"), build("linear"), build("linear", seed=1)
    assert np.array_equal(one.value[...], same.value[...])
    assert not np.array_equal(one.value[...], other.value[...])


@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize(("wide", "dtype"), [(True, "float64"), (False, "float32")])
def test_dtypes(kind, wide, dtype):
    with jax.enable_x64(wide):
        update = build(kind, 2)(random_blocks(3), random_blocks(4))
    assert {block.dtype.name for block in update} == {dtype}
