"""Scores of circuits, against the matrices themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.analysis import head_circuits
from toyicl.analysis.head_circuits import HeadCircuits
from toyicl.models.attention import Attention, AttentionSettings


def random_circuits(shape, seed=0):
    return HeadCircuits(*jax.random.normal(jax.random.key(seed), (2, *shape)))


def test_scores_equal_those_of_the_whole_matrices():
    found = random_circuits((3, 2, 4, 7))
    scores = head_circuits.scores(found)
    for layer in range(3):
        for head in range(2):
            matrix = np.asarray(found.left[layer, head]).T @ np.asarray(found.right[layer, head])
            trace, norm = np.trace(matrix), np.linalg.norm(matrix)
            values = np.linalg.eigvals(matrix)
            expected = (
                trace * np.sqrt(7) / norm,
                trace**2 / (4 * norm**2),
                values.real.sum() / np.abs(values).sum(),
            )
            own = [float(score[layer, head]) for score in scores]
            np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-4)


def test_a_multiple_of_a_projection_has_fraction_1_and_its_sign():
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (9, 4)))[0].T
    for factor, sign in ((2.0, 1.0), (-0.1, -1.0)):
        scores = head_circuits.scores(HeadCircuits(basis, factor * basis))
        assert float(scores.fraction) == pytest.approx(1.0, rel=1e-5)
        assert float(scores.sign) == pytest.approx(sign, rel=1e-5)
        assert float(scores.z) == pytest.approx(sign * np.sqrt(4 * 9), rel=1e-5)


def test_the_square_of_the_mean_eigenvalue_is_the_fraction():
    found = random_circuits((3, 2, 4, 7), seed=2)
    values = np.asarray(head_circuits.eigenvalues(found))
    assert values.shape == (3, 2, 4)
    np.testing.assert_allclose(values.mean(axis=-1).imag, 0.0, atol=1e-6)
    fractions = head_circuits.scores(found).fraction
    np.testing.assert_allclose(values.mean(axis=-1).real ** 2, fractions, rtol=1e-4, atol=1e-6)
    for layer in range(3):
        matrix = np.asarray(found.left[layer, 1]).T @ np.asarray(found.right[layer, 1])
        whole = np.linalg.eigvals(matrix) * np.sqrt(4) / np.linalg.norm(matrix)
        largest = whole[np.argsort(-np.abs(whole))][:4]
        own = values[layer, 1]
        distances = np.abs(own[:, None] - largest[None])
        assert distances.min(axis=0).max() < 1e-4
        assert distances.min(axis=1).max() < 1e-4


def test_z_of_a_random_orientation_is_about_standard_normal():
    found = random_circuits((1, 1, 8, 32))
    keys = jax.random.split(jax.random.key(1), 2000)
    z = jax.vmap(lambda key: head_circuits.scores(head_circuits.rotated(key, found)).z)(keys)
    assert float(jnp.mean(z)) == pytest.approx(0.0, abs=4 / np.sqrt(2000))
    assert float(jnp.var(z)) == pytest.approx(1.0, abs=0.15)


def test_a_rotation_keeps_the_norm_of_the_circuit():
    found = random_circuits((2, 3, 4, 10))
    turned = head_circuits.rotated(jax.random.key(0), found)
    norms = [
        jnp.linalg.norm(jnp.swapaxes(each.left, -1, -2) @ each.right, axis=(-2, -1))
        for each in (found, turned)
    ]
    np.testing.assert_allclose(*norms, rtol=1e-4)


def test_shuffled_circuits_have_factors_of_another_head_or_layer():
    found = random_circuits((3, 4, 2, 5))
    by_head = head_circuits.shuffled(found, 2)
    np.testing.assert_array_equal(by_head.right[1, 3], found.right[1, 1])
    by_layer = head_circuits.shuffled(found, 0, layers=1)
    np.testing.assert_array_equal(by_layer.right[2, 3], found.right[1, 3])
    np.testing.assert_array_equal(by_layer.left, found.left)


def test_factors_of_an_attention_layer_multiply_to_its_circuits():
    attention = Attention(6, jax.random.key(0), AttentionSettings(heads=2, key_size=3))
    found = head_circuits.of_attention(attention)
    for name, expected in (
        ("key_query", attention.key_query),
        ("value_output", attention.value_output),
    ):
        product = jnp.swapaxes(found[name].left, -1, -2) @ found[name].right
        np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-9)
