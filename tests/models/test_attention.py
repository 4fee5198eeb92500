"""Attention against loops over heads, tokens and points, on concatenated tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from toyicl.models import tokens
from toyicl.models.attention import (
    Attention,
    read_by_scatter,
    read_by_scores,
    read_linear,
    read_softmax,
)

pytestmark = pytest.mark.usefixtures("plain_compiler")

KEY = jax.random.key(0)
# Every size is compiled anew: few examples, and a failing one is not searched for a smaller one.
few = settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])


def oracle(layer, rows, context, kind):
    """Update of each row: sum_h P_h sum_i W_V,h e_i weigh((W_K,h e_i) . (W_Q,h e_j))."""
    weights = (layer.query, layer.key, layer.value, layer.output)
    temperature, share = float(layer.temperature[...]), float(layer.softmax_share[...])
    share = {"linear": 0.0, "softmax": 1.0, "mixed": share}[kind]
    rows, context, updates = np.asarray(rows), np.asarray(context), []
    for row in rows:
        update = np.zeros_like(row)
        for query, key, value, output in zip(*(np.asarray(w[...]) for w in weights), strict=True):
            scores = np.array([(key @ point) @ (query @ row) for point in context])
            weighted = np.exp(scores / np.sqrt(len(key)) / temperature)
            scores = (1 - share) * scores + share * weighted / weighted.sum()
            for score, point in zip(scores, context, strict=True):
                update += output @ (value @ point) * score
        updates.append(update)
    return np.array(updates)


attend = jax.jit(Attention.__call__)


def random_blocks(count, sizes=(3, 2), seed=0):
    draw = np.random.default_rng(seed)
    return tuple(jnp.asarray(draw.normal(size=(count, size))) for size in sizes)


def build(kind, heads=1, key_size=None):
    """A layer whose scores are of order 1, so that a softmax is neither flat nor hard."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: Attention(5, KEY, heads=heads, key_size=key_size, kind=kind))
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape) / 2), shapes)


@pytest.mark.parametrize("kind", ["linear", "softmax", "mixed"])
@pytest.mark.parametrize(
    ("heads", "key_size", "points", "count"), [(1, None, 4, 4), (2, 3, 2, 1), (3, 7, 12, 9)]
)
def test_matches_the_oracle(kind, heads, key_size, points, count, close):
    layer = build(kind, heads, key_size)
    rows, context = random_blocks(count, seed=1), random_blocks(points, seed=2)
    expected = oracle(layer, tokens.merge(rows), tokens.merge(context), kind)
    update = attend(layer, rows, context)
    assert [block.shape for block in update] == [(count, 3), (count, 2)]
    close(tokens.merge(update), expected)


@few
@given(count=st.integers(1, 12), points=st.integers(1, 12), split=st.integers(1, 4))
def test_linear_reading_is_the_same_in_either_order(count, points, split, close):
    """Small counts take the scores, large ones the scatter; both are rows C^T C."""
    rows, context = (random_blocks(n, (split, 5 - split), n) for n in (count, points))
    whole = np.asarray(tokens.merge(context))
    for order in (read_linear, read_by_scores, read_by_scatter):
        read = jax.jit(order)(rows, context)
        close(tokens.merge(read), np.asarray(tokens.merge(rows)) @ whole.T @ whole)


def products(count, points):
    """Shapes of all matrix products that linear reading takes."""
    rows, context = random_blocks(count), random_blocks(points)
    equations = jax.make_jaxpr(read_linear)(rows, context).eqns
    return {e.outvars[0].aval.shape for e in equations if e.primitive.name == "dot_general"}


def test_linear_reading_takes_the_cheaper_order():
    """By way of the scores, (rows, points), up to as many tokens as a token has entries."""
    assert (4, 4) in products(4, 4)
    assert (6, 6) not in products(6, 6)


def test_softmax_weights_add_up_to_one(close):
    context = (jnp.ones((6, 3)), jnp.ones((6, 2)))
    read = read_softmax(random_blocks(2), context, 5)
    close(tokens.merge(read), np.ones((2, 5)))


def test_softmax_of_large_scores_picks_the_largest(close):
    """Scores of order 1e4, whose exponentials overflow."""
    rows, context = (np.array([[1e4, 0.0]]),), (np.array([[1.0, 2.0], [0.5, 3.0]]),)
    (read,) = read_softmax(rows, context, 1)
    close(read, np.array([[1.0, 2.0]]))


@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_a_row_without_an_axis_is_that_row_of_a_matrix(kind, close):
    layer = build(kind, heads=2, key_size=3)
    rows, context = random_blocks(4, seed=5), random_blocks(4, seed=6)
    together = attend(layer, rows, context)
    for index in range(4):
        alone = attend(layer, tuple(block[index] for block in rows), context)
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
    layer = Attention(11, KEY)
    flat = [np.ravel(w[...]) for w in (layer.query, layer.key, layer.value, layer.output)]
    assert {weights.size for weights in flat} == {121}
    assert abs(np.std(flat) / 0.0135 - 1) < 0.1
    assert abs(np.mean(flat)) < 3 * 0.0135 / np.sqrt(4 * 121)
    for index, one in enumerate(flat):
        for other in flat[index + 1 :]:
            assert not np.any(one == other)


def test_fan_in_counts_what_a_weight_sums_over():
    layer = Attention(6, KEY, heads=500, key_size=3, init_scale=1.0)
    for inward in (layer.query, layer.key, layer.value):
        assert inward[...].shape == (500, 3, 6)
        assert abs(np.std(inward[...]) * np.sqrt(6) - 1) < 0.03
    assert layer.output[...].shape == (500, 6, 3)
    assert abs(np.std(layer.output[...]) * np.sqrt(500 * 3) - 1) < 0.03


def test_the_same_key_gives_the_same_weights():
    one, same, other = (Attention(11, jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one.value[...], same.value[...])
    assert not np.any(one.value[...] == other.value[...])


@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize(("wide", "dtype"), [(True, "float64"), (False, "float32")])
def test_dtypes(kind, wide, dtype):
    with jax.enable_x64(wide):
        shapes = [np.empty(shape, dtype) for shape in ((3, 3), (3, 2), (4, 3), (4, 2))]
        update = jax.eval_shape(
            lambda *x: Attention(5, jax.random.key(0), kind=kind)(x[:2], x[2:]), *shapes
        )
    assert {block.dtype.name for block in update} == {dtype}
