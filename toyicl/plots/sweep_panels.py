"""Figures of a probe: curves of every seed along one axis, or maps of medians over two."""

from functools import partial

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.plots import figures, panels

NAMES = {
    "excess": "excess",
    "model_cosine": "model cosine",
    "norm_ratio": "norm ratio",
    "prediction_difference": "prediction difference",
    "unexplained": "left by GD",
}
"""Titles of what is drawn."""
SMALL = (3.3, 2.2)
"""Width and height of a panel, in inches, where several axes are drawn."""
MEANINGS = (
    "Excess: share of the way from predicting 0 to GD that is missing. Left by GD: share of the "
    "model's squared answers that GD does not account for."
)


def draw(results: xr.Dataset) -> Figure:
    """Curves along one axis, or maps over two, of all that was measured."""
    if "second_value" in results.dims:
        return _draw_map(results)
    return draw_axes(results, {str(results["axis"][0].item()): ""})


def draw_axes(results: xr.Dataset, titles: dict[str, str]) -> Figure:
    """A row of panels for each axis: what is missing, cosine, norm ratio, what GD leaves."""
    drawn: dict[str, panels.Panel] = {}
    for name, title in titles.items():
        before = f"{title}: " if title else ""
        for variable, shown in NAMES.items():
            panel = partial(_along, variable=variable, axis=name)
            drawn[before + shown] = panels.of(panel, axis=name)
    sentence = (
        f"{MEANINGS} Dotted: the same models untrained; grey rings: seeds on their plateau. "
        f"{results.attrs['steps']} training steps at every value."
    )
    size = figures.PANEL if len(titles) == 1 else SMALL
    return panels.figure(results, drawn, sentence, columns=len(NAMES), size=size)


def _along(canvas: Axes, results: xr.Dataset, *, variable: str, axis: str) -> None:
    results = results.dropna("value", how="all", subset=["loss"])  # values of other axes
    values = results["value"].values
    log = len(values) > 1 and bool((values > 0).all()) and values.max() / values.min() >= 30
    stuck = results.on_plateau.astype(bool)
    trained = results[variable].sel(stage="trained")
    for stage, style, color in (
        ("trained", "-o", figures.MODEL),
        ("untrained", ":s", figures.REFERENCE),
    ):
        shown = trained.where(~stuck) if stage == "trained" else results[variable].sel(stage=stage)
        figures.every_seed(canvas, shown, "value", label=stage, color=color, style=style)
    for rings in trained.where(stuck).transpose("seed", "value"):
        if rings.notnull().any():
            canvas.plot(values, rings, "o", color="0.6", mfc="none")
    for line in canvas.lines:
        line.set_markersize(3)
    canvas.set(xlabel=axis, xscale="log" if log else "linear")
    if variable == "unexplained":
        canvas.set(yscale="log")
        figures.floor_line(canvas, float(results.attrs["tolerance"]), "tolerance")
    else:
        low, high = canvas.get_ylim()
        canvas.set(ylim=(max(low, -0.5), min(high, 3)))
    canvas.legend()


def _typical(results: xr.Dataset, variable: str) -> xr.DataArray:
    """The median over the seeds that left their plateau; NaN where none did."""
    values = results[variable].isel(axis=0).sel(stage="trained")
    stuck = results.on_plateau.isel(axis=0).astype(bool)
    return values.where(~stuck).median("seed")


def _draw_map(results: xr.Dataset) -> Figure:
    """A heat map over both axes of each median over seeds, with the contour of the tolerance."""
    name, second = str(results["axis"][0].item()), str(results.attrs["second_axis"])
    tolerance = float(results.attrs["tolerance"])
    left = _typical(results, "unexplained").T
    contoured = min(left.shape) > 1 and float(left.min()) < tolerance < float(left.max())

    def heat(canvas: Axes, _: xr.Dataset, *, variable: str) -> None:
        medians = _typical(results, variable)
        logarithmic = variable == "unexplained" and bool((medians.fillna(0) > 0).any())
        image = canvas.pcolormesh(
            results["value"],
            results.second_value,
            medians.T,
            cmap="viridis",
            shading="nearest",
            norm="log" if logarithmic else "linear",
        )
        canvas.patch.set(facecolor="0.9", hatch="xx", edgecolor="0.6")  # where there is no median
        canvas.figure.colorbar(image, ax=canvas, shrink=0.8)
        if contoured:
            lines = canvas.contour(
                results["value"], results.second_value, left, [tolerance], colors="white"
            )
            canvas.clabel(lines, fmt={tolerance: f"{tolerance:g} left"})
        canvas.set(xlabel=name, ylabel=second)
        canvas.grid(visible=False)

    drawn: dict[str, panels.Panel] = {
        title: partial(heat, variable=variable) for variable, title in NAMES.items()
    }
    sentence = (
        f"{MEANINGS} Medians over those of {results.sizes['seed']} seeds that left their plateau "
        f"({int(results.on_plateau.sum())} of {results.on_plateau.size} trainings did not); hatched: "
        f"none did. {results.attrs['steps']} training steps at every point."
    )
    if contoured:
        sentence += f" White: where gradient descent leaves {tolerance:.0%} of the model's answers."
    summed = results.isel(seed=0, drop=True).drop_vars("on_plateau")  # the sentence says what of
    return panels.figure(summed, drawn, sentence, columns=3)
