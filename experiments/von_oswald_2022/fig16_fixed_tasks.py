"""Gradient descent is learned from thousands of fixed tasks, and not from a hundred.

Figure 16 of von Oswald et al. (2022): one layer is trained on 128, 512, 2,048 and 8,192 fixed
tasks, all of them in every step, and evaluated on new tasks.

Expected: 128 tasks are memorised; with 8,192 tasks the layer is one step of gradient descent, and
with 2,048 nearly (loss ratio 1.09).
Alias: fig16
Cost: two minutes; quick: half a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require_different
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.shifts import shifts
from toyicl.tasks.fixed_set import FixedSet
from toyicl.tasks.linear import require_episodes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of fixed tasks; each batch has all of them."""

    counts: tuple[int, ...] = (128, 512, 2048, 8192)
    """Numbers of fixed tasks, each with its own training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("counts", self.counts)
        for count in self.counts:
            require_episodes("counts", count, self.task)


FULL = Settings()
QUICK = Settings(training=Training(steps=3000, clip_norm=10.0), evaluation_episodes=2000)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training on each number of fixed tasks."""
    return {
        f"{count} tasks": Job(
            settings.model,
            FixedSet(base=settings.task, count=count),
            replace(settings.training, batch_size=count),
        )
        for count in settings.counts
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare with one step of gradient descent on new tasks."""
    references = best_references(settings.task, 1)
    parts = {}
    for count in settings.counts:
        history = histories[f"{count} tasks"]
        # Without the nearest saddle: here a loss above that of the step is one of memorised tasks.
        parts[count] = dataset(
            alignment(settings, history, references),
            shifts(settings, history.final, references),
        ).drop_vars(["on_plateau", "nearest_saddle"], errors="ignore")
    return side_by_side(parts, "tasks")


def draw(results: xr.Dataset) -> Figure:
    """A row for each number of fixed tasks."""
    rows = {count: f"{count} tasks" for count in results.tasks.values}
    drawn = panels.grid(rows, "tasks", reference_panels.COMPARED_WITH_GD)
    sentence = "One layer trained on fixed tasks, the same for all seeds; losses on new tasks."
    return panels.figure(results, drawn, sentence, columns=4)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-16-1": claim_values.final("model_cosine", "gd"),
        "VO-16-1-loss": claim_values.loss_over("gd"),
        "VO-16-2-2048": claim_values.final("model_cosine", "gd"),
        "VO-16-2-2048-loss": claim_values.loss_over("gd"),
        "VO-16-2-8192": claim_values.final("model_cosine", "gd"),
        "VO-16-2-8192-loss": claim_values.loss_over("gd"),
    },
)
