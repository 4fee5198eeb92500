"""The panels that most figures share, drawn from a dataset of `study`'s variables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.datasets import part, seed_dim
from toyicl.plots import figures

TITLES = {"gd": "GD", "gdpp": "GD++"}
STYLES = {"gd": ("--", figures.REFERENCE), "gdpp": ("-.", figures.THIRD)}

LOOKS = (
    (figures.MODEL, "-"),
    (figures.REFERENCE, "--"),
    (figures.THIRD, "-."),
    (figures.FOURTH, ":"),
)
"""Colours and line styles of a panel's curves, in their order."""
Panel = Callable[[Axes, xr.Dataset], None]


def figure(
    results: xr.Dataset,
    panels: Mapping[str, Panel],
    sentence: str,
    *,
    columns: int = 2,
    size: tuple[float, float] = figures.PANEL,
) -> Figure:
    """A figure of named panels, with a caption of what was run, what was cut, and the command.

    `size` is that of a panel, width and height in inches.
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
    """The same panels for several parts of the results, {value along dim: name}, a row for each."""
    return {
        f"{name}: {title}": of(panel, **{dim: value})
        for value, name in rows.items()
        for title, panel in panels.items()
    }


def of(panel: Panel, **where: Any) -> Panel:
    """A panel of one part of the results, such as `of(training_panel, heads=2)`."""
    return lambda axes, results: panel(axes, part(results, **where))


def training_panel(axes: Axes, results: xr.Dataset) -> None:
    """The loss of every seed while training, and the references'."""
    figures.every_seed(axes, results.loss, "step", label="trained", color=figures.MODEL)
    for name, (style, color) in STYLES.items():
        if results.get(f"{name}_loss", xr.DataArray(np.nan)).notnull().all():
            value = float(results[f"{name}_loss"])
            axes.axhline(value, color=color, linestyle=style, label=f"{TITLES[name]}: {value:.4f}")
    axes.set(xlabel="training step", ylabel="loss", ylim=(0, None))
    axes.legend()


def curves(
    labels: Mapping[str, str],
    along: str = "step",
    *,
    markers: Sequence[str] = (),
    xlabel: str = "training step",
    **settings: Any,
) -> Panel:
    """Variables of every seed along a dimension, {variable: label}, each with a look of its own.

    Points with `markers`, one for each variable, instead of lines; `settings` go to `Axes.set`.
    """

    def draw(axes: Axes, results: xr.Dataset) -> None:
        for number, (name, label) in enumerate(labels.items()):
            values = results[name]
            color, line = LOOKS[number]
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


def alignment_panel(suffix: str = "") -> Panel:
    """Cosine, norm ratio and differences of every seed while training."""
    names = ("model_cosine", "norm_ratio", "model_difference", "prediction_difference")
    return curves({name + suffix: name.replace("_", " ") for name in names}, ylim=(0, 2.5))


def heat_map(name: str, label: str) -> Panel:
    """A matrix of weights, red above 0 and blue below."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        values = results[name].values
        bound = float(np.abs(values).max())
        image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound)
        axes.figure.colorbar(image, ax=axes, shrink=0.8)
        axes.set(xlabel=label, xticks=[], yticks=[])
        axes.grid(visible=False)

    return draw


def magnitudes(
    labels: Mapping[str, str], *, limits: Sequence[float] = (), least: float = 1e-17
) -> Panel:
    """All entries of each variable as points on a log axis, {variable: label}, in rows.

    Dotted lines mark `limits`; what is below `least`, such as 0, is drawn there.
    """

    def draw(axes: Axes, results: xr.Dataset) -> None:
        for row, name in enumerate(labels):
            values = np.maximum(np.abs(results[name].values.ravel()), least)
            axes.semilogx(
                values,
                np.full(len(values), row),
                "o",
                color=figures.MODEL,
                markersize=3,
                alpha=0.4,
            )
        for limit in limits:
            axes.axvline(limit, color="0.4", linestyle=":")
        axes.set_yticks(range(len(labels)), list(labels.values()))
        axes.set(ylim=(len(labels) - 0.5, -0.5), xlim=(least / 3, None))

    return draw


def rows(
    sets: Mapping[str, Callable[[xr.Dataset], xr.DataArray]],
    along: str,
    *,
    levels: Mapping[str, float] | None = None,
    **settings: Any,
) -> Panel:
    """Values of every seed as points in rows, one for each entry along a dimension, {label: value}.

    Each set of values has a colour and a mark of its own, a little below that of the set before.
    Dotted lines mark `levels`; `settings` go to `Axes.set`.
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


def roll_out_panel(axes: Axes, results: xr.Dataset) -> None:
    """Loss after each layer of a model applied again and again, and after as many steps of GD."""
    color, style = figures.MODEL, "-"
    figures.every_seed(
        axes, results.rolled_loss, "layer", label="trained", color=color, style=style
    )
    style, color = STYLES["gd"]
    axes.plot(results.layer, results.rolled_gd_loss, style, color=color, label="GD")
    axes.set(xlabel="layers, or steps", ylabel="loss")
    axes.legend()


def shift_panel(prefix: str, xlabel: str) -> Panel:
    """Losses away from training, on a log scale."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        own = results[f"{prefix}_loss"]
        (along,) = (str(dim) for dim in own.dims if dim != "seed")
        figures.every_seed(axes, own, along, label="trained", color=figures.MODEL)
        for name, (style, color) in STYLES.items():
            values = results.get(f"{prefix}_{name}_loss")
            if values is not None and values.notnull().any():
                axes.plot(values[along], values, style, color=color, label=TITLES[name])
        axes.set(xlabel=xlabel, ylabel="loss", yscale="log")
        axes.legend()

    return draw


SHIFTS: dict[str, Panel] = {
    "larger inputs": shift_panel("scaled", r"$\alpha$, the factor on the inputs"),
    "larger targets": shift_panel("target", "factor on the targets"),
    "other input laws": shift_panel("law", "Frobenius norm of the context"),
    "other laws, larger targets": shift_panel("law_target", "factor on the targets"),
}
"""The columns of Figure 6."""

BESIDE_GD: dict[str, Panel] = {
    "loss while training": training_panel,
    "alignment with GD": alignment_panel(),
    "larger inputs": SHIFTS["larger inputs"],
    "larger targets": SHIFTS["larger targets"],
}
"""What one layer shows beside a step of gradient descent."""


def deep_figure(results: xr.Dataset, steps: str, sentence: str) -> Figure:
    """Loss, alignment with as many steps of GD and of GD++, and the four shifts."""
    drawn = {
        "loss while training": training_panel,
        f"alignment with {steps} of GD": alignment_panel(),
        f"alignment with {steps} of GD++": alignment_panel("_gdpp"),
        **SHIFTS,
    }
    return figure(results, drawn, sentence, columns=3)
