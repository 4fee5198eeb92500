"""Proportions of a sample, with their uncertainty."""

from math import sqrt
from statistics import NormalDist

from toyicl.core.config import require, require_size


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of Wilson's score interval for a proportion, from 0 to 1.

    It has close to the given coverage also for few trials and for proportions near 0 or 1 (Wilson,
    1927). Raises BadInput unless there is a trial, `successes` are at most the trials, and `confidence`
    is between 0 and 1, both excluded.
    """
    require_size("trials", trials)
    rule = f"a whole number from 0 to trials ({trials})"
    require(successes in range(trials + 1), "successes", rule, successes)
    require(0 < confidence < 1, "confidence", "above 0 and below 1", confidence)
    z, rate = NormalDist().inv_cdf((1 + confidence) / 2), successes / trials
    spread = z * sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    center, scale = rate + z**2 / (2 * trials), 1 + z**2 / trials
    return (center - spread) / scale, (center + spread) / scale
