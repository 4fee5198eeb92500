"""One head can stay on a plateau for long; with two heads there is none.

Figure 15 of von Oswald et al. (2022): ten seeds of one linear layer with one head and with two
heads, and a block with an MLP trained on 8,192 fixed tasks, all of them in every step. In addition,
60 seeds of one head, trained for 1,600 steps: the fraction of seeds that are still on a plateau, and
the loss there, which is that of a saddle point with a closed form (`theory.saddle_losses`).

Expected: plateaus of very different lengths with one head, at loss .3956, and none with two; the
loss of the block on new tasks rises before it falls.
Alias: fig15
Cost: ten minutes; quick: a minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.core.config import require_size
from toyicl.core.datasets import Variables, dataset, seed_coordinate, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.harness.claims import NotMeasured
from toyicl.harness.intervals import wilson
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.saddles import known_saddles
from toyicl.tasks.fixed_set import FixedSet
from toyicl.tasks.linear import require_episodes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the plateaus; `model` and `training` are those of one head."""

    heads_min_seeds: int = 10
    """Smallest number of seeds of the layers with one head and with two."""
    block: Architecture = Architecture(mlp_size=40)
    """The block with an MLP."""
    block_tasks: int = 8192
    """Number of fixed tasks, all of which are in every batch."""
    block_training: Training = Training(steps=10_000, batch_size=8192, clip_norm=10.0)
    """Its training."""
    block_max_seeds: int = 3
    """Largest number of seeds of the block."""
    escape_training: Training = Training(steps=1600)
    """Training of one head after which the seeds on a plateau are counted."""
    escape_min_seeds: int = 60
    """Smallest number of seeds of this training, whatever the number of seeds of the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heads_min_seeds", "block_tasks", "block_max_seeds", "escape_min_seeds"):
            require_size(name, getattr(self, name))
        require_episodes("block_tasks", self.block_tasks, self.task)


HEADS = (1, 2)
RELEASED = (3, 40)
"""Seeds of the released code still on a plateau after 1,600 steps of one layer, and seeds trained."""
FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=512),
    heads_min_seeds=1,
    block_tasks=2048,
    block_training=Training(steps=2000, batch_size=2048, clip_norm=10.0, learning_rate=3e-3),
    block_max_seeds=1,
    escape_training=Training(steps=1600, batch_size=512),
    escape_min_seeds=10,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One head, two heads, the block on fixed tasks, and many seeds of one head."""
    pool = FixedSet(base=settings.task, count=settings.block_tasks)
    of_heads = {
        f"heads: {heads}": Job(
            replace(settings.model, heads=heads),
            settings.task,
            settings.training,
            min_seeds=settings.heads_min_seeds,
        )
        for heads in HEADS
    }
    block = Job(settings.block, pool, settings.block_training, max_seeds=settings.block_max_seeds)
    escape = Job(
        replace(settings.model, heads=1),
        settings.task,
        settings.escape_training,
        min_seeds=settings.escape_min_seeds,
    )
    return of_heads | {"block": block, "escape": escape}


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
        **_escape(settings, histories["escape"]),
        block_loss=(("block_seed", "block_step"), block["loss"][1]),
        block_training_loss=(("block_seed", "block_step"), _padded(history.training_loss)),
        block_step=history.steps,
        **seed_coordinate(history.seeds, "block_seed"),
    )


def _escape(settings: Settings, history: History) -> Variables:
    """Losses of many seeds of one head, and the fraction of them that are on a plateau at the end.

    `escape_interval` (bound,) is Wilson's 95% interval of this fraction.
    """
    episodes, task = settings.episodes(), settings.task
    losses = metrics.over_snapshots(metrics.loss, history.learners, episodes)
    best = float(metrics.loss(best_references(task, 1)["gd"], episodes))
    saddles = known_saddles(history.learners, task)
    known = (1.0, 0.0) if saddles is None else saddles
    zero = float(metrics.zero_loss(episodes))
    stuck = metrics.on_plateau(losses[:, -1], best, zero, known)
    return {
        "escape_loss": (("escape_seed", "escape_step"), losses),
        "escape_on_plateau": ("escape_seed", stuck),
        "escape_interval": ("bound", np.array(wilson(int(stuck.sum()), stuck.size))),
        "escape_step": history.steps,
        **seed_coordinate(history.seeds, "escape_seed"),
    }


def _padded(losses: np.ndarray) -> np.ndarray:
    """Training losses since the last snapshot, NaN at the first."""
    return np.pad(losses, ((0, 0), (1, 0)), constant_values=np.nan)


def draw(results: xr.Dataset) -> Figure:
    """The losses of all models during training."""

    def escape(axes: panels.Axes, results: xr.Dataset) -> None:
        losses = {"escape_loss": "one head"}
        panels.curves(losses, "escape_step", ylabel="loss", ylim=(0, None))(axes, results)
        if "saddle_loss" in results:
            reference_panels.saddle_lines(axes, results.saddle_loss.sel(heads=1))
        axes.legend()

    block = {"block_loss": "new tasks", "block_training_loss": "training tasks"}
    drawn = {
        "one head": panels.of(reference_panels.training_panel, heads=1),
        "two heads": panels.of(reference_panels.training_panel, heads=2),
        "a block with an MLP, fixed tasks": panels.curves(
            block, "block_step", ylabel="loss", ylim=(0, None)
        ),
        "one head, more seeds": escape,
    }
    sentence = (
        "One linear layer, with one head or two, or in a block with an MLP. "
        f"{_escape_sentence(results)}"
    )
    return panels.figure(results, drawn, sentence)


def _escape_sentence(results: xr.Dataset) -> str:
    """The numbers of seeds of panel (d) and of the released code that are still on a plateau."""
    stuck, steps = results.escape_on_plateau, int(results.escape_step[-1])
    ours = _counted(int(stuck.sum()), stuck.size, results.escape_interval.values)
    released = _counted(*RELEASED, wilson(*RELEASED))
    return (
        f"Panel (d): {ours} are on a plateau after {steps:,} steps; with the released code, {released} "
        "after 1,600 steps."
    )


def _counted(stuck: int, seeds: int, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{stuck} of {seeds} seeds (95% interval {low:.1%} to {high:.1%})"


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


def _loss_on_plateau(results: xr.Dataset) -> xr.DataArray:
    """Median loss of snapshots on the plateau, divided by the exact loss of the first saddle point.

    Snapshots are those in the second half of the training of seeds whose final loss is nearer to that
    of predicting 0 than to the optimum, so that the selection does not depend on the saddle point.
    """
    if "saddle_loss" not in results:
        raise NotMeasured("the losses of saddle points are not known for this model and task")
    levels, losses = results.saddle_loss.sel(heads=1, drop=True), results.escape_loss
    middle = (levels[0] + levels[-1]) / 2
    late = losses.isel(escape_step=losses.escape_step >= losses.escape_step[-1] / 2)
    kept = late.isel(escape_seed=(losses.isel(escape_step=-1) > middle).values)
    if not kept.size:
        raise NotMeasured("no seed is on a plateau at the end")
    return kept.median() / levels[1]


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
        "PLATEAU-escape": lambda results: results.escape_on_plateau.mean(),
        "PLATEAU-saddle": _loss_on_plateau,
    },
)
