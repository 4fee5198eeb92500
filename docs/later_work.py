"""Draws the figure of the page "What is left of the claim?" from the verdicts that are checked in.

`python docs/later_work.py` writes figures/later_work.png; `make later-work` calls it.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.plots import figures

ROOT = Path(__file__).parents[1]
ROWS = Path(__file__).with_suffix(".toml")
VERDICTS = ROOT / "figures" / "verdicts.json"
FIGURE = ROOT / "figures" / "later_work.png"
PANELS = {
    "ratio": "loss, divided by that of the reference",
    "alignment": "cosine with the reference",
}
"""The panels, and what their axes show."""
COLORS = {
    "reproduced": "C2",
    "proved": "C2",
    "holds": "C0",
    "inconclusive": "C4",
    "not reproduced": "C1",
    "refuted": "C1",
}
"""Colour of each verdict."""
NAMES = {
    "C2": "reproduced",
    "C0": "finding of toyicl",
    "C4": "inconclusive",
    "C1": "not reproduced",
}
"""What each colour is called in the legend."""
SHAPES = {"C2": "o", "C0": "s", "C4": "D", "C1": "X"}


@dataclass(frozen=True)
class Row:
    """A setting, with the values that are drawn in it."""

    setting: str
    work: str
    """Whose result it is."""
    panel: str
    against: str
    """The reference."""
    values: Sequence[str]
    """Ids of claims or findings."""


def rows() -> list[Row]:
    """The rows of the figure, from the setting of the original claim to what is used in practice."""
    content = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    return [Row(**entry) for entry in content["row"]]


def records() -> dict[str, Mapping[str, Any]]:
    """The verdicts that are checked in, by id."""
    content = json.loads(VERDICTS.read_text(encoding="utf-8"))
    return {one["id"]: one for each in content["experiments"] for one in each["records"]}


def draw(shown: Sequence[Row], verdicts: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel for losses and one for cosines, with a line for each row, and a mark for each value."""
    parts = [[row for row in shown if row.panel == panel] for panel in PANELS]
    with figures.style():
        figure, panels = plt.subplots(
            2, 1, figsize=(8, 7.2), height_ratios=[len(part) + 1 for part in parts]
        )
        for axes, part, (panel, label) in zip(panels, parts, PANELS.items(), strict=True):
            for place, row in enumerate(part):
                _row(axes, place, row, verdicts)
            names = [f"{row.setting}\n{row.work}" for row in part]
            axes.set_yticks(range(len(part)), names, fontsize=7)
            axes.set(xlabel=label, ylim=(len(part) - 0.4, -0.6))
            axes.axvline(1, color="black", linewidth=1, linestyle="--")
            if panel == "ratio":
                axes.set(xscale="log", xlim=(0.3, 1500))
                axes.set_xticks([0.5, 1, 2, 5, 20], ["0.5", "1", "2", "5", "20"])
                axes.minorticks_off()
            else:
                axes.set_xlim(-0.05, 1.8)
                axes.set_xticks([0, 0.5, 1])
        used = {COLORS[verdicts[name]["verdict"]] for row in shown for name in row.values}
        for color, name in NAMES.items():
            if color in used:
                panels[0].plot([], [], SHAPES[color], color=color, label=name)
        figure.legend(loc="outside upper center", ncols=len(used))
        sentence = (
            "From one linear layer to what is used in practice, in each panel from the top: values of "
            "trained models with their 95% interval, or range over seeds. Dashed: equal to the "
            "reference, which is named at the right. Command: python docs/later_work.py"
        )
        figures.caption(figure, [sentence])
    return figure


def _row(axes: Axes, place: int, row: Row, verdicts: Mapping[str, Mapping[str, Any]]) -> None:
    for name in row.values:
        record = verdicts[name]
        color = COLORS[record["verdict"]]
        low, high = record["interval"] or record["spread"]
        axes.plot([low, high], [place, place], color=color, linewidth=2)
        axes.plot(record["measured"], place, SHAPES[color], color=color, markersize=6)
    numbers = ", ".join(f"{verdicts[name]['measured']:.4g}" for name in row.values)
    axes.annotate(
        f"{numbers}   against {row.against}",
        (1, place),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=7,
    )


def main() -> None:
    """Write the figure."""
    figure = draw(rows(), records())
    figure.savefig(FIGURE, dpi=130)
    print(f"wrote {FIGURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
