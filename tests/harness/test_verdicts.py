"""Verdicts from intervals and regions."""

import math

import numpy as np
import pytest

from toyicl.harness import verdicts
from toyicl.harness.intervals import Interval, student
from toyicl.harness.verdicts import Region, Sample, of_each_value, of_samples, successes

EQUAL = Region(0.98, 1.02, closed=True)
ABOVE = Region(0.5, math.inf, closed=False)


def judged(region, *samples, interval_of=student):
    named = [Sample(list(values), f"size {i}") for i, values in enumerate(samples)]
    return of_samples(region, named, interval_of)


@pytest.mark.parametrize(
    ("values", "verdict", "reason"),
    [
        ([1.0, 1.001, 0.999], "reproduced", ""),
        ([1.05, 1.051, 1.052], "not reproduced", ""),
        ([1.0, 1.02, 1.04], "inconclusive", verdicts.STRADDLES),
        ([0.9, 1.0, 1.1], "inconclusive", verdicts.STRADDLES),
        ([1.0, 1.0], "inconclusive", verdicts.TOO_FEW),
        ([9.0], "inconclusive", verdicts.TOO_FEW),
        ([], "inconclusive", verdicts.ALL_ON_PLATEAU),
        ([1.0, 1.0, math.inf], "not reproduced", verdicts.NOT_FINITE),
        ([math.nan, 1.0], "not reproduced", verdicts.NOT_FINITE),
    ],
)
def test_equality_needs_the_whole_interval_inside_the_margin(values, verdict, reason):
    assert judged(EQUAL, values)[:2] == (verdict, reason)


@pytest.mark.parametrize(
    ("values", "verdict", "reason"),
    [
        ([0.6, 0.61, 0.62], "reproduced", ""),
        ([0.4, 0.41, 0.42], "not reproduced", ""),
        ([0.5, 0.5, 0.5], "not reproduced", ""),  # not greater
        ([0.4, 0.5, 0.6], "inconclusive", verdicts.CONTAINS_LIMIT),
    ],
)
def test_an_inequality_needs_the_whole_interval_on_its_side(values, verdict, reason):
    assert judged(ABOVE, values)[:2] == (verdict, reason)


@pytest.mark.parametrize(
    ("count", "of", "verdict", "reason"),
    [
        (3, 3, "inconclusive", verdicts.TOO_FEW),  # [.44, 1]
        (1, 3, "inconclusive", verdicts.TOO_FEW),
        (4, 4, "reproduced", ""),
        (0, 4, "not reproduced", ""),
        (4, 5, "inconclusive", verdicts.CONTAINS_LIMIT),
        (9, 10, "reproduced", ""),
        (1, 10, "not reproduced", ""),
    ],
)
def test_an_event_must_appear_in_most_seeds_by_wilsons_interval(count, of, verdict, reason):
    values = [1.0] * count + [0.0] * (of - count)
    assert judged(ABOVE, values, interval_of=successes)[:2] == (verdict, reason)


def test_of_several_samples_all_must_be_inside_and_one_outside_is_enough():
    inside, outside, across = [1.0, 1.001, 0.999], [1.1, 1.101, 1.102], [0.9, 1.0, 1.1]
    assert judged(EQUAL, inside, inside).verdict == "reproduced"
    assert judged(EQUAL, inside, across)[::3] == ("inconclusive", "size 1")
    assert judged(EQUAL, inside, across, outside)[::3] == ("not reproduced", "size 2")
    assert judged(EQUAL, inside, [])[:2] == ("inconclusive", verdicts.ALL_ON_PLATEAU)
    low, high = judged(EQUAL, inside, outside).interval
    np.testing.assert_allclose([low, high], [student(inside).low, student(outside).high])


def test_values_that_are_no_sample_are_compared_as_they_are():
    for values, verdict in (([1.02], "reproduced"), ([1.0, 1.03], "not reproduced")):
        assert of_each_value(EQUAL, [Sample(values)])[:3] == (verdict, "", None)
    assert of_each_value(EQUAL, [Sample([math.nan])])[:2] == ("not reproduced", verdicts.NOT_FINITE)
    assert of_each_value(ABOVE, [Sample([0.5])]).verdict == "not reproduced"


def test_no_interval_is_both_inside_and_outside():
    ends = [-math.inf, 0.0, 0.5, 1.0, math.inf]
    for region in (EQUAL, ABOVE, Region(-math.inf, 0.5, closed=False), Region(0, 0, closed=True)):
        for low in (-1.0, 0.0, 0.5, 1.0):
            for high in (end for end in ends[1:-1] if end >= low):
                interval = Interval(low, high)
                assert not (region.contains(interval) and region.excludes(interval))
