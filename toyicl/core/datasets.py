"""Helpers for xarray datasets of results: selecting parts, joining, and padding."""

from typing import Any

import numpy as np


def part(results: "xr.Dataset", **where: Any) -> "xr.Dataset":
    """The results at some coordinates, without the steps, layers, ... that only other parts have."""
    chosen = results.sel(where) if where else results
    return without_padding(chosen) if where else chosen


def without_padding(point: "xr.Dataset") -> "xr.Dataset":
    """Results without the steps, layers, ... at which every variable that has them is NaN."""
    for dim in point.dims:
        holding = [values for values in point.data_vars.values() if dim in values.dims]
        floats = [values for values in holding if values.dtype.kind == "f"]
        if dim in point.coords and floats and len(floats) == len(holding):
            others = [[name for name in values.dims if name != dim] for values in floats]
            kept = [v.notnull().any(rest) for v, rest in zip(floats, others, strict=True)]
            point = point.isel({dim: np.logical_or.reduce([k.values for k in kept])})
    return point
