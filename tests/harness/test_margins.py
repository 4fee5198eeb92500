"""Margins of equivalence: relative or absolute, and never below the rounding of a printed number."""

import pytest

from toyicl.core.errors import BadInput
from toyicl.harness.margins import MARGINS, half_width


@pytest.mark.parametrize(
    ("quantity", "reference", "printed", "width"),
    [
        ("loss ratio", 1.0, "", 0.02),
        ("loss", -0.5, "", 0.01),
        ("cosine", 1.0, "", 0.005),
        ("distance", 0.0, "", 0.1),
        ("loss", 0.179, "0.179", 0.02 * 0.179),  # wider than half a unit of the last digit
        ("loss", 0.179, ".2", 0.05),
        ("cosine", 0.9, "0.9", 0.05),
        ("steps", 2.0, "2e1", 5.0),
    ],
)
def test_a_margin_is_that_of_the_quantity_or_of_the_last_printed_digit(
    close, quantity, reference, printed, width
):
    close(half_width(quantity, reference, printed), width)


def test_every_margin_is_a_small_positive_number_with_a_reason():
    for margin in MARGINS.values():
        assert 0 < margin.size <= 0.2
        assert margin.why


@pytest.mark.parametrize(
    ("quantity", "reference", "printed", "message"),
    [
        ("lost", 1.0, "", r"^quantity must be one of .*, got 'lost'$"),
        ("loss", 0.0, "", r"^the value compared with must differ from 0 .* loss is relative$"),
        ("loss", 1.0, "about 1", r"^printed must be a number .*, got 'about 1'$"),
        ("loss", 1.0, "nan", r"^printed must be a number .*, got 'nan'$"),
    ],
)
def test_a_margin_that_is_not_defined_is_an_error(quantity, reference, printed, message):
    with pytest.raises(BadInput, match=message):
        half_width(quantity, reference, printed)
