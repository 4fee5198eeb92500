"""A layer that was never trained for regression may still look like gradient descent.

One linear layer is trained to recall labels, on a mixture of recall and regression, and to predict the
next state of a linear dynamical system; one on regression stands beside them. Each is compared with the
best step of gradient descent on its own task, trained and untrained, by cosine, norm ratio and the
share of its answers that the step leaves; and by how far its circuits are from the construction's.

Expected: all look like a step of gradient descent: it is what one linear layer can do, not what it was
taught.
Alias: untaught
Cost: ten minutes; quick: one.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.analysis.weights import circuit_scores, random_circuit_score
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.harness.claims import Value
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels, sweep_panels
from toyicl.studies import departure_sweep
from toyicl.tasks.dynamics import Dynamics
from toyicl.tasks.linear import LinearRegression, Task
from toyicl.tasks.recall import Mixture, Recall
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the four trainings."""

    dim: int = 5
    """Number of inputs, and of outputs, in all tasks."""
    context_size: int = 10
    """Context points."""
    training: Training = Training(steps=5000, learning_rate=3e-3)
    """The training on each task."""
    evaluation_episodes: int = 5000
    """Held-out episodes of each task."""


FULL = Settings()
QUICK = Settings(training=Training(steps=1500, batch_size=256, learning_rate=3e-3))


def _tasks(settings: Settings) -> dict[str, Task]:
    """The four tasks by their names."""
    d, n = settings.dim, settings.context_size
    law = LinearRegression(dim=d, outputs=d, context_size=n)
    return {
        "regression": law,
        "recall": Recall(base=law),
        "mixture": Mixture(base=law),
        "dynamics": Dynamics(dim=d, context_size=n),
    }


def trainings(settings: Settings) -> dict[str, Job]:
    """One linear layer on each task."""
    return {
        name: Job(Architecture(), task, settings.training)
        for name, task in _tasks(settings).items()
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train on each task, and compare with the best step on that task."""
    d = settings.dim
    parts = {}
    for name, task in _tasks(settings).items():
        history = histories[name]
        found = departure_sweep.beside_descent(history, task, 1, settings.evaluation_episodes)
        scores = jax.vmap(partial(circuit_scores, dim=d))(history.final)
        parts[name] = dataset(
            dict(found),
            {"key_query_score": ("seed", scores.key_query[:, 0])},
            {"value_output_score": ("seed", scores.value_output[:, 0])},
            {"seed": history.seeds},
        )
    random = random_circuit_score(d)
    return (
        side_by_side(parts, "task")
        .assign(random_score=random)
        .assign_coords(stage=list(departure_sweep.STAGES))
    )


def draw(results: xr.Dataset) -> Figure:
    """Each measure, a mark for every seed, trained and untrained."""

    def marks(
        axes: Axes,
        results: xr.Dataset,
        *,
        shown_as: dict[str, Value],
        level: float | None,
        log: bool = False,
    ) -> None:
        looks = zip(shown_as.items(), "os", (figures.MODEL, figures.REFERENCE), strict=True)
        for (label, value), marker, color in looks:
            for position, values in enumerate(value(results).values):
                places = np.full(len(values), position)
                shown = label if position == 0 else None
                axes.plot(places, values, marker, color=color, label=shown, alpha=0.7)
        if log:  # of untrained models, whose answers are tiny, many times 1
            axes.set_yscale("log")
        if level is not None:
            figures.floor_line(axes, level, "random weights")
        axes.set_xticks(range(results.sizes["task"]), results["task"].values)
        axes.legend()

    drawn: dict[str, panels.Panel] = {}
    for name in ("model_cosine", "norm_ratio", "unexplained"):
        stages = {stage: claim_values.at_stage(name, stage) for stage in ("trained", "untrained")}
        log = name == "unexplained"
        drawn[sweep_panels.NAMES[name]] = partial(marks, shown_as=stages, level=None, log=log)
    scores: dict[str, Value] = {
        "$W_K^T W_Q$": lambda results: results.key_query_score,
        "$P W_V$": lambda results: results.value_output_score,
    }
    level = float(results.random_score)
    drawn["circuits: distance from identity"] = partial(marks, shown_as=scores, level=level)
    sentence = "One linear layer, trained on four tasks; GD is the best step on each."
    return panels.figure(results, drawn, sentence)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        f"UNTAUGHT-{task}{end}": claim_values.at_stage(name)
        for task in ("recall", "mixture", "dynamics")
        for end, name in (("", "unexplained"), ("-cosine", "model_cosine"))
    },
)
