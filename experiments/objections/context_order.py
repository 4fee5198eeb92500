"""Attention on joint tokens cannot know the order of its context; with positions it may.

Permutation sensitivity: how far predictions move if the context is told in another order, over how far
they spread over episodes. For layers on joint tokens, linear and softmax, one and two, before and after
training; and for two layers on separate tokens, which carry positions, while they train.

Expected: rounding for joint tokens; for separate tokens .2 to .6, most when they begin to learn.
Cost: a minute and a half; quick: half of it.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.analysis import metrics
from toyicl.core.config import require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import Episode, Learner
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture, Transformer
from toyicl.plots import figures, panels
from toyicl.studies.alignment import thinned
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the models; sensitivities are computed in float64."""

    task: LinearRegression = LinearRegression(dim=4, context_size=6, input_range=2.0)
    """The task."""
    joint_training: Training = Training(
        steps=500, batch_size=128, learning_rate=3e-3, clip_norm=10.0
    )
    """Training on joint tokens."""
    separate_training: Training = Training(
        steps=3000, batch_size=128, learning_rate=3e-3, clip_norm=10.0
    )
    """Training on separate tokens."""
    episodes: int = 1000
    """Episodes on which sensitivities are measured."""
    permutations: int = 8
    """Orders of each context beside its own."""

    def __post_init__(self) -> None:
        for name in ("episodes", "permutations"):
            require_size(name, getattr(self, name))


FULL = Settings()
QUICK = Settings(
    joint_training=replace(FULL.joint_training, steps=200, batch_size=64),
    separate_training=replace(FULL.separate_training, batch_size=64),
    episodes=200,
)
JOINT = {
    "linear": Architecture(),
    "softmax": Architecture(attention="softmax"),
    "two_linear": Architecture(depth=2),
    "two_softmax": Architecture(attention="softmax", depth=2),
}
SEPARATE = Architecture(tokens="separate", depth=2, first_attention="softmax", key_size=20)


def trainings(settings: Settings) -> dict[str, Job]:
    """Each model on joint tokens, and the one on separate tokens."""
    jobs = {
        name: Job(model, settings.task, settings.joint_training) for name, model in JOINT.items()
    }
    return jobs | {"separate tokens": Job(SEPARATE, settings.task, settings.separate_training)}


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train each, and permute its contexts before, while and after."""
    task, joint = settings.task, {}
    for name in JOINT:
        ends = jax.tree.map(lambda leaf: leaf[:, [0, -1]], histories[name].learners)
        joint[name] = (("seed", "trained"), _over(settings, ends)[0])
    history = thinned(histories["separate tokens"])
    sensitivities, losses = _over(settings, history.learners)
    return dataset(
        {"seed": history.seeds, "step": history.steps},
        joint,
        {"separate": (("seed", "step"), sensitivities), "loss": (("seed", "step"), losses)},
        {"gd_loss": theory.gradient_descent_optimum(task).loss},
    )


def _over(settings: Settings, learners: Transformer) -> tuple[np.ndarray, np.ndarray]:
    """Permutation sensitivity and loss of each seed's learners, (seed, snapshot), in float64."""
    with jax.enable_x64(True):
        episodes = settings.task.sample(jax.random.key(2022), settings.episodes)
        measure = partial(_sensitivity, permutations=settings.permutations)
        return metrics.over_snapshots(measure, learners, episodes)


def _sensitivity(
    learner: Learner, episodes: Episode, permutations: int
) -> tuple[jax.Array, jax.Array]:
    key = jax.random.key(1)
    moved = metrics.permutation_sensitivity(learner, episodes, key, permutations)
    return moved, metrics.loss(learner, episodes)


LABELS = {
    "linear": "linear",
    "softmax": "softmax",
    "two_linear": "two layers, linear",
    "two_softmax": "two layers, softmax",
    "separate": "separate tokens",
}


def draw(results: xr.Dataset) -> Figure:
    """All sensitivities on a log scale, and separate tokens while they train."""
    both = panels.curves({"separate": "sensitivity to the order", "loss": "loss"})

    def training(axes: Axes, results: xr.Dataset) -> None:
        both(axes, results)
        loss = float(results.gd_loss)
        figures.floor_line(axes, loss, f"loss of one GD step: {loss:.4f}")
        axes.set(ylim=(0, None))
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93))

    drawn = {
        "sensitivity to the order": panels.magnitudes(LABELS, limits=(1e-10, 0.05)),
        "separate tokens while training": training,
    }
    sentence = "Left: joint tokens untrained and trained, then separate tokens at all snapshots."
    return panels.figure(results, drawn, sentence)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        **{f"CR-order-{name}": claim_values.largest(name) for name in JOINT},
        "CR-order-untrained": claim_values.untrained("separate"),
        "CR-order-separate": claim_values.final("separate"),
    },
)
