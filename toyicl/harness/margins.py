"""Margins of equivalence: how far a measured value may lie from a claim's value, by kind of quantity.

The margins are chosen once for each quantity, and never for a single claim. Where a paper prints a
number, the margin covers at least the rounding of its last digit.
"""

from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from toyicl.core.errors import BadInput


class Margin(NamedTuple):
    """The margin of equivalence of a quantity."""

    size: float
    """Largest distance of a measured value from the claim's value."""
    relative: bool
    """Whether the size is a fraction of the absolute value of the claim's value."""
    why: str
    """How the size was chosen."""

    def __str__(self) -> str:
        return f"{self.size:.3g} relative" if self.relative else f"{self.size:.3g}"


_EVALUATION = (
    "the standard error of a loss on 10,000 episodes is about 1%, most of which a model and its "
    "reference share"
)
MARGINS: dict[str, Margin] = {
    "loss ratio": Margin(0.02, True, _EVALUATION),
    "loss": Margin(0.02, True, _EVALUATION),
    "logarithm of a loss": Margin(
        0.1,
        False,
        "base 10; curves on a logarithmic axis, over several decades, that a paper calls similar",
    ),
    "norm ratio": Margin(0.02, True, "as for losses"),
    "weight": Margin(
        0.05, True, "step sizes, curvatures and ratios of weights, at which the loss is flat"
    ),
    "cosine": Margin(0.005, False, "a cosine of .995 is an angle of 6 degrees"),
    "distance": Margin(
        0.1,
        False,
        "of order 1 without training or without a context; the claim is that it is near 0",
    ),
    "accuracy": Margin(
        0.02, False, "twice the standard error of a fraction of 2,304 answers near .5"
    ),
    "similarity": Margin(0.02, False, "as for accuracies; published values differ by more"),
    "share": Margin(0.02, False, "fractions of a variance, of eigenvalues or of weights"),
    "steps": Margin(0.2, True, "numbers of training steps or of layers, read from a curve"),
    "rounding": Margin(1e-12, False, "double precision, with sums of up to some thousand terms"),
    "single-precision rounding": Margin(
        1e-4, False, "single precision, with rounding errors that add up over up to 100 layers"
    ),
}
"""The margin of each quantity that a claim of equality can name."""


def half_width(quantity: str, reference: float, printed: str = "") -> float:
    """Largest distance from a reference value at which a measured value counts as equal.

    It is the quantity's margin, or half a unit of the last digit of `printed`, if that is larger.
    Raises BadInput for a quantity that has no margin, for a relative margin of 0, and for a text that
    is not a number.
    """
    if quantity not in MARGINS:
        known = ", ".join(MARGINS)
        raise BadInput(f"quantity must be one of {known}, got {quantity!r}")
    margin = MARGINS[quantity]
    size = margin.size * abs(reference) if margin.relative else margin.size
    width = max(size, _half_a_digit(printed) if printed else 0.0)
    if not width:
        raise BadInput(
            f"the value compared with must differ from 0 where the margin of {quantity} is relative"
        )
    return width


def _half_a_digit(printed: str) -> float:
    """Half a unit of the last digit of a number, as it is printed: .0005 for "0.179"."""
    try:
        exponent = Decimal(printed).as_tuple().exponent
        return float(Decimal(5).scaleb(int(exponent) - 1))  # exponents of nan and inf are letters
    except (InvalidOperation, ValueError):
        raise BadInput(
            f"printed must be a number as the paper prints it, got {printed!r}"
        ) from None
