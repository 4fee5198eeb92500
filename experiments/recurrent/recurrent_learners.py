"""A gated linear recurrence learns one step of gradient descent; an LSTM has about its loss.

An LSTM and a gated linear recurrence are trained on the tasks that linear attention is trained on,
and compared with the best single step of gradient descent, and with attention of about as many
parameters: the recurrence with one layer of one head, the LSTM with several layers of several heads.

Expected: the recurrence has the loss of one step, up to a few per cent, as it can represent one. The
LSTM is within a tenth of that loss, has predictions of which one step explains nine tenths, and has
several times the loss of attention with as many parameters and training steps.
Alias: lstm
Cost: four minutes on one core; quick: a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.core.config import named_in_errors, require_different, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue
from toyicl.harness.claim_values import at_stage
from toyicl.harness.evaluation import Value
from toyicl.models.recurrent import of_size
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels
from toyicl.studies.departure_sweep import STAGES, compare_with_descent
from toyicl.tasks.linear import LinearRegression, Task, require_episodes
from toyicl.training import recipes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Build, Training

LAYER, LINEAR, DEEP, LSTM = "attention layer", "gated recurrence", "deep attention", "LSTM"
"""The learners: each recurrent one follows the attention that it is compared with."""
NAMES = (LAYER, LINEAR, DEEP, LSTM)
HIGHEST = 20.0
"""Largest loss during training that is drawn, relative to one step; short spikes are higher."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the recurrent learners and of the attention that they are compared with."""

    task: LinearRegression = LinearRegression()
    """The task; its number of inputs and its context size are replaced by each of the sizes."""
    sizes: tuple[int, ...] = (4, 10)
    """Numbers of inputs, and of context points."""
    layer: Architecture = Architecture()
    """The attention that the gated linear recurrence is compared with."""
    deep: Architecture = Architecture(depth=4, heads=3)
    """The attention that the LSTM is compared with."""
    training: Training = replace(
        recipes.FALLING_FAST, steps=4000, batch_size=128, snapshot_every=200
    )
    """The training of the attention layer and of the recurrence."""
    long_training: Training = replace(
        recipes.FALLING_FAST, steps=12_000, batch_size=128, snapshot_every=600
    )
    """The training of the deep attention and of the LSTM."""
    max_seeds: int = 3
    """Largest number of seeds of each learner."""
    evaluation_episodes: int = 10_000
    """Number of held-out episodes."""

    def __post_init__(self) -> None:
        require_different("sizes", self.sizes)
        for size in self.sizes:
            require_size("sizes", size)
        require_size("max_seeds", self.max_seeds)
        largest = self.with_size(max(self.sizes))
        require_episodes("evaluation_episodes", self.evaluation_episodes, largest)

    def with_size(self, size: int) -> LinearRegression:
        """The task with as many context points as inputs."""
        return replace(self.task, dim=size, context_size=size)

    def learners(self, task: Task) -> dict[str, Build]:
        """The builders of all learners; the recurrent ones have the widths that fit the others."""
        return {
            LAYER: self.layer,
            LINEAR: of_size("linear", task, parameters(self.layer, task)),
            DEEP: self.deep,
            LSTM: of_size("lstm", task, parameters(self.deep, task)),
        }


FULL = Settings()
QUICK = replace(
    FULL,
    sizes=(4,),
    deep=Architecture(depth=2, heads=2),
    training=replace(FULL.training, steps=1000),
    long_training=replace(FULL.long_training, steps=3000),
    evaluation_episodes=2000,
)


def parameters(build: Build, task: Task) -> int:
    """Number of parameters of a learner for a task."""
    learner = jax.eval_shape(build, task, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(learner, nnx.Param)))


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each learner and each size."""
    jobs = {}
    for size in settings.sizes:
        task = settings.with_size(size)
        for name, build in settings.learners(task).items():
            training = settings.training if name in (LAYER, LINEAR) else settings.long_training
            jobs[_name(name, size)] = Job(build, task, training, max_seeds=settings.max_seeds)
    return jobs


def _name(learner: str, size: int) -> str:
    """Name of the training of a learner."""
    return f"{learner}, d = {size}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare every learner with one step of gradient descent, before and after training."""
    of_sizes = {}
    for size in settings.sizes:
        task = settings.with_size(size)
        of_learners = {
            name: _measured(settings, task, build, histories[_name(name, size)])
            for name, build in settings.learners(task).items()
        }
        of_sizes[size] = side_by_side(of_learners, "learner")
    return side_by_side(of_sizes, "inputs")


