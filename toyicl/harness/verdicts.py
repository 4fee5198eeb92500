"""Verdicts on claims: whether the interval of a measured value lies in the region that is claimed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from toyicl.harness.intervals import Interval, wilson

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
PROVED, REFUTED = "proved", "refuted"
HOLDS, FAILS, NOT_RUN = "holds", "fails", "not run"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, PROVED, REFUTED, HOLDS, FAILS, NOT_RUN)
"""Verdicts on measured claims, on analytical claims, on findings, and without results."""
FAILURES = (NOT_REPRODUCED, REFUTED, FAILS)
"""Verdicts with which `toyicl verify` exits with 1."""

STRADDLES = "the interval straddles the margin's edge"
CONTAINS_LIMIT = "the interval contains the value it is compared with"
TOO_FEW = "too few seeds"
CUT = "training was cut: the loss was still falling"
ALL_ON_PLATEAU = "all seeds are on a plateau"
NOT_FINITE = "a value is not finite"
FEWEST = 3
"""Smallest sample that has an interval."""

IntervalOf = Callable[[Sequence[float]], Interval]


@dataclass(frozen=True)
class Region:
    """The values with which a claim is true."""

    low: float
    high: float
    closed: bool
    """Whether the ends belong to the region."""

    def contains(self, interval: Interval) -> bool:
        """Whether the whole interval lies in the region."""
        if self.closed:
            return self.low <= interval.low and interval.high <= self.high
        return self.low < interval.low and interval.high < self.high

    def excludes(self, interval: Interval) -> bool:
        """Whether the whole interval lies outside the region, on one side of it."""
        if self.closed:
            return interval.high < self.low or interval.low > self.high
        return interval.high <= self.low or interval.low >= self.high


class Sample(NamedTuple):
    """Values that are compared at once, such as those of the seeds at one size."""

    values: list[float]
    """Those that count; seeds on their plateau do not."""
    place: str = ""
    """Coordinates of the sample as text, such as "size 50"; empty if there is one sample only."""


class Verdict(NamedTuple):
    """A verdict and what it is based on."""

    verdict: str
    reason: str = ""
    """Why it is inconclusive, or a value that is not finite; else empty."""
    interval: Interval | None = None
    """The smallest interval that contains those of all samples; None without one."""
    place: str = ""
    """The first sample that decides a verdict other than "reproduced", if there are several."""


def of_samples(region: Region, samples: Sequence[Sample], interval_of: IntervalOf) -> Verdict:
    """The verdict on the interval of each sample.

    Reproduced if the intervals of all samples lie in the region; not reproduced if that of one lies
    outside, or if a value is not finite; else inconclusive. `interval_of` is `student` for the mean of
    values, or `successes` for a fraction.
    """
    return _of_all([_of_sample(region, sample, interval_of) for sample in samples])


def of_each_value(region: Region, samples: Sequence[Sample]) -> Verdict:
    """The verdict where values are no sample: on each of them as it is, without an interval."""
    found = [
        verdict for sample in samples for verdict in _of_values(region, sample.values, sample.place)
    ]
    return _of_all(found)._replace(interval=None)


def successes(values: Sequence[float]) -> Interval:
    """Wilson's interval of the fraction of values that are not 0."""
    return wilson(sum(value != 0 for value in values), len(values))


def _of_values(region: Region, values: list[float], place: str) -> list[Verdict]:
    if not values:
        return [Verdict(INCONCLUSIVE, ALL_ON_PLATEAU, None, place)]
    return [
        _compared(region, Interval(value, value), place)
        if math.isfinite(value)
        else Verdict(NOT_REPRODUCED, NOT_FINITE, None, place)
        for value in values
    ]


def _of_sample(region: Region, sample: Sample, interval_of: IntervalOf) -> Verdict:
    values, place = sample
    if not values:
        return Verdict(INCONCLUSIVE, ALL_ON_PLATEAU, None, place)
    if not all(map(math.isfinite, values)):
        return Verdict(NOT_REPRODUCED, NOT_FINITE, None, place)
    if len(values) < FEWEST:
        return Verdict(INCONCLUSIVE, TOO_FEW, None, place)
    found = _compared(region, interval_of(values), place)
    if found.verdict == INCONCLUSIVE and interval_of is successes:
        possible = successes([1.0] * len(values))  # of a sample in which all succeed
        return found if region.contains(possible) else found._replace(reason=TOO_FEW)
    return found


def _compared(region: Region, interval: Interval, place: str) -> Verdict:
    if region.contains(interval):
        return Verdict(REPRODUCED, "", interval)
    if region.excludes(interval):
        return Verdict(NOT_REPRODUCED, "", interval, place)
    return Verdict(INCONCLUSIVE, STRADDLES if region.closed else CONTAINS_LIMIT, interval, place)


def _of_all(found: Sequence[Verdict]) -> Verdict:
    """The verdict on all samples together."""
    intervals = [one.interval for one in found if one.interval is not None]
    hull = None
    if intervals:
        hull = Interval(min(one.low for one in intervals), max(one.high for one in intervals))
    for verdict in (NOT_REPRODUCED, INCONCLUSIVE):
        for one in found:
            if one.verdict == verdict:
                return one._replace(interval=hull)
    return Verdict(REPRODUCED, "", hull)
