"""Panels of the comparison of every seed's model with candidate algorithms."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from toyicl.plots import figures, panels

LEAST = 1e-7
"""Smallest unexplained variance that is drawn; it is near the rounding of float32."""
CANDIDATE_LOOKS = (*panels.LOOKS[1:], ("0.5", "-"))
"""Colours and line styles of candidates; models are black dots."""


def unexplained_panel(tuning: str) -> panels.Panel:
    """Unexplained variance of every seed by each candidate; filled where it is in the set."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        chosen = results.sel(tuning=tuning)
        places = np.arange(results.sizes["candidate"])
        for seed, stuck in zip(chosen.seed.values, results.on_plateau.values, strict=True):
            row = chosen.sel(seed=seed)
            in_set = row.candidate_in_set.values.astype(bool)
            unexplained = np.maximum(1 - row.candidate_r_squared.values, LEAST)
            color = "0.7" if stuck else figures.MODEL
            axes.plot(unexplained, places, "o", color=color, mfc="none", alpha=0.7)
            axes.plot(unexplained[in_set], places[in_set], "o", color=color, alpha=0.7)
        axes.set(xscale="log", xlabel="unexplained variance, $1 - R^2$")
        axes.set_yticks(
            places, results.candidate.values if tuning == results.tuning.values[0] else []
        )
        axes.invert_yaxis()

    return draw


def residual_panel(axes: Axes, results: xr.Dataset) -> None:
    """Residual polynomials of models and candidates by eigenvalue."""
    order = np.argsort(results.eigenvalue.values)
    values = results.eigenvalue.values[order]
    for number, name in enumerate(results.drawn.values):
        color, style = CANDIDATE_LOOKS[number % len(CANDIDATE_LOOKS)]
        line = results.candidate_residual.sel(drawn=name).values[order]
        axes.plot(values, line, style, color=color, label=str(name))
    for number, stuck in enumerate(results.on_plateau.values):
        if not stuck:
            axes.plot(values, results.residual.values[number][order], "k.", markersize=1)
    axes.plot([], [], "k.", label="trained")
    axes.set(xlabel="eigenvalue s", ylabel="residual R(s)", ylim=(-0.6, 1.1))
    axes.legend()
