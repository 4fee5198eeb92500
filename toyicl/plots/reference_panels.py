"""Panels that compare trained models with references, for results with the dimension `reference`.

They draw whatever references the results have.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.plots import figures
from toyicl.plots.panels import Panel, curves, figure


class Look(NamedTuple):
    """How a reference is named in legends and drawn."""

    title: str
    line: str
    """Line style."""
    color: str


KNOWN = {
    "gd": Look("GD", "--", figures.REFERENCE),
    "gdpp": Look("GD++", "-.", figures.THIRD),
    "gdpp_tuned": Look("GD++, as the paper tunes it", ":", figures.THIRD),
    "gdpp_unclipped": Look("GD++ without clip", ":", "0.55"),
    "pgd": Look("preconditioned GD", "-.", figures.FOURTH),
    "ridge": Look("ridge", ":", figures.FOURTH),
    "truth": Look("true weights", "-", "0.35"),
}
"""References with a look of their own, by label."""
OTHER = ((":", "#E69F00"), ("-.", "#56B4E9"), ("--", "0.35"))
"""Line styles and colours of other references, in turn; their titles are their labels."""
COMPARED = ("model_cosine", "norm_ratio", "model_difference", "prediction_difference")
"""Variables of the comparison with a reference."""

ROOM_FOR_AN_ENTRY = 0.11
"""By how much an entry of a legend extends a log axis, as a fraction of its decades."""
MOST_SADDLES = 4
"""Largest number of saddle points between predicting 0 and the optimum that are all drawn."""


def looks(values: xr.DataArray) -> Iterator[tuple[str, Look]]:
    """Label and look of every reference for which there are values."""
    others = itertools.cycle(OTHER)
    for label in map(str, values.reference.values):
        look = KNOWN.get(label) or Look(label, *next(others))
        if values.sel(reference=label).notnull().any():
            yield label, look


def training_panel(axes: Axes, results: xr.Dataset) -> None:
    """The loss of every seed during training, that of each reference, and those of saddle points."""
    figures.every_seed(axes, results.loss, "step", label="trained", color=figures.MODEL)
    for label, (title, line, color) in looks(results.reference_loss):
        value = float(results.reference_loss.sel(reference=label))
        axes.axhline(value, color=color, linestyle=line, label=f"{title}: {value:.4f}")
    if "released_loss" in results:
        released = results.released_loss.rename(released_seed="seed", released_step="step")
        figures.every_seed(
            axes, released, "step", label="released code's recipe", color="#E69F00", style=":"
        )
    if "saddle_loss" in results:
        saddle_lines(axes, results.saddle_loss)
    axes.set(xlabel="training step", ylabel="loss", ylim=(0, None))
    axes.legend()


def saddle_lines(axes: Axes, saddle_loss: xr.DataArray) -> None:
    """Exact losses of saddle points, (saddle,), between predicting 0 and the optimum, as thin lines.

    Of more than `MOST_SADDLES` saddle points the first alone is drawn, where training rests most often:
    the others are too close to each other.
    """
    between = saddle_loss.dropna("saddle").values[1:-1]
    drawn = between if len(between) <= MOST_SADDLES else between[:1]
    if not len(drawn):
        return
    name = "saddle points" if len(between) == len(drawn) else "first saddle point"
    label = f"{name}: {', '.join(f'{loss:.4f}' for loss in drawn)}"
    for number, loss in enumerate(drawn):
        axes.axhline(loss, color="0.45", linewidth=0.7, label=None if number else label)


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
        for label, (title, line, color) in looks(results[name]):
            values = results[name].sel(reference=label)
            figures.every_seed(axes, values, "step", label=title, color=color, style=line)
        axes.set(xlabel="training step", **settings)
        axes.legend()

    return draw


def roll_out_panel(axes: Axes, results: xr.Dataset) -> None:
    """Loss of a layer that is applied repeatedly, and of as many steps of each reference."""
    figures.every_seed(axes, results.rolled_loss, "layer", label="trained", color=figures.MODEL)
    for label, (title, line, color) in looks(results.rolled_reference_loss):
        values = results.rolled_reference_loss.sel(reference=label)
        axes.plot(results.layer, values, linestyle=line, color=color, label=title)
    axes.set(xlabel="number of layers or steps", ylabel="loss")
    axes.legend()


def shift_panel(name: str, xlabel: str) -> Panel:
    """Losses under a shift, a label of the dimension `shift`, on a log scale."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        shifted = results.sel(shift=name)
        other = shifted.shifted_reference_loss
        measured = other.notnull().any("reference")
        own = shifted.shifted_loss.isel(amount=measured)
        figures.every_seed(axes, own, "amount", label="trained", color=figures.MODEL)
        for label, (title, line, color) in looks(other):
            values = other.sel(reference=label).isel(amount=measured)
            axes.plot(values.amount, values, linestyle=line, color=color, label=title)
        axes.set(xlabel=xlabel, ylabel="loss", yscale="log")
        _legend_above(axes)

    return draw


def _legend_above(axes: Axes) -> None:
    """A legend above curves that rise to the right on a log axis, which is extended to make room."""
    legend = axes.legend(loc="upper left")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** (ROOM_FOR_AN_ENTRY * len(legend.get_texts())))


SHIFTS: dict[str, Panel] = {
    "larger inputs": shift_panel("inputs", r"$\alpha$, the factor on the inputs"),
    "larger targets": shift_panel("targets", "factor on the targets"),
    "other input distributions": shift_panel("distributions", "Frobenius norm of the context"),
    "other distributions, larger targets": shift_panel(
        "distributions and targets", "factor on the targets"
    ),
}
"""Panels of the columns of Figure 6, by title."""

COMPARED_WITH_GD: dict[str, Panel] = {
    "loss during training": training_panel,
    "alignment with GD": alignment_panel("gd"),
    "larger inputs": SHIFTS["larger inputs"],
    "larger targets": SHIFTS["larger targets"],
}
"""Panels that compare one layer with a step of gradient descent, by title."""


def deep_figure(results: xr.Dataset, sentence: str) -> Figure:
    """A figure of several layers: loss, alignment with GD and with GD++, and the four shifts."""
    drawn = {
        "loss during training": training_panel,
        "alignment with GD": alignment_panel("gd"),
        "alignment with GD++": alignment_panel("gdpp"),
        **SHIFTS,
    }
    return figure(results, drawn, f"{sentence} GD and GD++ take as many steps.", columns=3)
