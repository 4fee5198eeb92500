"""Confidence intervals against SciPy's, and against what they should cover."""

import numpy as np
import pytest
import scipy.stats

from toyicl.harness.intervals import student, wilson


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_the_interval_of_a_mean_is_students(count):
    values = np.random.default_rng(count).normal(1.0, 0.1, count)
    expected = scipy.stats.t.interval(0.95, count - 1, values.mean(), scipy.stats.sem(values))
    np.testing.assert_allclose(student(values.tolist()), expected, rtol=1e-9)


def test_equal_values_have_an_interval_without_width():
    assert student([0.5, 0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize("count", [1, 3, 5, 10])
def test_the_interval_of_a_fraction_is_wilsons(count):
    for successes in range(count + 1):
        expected = scipy.stats.binomtest(successes, count).proportion_ci(method="wilson")
        found = wilson(successes, count)
        np.testing.assert_allclose(found, [expected.low, expected.high], atol=1e-12)


def test_students_interval_covers_the_mean_in_95_percent_of_samples():
    draws = np.random.default_rng(0).normal(0.0, 1.0, (4000, 4))
    covered = [low <= 0 <= high for low, high in map(student, draws.tolist())]
    assert 0.94 < np.mean(covered) < 0.96
