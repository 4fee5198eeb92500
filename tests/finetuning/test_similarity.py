"""Similarity measures compared with loops, SciPy and closed forms; undefined values are NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toyicl.core.errors import BadInput
from toyicl.finetuning import similarity

BOOLEANS = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=30)


@settings(deadline=None)
@given(BOOLEANS)
def test_recovery_counts_sets_of_answers(answers):
    zero, context, tuned = (np.array(column) for column in zip(*answers, strict=True))
    right = [{i for i, yes in enumerate(column) if yes} for column in (zero, context, tuned)]
    gained = right[2] - right[0]
    missed = set(range(len(zero))) - right[0]
    found = similarity.recovery(*map(jnp.asarray, (zero, context, tuned)))
    assert (int(found.gained), int(found.missed)) == (len(gained), len(missed))
    for value, part in ((found.score, gained), (found.chance, missed)):
        expected = len(part & right[1]) / len(part) if part else np.nan
        np.testing.assert_allclose(value, expected)


def test_recovery_is_nan_if_nothing_is_gained():
    right = jnp.ones((2, 3), bool)
    found = similarity.recovery(right, right, right)
    assert np.isnan(found.score)
    assert np.isnan(found.chance)
    assert (int(found.gained), int(found.missed)) == (0, 0)


def changes(seed, shape=(4, 5, 2, 6)):
    return np.random.default_rng(seed).normal(size=(3, *shape))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("centre", [True, False])
def test_similarity_of_attention_outputs_is_a_loop(close, normalised, centre):
    zero, context, tuned = changes(0)
    tuned[1, 2] = zero[1, 2]  # a query that finetuning does not change

    def ready(rows):
        return rows / np.linalg.norm(rows) if normalised else rows

    moved = np.zeros((2, *zero.shape))
    for place in np.ndindex(zero.shape[:3]):
        moved[0][place] = ready(context[place]) - ready(zero[place])
        moved[1][place] = ready(tuned[place]) - ready(zero[place])
    if centre:
        moved = moved - moved.mean(axis=(1, 2), keepdims=True)
    expected, absent = np.zeros(2), np.zeros(2)
    for layer in range(2):
        values = []
        for task, query in np.ndindex(4, 5):
            one, other = moved[:, task, query, layer]
            if np.linalg.norm(other) == 0:
                absent[layer] += 1
            else:
                values.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        expected[layer] = np.mean(values)
    found = [
        similarity.updates(jnp.asarray(after), jnp.asarray(zero), normalised=normalised)
        for after in (context, tuned)
    ]
    if centre:
        found = [similarity.centred(rows) for rows in found]
    mean, unmoved, diverged = similarity.mean_cosine(*found)
    close(mean, expected)
    np.testing.assert_array_equal(unmoved, absent)
    assert not np.asarray(diverged).any()
    assert absent[0] == (0 if centre else 1)


def test_similarity_is_nan_if_nothing_changes():
    still = jnp.zeros((2, 3, 1, 4))
    found = similarity.mean_cosine(still, jnp.ones_like(still))
    assert np.isnan(found.mean).all()
    assert (int(found.unmoved[0]), int(found.diverged[0])) == (6, 0)


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_diverged_changes_are_counted_and_excluded_from_the_mean(close, lost):
    one = jnp.ones((2, 3, 1, 4))
    other = one.at[0, 1, 0, 2].set(lost).at[1, 2].set(0.0)
    found = similarity.mean_cosine(one, other)
    close(found.mean, [1.0])
    assert (int(found.unmoved[0]), int(found.diverged[0])) == (1, 1)


def test_normalised_and_raw_similarity_can_differ_in_sign():
    zero = jnp.array([[1.0, 0.0]])
    longer, shorter_aside = jnp.array([[3.0, 1.0]]), jnp.array([[0.5, 0.5]])
    values = {}
    for normalised in (True, False):
        moved = [
            similarity.updates(h, zero, normalised=normalised) for h in (longer, shorter_aside)
        ]
        values[normalised] = float(similarity.cosine(*moved)[0])
    assert values[True] > 0.5
    assert values[False] < 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("normalised", [True, False])
def test_changes_by_rounding_are_0(dtype, normalised):
    """So are changes of the norm only, if outputs are normalised."""
    rows = jnp.asarray(changes(4)[0], dtype)
    eps = jnp.finfo(dtype).eps
    rounded = rows * (1 + 4 * eps) + 4 * eps * jnp.roll(rows, 1, axis=-1)
    assert not np.array_equal(rounded, rows)
    assert not np.asarray(similarity.updates(rounded, rows, normalised=normalised)).any()
    moved = similarity.updates(rows * (1 + 1e-4), rows, normalised=normalised)
    assert bool(np.asarray(moved).any()) != normalised


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("lost", [np.nan, np.inf, 1e25])
def test_outputs_that_overflow_have_diverged(normalised, lost):
    """This includes outputs whose norm overflows in single precision."""
    before = jnp.asarray(changes(5)[0], jnp.float32)
    after = before.at[1, 2].set(lost)
    change = similarity.updates(after, before, normalised=normalised)
    found = similarity.mean_cosine(change, jnp.ones_like(change))
    assert found.diverged.tolist() == [1, 1]
    assert found.unmoved.tolist() == [19, 19]


def test_a_diverged_change_does_not_affect_the_centre_of_the_others(close):
    rows, _, other = map(jnp.asarray, changes(6))
    lost = rows.at[3, 4].set(jnp.nan)
    found = similarity.centred(lost)
    flat = rows.reshape(20, 2, 6)
    close(found.reshape(20, 2, 6)[:19], flat[:19] - jnp.mean(flat[:19], axis=0, keepdims=True))
    mean = similarity.mean_cosine(found, similarity.centred(other))
    assert np.isfinite(mean.mean).all()
    assert mean.diverged.tolist() == [1, 1]


def test_an_output_that_is_zero_has_no_direction(close):
    moved = similarity.updates(jnp.zeros((1, 3)), jnp.array([[0.0, 2.0, 0.0]]), normalised=True)
    close(moved, [[0.0, -1.0, 0.0]])


def test_maps_are_compared_for_each_head(close):
    zero, context, tuned = np.random.default_rng(1).normal(size=(3, 3, 4, 2, 5, 6))
    found = similarity.map_similarity(*map(jnp.asarray, (zero, context, tuned)))
    pairs = ((context, zero), (context, tuned), (context - zero, tuned - zero))
    assert not np.asarray(found.unmoved).any()
    for values, (one, other) in zip(found[:3], pairs, strict=True):
        expected = np.zeros((3, 4, 2, 5))
        for place in np.ndindex(expected.shape):
            a, b = one[place], other[place]
            expected[place] = a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)
        close(values, expected.mean(axis=(0, 1, 3)))


def test_the_cosine_of_maps_of_one_token_is_a_sign():
    zero, context, tuned = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4, 4, 1, 1, 1)))
    signs = similarity.cosine(context, tuned)
    np.testing.assert_allclose(np.abs(signs), 1)
    assert similarity.map_similarity(zero, context, tuned).before.shape == (1,)


def test_maps_that_do_not_change_are_counted():
    zero, context, tuned = np.random.default_rng(3).normal(size=(3, 2, 3, 2, 4, 5))
    tuned[:, :, 0] = zero[:, :, 0]  # a layer that finetuning leaves alone
    tuned[1, 2, 1, 3] = zero[1, 2, 1, 3] * (1 + 1e-15)
    tuned[0, 0, 1, 0] = np.nan
    found = similarity.map_similarity(*map(jnp.asarray, (zero, context, tuned)))
    assert found.unmoved.tolist() == [24, 1]
    assert found.diverged.tolist() == [0, 1]
    assert np.isnan(found.delta).tolist() == [True, False]
    assert np.isfinite(found.after).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_kendall_agrees_with_scipy(pairs):
    one, other = np.array(pairs, float).T
    expected = stats.kendalltau(one, other).statistic
    np.testing.assert_allclose(similarity.kendall(one, other), expected, atol=1e-12)


@pytest.mark.parametrize("ratio", [0.5, 3.0, 10.0])
def test_similarity_of_noise_on_one_output(ratio):
    normalised, raw = similarity.noise_similarity(jax.random.key(0), ratio, 8192, 32)
    assert abs(float(normalised) - similarity.noise_limit(ratio)) < 0.01
    assert abs(float(raw)) < 0.01


def test_the_noise_artefact_is_a_quarter_at_ratio_three(close):
    close(similarity.noise_limit(3.0), 0.25)
    with pytest.raises(BadInput, match="ratio must be a finite number above 0, got 0"):
        similarity.noise_limit(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes(dtype):
    rows = jnp.asarray(changes(3), dtype)
    assert similarity.mean_cosine(rows[0], rows[1]).mean.dtype.name == dtype
    assert similarity.updates(rows[0], rows[1], normalised=True).dtype.name == dtype


def test_the_cosine_of_zeros_has_finite_gradients():
    slope = jax.grad(lambda v: jnp.nansum(similarity.cosine(v, jnp.ones(3))))(jnp.ones(3))
    assert np.isfinite(slope).all()
