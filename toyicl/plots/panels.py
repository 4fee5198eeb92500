"""The panels that most figures share, drawn from a dataset of `study`'s variables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.datasets import part, seed_dim
from toyicl.plots import figures

TITLES = {
    "gd": "GD",
    "gdpp": "GD++",
    "pgd": "preconditioned GD",
    "ridge": "ridge",
    "truth": "true weights",
}
"""Names of references in legends; a label that is not listed is its own name."""
REFERENCE_LOOKS = (
    ("--", figures.REFERENCE),
    ("-.", figures.THIRD),
    (":", figures.FOURTH),
    ("-", "0.45"),
)
"""Line styles and colours of references, in their order in the results."""

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


def references(values: xr.DataArray) -> Iterator[tuple[str, str, Any, str]]:
    """Label, title, line style and colour of every reference that values have."""
    labels = [str(label) for label in values.reference.values]
    for number, label in enumerate(labels):
        style, color = REFERENCE_LOOKS[number % len(REFERENCE_LOOKS)]
        if values.sel(reference=label).notnull().any():
            yield label, TITLES.get(label, label), style, color


def training_panel(axes: Axes, results: xr.Dataset) -> None:
    """The loss of every seed during training, and that of each reference."""
    figures.every_seed(axes, results.loss, "step", label="trained", color=figures.MODEL)
    for label, title, style, color in references(results.reference_loss):
        value = float(results.reference_loss.sel(reference=label))
        axes.axhline(value, color=color, linestyle=style, label=f"{title}: {value:.4f}")
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


COMPARED = ("model_cosine", "norm_ratio", "model_difference", "prediction_difference")
"""Variables of the comparison with a reference."""


def alignment_panel(reference: str | None = None) -> Panel:
    """Cosine, norm ratio and differences of every seed during training.

    Compared with the reference of a label; None for results that are compared with one learner only.
    """
    panel = curves({name: name.replace("_", " ") for name in COMPARED}, ylim=(0, 2.5))
    if reference is None:
        return panel
    return lambda axes, results: panel(axes, results.sel(reference=reference))


def compared_panel(name: str, **settings: Any) -> Panel:
    """One variable of the comparison, of every seed during training, for all references."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        for label, title, style, color in references(results[name]):
            values = results[name].sel(reference=label)
            figures.every_seed(axes, values, "step", label=title, color=color, style=style)
        axes.set(xlabel="training step", **settings)
        axes.legend()

    return draw


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
    style, color = REFERENCE_LOOKS[0]
    axes.plot(results.layer, results.rolled_gd_loss, linestyle=style, color=color, label="GD")
    axes.set(xlabel="layers, or steps", ylabel="loss")
    axes.legend()


def shift_panel(name: str, xlabel: str) -> Panel:
    """Losses under a shift, a label of the dimension `shift`, on a log scale."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        shifted = results.sel(shift=name)
        other = shifted.shifted_reference_loss
        measured = other.notnull().any("reference")
        own = shifted.shifted_loss.isel(amount=measured)
        figures.every_seed(axes, own, "amount", label="trained", color=figures.MODEL)
        for label, title, style, color in references(other):
            values = other.sel(reference=label).isel(amount=measured)
            axes.plot(values.amount, values, linestyle=style, color=color, label=title)
        axes.set(xlabel=xlabel, ylabel="loss", yscale="log")
        axes.legend()

    return draw


SHIFTS: dict[str, Panel] = {
    "larger inputs": shift_panel("inputs", r"$\alpha$, the factor on the inputs"),
    "larger targets": shift_panel("targets", "factor on the targets"),
    "other input distributions": shift_panel("distributions", "Frobenius norm of the context"),
    "other distributions, larger targets": shift_panel(
        "distributions and targets", "factor on the targets"
    ),
}
"""The columns of Figure 6."""

COMPARED_WITH_GD: dict[str, Panel] = {
    "loss during training": training_panel,
    "alignment with GD": alignment_panel("gd"),
    "larger inputs": SHIFTS["larger inputs"],
    "larger targets": SHIFTS["larger targets"],
}
"""The comparison of one layer with a step of gradient descent."""


def deep_figure(results: xr.Dataset, steps: str, sentence: str) -> Figure:
    """Loss, alignment with as many steps of GD and of GD++, and the four shifts."""
    drawn = {
        "loss during training": training_panel,
        f"alignment with {steps} of GD": alignment_panel("gd"),
        f"alignment with {steps} of GD++": alignment_panel("gdpp"),
        **SHIFTS,
    }
    return figure(results, drawn, sentence, columns=3)
