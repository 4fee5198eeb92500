"""Helpers for xarray datasets of results: building, selecting parts, and joining."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

DIMENSIONS = ("seed", "step", "reference", "shift", "amount", "saddle")
"""Variables that `dataset` turns into coordinates."""
Variables = dict[str, Any]
"""Variables of a dataset by name, in the forms that `xarray.Dataset` accepts."""


def part(results: xr.Dataset, **where: Any) -> xr.Dataset:
    """The results at some coordinates, without labels of other dimensions that only other parts have.

    Results of several models may be padded with NaN, for example if models have different numbers of
    training steps. The padding of the part is removed; see `without_padding`.
    """
    return without_padding(results.sel(where)) if where else results


def without_padding(point: xr.Dataset) -> xr.Dataset:
    """Results without the labels of a dimension at which all variables with the dimension are NaN."""
    for dim in point.dims:
        holding = [values for values in point.data_vars.values() if dim in values.dims]
        floats = [values for values in holding if values.dtype.kind == "f"]
        if dim in point.coords and floats and len(floats) == len(holding):
            others = [[name for name in values.dims if name != dim] for values in floats]
            kept = [v.notnull().any(rest) for v, rest in zip(floats, others, strict=True)]
            point = point.isel({dim: np.logical_or.reduce([k.values for k in kept])})
    return point


def side_by_side(parts: Mapping[Any, xr.Dataset], dim: str) -> xr.Dataset:
    """Join the datasets of several models along a new dimension, {label: dataset}.

    Where only some of them have a label of a dimension, such as a step or a reference, the others are
    padded with NaN, and `on_plateau` with False.
    """
    joined = xr.concat(
        list(parts.values()),
        dim,
        data_vars="all",
        coords="minimal",
        compat="override",
        join="outer",
    )
    if "on_plateau" in joined:
        joined["on_plateau"] = joined.on_plateau.fillna(False).astype(bool)
    return joined.assign_coords({dim: list(parts)})


def seed_coordinate(seeds: Any, dim: str = "seed") -> Variables:
    """The coordinate of a dimension of seeds, marked as such for `seed_dim`."""
    return {dim: (dim, np.asarray(seeds), {"role": "seed"})}


def seed_dim(values: xr.Dataset | xr.DataArray) -> str:
    """Name of the dimension of seeds: the one whose coordinate has the attribute role = "seed".

    Without a marked coordinate, a dimension that is called "seed". Raises ValueError if there is none,
    or more than one.
    """
    marked = [str(d) for d in values.dims if d in values.coords and _is_of_seeds(values[d])]
    found = marked or [str(dim) for dim in values.dims if dim == "seed"]
    if len(found) != 1:
        rule = "have one dimension whose coordinate has the attribute role = 'seed'"
        raise ValueError(f"values must {rule}, got the dimensions {tuple(values.dims)}")
    return found[0]


def _is_of_seeds(coordinate: xr.DataArray) -> bool:
    return coordinate.attrs.get("role") == "seed"


def dataset(*variables: Variables, **attributes: Any) -> xr.Dataset:
    """A dataset of variables, with the variables of `DIMENSIONS` as coordinates.

    The coordinate "seed" is marked for `seed_dim`.
    """
    merged = {name: values for some in variables for name, values in some.items()}
    coordinates: Variables = {name: merged.pop(name) for name in DIMENSIONS if name in merged}
    if "seed" in coordinates:
        coordinates |= seed_coordinate(coordinates["seed"])
    return xr.Dataset(merged, coords=coordinates, attrs=attributes)
