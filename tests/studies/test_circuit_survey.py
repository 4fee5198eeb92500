"""Eigenvalues of heads and of trained layers, against matrices and a construction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.analysis.head_circuits import CIRCUITS, HeadCircuits
from toyicl.models.construction import gradient_descent_transformer
from toyicl.studies import circuit_survey


@pytest.fixture(scope="module")
def found():
    keys = jax.random.split(jax.random.key(0), len(CIRCUITS))
    shape = (2, 3, 4, 4, 9)
    return {
        name: HeadCircuits(*jax.random.normal(key, shape))
        for name, key in zip(CIRCUITS, keys, strict=True)
    }


def matrix_of(circuits, right):
    return np.asarray(circuits.left).T @ np.asarray(right)


@pytest.mark.parametrize("shared", [1, 2])
def test_eigenvalues_are_those_of_the_matrices_of_both_sources(found, shared):
    spectra = circuit_survey.spectra(found, shared=shared)
    assert list(spectra) == ["model", "other head"]
    for place, name in enumerate(CIRCUITS):
        own = jax.tree.map(lambda leaf: leaf[1, 3], found[name])
        other = found[name].right[1, 3 - shared]
        for source, right in (("model", own.right), ("other head", other)):
            matrix = matrix_of(own, right)
            real, imaginary = spectra[source][place, 1, 3]
            values = np.linalg.eigvals(matrix) * np.sqrt(4) / np.linalg.norm(matrix)
            largest = values[np.argsort(-np.abs(values))][:4]
            ours = real + 1j * imaginary
            distances = np.abs(ours[:, None] - largest[None])
            assert distances.min(axis=0).max() < 1e-9


def test_there_is_no_other_head_if_all_share_keys_and_values(found):
    assert list(circuit_survey.spectra(found, shared=4)) == ["model"]
    assert bool(np.isnan(circuit_survey.survey(found, shared=4).z.sel(source="other head")).all())


def test_a_constructed_layer_has_projections_of_opposite_signs():
    """Ten of its twenty eigenvalues are equal, and the others 0."""
    layer = gradient_descent_transformer(0.5, 10, 10, 10)
    scored = circuit_survey.trained_heads(jax.tree.map(lambda leaf: leaf[None], layer))
    np.testing.assert_allclose(scored["trained_z"][1], [[200**0.5, -(200**0.5)]], rtol=1e-6)
    np.testing.assert_allclose(scored["trained_fraction"][1], 0.5, rtol=1e-6)
    dims, values = scored["trained_eigenvalue"]
    assert dims == ("seed", "circuit", "part", "trained_index")
    np.testing.assert_allclose(values[:, :, 1], 0.0, atol=1e-9)
    for circuit, sign in enumerate((1, -1)):
        ordered = np.sort(sign * values[0, circuit, 0])
        np.testing.assert_allclose(ordered, [0.0] * 10 + [2**0.5] * 10, atol=1e-6)


def test_the_strongest_head_and_those_of_opposite_signs(found):
    scored = circuit_survey.survey(found)
    layer, head = circuit_survey.strongest(scored)
    smaller = np.abs(scored.z.sel(source="model").values).min(axis=0)
    assert smaller[layer, head] == smaller.max()
    size = 8.0
    eye = jnp.broadcast_to(jnp.eye(4, 9), (2, 3, 4, 9))
    signs = jnp.array([[1, -1, 1], [-1, -1, 1]])[..., None, None]
    whole = {
        "key_query": HeadCircuits(eye, size * eye),
        "value_output": HeadCircuits(eye, signs * eye),
    }
    opposite = circuit_survey.opposite(circuit_survey.survey(whole)).sel(source="model")
    assert opposite.values.tolist() == [[False, True, False], [True, True, False]]
