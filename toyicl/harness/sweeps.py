"""Sweeps: an experiment measured at every point of a grid, its trainings done together.

An experiment's `measure` asks for its trainings one by one, by calling `fit`. To train the points of a
grid as one program, each point's measurement runs until it asks; when all are waiting, those that ask
for the same training are answered together.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require
from toyicl.core.datasets import part, without_padding
from toyicl.harness.claims import Claim
from toyicl.harness.experiment import Fit
from toyicl.plots import figures
from toyicl.tasks.linear import Task
from toyicl.training.loop import History, Job
from toyicl.training.step import Build, Training

MEASURED = "measured_"
"""Before the name of a dimension: the coordinate that says which of its entries a point has."""


class Request(NamedTuple):
    """Trainings that a measurement asks for."""

    jobs: tuple[Job, ...]
    label: str
    at_most: int | None
    point: int
    """Which point of the grid asks, in the order of `grid`."""


Measure = Callable[[Fit], xr.Dataset]


def measure_together(
    measures: Sequence[Measure], train: Callable[[list[Request]], list[list[History]]]
) -> list[xr.Dataset]:
    """The results of all measurements; `train` answers the requests that have one label, job by job.

    One measurement runs at a time. What any of them raises, or `train`, is raised here.
    """
    points = [_Point(index, measure) for index, measure in enumerate(measures)]
    try:
        for point in points:
            point.start()
        while waiting := [point for point in points if point.request is not None]:
            label = waiting[0].request.label
            asking = [point for point in waiting if point.request.label == label]
            histories = train([point.request for point in asking])
            for point, answer in zip(asking, histories, strict=True):
                point.answer(answer)
        return [point.result for point in points]
    finally:
        for point in points:
            point.leave()


class _Leave(BaseException):
    """Ends a measurement that will not be answered."""


class _Point:
    """A measurement in a thread of its own, which runs only while somebody waits for it."""

    def __init__(self, index: int, measure: Measure) -> None:
        self.request: Any = None
        """What it waits for; None once it is done."""
        self.result: Any = None
        self._index, self._measure = index, measure
        self._labels: set[str] = set()
        self._said: queue.Queue = queue.Queue()
        self._heard: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Run until the first request, or the end."""
        self._thread.start()
        self._listen()

    def answer(self, histories: list[History]) -> None:
        """Give it what it asked for, and run until the next request, or the end."""
        self._heard.put(histories)
        self._listen()

    def leave(self) -> None:
        """End it if it still waits."""
        if self.request is not None:
            self._heard.put(_Leave)
            self._thread.join()

    def _listen(self) -> None:
        self.request, self.result, error = self._said.get()
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._said.put((None, self._measure(_Asking(self._ask)), None))
        except _Leave:
            pass
        except BaseException as error:
            self._said.put((None, None, error))

    def _ask(self, jobs: Sequence[Job], label: str, at_most: int | None) -> list[History]:
        rule = "used once in a measurement, since trainings are kept by their labels"
        require(label not in self._labels, "label", rule, label)
        require(len(jobs) > 0, "jobs", "one or more", len(jobs))
        self._labels.add(label)
        self._said.put((Request(tuple(jobs), label, at_most, self._index), None, None))
        histories = self._heard.get()
        if histories is _Leave:
            raise _Leave
        return histories


class _Asking:
    """`experiment.Fit` as a measurement gets it."""

    def __init__(self, ask: Callable[[Sequence[Job], str, int | None], list[History]]) -> None:
        self._ask = ask

    def __call__(
        self,
        build: Build,
        task: Task,
        training: Training,
        *,
        label: str,
        at_most: int | None = None,
    ) -> History:
        """Train one learner for each seed."""
        (history,) = self._ask([Job(build, task, training)], label, at_most)
        return history

    def together(
        self, jobs: Sequence[Job], *, label: str, at_most: int | None = None
    ) -> list[History]:
        """Train several learners for each seed."""
        return self._ask(jobs, label, at_most)


def grid(sweep: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The points of a sweep's grid, the last setting fastest; one empty point without a sweep."""
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def named(point: dict[str, Any]) -> str:
    """A point of the grid in words."""
    return ", ".join(f"{name} = {value}" for name, value in point.items())


def labelled(results: Sequence[xr.Dataset], sweep: dict[str, list[Any]]) -> xr.Dataset:
    """Results of the grid's points as one, with a dimension for each swept setting.

    Where points differ in what they have along a dimension, they are padded: numbers with NaN,
    booleans with False, and a coordinate, "measured_" and the dimension's name, says what is there.
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
    """Whether points have the same entries along a dimension; some may not have it at all."""
    having = [point for point in results if dim in point.dims]
    first = having[0].get_index(dim)
    return all(point.get_index(dim).equals(first) for point in having)


def _ready_to_pad(point: xr.Dataset, uneven: Sequence[str]) -> xr.Dataset:
    """A point's results with coordinates to align it by, and with marks of what it has."""
    own = [dim for dim in uneven if dim in point.dims]
    bare = {dim: np.arange(point.sizes[dim]) for dim in own if dim not in point.coords}
    marks = {MEASURED + dim: (dim, np.ones(point.sizes[dim], bool)) for dim in own}
    return point.assign_coords(bare).assign(marks)


def points_of(results: xr.Dataset, sweep: dict[str, list[Any]]) -> list[xr.Dataset]:
    """The results of each point of the grid, in the order of `grid`."""
    indices = grid({name: list(range(len(values))) for name, values in sweep.items()})
    return [without_padding(_measured(results.isel(index))) for index in indices]


def _measured(point: xr.Dataset) -> xr.Dataset:
    """A point's results without what it was padded with."""
    marks = [str(name) for name in point.coords if str(name).startswith(MEASURED)]
    kept = {name.removeprefix(MEASURED): point[name].values for name in marks}
    return point.drop_vars(marks).isel(kept)


def draw(claims: Sequence[Claim], results: xr.Dataset, sweep: dict[str, list[Any]]) -> Figure:
    """Each claim's value at the points of the grid: every seed, the claim's band, the exact value."""
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
        values = [_kept_and_stuck(claim, point) for point in points]
        figures.over_points(axes, values, names, band=claim.band, exact=claim.floor)
        axes.set(title=claim.id, xlabel=", ".join(sweep))
    figures.caption(
        figure,
        [
            "Each claim's value at every point of the sweep, a mark for each seed; shaded: where it",
            "holds; dotted: exact; crosses: seeds on their plateau, at its edge if off the scale.",
            *(f"{claim.id}: {claim.statement}." for claim in claims),
            figures.command_sentence(results),
        ],
    )
    return figure


def _kept_and_stuck(claim: Claim, point: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """A claim's values at a point: of the seeds that left their plateau, and of those that did not."""
    point = part(point, **claim.where)
    values, stuck = claim.value(point), claim.stuck(point)
    if stuck is None:
        return values.values.ravel(), np.empty(0)
    on_plateau = stuck.broadcast_like(values).transpose(*values.dims).values
    return values.values[~on_plateau], values.values[on_plateau]
