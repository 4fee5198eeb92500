"""The panels that most figures share, drawn from a dataset of `study`'s variables."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import plotting
from toyicl.claims import part

TITLES = {"gd": "GD", "gdpp": "GD++"}
STYLES = {"gd": ("--", plotting.REFERENCE), "gdpp": ("-.", plotting.THIRD)}

Panel = Callable[[Axes, xr.Dataset], None]


def figure(
    results: xr.Dataset, panels: Mapping[str, Panel], sentence: str, *, columns: int = 2
) -> Figure:
    """A figure of named panels, with a caption of what was run, what was cut, and the command."""
    drawn = plotting.panels(-(-len(panels) // columns), columns)
    for axes in drawn.axes[len(panels) :]:
        axes.remove()
    for number, (title, panel) in enumerate(panels.items()):
        plotting.title(drawn.axes[number], number, title)
        panel(drawn.axes[number], results)
    plotting.caption(drawn, [sentence, *plotting.common_sentences(results)])
    return drawn


def of(panel: Panel, **where: Any) -> Panel:
    """A panel of one part of the results, such as `of(training_panel, heads=2)`."""
    return lambda axes, results: panel(axes, part(results, **where))


def training_panel(axes: Axes, results: xr.Dataset) -> None:
    """The loss of every seed while training, and the references'."""
    plotting.every_seed(axes, results.loss, "step", label="trained", color=plotting.MODEL)
    for name, (style, color) in STYLES.items():
        if results.get(f"{name}_loss", xr.DataArray(np.nan)).notnull().all():
            value = float(results[f"{name}_loss"])
            axes.axhline(value, color=color, linestyle=style, label=f"{TITLES[name]}: {value:.4f}")
    axes.set(xlabel="training step", ylabel="loss", ylim=(0, None))
    axes.legend()


def alignment_panel(suffix: str = "") -> Panel:
    """Cosine, norm ratio and differences of every seed while training."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        for name, label, color, style in (
            ("model_cosine", "model cosine", plotting.MODEL, "-"),
            ("norm_ratio", "norm ratio", plotting.FOURTH, "-."),
            ("model_difference", "model difference", plotting.THIRD, "--"),
            ("prediction_difference", "prediction difference", plotting.REFERENCE, ":"),
        ):
            values = results[name + suffix]
            plotting.every_seed(axes, values, "step", label=label, color=color, style=style)
        axes.set(xlabel="training step", ylim=(0, 2.5))
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


def roll_out_panel(axes: Axes, results: xr.Dataset) -> None:
    """Loss after each layer of a model applied again and again, and after as many steps of GD."""
    color, style = plotting.MODEL, "-"
    plotting.every_seed(
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
        plotting.every_seed(axes, own, along, label="trained", color=plotting.MODEL)
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


def deep_figure(results: xr.Dataset, steps: str, sentence: str) -> Figure:
    """Loss, alignment with as many steps of GD and of GD++, and the four shifts."""
    drawn = {
        "loss while training": training_panel,
        f"alignment with {steps} of GD": alignment_panel(),
        f"alignment with {steps} of GD++": alignment_panel("_gdpp"),
        **SHIFTS,
    }
    return figure(results, drawn, sentence, columns=3)
