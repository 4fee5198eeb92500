"""Confidence intervals of small samples."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

LEVEL = 0.95
"""Confidence level of the intervals."""


class Interval(NamedTuple):
    """A closed interval of numbers; its ends may be infinite."""

    low: float
    high: float


def student(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of at least two independent, normally distributed values."""
    count = len(values)
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    half = _quantile(count - 1) * deviation / math.sqrt(count)
    return Interval(mean - half, mean + half)


def wilson(successes: int, count: int) -> Interval:
    """Wilson's score interval of a probability, from the number of successes among independent trials.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    z = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
    fraction = successes / count
    center = (fraction + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = math.sqrt(fraction * (1 - fraction) / count + z**2 / (4 * count**2))
    half = z * spread / (1 + z**2 / count)
    return Interval(max(0.0, center - half), min(1.0, center + half))


def _quantile(freedom: int) -> float:
    """Upper quantile of Student's t distribution, by its degrees of freedom."""
    from scipy.special import stdtrit  # listing experiments needs no SciPy

    return float(stdtrit(freedom, (1 + LEVEL) / 2))