def _measured(
    settings: Settings, task: LinearRegression, build: Build, history: History
) -> xr.Dataset:
    """One learner: its comparison with gradient descent, its size, and its loss while it is trained."""
    compared: dict[str, Any] = dict(
        compare_with_descent(history, task, 1, settings.evaluation_episodes)
    )
    episodes = task.sample(jax.random.key(2023), min(settings.evaluation_episodes, 2000))
    order = metrics.over_snapshots(
        metrics.permutation_sensitivity,
        jax.tree.map(lambda leaf: leaf[:, -1:], history.learners),
        episodes,
        jax.random.key(0),
    )
    snapshots = metrics.over_snapshots(metrics.loss, history.learners, episodes)
    found = dataset(
        compared,
        {"over_step": (("stage", "seed"), compared["loss"][1] / compared["reference_loss"][1])},
        {"order_dependence": ("seed", order[:, 0])},
        {"parameters": parameters(build, task)},
        {"snapshot_loss": (("seed", "trained_steps"), snapshots)},
        {"seed": history.seeds},
    )
    return found.assign_coords(stage=list(STAGES), trained_steps=history.steps)


def draw(results: xr.Dataset) -> Figure:
    """Loss, agreement with one step and dependence on order of every learner, by size of the task."""
    drawn = {
        "loss": _rows(results, "over_step", "loss / loss of one step of GD", {"one step": 1.0}),
        "not explained by one step of GD": _rows(
            results, "unexplained", "unexplained variance, $1 - R^2$", xscale="log"
        ),
        "sensitivities": _rows(results, "model_cosine", "cosine with one step of GD"),
        "sensitivities, untrained": _rows(
            results, "model_cosine", "cosine with one step of GD", stage="untrained"
        ),
        "order of the context": _rows(
            results, "order_dependence", "change of predictions, relative", stage=None
        ),
        f"training, d = {int(results.inputs[-1])}": _training,
    }
    counts = "; ".join(
        f"d = {int(size)}: "
        + ", ".join(f"{name} {int(one)}" for name, one in zip(NAMES, row, strict=True))
        for size, row in zip(results.inputs, results.parameters.values, strict=True)
    )
    sentence = (
        "Recurrent learners and linear attention on linear regression with as many context points as "
        f"inputs d. Numbers of parameters, {counts}."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _rows(
    results: xr.Dataset,
    name: str,
    label: str,
    levels: dict[str, float] | None = None,
    *,
    stage: str | None = "trained",
    xscale: str = "linear",
) -> panels.Panel:
    """A variable of every seed in a row for each learner, with a colour for each size."""

    def at(size: int) -> Value:
        where = {"inputs": size} if stage is None else {"inputs": size, "stage": stage}
        return lambda results: results[name].sel(where)

    sets = {f"d = {size}": at(size) for size in results.inputs.values.tolist()}
    return panels.rows(sets, "learner", levels=levels, xlabel=label, xscale=xscale)


def _training(axes: Axes, results: xr.Dataset) -> None:
    """Loss of every learner while it is trained, at the largest size, relative to one step."""
    chosen = results.isel(inputs=-1)
    for name, (color, style) in zip(NAMES, panels.LOOKS, strict=True):
        one = chosen.sel(learner=name)
        values = (one.snapshot_loss / one.exact_reference_loss).dropna("trained_steps", how="all")
        figures.every_seed(axes, values, "trained_steps", label=name, color=color, style=style)
    axes.axhline(1.0, color="0.4", linestyle=":", linewidth=1)
    axes.set(xlabel="training step", ylabel="loss / loss of one step of GD", yscale="log")
    axes.set_ylim(None, HIGHEST)
    axes.legend(fontsize=7, loc="upper right")


def _over_attention(results: xr.Dataset) -> xr.DataArray:
    """The loss of the LSTM over the mean loss of attention of as many parameters, (inputs, seed)."""
    losses = results.loss.sel(stage="trained", drop=True)
    return losses.sel(learner=LSTM, drop=True) / losses.sel(learner=DEEP, drop=True).mean("seed")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "RECURRENT-linear": at_stage("over_step"),
        "RECURRENT-linear-explained": at_stage("unexplained"),
        "RECURRENT-linear-cosine": at_stage("model_cosine"),
        "RECURRENT-lstm": at_stage("over_step"),
        "RECURRENT-lstm-explained": at_stage("unexplained"),
        "RECURRENT-lstm-cosine": at_stage("model_cosine"),
        "RECURRENT-lstm-order": lambda results: results.order_dependence,
        "RECURRENT-lstm-attention": _over_attention,
    },
)
