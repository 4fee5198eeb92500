"""The style of figures: every seed drawn, exact values as lines, and captions with the command."""

import io
import itertools
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from string import ascii_lowercase

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

PANEL = (4.2, 3.0)
"""Width and height of a panel, in inches."""
COLORS = 128
"""Number of colours in the palette of a PNG: a dozen for lines, the others for antialiasing."""
SUFFIXES = (".png", ".svg")
"""Formats that a figure is saved in."""
STYLE = Path(__file__).with_name("paper.mplstyle")
MODEL, REFERENCE, THIRD, FOURTH = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Colours of the trained model, its reference, and two further curves, which differ in line style."""


def style() -> AbstractContextManager[None]:
    """A context in which figures are drawn and saved in the project's style."""
    return mpl.rc_context(fname=STYLE)


def panels(rows: int, columns: int, *, width: float = PANEL[0], height: float = PANEL[1]) -> Figure:
    """A figure of rows x columns panels, to be drawn in the context `style`."""
    figure = Figure(figsize=(width * columns, height * rows))
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns)
    return figure


def title(axes: Axes, index: int, text: str) -> None:
    """Set letter and title of a panel; after z come aa, ab, ..."""
    round_, letter = divmod(index, len(ascii_lowercase))
    before = ascii_lowercase[round_ - 1] if round_ else ""
    axes.set_title(f"({before}{ascii_lowercase[letter]}) {text}")


def every_seed(
    axes: Axes, values: xr.DataArray, along: str, *, label: str, color: str, style: str = "-"
) -> None:
    """Draw values (seed, along), one line for each seed; the legend states the number of seeds.

    Seeds without any value are left out: some models are trained with fewer seeds than others.
    """
    values = values.dropna("seed", how="all")
    count = values.sizes["seed"]
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    for number, line in enumerate(values.transpose("seed", along)):
        name = f"{label} ({seeds})" if number == 0 else None
        axes.plot(values[along], line, style, color=color, label=name, linewidth=1, alpha=0.75)


def seeds_at(
    axes: Axes, place: float, values: xr.DataArray, on_plateau: xr.DataArray, *, color: str = MODEL
) -> None:
    """Draw values (seed,) at one place, a little apart; hollow for seeds on their plateau."""
    count = values.sizes["seed"]
    offsets = np.linspace(-0.15, 0.15, count) if count > 1 else np.zeros(1)
    for offset, value, stuck in zip(offsets, values.values, on_plateau.values, strict=True):
        fill = "none" if stuck else color
        axes.plot(place + offset, value, "o", color=color, markerfacecolor=fill, markersize=4)


def floor_line(axes: Axes, value: float, label: str) -> None:
    """An exact value as a horizontal line."""
    axes.axhline(value, color="black", linestyle=(0, (1, 1.5)), linewidth=1.2, label=label)


def over_points(
    axes: Axes,
    values: Sequence[tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
    *,
    band: tuple[float, float],
    exact: float | None,
) -> None:
    """Draw values of seeds at named points, with the band in which they should lie.

    An end of the band may be infinite. `values` has, for each point, those of seeds that left their
    plateau, which set the scale, and those of seeds that did not.
    """
    ends = [(0.0, end) for end in band if np.isfinite(end)]
    if ends:
        axes.update_datalim(ends)
        axes.autoscale_view()
    for position, (kept, _) in enumerate(values):
        axes.plot(np.full(len(kept), position), kept, "o", color=MODEL, markersize=3, alpha=0.75)
    if exact is not None:
        floor_line(axes, exact, "exact")
    limits = low, high = axes.get_ylim()
    axes.axhspan(max(low, band[0]), min(high, band[1]), color="0.9", zorder=0)
    edge = 0.03 * (high - low)
    for position, (_, stuck) in enumerate(values):
        inside = np.clip(stuck, low + edge, high - edge)
        axes.plot(np.full(len(stuck), position), inside, "x", color="0.4", markersize=4)
    axes.set_ylim(limits)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0, fontsize=7)


