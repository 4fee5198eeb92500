"""Two recurrent layers learn the curvature of GD++, and what it does to eigenvalues.

Figure 13 of von Oswald et al. (2022): the curvature gamma that two layers learn at N = 10, 25, 50, 100;
the map s -> s (1 - gamma s)^2 that it makes of eigenvalues of the scatter matrix; and the condition
number that is left, at N = 25. The worst-case rule (appendix A.10) asks that the least and the greatest
eigenvalue end up equal; the text does not say which, here they are the mean least one and the greatest
of all tasks.

Expected: gamma .179, .099, .056, .029.
Alias: fig13
Cost: an hour at full settings, 10 minutes as checked in; quick: two minutes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.core.config import require_different, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment, best_references, readings
from toyicl.theory.gram_spectrum import condition_numbers, gram_spectrum, worst_case_curvature
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the curvature."""

    model: Architecture = Architecture(depth=2, shared=True)
    sizes: tuple[int, ...] = (10, 25, 50, 100)
    """Context sizes N, one training each."""
    spectrum_tasks: int = 10_000
    """Tasks whose eigenvalues are looked at."""
    spectrum_size: int = 25
    """The N of the histogram and of the condition numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("sizes", self.sizes)
        for size in self.sizes:
            require_size("sizes", size)


FULL = Settings()
QUICK = Settings(
    training=Training(steps=3000, batch_size=256, learning_rate=2e-3, clip_norm=10.0),
    sizes=(10, 25),
    evaluation_episodes=2000,
)
LARGEST = 500
"""How many of the tasks' greatest eigenvalues are kept, from the top."""
CURVATURES = np.linspace(0.0, 0.2, 101)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each number of points."""
    return {
        f"N = {size}": Job(
            settings.model, replace(settings.task, context_size=size), settings.training
        )
        for size in settings.sizes
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train at each N, read the curvature, and look at the eigenvalues it meets."""
    parts = {}
    for size in settings.sizes:
        own = replace(settings, task=replace(settings.task, context_size=size))
        history = histories[f"N = {size}"]
        spectrum = gram_spectrum(own.task, settings.spectrum_tasks)
        parts[size] = dataset(
            alignment(own, history, best_references(own.task, 2)),
            readings(own, history.final),
            {"exact_curvature": theory.gdpp_shared(own.task, 2).curvatures[0]},
            {"rule_curvature": worst_case_curvature(spectrum)},
            {"greatest": ("rank", np.sort(spectrum[:, -1])[::-1][:LARGEST])},
        )
    task = replace(settings.task, context_size=settings.spectrum_size)
    spectrum = gram_spectrum(task, settings.spectrum_tasks)
    counts, edges = np.histogram(spectrum, bins=80)
    return (
        side_by_side(parts, "points")
        .assign(
            curvature=("curvature", CURVATURES),
            condition=("curvature", condition_numbers(spectrum, CURVATURES)),
            edge=("edge", edges),
            count=("bin", counts),
        )
        .assign_attrs(spectrum_tasks=settings.spectrum_tasks)
    )


def draw(results: xr.Dataset) -> Figure:
    """Learned curvature, the map, the condition number, the histogram."""

    def learned(axes: Axes, results: xr.Dataset) -> None:
        kept = results.assign(kept=results.learned_curvature.where(~results.on_plateau))
        panels.curves({"kept": "learned"}, "points", markers="o", xlabel="context size N")(
            axes, kept
        )
        axes.plot(results.points, results.exact_curvature, "k:", label="GD++, exact")
        axes.plot(results.points, results.rule_curvature, "k--", label="worst-case rule")
        axes.set(ylabel=r"$\gamma$", xscale="log", yscale="log")
        axes.legend()

    def mapped(axes: Axes, results: xr.Dataset) -> None:
        values = np.linspace(0, 12, 200)
        for gamma, style in zip(results.exact_curvature, ("-", "--", "-.", ":"), strict=False):
            new = values * (1 - float(gamma) * values) ** 2
            axes.plot(values, new, style, label=f"N = {int(gamma.points)}")
        axes.set(xlabel="eigenvalue s", ylabel=r"$s (1 - \gamma s)^2$", ylim=(0, 8))
        axes.legend()

    def condition(axes: Axes, results: xr.Dataset) -> None:
        axes.plot(results.curvature, results.condition)
        axes.set(xlabel=r"$\gamma$", ylabel="median condition number", yscale="log")

    def histogram(axes: Axes, results: xr.Dataset) -> None:
        axes.stairs(results["count"], results.edge, fill=True)
        axes.set(xlabel="eigenvalue s", ylabel="count")

    drawn = {
        "learned curvature": learned,
        "the map of eigenvalues": mapped,
        "what it leaves, N = 25": condition,
        "eigenvalues, N = 25": histogram,
    }
    return panels.figure(results, drawn, "Two linear layers with the same weights.")


def _over_rule(results: xr.Dataset) -> xr.DataArray:
    """The rule's curvature over that learned, a mean of the seeds that left their plateau."""
    learned = results.learned_curvature.where(~results.on_plateau).mean("seed")
    return results.rule_curvature / learned


def _beyond(results: xr.Dataset) -> xr.DataArray:
    learned = results.learned_curvature.where(~results.on_plateau).mean("seed")
    return (results.greatest > 1 / learned).sum("rank").max() / results.attrs["spectrum_tasks"]


def _explodes(results: xr.Dataset) -> xr.DataArray:
    above = results.condition > results.condition[0]
    found = results.curvature.where(above).min()
    return found.fillna(float(results.curvature[-1]))


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        **{f"VO-13-1-N{size}": lambda results: results.learned_curvature for size in FULL.sizes},
        "VO-13-2": _beyond,
        "VO-13-3": lambda results: results.condition.sel(curvature=0.099, method="nearest"),
        "VO-13-3-explodes": _explodes,
        "VO-13-4": lambda results: _over_rule(results).min(),
        "VO-13-4-most": lambda results: _over_rule(results).max(),
    },
)
