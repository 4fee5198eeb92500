"""Attention on joint tokens does not depend on the order of its context; with positions it may.

Permutation sensitivity: mean change of the predictions under permutation of the context, relative
to their standard deviation over episodes. It is measured for one and two layers on joint tokens,
linear and softmax, before and after training; and for two layers on separate tokens, which have
positions, during training.

Expected: rounding for joint tokens; .2 to .6 for separate tokens, largest when they begin to learn.
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
from toyicl.core.config import named_in_errors, require_memory, require_size
from toyicl.core.datasets import dataset
from toyicl.core.episode import Episode, Learner
from toyicl.harness import catalogue, claim_values
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture, Transformer
from toyicl.plots import figures, panels
from toyicl.studies.alignment import thinned
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
@named_in_errors
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
    """Number of episodes on which sensitivities are measured."""
    permutations: int = 8
    """Number of permutations of each context."""

    def __post_init__(self) -> None:
        require_episodes("episodes", self.episodes, self.task)
        require_size("permutations", self.permutations)
        orders = self.permutations * self.episodes * self.task.context_size
        require_memory("permutations", self.permutations, orders)


FULL = Settings()
QUICK = Settings(
    joint_training=replace(FULL.joint_training, steps=200, batch_size=64),
    separate_training=replace(FULL.separate_training, batch_size=64),
    episodes=200,
)
JOINT = {
    "linear": Architecture(),
    "softmax": Architecture(attention="softmax"),
    "two layers, linear": Architecture(depth=2),
    "two layers, softmax": Architecture(attention="softmax", depth=2),
}
SEPARATE = Architecture(tokens="separate", depth=2, first_attention="softmax", key_size=20)


def trainings(settings: Settings) -> dict[str, Job]:
    """Each model on joint tokens, and the one on separate tokens."""
    jobs = {
        name: Job(model, settings.task, settings.joint_training) for name, model in JOINT.items()
    }
    return jobs | {"separate tokens": Job(SEPARATE, settings.task, settings.separate_training)}


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Measure permutation sensitivities before, during and after training."""
    joint = []
    for name in JOINT:
        ends = jax.tree.map(lambda leaf: leaf[:, [0, -1]], histories[name].learners)
        joint.append(_over(settings, ends)[0])
    history = thinned(histories["separate tokens"])
    sensitivities, losses = _over(settings, history.learners)
    return dataset(
        {"seed": history.seeds, "step": history.steps},
        {"joint_sensitivity": (("model", "seed", "stage"), joint)},
        {"separate_sensitivity": (("seed", "step"), sensitivities)},
        {"loss": (("seed", "step"), losses)},
        {"exact_reference_loss": theory.gradient_descent_optimum(settings.task).loss},
    ).assign_coords(model=list(JOINT), stage=["untrained", "trained"])


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


def draw(results: xr.Dataset) -> Figure:
    """All sensitivities on a log scale, and those of separate tokens during training."""
    labels = {"separate_sensitivity": "permutation sensitivity", "loss": "loss"}
    curves = panels.curves(labels)

    def training(axes: Axes, results: xr.Dataset) -> None:
        curves(axes, results)
        loss = float(results.exact_reference_loss)
        figures.floor_line(axes, loss, f"loss of one step of GD: {loss:.4f}")
        axes.set(ylim=(0, None))
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93))

    sensitivities = {
        str(name): panels.selected("joint_sensitivity", model=name) for name in results.model.values
    } | {"separate tokens": panels.selected("separate_sensitivity")}
    drawn = {
        "permutation sensitivity": panels.magnitudes(sensitivities, limits=(1e-10, 0.05)),
        "separate tokens during training": training,
    }
    sentence = (
        "(a): models on joint tokens before and after training, and on separate tokens at all "
        "snapshots."
    )
    return panels.figure(results, drawn, sentence)


def _largest(model: str) -> Value:
    """Largest sensitivity of a model on joint tokens, before and after training."""
    return lambda results: results.joint_sensitivity.sel(model=model).max(skipna=False)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "CR-order-linear": _largest("linear"),
        "CR-order-softmax": _largest("softmax"),
        "CR-order-two_linear": _largest("two layers, linear"),
        "CR-order-two_softmax": _largest("two layers, softmax"),
        "CR-order-untrained": claim_values.untrained("separate_sensitivity"),
        "CR-order-separate": claim_values.final("separate_sensitivity"),
    },
)
