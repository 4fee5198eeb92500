"""Operation counts of products, slopes of power laws, and where costs cross."""

import jax
import numpy as np
import pytest

from toyicl.analysis.cost_scaling import crossing, operations, slope

SIZES = np.array([1, 2, 4, 8, 16])


def test_operations_of_a_product_are_two_for_each_term():
    rows, columns = jax.ShapeDtypeStruct((3, 5), float), jax.ShapeDtypeStruct((5, 7), float)
    assert operations(lambda a, b: a @ b, rows, columns) == 2 * 3 * 5 * 7
    assert operations(lambda a, b: a @ b, np.ones((3, 5)), np.ones((5, 7))) == 2 * 3 * 5 * 7


def test_a_program_that_returns_its_argument_has_no_operations():
    assert operations(lambda a: a, np.ones(3)) == 0


@pytest.mark.parametrize("power", [-1.0, 0.5, 2.0])
def test_the_slope_of_a_power_law_is_its_power(power, close):
    close(slope(SIZES, 3 * SIZES**power), power)


def test_only_sizes_within_the_bounds_are_fitted(close):
    costs = np.where(SIZES < 4, 100.0, SIZES**2.0)
    close(slope(SIZES, costs, 4), 2.0)
    close(slope(SIZES, costs, 4, 8), 2.0)
    assert slope(SIZES, costs) < 1.5


@pytest.mark.parametrize(
    ("costs", "least", "message"),
    [
        (SIZES, 16, r"^sizes must be two or more between 16 and inf, got \["),
        (SIZES - 1, 0, r"^costs must be above 0 for a slope, got \[0.0, "),
        (SIZES * np.nan, 0, r"^costs must be above 0 for a slope, got \[nan, "),
    ],
)
def test_sizes_and_costs_without_a_slope_are_refused(costs, least, message):
    with pytest.raises(ValueError, match=message):
        slope(SIZES, costs, least)


def test_power_laws_cross_where_they_are_equal(close):
    close(crossing(SIZES, SIZES**2.0, 5.0 * SIZES), 5.0)
    close(crossing(SIZES, SIZES**2.0, 4.0 * SIZES), 4.0)


def test_costs_that_never_cross_have_no_crossing():
    assert np.isnan(crossing(SIZES, SIZES, 2.0 * SIZES))
    assert np.isnan(crossing(SIZES, 2.0 * SIZES, SIZES))
