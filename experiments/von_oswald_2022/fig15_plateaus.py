"""One head can stay on a plateau for long; with two heads there is none.

Figure 15 of von Oswald et al. (2022): ten seeds of one linear layer with one head and with two
heads, and a block with an MLP trained on 8,192 fixed tasks, all of them in every step.

Expected: plateaus of very different lengths with one head, none with two; the loss of the block on
new tasks rises before it falls.
Alias: fig15
Cost: eight minutes; quick: a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require_size
from toyicl.core.datasets import dataset, seed_coordinate, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.tasks.fixed_set import FixedSet
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the plateaus; `model` and `training` are those of one head."""

    block: Architecture = Architecture(mlp_size=40)
    """The block with an MLP."""
    block_tasks: int = 8192
    """Number of fixed tasks, all of which are in every batch."""
    block_training: Training = Training(steps=10_000, batch_size=8192, clip_norm=10.0)
    """Its training."""
    block_max_seeds: int = 3
    """Largest number of seeds of the block."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("block_tasks", "block_max_seeds"):
            require_size(name, getattr(self, name))


HEADS = (1, 2)
FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=512),
    block_tasks=2048,
    block_training=Training(steps=2000, batch_size=2048, clip_norm=10.0, learning_rate=3e-3),
    block_max_seeds=1,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One head, two heads, and the block on fixed tasks."""
    pool = FixedSet(base=settings.task, count=settings.block_tasks)
    of_heads = {
        f"heads: {heads}": Job(
            replace(settings.model, heads=heads), settings.task, settings.training
        )
        for heads in HEADS
    }
    block = Job(settings.block, pool, settings.block_training, max_seeds=settings.block_max_seeds)
    return of_heads | {"block": block}


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the layers with one step of gradient descent, and measure the losses of the block."""
    references = best_references(settings.task, 1)
    parts = {}
    for heads in HEADS:
        history = histories[f"heads: {heads}"]
        parts[heads] = dataset(alignment(settings, history, references))
    history = histories["block"]
    block = alignment(settings, history, references)
    return side_by_side(parts, "heads").assign(
        block_loss=(("block_seed", "block_step"), block["loss"][1]),
        block_training_loss=(("block_seed", "block_step"), _padded(history.training_loss)),
        block_step=history.steps,
        **seed_coordinate(history.seeds, "block_seed"),
    )


def _padded(losses: np.ndarray) -> np.ndarray:
    """Training losses since the last snapshot, NaN at the first."""
    return np.pad(losses, ((0, 0), (1, 0)), constant_values=np.nan)


def draw(results: xr.Dataset) -> Figure:
    """The losses of the three models during training."""
    block = {"block_loss": "new tasks", "block_training_loss": "training tasks"}
    drawn = {
        "one head": panels.of(reference_panels.training_panel, heads=1),
        "two heads": panels.of(reference_panels.training_panel, heads=2),
        "a block with an MLP, fixed tasks": panels.curves(
            block, "block_step", ylabel="loss", ylim=(0, None)
        ),
    }
    return panels.figure(
        results,
        drawn,
        "One linear layer, with one head or two, or in a block with an MLP.",
        columns=3,
    )


def _steps_to_learn(results: xr.Dataset) -> xr.DataArray:
    """Steps to a loss of .25, (heads, seed); the length of the training if it is not reached."""
    return claim_values.first_step(results.loss < 0.25).fillna(results.step[-1])


def _longest_over_shortest(results: xr.Dataset) -> xr.DataArray:
    steps = _steps_to_learn(results).sel(heads=1)
    return steps.max() / steps.min()


def _two_over_one(results: xr.Dataset) -> xr.DataArray:
    steps = _steps_to_learn(results).mean("seed")
    return steps.sel(heads=2) / steps.sel(heads=1)


def _rise(results: xr.Dataset) -> xr.DataArray:
    """Largest loss of the block on new tasks, divided by the first."""
    return results.block_loss.max("block_step") / results.block_loss.isel(block_step=0)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-15-1": _longest_over_shortest,
        "VO-15-2": claim_values.loss_over("gd"),
        "VO-15-2-sooner": _two_over_one,
        "VO-15-3-peak": _rise,
        "VO-15-3": lambda results: results.block_loss.isel(block_step=-1).where(
            _rise(results) >= 1.5
        ),
    },
)
