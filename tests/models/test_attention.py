"""Attention compared with loops over heads, tokens and points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from toyicl.models.attention import (
    Attention,
    AttentionSettings,
    linear_weights,
    read_by_scatter,
    read_by_scores,
    read_linear,
    read_mixed,
    read_softmax,
    softmax_weights,
)

KEY = jax.random.key(0)
# Every size is compiled anew, so there are few examples and failing ones are not shrunk.
few = settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])


def oracle(layer, rows, context, kind):
    """Update of each row: sum_h P_h sum_i W_V,h e_i weigh((W_K,h e_i) . (W_Q,h e_j))."""
    weights = (layer.query, layer.key, layer.value, layer.output)
    temperature, fraction = float(layer.temperature[...]), float(layer.softmax_fraction[...])
    fraction = {"linear": 0.0, "softmax": 1.0, "mixed": fraction}[kind]
    rows, context, updates = np.asarray(rows), np.asarray(context), []
    for row in rows:
        update = np.zeros_like(row)
        for query, key, value, output in zip(*(np.asarray(w[...]) for w in weights), strict=True):
            scores = np.array([(key @ point) @ (query @ row) for point in context])
            weighted = np.exp(scores / np.sqrt(len(key)) / temperature)
            scores = (1 - fraction) * scores + fraction * weighted / weighted.sum()
            for score, point in zip(scores, context, strict=True):
                update += output @ (value @ point) * score
        updates.append(update)
    return np.array(updates)


attend = jax.jit(Attention.__call__)


def random_rows(count, size=5, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, size)))


def build(kind, heads=1, key_size=None):
    """A layer whose scores are of order 1, so that the softmax is neither uniform nor one-hot."""
    draw = np.random.default_rng(0)
    chosen = AttentionSettings(kind=kind, heads=heads, key_size=key_size)
    shapes = jax.eval_shape(lambda: Attention(5, KEY, chosen))
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape) / 2), shapes)


@pytest.mark.parametrize("kind", ["linear", "softmax", "mixed"])
@pytest.mark.parametrize(
    ("heads", "key_size", "points", "count"), [(1, None, 4, 4), (2, 3, 2, 1), (3, 7, 12, 9)]
)
def test_matches_the_oracle(kind, heads, key_size, points, count, close):
    layer = build(kind, heads, key_size)
    rows, context = random_rows(count, seed=1), random_rows(points, seed=2)
    close(attend(layer, rows, context), oracle(layer, rows, context, kind))


@few
@given(
    count=st.integers(1, 12),
    points=st.integers(1, 12),
    size=st.integers(1, 6),
    value_size=st.integers(1, 9),
)
def test_both_orders_of_linear_attention_agree(count, points, size, value_size, close):
    """Small counts go by the scores and large ones by the scatter; both are Q K^T V."""
    queries, keys = (random_rows(n, size, n) for n in (count, points))
    values = random_rows(points, value_size, 7)
    for order in (read_linear, read_by_scores, read_by_scatter):
        read = jax.jit(order)(queries, keys, values)
        close(read, np.asarray(queries) @ np.asarray(keys).T @ np.asarray(values))


def products(count, points):
    """Shapes of all matrix products that linear attention takes."""
    queries, context = random_rows(count), random_rows(points)
    equations = jax.make_jaxpr(read_linear)(queries, context, context).eqns
    return {equation.outvars[0].aval.shape for equation in equations}


def test_linear_attention_takes_the_cheaper_order():
    """It forms the scores, (queries, points), for at most as many tokens as a token has entries."""
    assert (4, 4) in products(4, 4)
    assert (6, 6) not in products(6, 6)


def test_keys_and_values_may_differ(close):
    """For every kind of reading, compared with weights written out for each query."""
    queries, keys, values = (random_rows(n, seed=n + size) for n, size in ((3, 0), (6, 0), (6, 1)))
    scores, v = np.asarray(queries) @ np.asarray(keys).T, np.asarray(values)
    near = np.exp(0.4 * scores)
    softmax = near / near.sum(axis=1, keepdims=True)
    close(read_softmax(queries, keys, values, 0.4), softmax @ v)
    mixed = read_mixed(queries, keys, values, 0.4, 0.3)
    close(mixed, 0.7 * scores @ v + 0.3 * softmax @ v)


def test_masked_points_have_weight_zero(close):
    """The others have the weights that they have when the masked points are absent."""
    scores, mask = jnp.array([[1.0, -2.0, 3.0]]), jnp.array([[True, False, True]])
    close(linear_weights(scores, mask), [[1.0, 0.0, 3.0]])
    kept = softmax_weights(scores[:, ::2])
    close(softmax_weights(scores, mask), np.insert(kept, 1, 0.0, axis=1))


def test_softmax_weights_add_up_to_one(close):
    context = random_rows(6)
    read = read_softmax(random_rows(2), context, jnp.ones((6, 2)), 5)
    close(read, np.ones((2, 2)))


def test_softmax_of_large_scores_picks_the_largest(close):
    """Scores of order 1e4, whose exponentials overflow."""
    rows, context = np.array([[1e4, 0.0]]), np.array([[1.0, 2.0], [0.5, 3.0]])
    close(read_softmax(rows, context, context), np.array([[1.0, 2.0]]))


@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_a_row_without_an_axis_is_that_row_of_a_matrix(kind, close):
    layer = build(kind, heads=2, key_size=3)
    rows, context = random_rows(4, seed=5), random_rows(4, seed=6)
    together = attend(layer, rows, context)
    for index in range(4):
        close(attend(layer, rows[index], context), together[index])


def test_circuits_are_the_products_of_the_weights(close):
    layer = build("linear", heads=2, key_size=3)
    query, key, value, output = (
        np.asarray(w[...]) for w in (layer.query, layer.key, layer.value, layer.output)
    )
    assert layer.key_query.shape == layer.value_output.shape == (2, 5, 5)
    for head in range(2):
        close(layer.key_query[head], key[head].T @ query[head])
        close(layer.value_output[head], output[head] @ value[head])


def test_initial_weights_have_the_papers_standard_deviation():
    layer = Attention(11, KEY, AttentionSettings())
    flat = [np.ravel(w[...]) for w in (layer.query, layer.key, layer.value, layer.output)]
    assert {weights.size for weights in flat} == {121}
    assert abs(np.std(flat) / 0.0135 - 1) < 0.1
    assert abs(np.mean(flat)) < 3 * 0.0135 / np.sqrt(4 * 121)
    for index, one in enumerate(flat):
        for other in flat[index + 1 :]:
            assert not np.any(one == other)


def test_fan_in_counts_what_a_weight_sums_over():
    layer = Attention(6, KEY, AttentionSettings(heads=500, key_size=3, init_scale=1.0))
    for inward in (layer.query, layer.key, layer.value):
        assert inward[...].shape == (500, 3, 6)
        assert abs(np.std(inward[...]) * np.sqrt(6) - 1) < 0.03
    assert layer.output[...].shape == (500, 6, 3)
    assert abs(np.std(layer.output[...]) * np.sqrt(500 * 3) - 1) < 0.03


def test_the_same_key_gives_the_same_weights():
    one, same, other = (
        Attention(11, jax.random.key(seed), AttentionSettings()) for seed in (0, 0, 1)
    )
    assert np.array_equal(one.value[...], same.value[...])
    assert not np.any(one.value[...] == other.value[...])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"kind": "lineer"}, "kind must be one of linear, softmax, mixed, got 'lineer'"),
        ({"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ({"key_size": 1.5}, "key_size must be a whole number or None, got 1.5"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0, got 0.0"),
        ({"softmax_fraction": 1.5}, "softmax_fraction must be between 0 and 1, got 1.5"),
        ({"init_scale": -1.0}, "init_scale must be a finite number above 0, got -1.0"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        AttentionSettings(**bad)


def test_settings_are_a_pytree_whose_scales_may_be_traced():
    chosen = AttentionSettings(temperature=2.0, softmax_fraction=0.1, init_scale=0.5)
    assert jax.tree.leaves(chosen) == [2.0, 0.1, 0.5]
    assert jax.tree.structure(chosen) != jax.tree.structure(AttentionSettings(heads=2))


@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize(("wide", "dtype"), [(True, "float64"), (False, "float32")])
def test_dtypes(kind, wide, dtype):
    with jax.enable_x64(wide):
        rows, context = (np.empty(shape, dtype) for shape in ((3, 5), (4, 5)))
        layer = AttentionSettings(kind=kind)
        update = jax.eval_shape(
            lambda *tokens: Attention(5, jax.random.key(0), layer)(*tokens), rows, context
        )
    assert (update.shape, update.dtype.name) == ((3, 5), dtype)