def plateau_sentence(on_plateau: xr.DataArray, saddle_loss: xr.DataArray | None = None) -> str:
    """A sentence that names the seeds on their plateau, (..., seed); empty if there are none.

    `saddle_loss`, of the same dimensions, has the loss of the saddle point of each seed, and NaN where
    it is not known.
    """
    losses = xr.full_like(on_plateau, np.nan, float) if saddle_loss is None else saddle_loss
    if on_plateau.ndim == 1:
        stuck = _listed(on_plateau, losses)
        return f"Still on its plateau at the end: seed {stuck}." if stuck else ""
    kinds = [dim for dim in on_plateau.dims if dim != "seed"]
    found = []
    for labels in itertools.product(*(on_plateau[kind].values for kind in kinds)):
        place = dict(zip(kinds, labels, strict=True))
        row = on_plateau.sel(place)
        if row.any():
            name = ", ".join(f"{kind} {label}" for kind, label in place.items())
            found.append(f"{name}: {_listed(row, losses.sel(place))}")
    return f"Seeds still on their plateau at the end: {'; '.join(found)}." if found else ""


def _listed(on_plateau: xr.DataArray, losses: xr.DataArray) -> str:
    """The seeds on their plateau, each with the loss of its saddle point if that is known."""
    stuck = on_plateau.values
    listed = zip(on_plateau["seed"].values[stuck], losses.values[stuck], strict=True)
    return ", ".join(
        f"{seed}" if np.isnan(loss) else f"{seed} (saddle point of loss {loss:.4f})"
        for seed, loss in listed
    )


def _saddle_of_seeds(results: xr.Dataset) -> xr.DataArray | None:
    """Loss of the saddle point nearest to each seed's final loss, of the dimensions of `on_plateau`."""
    if "nearest_saddle" not in results:
        return None
    own = results.saddle_loss.where(results.saddle == results.nearest_saddle).max("saddle")
    return own.transpose(*results.on_plateau.dims)


def command_sentence(results: xr.Dataset) -> str:
    """A sentence with the command that made the results; empty if they were not saved by a run."""
    command = results.attrs.get("command")
    return f"Command: {command}" if command else ""


def training_sentence(results: xr.Dataset) -> str:
    """A sentence with the recipe of every training; empty if nothing was trained by a run."""
    trainings = results.attrs.get("trainings")
    return f"Trainings: {trainings}." if trainings else ""


def common_sentences(results: xr.Dataset) -> list[str]:
    """Sentences of every caption: seeds, those on their plateau, recipes, cuts, the command."""
    seeds = results.sizes.get("seed", 0)
    return [
        f"{seeds} seed{'s' if seeds > 1 else ''}, each drawn." if seeds else "",
        plateau_sentence(results.on_plateau, _saddle_of_seeds(results))
        if "on_plateau" in results
        else "",
        "Lines end where a loss overflows." if _overflows(results) else "",
        training_sentence(results),
        str(results.attrs.get("cut", "")),
        command_sentence(results),
    ]


def _overflows(results: xr.Dataset) -> bool:
    """Whether a loss is infinite."""
    losses = (results[name] for name in results.data_vars if str(name).endswith("loss"))
    return any(bool(np.isinf(values).any()) for values in losses if values.dtype.kind == "f")


def caption(figure: Figure, sentences: Sequence[str]) -> None:
    """Set the caption below the panels."""
    width = int(figure.get_figwidth() * 15)
    figure.supxlabel(
        textwrap.fill(" ".join(filter(None, sentences)), width),
        fontsize=8,
        x=0.01,
        ha="left",
        color="0.25",
    )


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write stem.png and stem.svg, the same bytes for the same figure.

    The PNG has a palette, so that figures of many panels are small enough for a repository.
    """
    png, svg = (stem.with_suffix(suffix) for suffix in SUFFIXES)
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png")
    picture = Image.open(pixels).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    picture.save(png, optimize=True)
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]
