"""Two recurrent layers learn the curvature of GD++, which lowers the condition number.

Figure 13 of von Oswald et al. (2022): the curvature gamma that two layers learn with N = 10, 25, 50
and 100 points; its effect on the eigenvalues of the scatter matrix, s -> s (1 - gamma s)^2; and the
resulting condition number for N = 25. The worst-case rule (appendix A.10) requires that the
smallest and the largest eigenvalue are mapped to the same value. The text does not define them;
here they are the mean smallest eigenvalue and the largest of all tasks.

Expected: gamma .179, .099, .056, .029.
Alias: fig13
Cost: half an hour on one core; quick: two minutes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.core.config import require_different, require_memory, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment
from toyicl.studies.deep_references import deep_references, tuned_gdpp
from toyicl.studies.weights import learned_steps
from toyicl.theory.gram_spectrum import condition_numbers, gram_spectrum, worst_case_curvature
from toyicl.training import recipes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the curvature."""

    model: Architecture = Architecture(depth=2, shared=True)
    sizes: tuple[int, ...] = (10, 25, 50, 100)
    """Context sizes N, each with its own training."""
    gdpp_training: Training = recipes.TUNED_GDPP
    """Training of GD++ as the paper tunes it."""
    spectrum_tasks: int = 10_000
    """Number of tasks whose eigenvalues are computed."""
    spectrum_size: int = 25
    """Context size of the histogram and of the condition numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("sizes", self.sizes)
        for size in self.sizes:
            require_size("sizes", size)
        require_size("spectrum_size", self.spectrum_size)
        require_size("spectrum_tasks", self.spectrum_tasks)
        eigenvalues = self.spectrum_tasks * self.task.dim
        require_memory("spectrum_tasks", self.spectrum_tasks, eigenvalues)


FULL = Settings()
QUICK = Settings(
    training=Training(steps=3000, batch_size=256, learning_rate=2e-3, clip_norm=10.0),
    gdpp_training=replace(recipes.TUNED_GDPP, steps=200, batch_size=128),
    sizes=(10, 25),
    evaluation_episodes=2000,
)
LARGEST = 500
"""Number of tasks' largest eigenvalues that are kept, in decreasing order."""
CURVATURES = np.linspace(0.0, 0.2, 101)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each context size, of two layers and of GD++ as the paper tunes it."""
    jobs: dict[str, Job] = {}
    for size in settings.sizes:
        task = replace(settings.task, context_size=size)
        jobs[f"N = {size}"] = Job(settings.model, task, settings.training)
        jobs[f"GD++, N = {size}"] = tuned_gdpp(task, settings.model, settings.gdpp_training)
    return jobs


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Measure the learned curvature and the eigenvalues at each context size."""
    parts = {}
    for size in settings.sizes:
        own = replace(settings, task=replace(settings.task, context_size=size))
        history, tuning = histories[f"N = {size}"], histories[f"GD++, N = {size}"]
        spectrum = gram_spectrum(own.task, settings.spectrum_tasks)
        parts[size] = dataset(
            alignment(own, history, deep_references(own.task, settings.model, tuning)),
            learned_steps(own, history.final),
            {"exact_curvature": theory.gdpp_shared(own.task, 2).curvatures[0]},
            {"tuned_curvature": float(tuning.final.curvature[...][0])},
            {"rule_curvature": worst_case_curvature(spectrum)},
            {"largest_eigenvalue": ("rank", np.sort(spectrum[:, -1])[::-1][:LARGEST])},
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
        .assign_attrs(spectrum_tasks=settings.spectrum_tasks, spectrum_size=settings.spectrum_size)
    )


def draw(results: xr.Dataset) -> Figure:
    """Learned curvature, mapped eigenvalues, condition number, and histogram."""

    def learned(axes: Axes, results: xr.Dataset) -> None:
        lines = {
            "exact_curvature": ("GD++, exact", "k:"),
            "tuned_curvature": ("GD++, as the paper tunes it", "k-."),
            "rule_curvature": ("worst-case rule", "k--"),
        }
        for name, (label, style) in lines.items():
            axes.plot(results.points, results[name], style, label=label)
        kept = results.assign(kept=results.learned_curvature.where(~results.on_plateau))
        panels.curves({"kept": "learned"}, "points", markers="o", xlabel="context size N")(
            axes, kept
        )
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

    size = results.attrs["spectrum_size"]
    drawn = {
        "learned curvature": learned,
        "mapped eigenvalues": mapped,
        f"condition number, N = {size}": condition,
        f"eigenvalues, N = {size}": histogram,
    }
    return panels.figure(results, drawn, "Two linear layers with the same weights.")


def _rule_over_learned(results: xr.Dataset) -> xr.DataArray:
    """Curvature of the rule divided by the learned one, (points, seed)."""
    return results.rule_curvature / results.learned_curvature


def _condition(results: xr.Dataset) -> xr.DataArray:
    """Median condition number at the curvature that the paper's layers learn with 25 points."""
    return results.condition.sel(curvature=0.099, method="nearest")


def _unstable_tasks(results: xr.Dataset) -> xr.DataArray:
    """Fraction of tasks with an eigenvalue above 1 / gamma, the largest over context sizes."""
    learned = results.learned_curvature.where(~results.on_plateau).mean("seed")
    return (results.largest_eigenvalue > 1 / learned).sum("rank").max() / results.attrs[
        "spectrum_tasks"
    ]


def _first_harmful(results: xr.Dataset) -> xr.DataArray:
    """Smallest curvature with a larger condition number than without curvature."""
    above = results.condition > results.condition[0]
    found = results.curvature.where(above).min()
    return found.fillna(float(results.curvature[-1]))


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        **{f"VO-13-1-N{size}": lambda results: results.learned_curvature for size in FULL.sizes},
        "VO-13-2": _unstable_tasks,
        "VO-13-3-falls": lambda results: _condition(results) - results.condition[0],
        "VO-13-3": _condition,
        "VO-13-3-explodes": _first_harmful,
        "VO-13-4": _rule_over_learned,
        "VO-13-4-most": lambda results: (
            _rule_over_learned(results).where(~results.on_plateau).mean("seed").max()
        ),
    },
)
