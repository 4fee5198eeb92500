"""The distribution of eigenvalues: its moments, its samples, and its rare large values."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled import drawn

from toyicl import theory
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import gram_spectrum

ORACLES = json.loads((Path(__file__).parents[1] / "helpers" / "oracles.json").read_text())
EXACT = 1e-6
SIZES = (5, 10, 20, 35, 50)


def linear(context_size=10, **others):
    return LinearRegression(context_size=context_size, **others)


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=[pytest.mark.slow] * (size > 10)) for size in SIZES]
)
def test_trace_moments_are_exact(size, close):
    expected = np.array(ORACLES["trace_moments"][f"N{size}"][1:]) * 10
    close(gram_spectrum.trace_moments(10, size, "uniform"), expected)
    values, weights = gram_spectrum.eigenvalue_quadrature(linear(size))
    assert np.all(weights > 0)
    assert weights.sum() == pytest.approx(10, EXACT)
    moments = np.array([weights @ values**power for power in range(1, 9)])
    np.testing.assert_allclose(moments, expected, EXACT)


def test_gaussian_trace_moments_are_those_of_wishart():
    d, n = 4, 7
    second, third = d * n * (n + d + 1), d * n * (n**2 + d**2 + 3 * n * d + 3 * n + 3 * d + 4)
    moments = gram_spectrum.trace_moments(d, n, "normal")[:3]
    np.testing.assert_allclose(moments, [d * n, second, third], 1e-12)


def test_gram_spectrum_is_that_of_the_scatter_matrix():
    task = LinearRegression(dim=4, context_size=3, input_range=2.0)
    values = gram_spectrum.gram_spectrum(task, tasks=1001)
    assert values.shape == (1001, 4)
    assert values.dtype == np.float64
    assert np.all(values[:, 0] == 0)
    assert np.all(values[:, 1:] > 0)
    assert np.all(np.diff(values) >= 0)
    np.testing.assert_array_equal(values, gram_spectrum.gram_spectrum(task, tasks=1001))
    np.testing.assert_array_equal(
        values, 4 * gram_spectrum.gram_spectrum(replace(task, input_range=1.0), 1001)
    )
    assert not np.array_equal(values, gram_spectrum.gram_spectrum(task, tasks=1001, seed=1))


@pytest.mark.parametrize("distribution", ["uniform", "normal", "laplace"])
def test_gram_spectrum_follows_the_distribution_of_the_task(distribution):
    task = LinearRegression(dim=3, context_size=5, input_distribution=distribution, input_range=1.5)
    x = np.asarray(drawn(task, 0, 50_000).x)
    sampled = np.linalg.eigvalsh(np.einsum("nae,nbe->eab", x, x))
    ours = gram_spectrum.gram_spectrum(task, tasks=50_000)
    for fraction in (0.1, 0.5, 0.9):
        expected = np.quantile(sampled, fraction, axis=0)
        np.testing.assert_allclose(np.quantile(ours, fraction, axis=0), expected, 0.04)


def test_rare_large_eigenvalues_are_as_rare_as_they_should_be():
    largest = gram_spectrum.gram_spectrum(linear(), tasks=200_000)[:, -1]
    for bound, expected in ORACLES["P_lmax_gt"].items():
        larger = largest > float(bound)
        error = larger.std() / np.sqrt(larger.size)
        assert abs(larger.mean() - expected) < 3 * error, (bound, larger.mean(), expected)


def test_worst_case_curvature_makes_both_ends_equal():
    values = np.array([[0.2, 1.0, 2.5], [0.4, 1.1, 3.0]])
    gamma = gram_spectrum.worst_case_curvature(values)
    ends = np.array([0.3, 3.0])
    after = ends * (1 - gamma * ends) ** 2
    assert after[0] == pytest.approx(after[1], 1e-12)
    assert gamma < 1 / 3.0


def test_condition_numbers_are_medians_over_tasks():
    values = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 5.0]])
    expected = [4.0, (2 * 0.8**2) / 0.9**2]
    np.testing.assert_allclose(
        gram_spectrum.condition_numbers(values, np.array([0.0, 0.1])), expected
    )


@pytest.mark.parametrize("size", [30_000, 1_000_000])
def test_a_long_context_has_few_distinct_eigenvalues(size, monkeypatch):
    """They are near N / 12, and too few for as many moments as are imposed otherwise."""
    monkeypatch.setattr(gram_spectrum, "ENTRIES", 10_000_000)
    task = linear(size, dim=2, label_noise=1.0)
    values, weights = gram_spectrum.eigenvalue_quadrature(task)
    assert weights.sum() == pytest.approx(2, EXACT)
    assert weights @ values == pytest.approx(2 * size / 12, 1e-3)
    assert theory.ridge(task)[0] == pytest.approx(1 / size, 1e-2)
