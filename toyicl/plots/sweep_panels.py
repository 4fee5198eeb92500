"""Figures of departure sweeps: curves of every seed along one factor, or maps of medians over two."""

from functools import partial

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.plots import figures, panels

TITLES = {
    "excess": "excess loss",
    "model_cosine": "model cosine",
    "norm_ratio": "norm ratio",
    "prediction_difference": "prediction difference",
    "unexplained": "unexplained by GD",
}
"""Titles of the panels, by variable."""
SMALL = (3.3, 2.2)
"""Width and height of a panel, in inches, where several factors are drawn."""
MEANINGS = (
    "Excess loss: 0 is as good as the best gradient descent (GD), 1 no better than predicting 0. "
    "Unexplained by GD: fraction of the variance of the model's predictions, 1 - R^2."
)


def draw(results: xr.Dataset) -> Figure:
    """Curves along one factor, or maps over two, of all that was measured."""
    if "second_value" in results.dims:
        return _draw_map(results)
    return draw_factors(results, {str(results["factor"][0].item()): ""})


def draw_factors(results: xr.Dataset, titles: dict[str, str]) -> Figure:
    """A row of panels for each factor, {factor: title}."""
    drawn: dict[str, panels.Panel] = {}
    for name, title in titles.items():
        before = f"{title}: " if title else ""
        for variable, shown in TITLES.items():
            panel = partial(_along, variable=variable, factor=name)
            drawn[before + shown] = panels.of(panel, factor=name)
    sentence = (
        f"{MEANINGS} Dotted: the same models before training; grey rings: seeds on their plateau. "
        f"{results.attrs['steps']} training steps at every value."
    )
    size = figures.PANEL if len(titles) == 1 else SMALL
    return panels.figure(results, drawn, sentence, columns=len(TITLES), size=size)


def _along(canvas: Axes, results: xr.Dataset, *, variable: str, factor: str) -> None:
    results = results.dropna("value", how="all", subset=["loss"])  # values of other factors
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
    canvas.set(xlabel=factor, xscale="log" if log else "linear")
    if variable == "unexplained":
        canvas.set(yscale="log")
        figures.floor_line(canvas, float(results.attrs["tolerance"]), "tolerance")
    else:
        low, high = canvas.get_ylim()
        canvas.set(ylim=(max(low, -0.5), min(high, 3)))
    canvas.legend()


def _median(results: xr.Dataset, variable: str) -> xr.DataArray:
    """The median over the seeds that left their plateau, (value, second_value); NaN if none did."""
    values = results[variable].isel(factor=0).sel(stage="trained")
    stuck = results.on_plateau.isel(factor=0).astype(bool)
    return values.where(~stuck).median("seed")


def _draw_map(results: xr.Dataset) -> Figure:
    """A heat map over both factors of each median over seeds, with the contour of the tolerance."""
    name, second = str(results["factor"][0].item()), str(results.attrs["second_factor"])
    tolerance = float(results.attrs["tolerance"])
    unexplained = _median(results, "unexplained").T
    low, high = float(unexplained.min()), float(unexplained.max())
    contoured = min(unexplained.shape) > 1 and low < tolerance < high

    def heat(canvas: Axes, _: xr.Dataset, *, variable: str) -> None:
        medians = _median(results, variable)
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
                results["value"], results.second_value, unexplained, [tolerance], colors="white"
            )
            canvas.clabel(lines, fmt={tolerance: f"{tolerance:g} unexplained"})
        canvas.set(xlabel=name, ylabel=second)
        canvas.grid(visible=False)

    drawn: dict[str, panels.Panel] = {
        title: partial(heat, variable=variable) for variable, title in TITLES.items()
    }
    sentence = (
        f"{MEANINGS} Medians over those of {results.sizes['seed']} seeds that left their plateau "
        f"({int(results.on_plateau.sum())} of {results.on_plateau.size} trainings did not); hatched: "
        f"no seed did. {results.attrs['steps']} training steps at every point."
    )
    if contoured:
        sentence += f" White: {tolerance:.0%} of the variance is unexplained by gradient descent."
    # Without seeds, since the sentence states how many there are and how many are on their plateau.
    summed = results.isel(seed=0, drop=True).drop_vars("on_plateau")
    return panels.figure(summed, drawn, sentence, columns=3)
