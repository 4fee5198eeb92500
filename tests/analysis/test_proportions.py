"""Wilson's interval against SciPy's, and bad input."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from toyicl.analysis.proportions import wilson_interval


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data(), trials=st.integers(1, 200), confidence=st.floats(0.5, 0.999))
def test_it_is_the_interval_of_scipy(data, trials, confidence):
    successes = data.draw(st.integers(0, trials))
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    found = wilson_interval(successes, trials, confidence)
    assert found == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "trials must be a whole number of at least 1, got 0"),
        ((4, 3), r"successes must be a whole number from 0 to trials \(3\), got 4"),
        ((-1, 3), r"successes must be a whole number from 0 to trials \(3\), got -1"),
        ((1, 3, 1.0), "confidence must be above 0 and below 1, got 1.0"),
        ((1, 3, 1.5), "confidence must be"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        wilson_interval(*arguments)
