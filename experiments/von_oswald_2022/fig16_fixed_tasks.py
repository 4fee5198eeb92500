"""Gradient descent is learned from some thousand fixed tasks, not from a hundred.

Figure 16 of von Oswald et al. (2022): one layer trained on 128, 512, 2,048 and 8,192 fixed tasks, all
of them in every step, and measured on new ones.

Expected: 128 tasks are learned by heart; from 2,048 on the layer is one step of gradient descent.
Alias: fig16
Cost: two minutes; quick: half a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require_different, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment, best_references, shifts
from toyicl.tasks.fixed_set import FixedSet
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of fixed tasks; each training's batch is all of them."""

    pools: tuple[int, ...] = (128, 512, 2048, 8192)
    """Sizes of the pools of fixed tasks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("pools", self.pools)
        for size in self.pools:
            require_size("pools", size)


FULL = Settings()
QUICK = Settings(training=Training(steps=3000, clip_norm=10.0), evaluation_episodes=2000)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training on each pool, all of it in every step."""
    return {
        f"{size} tasks": Job(
            settings.model,
            FixedSet(base=settings.task, count=size),
            replace(settings.training, batch_size=size),
        )
        for size in settings.pools
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train on each pool, and compare with one step of gradient descent on new tasks."""
    references = best_references(settings.task, 1)
    parts = {}
    for size in settings.pools:
        history = histories[f"{size} tasks"]
        parts[size] = dataset(
            alignment(settings, history, references),
            shifts(settings, history.final, references),
        ).drop_vars("on_plateau")  # a loss above the step's is that of tasks learned by heart
    return side_by_side(parts, "tasks")


def draw(results: xr.Dataset) -> Figure:
    """A row for each pool."""
    rows = {size: f"{size} tasks" for size in results.tasks.values}
    drawn = panels.grid(rows, "tasks", panels.COMPARED_WITH_GD)
    sentence = "One layer trained on fixed tasks, all seeds on the same; losses on new ones."
    return panels.figure(results, drawn, sentence, columns=4)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-16-1": claim_values.final("model_cosine", "gd"),
        "VO-16-1-loss": claim_values.final("loss"),
        "VO-16-2-2048": claim_values.final("model_cosine", "gd"),
        "VO-16-2-2048-loss": claim_values.loss_over("gd"),
        "VO-16-2-8192": claim_values.final("model_cosine", "gd"),
        "VO-16-2-8192-loss": claim_values.loss_over("gd"),
    },
)
