"""Sweeps: the grid of their points, their results as one dataset, and their figure."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.datasets import DIMENSIONS, without_padding
from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness.claims import Statement
from toyicl.harness.evaluation import NotMeasured
from toyicl.plots import figures

MEASURED = "measured_"
"""Prefix of a coordinate, before the name of a dimension, that marks which entries a point has."""


def grid(sweep: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The points of a sweep's grid, the last setting fastest; one empty point without a sweep."""
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def named(point: dict[str, Any]) -> str:
    """A point of the grid as text."""
    return ", ".join(f"{name} = {value}" for name, value in point.items())


def require_free_names(
    experiment: str, sweep: dict[str, list[Any]], known: Iterable[xr.Dataset] = ()
) -> None:
    """Check, before anything is trained, that no swept setting is named like a variable of the results.

    The swept settings become dimensions of the results. `known` are earlier results of the experiment,
    whose variables the new ones have as well, but for those that were swept settings then. Raises
    BadInput that names the setting.
    """
    names = set(DIMENSIONS)
    for results in known:
        names |= _names(results) - set(json.loads(results.attrs.get("sweep", "{}")))
    for path in sweep:
        rule = f"the setting {path!r}, whose name is also that of a variable of the results"
        if path in names:
            raise BadInput(f"sweep must not be over {rule} of {experiment}")


def require_own_names(
    experiment: str, sweep: dict[str, list[Any]], measured: Sequence[xr.Dataset]
) -> None:
    """Check that no swept setting is named like a variable that was measured.

    Raises Unfinished that names the setting; the training is kept.
    """
    names = {name for results in measured for name in _names(results)}
    for path in sweep:
        if path in names:
            raise Unfinished(
                f"results cannot be labelled by the swept setting {path!r}, since measure of "
                f"{experiment} returns a variable or dimension of this name; the training is kept; "
                "rename it there and rerun the same command"
            )


def _names(results: xr.Dataset) -> set[str]:
    """Names of the variables, coordinates and dimensions of results."""
    return {str(name) for name in (*results.variables, *results.dims)}


def labelled(results: Sequence[xr.Dataset], sweep: dict[str, list[Any]]) -> xr.Dataset:
    """Results of the grid's points as one, with a dimension for each swept setting.

    Points that differ in their entries along a dimension are padded, numbers with NaN and booleans
    with False. A coordinate, "measured_" followed by the name of the dimension, marks the entries that
    each point has.
    """
    if not sweep:
        return results[0]
    uneven = [dim for dim in _dims(results) if not _alike(results, dim)]
    padded = [_ready_to_pad(point, uneven) for point in results]
    cells: list[Any] = list(padded)
    for values in [*sweep.values()][:0:-1]:
        cells = [cells[i : i + len(values)] for i in range(0, len(cells), len(values))]
    joined = xr.combine_nested(
        cells,
        concat_dim=list(sweep),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs="drop_conflicts",
    )
    for name in joined.data_vars:
        if all(point[name].dtype == bool for point in padded if name in point):
            joined[name] = (joined[name] == 1).assign_attrs(joined[name].attrs)
    marks = [MEASURED + dim for dim in uneven]
    return joined.set_coords(marks).assign_coords(sweep).transpose(*sweep, ...)


def _dims(results: Sequence[xr.Dataset]) -> list[str]:
    return list(dict.fromkeys(str(dim) for point in results for dim in point.dims))


def _alike(results: Sequence[xr.Dataset], dim: str) -> bool:
    """Whether the points that have a dimension have the same entries along it."""
    having = [point for point in results if dim in point.dims]
    first = having[0].get_index(dim)
    return all(point.get_index(dim).equals(first) for point in having)


def _ready_to_pad(point: xr.Dataset, uneven: Sequence[str]) -> xr.Dataset:
    """A point's results with coordinates to align them, and marks of its entries."""
    own = [dim for dim in uneven if dim in point.dims]
    bare = {dim: np.arange(point.sizes[dim]) for dim in own if dim not in point.coords}
    marks = {MEASURED + dim: (dim, np.ones(point.sizes[dim], bool)) for dim in own}
    return point.assign_coords(bare).assign(marks)


def points_of(results: xr.Dataset, sweep: dict[str, list[Any]]) -> list[xr.Dataset]:
    """The results of each point of the grid, in the order of `grid`."""
    indices = grid({name: list(range(len(values))) for name, values in sweep.items()})
    return [without_padding(_measured(results.isel(index))) for index in indices]


def _measured(point: xr.Dataset) -> xr.Dataset:
    """A point's results without padding."""
    marks = [str(name) for name in point.coords if str(name).startswith(MEASURED)]
    kept = {name.removeprefix(MEASURED): point[name].values for name in marks}
    return point.drop_vars(marks).isel(kept)


def draw(claims: Sequence[Statement], results: xr.Dataset, sweep: dict[str, list[Any]]) -> Figure:
    """Figure of the values of each claim or finding at the points of the grid.

    Shaded are the values with which it is true; the exact value is a dotted line.
    """
    if not claims:
        figure = figures.panels(1, 1)
        figure.axes[0].remove()
        figures.caption(figure, ["There is no claim to draw.", figures.command_sentence(results)])
        return figure
    points = points_of(results, sweep)
    names = [", ".join(map(str, point.values())) for point in grid(sweep)]
    columns = min(3, len(claims))
    figure = figures.panels(-(-len(claims) // columns), columns)
    for axes in figure.axes[len(claims) :]:
        axes.remove()
    for axes, claim in zip(figure.axes, claims, strict=True):
        values = [_kept_and_stuck(claim, point, results) for point in points]
        band = (claim.accepted.low, claim.accepted.high)
        figures.over_points(axes, values, names, band=band, exact=claim.floor)
        axes.set(title=claim.id, xlabel=", ".join(sweep))
    figures.caption(
        figure,
        [
            "Each claim's value at every point of the sweep, a mark for each seed; shaded: where it",
            "is true; dotted: exact; crosses: seeds on their plateau, at its edge if off the scale.",
            *(f"{claim.id}: {claim.statement}." for claim in claims),
            figures.command_sentence(results),
        ],
    )
    return figure


def _kept_and_stuck(
    claim: Statement, point: xr.Dataset, whole: xr.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Values of a claim at a point: of seeds that left their plateau, and of seeds that did not.

    Both are empty at a point that lacks what the claim is about.
    """
    try:
        found = claim.evaluate(point, whole)
    except NotMeasured:
        return np.empty(0), np.empty(0)
    return found.counted(), found.on_plateau()
