"""Scaling of costs and errors: operation counts by XLA, and slopes on logarithmic axes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from toyicl.core.config import require


def operations(function: Callable, *arguments: Any) -> float:
    """Number of floating-point operations of a program, as counted by XLA before optimisation.

    Nothing is computed, so that arguments may be shapes (`jax.ShapeDtypeStruct`). Transcendental
    functions such as the exponential are not counted.
    """
    found: Any = jax.jit(function).lower(*arguments).cost_analysis() or {}
    return float(found.get("flops", 0.0))


def slope(sizes: Any, costs: Any, least: float = 0, most: float = np.inf) -> float:
    """Slope of a linear fit of log cost to log size, for sizes from `least` to `most`.

    Raises BadInput unless there are at least two such sizes and they and their costs are positive.
    """
    sizes, costs = np.asarray(sizes, float), np.asarray(costs, float)
    kept = (sizes >= least) & (sizes <= most)
    enough = np.unique(sizes[kept]).size > 1
    require(enough, "sizes", f"two or more between {least:g} and {most:g}", sizes.tolist())
    for name, values in (("sizes", sizes[kept]), ("costs", costs[kept])):
        require(bool(np.all(values > 0)), name, "above 0 for a slope", values.tolist())
    return float(np.polyfit(np.log(sizes[kept]), np.log(costs[kept]), 1)[0])


def crossing(sizes: Any, first: Any, second: Any) -> float:
    """The smallest size at which the first cost rises above the second, interpolated on log axes.

    NaN if the costs do not cross between two of the sizes.
    """
    ahead = np.log(np.asarray(first, float)) - np.log(np.asarray(second, float))
    above = (ahead[:-1] <= 0) & (ahead[1:] > 0)
    if not above.any():
        return float("nan")
    at = int(above.argmax())
    low, high = np.log(np.asarray(sizes, float))[at : at + 2]
    return float(np.exp(low - ahead[at] * (high - low) / (ahead[at + 1] - ahead[at])))
