"""Panels of figures: functions that draw a part of the results on matplotlib axes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.datasets import part, seed_dim
from toyicl.plots import figures

LOOKS = (
    (figures.MODEL, "-"),
    (figures.REFERENCE, "--"),
    (figures.THIRD, "-."),
    (figures.FOURTH, ":"),
)
"""Colours and line styles of a panel's curves, in their order."""
Panel = Callable[[Axes, xr.Dataset], None]
Value = Callable[[xr.Dataset], xr.DataArray]
"""A function that computes values from results."""


def selected(name: str, **where: Any) -> Value:
    """A variable of the results at some coordinates."""
    return lambda results: results[name].sel(where)


def figure(
    results: xr.Dataset,
    panels: Mapping[str, Panel],
    sentence: str,
    *,
    columns: int = 2,
    size: tuple[float, float] = figures.PANEL,
) -> Figure:
    """A figure of panels by title, with a caption: a sentence, seeds, what was cut, the command.

    `size` is the width and height of a panel, in inches.
    """
    width, height = size
    drawn = figures.panels(-(-len(panels) // columns), columns, width=width, height=height)
    for axes in drawn.axes[len(panels) :]:
        axes.remove()
    for number, (title, panel) in enumerate(panels.items()):
        figures.title(drawn.axes[number], number, title)
        panel(drawn.axes[number], results)
    figures.caption(drawn, [sentence, *figures.common_sentences(results)])
    return drawn


def grid(rows: Mapping[Any, str], dim: str, panels: Mapping[str, Panel]) -> dict[str, Panel]:
    """The same panels for several parts of the results, {label along dim: name}, one row for each."""
    return {
        f"{name}: {title}": of(panel, **{dim: value})
        for value, name in rows.items()
        for title, panel in panels.items()
    }


def of(panel: Panel, **where: Any) -> Panel:
    """A panel of one part of the results, such as `of(training_panel, heads=2)`."""
    return lambda axes, results: panel(axes, part(results, **where))


def curves(
    labels: Mapping[str, str],
    along: str = "step",
    *,
    markers: Sequence[str] = (),
    xlabel: str = "training step",
    **settings: Any,
) -> Panel:
    """Variables of every seed along a dimension, {variable: label}, with different looks.

    `markers` has a marker for each variable, to draw points instead of lines; `settings` are passed to
    `Axes.set`.
    """

    def draw(axes: Axes, results: xr.Dataset) -> None:
        for number, (name, label) in enumerate(labels.items()):
            values = results[name]
            color, line = LOOKS[number % len(LOOKS)]
            figures.every_seed(
                axes,
                values.rename({seed_dim(values): "seed"}),
                along,
                label=label,
                color=color,
                style=markers[number] if markers else line,
            )
        axes.set(xlabel=xlabel, **settings)
        axes.legend()

    return draw


def heat_map(name: str, label: str) -> Panel:
    """A matrix of weights, red above 0 and blue below 0."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        values = results[name].values
        bound = float(np.abs(values).max())
        image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound)
        axes.figure.colorbar(image, ax=axes, shrink=0.8)
        axes.set(xlabel=label, xticks=[], yticks=[])
        axes.grid(visible=False)

    return draw


def magnitudes(
    values: Mapping[str, Value], *, limits: Sequence[float] = (), least: float = 1e-17
) -> Panel:
    """Absolute values as points on a log axis, {label: values}, one row for each label.

    Dotted lines mark `limits`; values below `least`, such as 0, are drawn at `least`.
    """

    def draw(axes: Axes, results: xr.Dataset) -> None:
        for row, value in enumerate(values.values()):
            shown = np.maximum(np.abs(value(results).values.ravel()), least)
            places = np.full(len(shown), row)
            axes.semilogx(shown, places, "o", color=figures.MODEL, markersize=3, alpha=0.4)
        for limit in limits:
            axes.axvline(limit, color="0.4", linestyle=":")
        axes.set_yticks(range(len(values)), list(values))
        axes.set(ylim=(len(values) - 0.5, -0.5), xlim=(least / 3, None))

    return draw


def rows(
    sets: Mapping[str, Value],
    along: str,
    *,
    levels: Mapping[str, float] | None = None,
    **settings: Any,
) -> Panel:
    """Values of every seed as points, {label: value}, in one row for each label of a dimension.

    Each set of values has its own colour and marker, slightly below the set before. Dotted lines mark
    `levels`, {name: value}; `settings` are passed to `Axes.set`.
    """

    def draw(axes: Axes, results: xr.Dataset) -> None:
        for number, (label, value) in enumerate(sets.items()):
            values = value(results)
            offset = 0.24 * (number - (len(sets) - 1) / 2)
            for row, entry in enumerate(values[along].values):
                points = values.sel({along: entry}).values.ravel()
                axes.plot(
                    points,
                    np.full(len(points), row + offset),
                    "osD^"[number],
                    color=LOOKS[number][0],
                    label=label if row == 0 else None,
                    markersize=3.5,
                    alpha=0.75,
                    linestyle="",
                )
            axes.set_yticks(range(values.sizes[along]), [str(v) for v in values[along].values])
            axes.set_ylim(values.sizes[along] - 0.5, -0.5)
        for name, level in (levels or {}).items():
            axes.axvline(level, color="0.4", linestyle=":", label=name)
        axes.set(**settings)
        axes.legend()

    return draw
