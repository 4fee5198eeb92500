"""How figures look: one style, every seed drawn, exact references as lines, captions that say all."""

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
"""Colours of a PNG's palette; the lines of a figure need a dozen, and their edges the rest."""
STYLE = Path(__file__).with_name("paper.mplstyle")
MODEL, REFERENCE, THIRD, FOURTH = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Colours of the trained model, of its reference, and of two more; never without a line style."""


def style() -> AbstractContextManager[None]:
    """The project's look, for all that is drawn and saved inside the context."""
    return mpl.rc_context(fname=STYLE)


def panels(rows: int, columns: int, *, width: float = PANEL[0], height: float = PANEL[1]) -> Figure:
    """A figure of rows x columns panels, to be drawn under `style`."""
    figure = Figure(figsize=(width * columns, height * rows))
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns)
    return figure


def title(axes: Axes, index: int, text: str) -> None:
    """Letter and title of a panel; after z come aa, ab, ..."""
    round_, letter = divmod(index, len(ascii_lowercase))
    before = ascii_lowercase[round_ - 1] if round_ else ""
    axes.set_title(f"({before}{ascii_lowercase[letter]}) {text}")


def every_seed(
    axes: Axes, values: xr.DataArray, along: str, *, label: str, color: str, style: str = "-"
) -> None:
    """Draw values (seed, along), a thin line for each seed; the legend counts them."""
    values = values.dropna("seed", how="all")  # of models that were trained with fewer seeds
    count = values.sizes["seed"]
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    for number, line in enumerate(values.transpose("seed", along)):
        name = f"{label} ({seeds})" if number == 0 else None
        axes.plot(values[along], line, style, color=color, label=name, linewidth=1, alpha=0.75)


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
    """Values of seeds at each of some named points, with the band they should lie in.

    At each point those that left their plateau, which set the scale, and those that did not.
    """
    axes.axhspan(*band, color="0.9")
    for position, (kept, _) in enumerate(values):
        axes.plot(np.full(len(kept), position), kept, "o", color=MODEL, markersize=3, alpha=0.75)
    if exact is not None:
        floor_line(axes, exact, "exact")
    limits = low, high = axes.get_ylim()
    edge = 0.03 * (high - low)
    for position, (_, stuck) in enumerate(values):
        inside = np.clip(stuck, low + edge, high - edge)
        axes.plot(np.full(len(stuck), position), inside, "x", color="0.4", markersize=4)
    axes.set_ylim(limits)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0, fontsize=7)


def plateau_sentence(on_plateau: xr.DataArray) -> str:
    """Which seeds never left their plateau, (..., seed), as a sentence; empty if all did."""
    if on_plateau.ndim == 1:
        stuck = _listed(on_plateau)
        return f"Still on its plateau at the end: seed {stuck}." if stuck else ""
    kinds = [dim for dim in on_plateau.dims if dim != "seed"]
    found = []
    for labels in itertools.product(*(on_plateau[kind].values for kind in kinds)):
        place = dict(zip(kinds, labels, strict=True))
        row = on_plateau.sel(place)
        if row.any():
            name = ", ".join(f"{kind} {label}" for kind, label in place.items())
            found.append(f"{name}: {_listed(row)}")
    return f"Seeds still on their plateau at the end: {'; '.join(found)}." if found else ""


def _listed(on_plateau: xr.DataArray) -> str:
    return ", ".join(str(seed) for seed in on_plateau["seed"].values[on_plateau.values])


def command_sentence(results: xr.Dataset) -> str:
    """The command that made the results; for results that no run has saved, nothing."""
    command = results.attrs.get("command")
    return f"Command: {command}" if command else ""


def common_sentences(results: xr.Dataset) -> list[str]:
    """What every caption says: seeds, those on their plateau, what was cut, the command."""
    seeds = results.sizes.get("seed", 0)
    return [
        f"{seeds} seed{'s' if seeds > 1 else ''}, each drawn." if seeds else "",
        plateau_sentence(results.on_plateau) if "on_plateau" in results else "",
        "A line ends where its loss overflows." if _overflows(results) else "",
        str(results.attrs.get("cut", "")),
        command_sentence(results),
    ]


def _overflows(results: xr.Dataset) -> bool:
    """Whether some loss is infinite."""
    losses = (results[name] for name in results.data_vars if str(name).endswith("loss"))
    return any(bool(np.isinf(values).any()) for values in losses if values.dtype.kind == "f")


def caption(figure: Figure, sentences: Sequence[str]) -> None:
    """A caption below the panels: what was run, what was cut, and the command."""
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

    The PNG has a palette: figures of many panels stay small enough to be kept in a repository.
    """
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png")
    picture = Image.open(pixels).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    picture.save(png, optimize=True)
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]
