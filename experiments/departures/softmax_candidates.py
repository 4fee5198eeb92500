"""If not a step of gradient descent, which algorithms account for softmax heads.

One and two softmax heads (Figures 11 and 12) beside gradient descent, its centred form, ridge, and the
learners that compare the query with each point: kernel averages, kernel ridge, descent over functions,
the nearest label and the mean one. Each is at its own optimum on the task, found by the same training
where there is no closed form (ridges at a penalty that float32 bears), and again tuned to the model,
with as many free numbers as the freest. A head may look away from the query and change the sign: on
linear labels a mirrored average is as good.

Expected: one head is a kernel average times a number; two heads are near the centred step.
Alias: softmax_rivals
Cost: ten minutes; quick: one.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import xarray as xr
from matplotlib.figure import Figure

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.algorithms.kernel import (
    AveragedLabels,
    CentredDescent,
    FunctionalDescent,
    KernelRidge,
    NadarayaWatson,
    NearestNeighbour,
)
from toyicl.algorithms.ridge import Ridge
from toyicl.analysis.confidence_set import Scaled
from toyicl.core.datasets import dataset, side_by_side
from toyicl.core.episode import Learner
from toyicl.harness import catalogue, claims
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.studies import algorithm_comparison
from toyicl.studies import alignment as studies_alignment
from toyicl.studies.alignment import Study, best_references
from toyicl.training.loop import Histories, Job
from toyicl.training.step import StartFrom, Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the heads; rivals without a closed form are trained by `rival_training`."""

    training: Training = Training(steps=10_000, batch_size=512, learning_rate=3e-3)
    rival_training: Training = Training(
        steps=2000, batch_size=512, learning_rate=1e-2, clip_norm=10.0
    )
    """Training of the kernel learners on the task."""


FULL = Settings()
QUICK = Settings(
    training=Training(steps=3000, batch_size=256, learning_rate=3e-3),
    rival_training=Training(steps=500, batch_size=256, learning_rate=1e-2, clip_norm=10.0),
    evaluation_episodes=2000,
)
HEADS = {1: "one head", 2: "two heads"}
TRAINED: dict[str, Learner] = {
    "kernel average": NadarayaWatson(3.0),
    "descent over functions": FunctionalDescent(1.0, 1.0),
}
"""Rivals that are trained on the task, with what they start from."""


def trainings(settings: Settings) -> dict[str, Job]:
    """Heads, and the rivals that are trained on the task."""
    started = {
        name: Job(StartFrom(learner=start), settings.task, settings.rival_training, max_seeds=1)
        for name, start in TRAINED.items()
    }
    of_heads = {
        name: Job(Architecture(attention="softmax", heads=heads), settings.task, settings.training)
        for heads, name in HEADS.items()
    }
    return started | of_heads


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train heads and rivals, and ask every rival of every seed."""
    task, episodes = settings.task, settings.episodes()
    rivals: dict[str, Learner] = {
        "one step of GD": GradientDescent.shared(task, 1),
        "centred step of GD": CentredDescent.best(task),
    }
    for name in TRAINED:
        rivals[name] = jax.tree.map(lambda leaf: leaf[0], histories[name].final)
    average = rivals["kernel average"]
    rivals |= {
        "mirrored average": Scaled(NadarayaWatson(-average.scale[...]), -1.0),  # type: ignore[attr-defined]
        "ridge, penalty .1": Ridge(0.1),
        "kernel ridge, penalty .1": KernelRidge(0.3, 0.1),
        "nearest label": NearestNeighbour(),
        "mean label": AveragedLabels(),
    }
    parts = {}
    for heads, name in HEADS.items():
        history = histories[name]
        alignment = studies_alignment.alignment(settings, history, best_references(task, 1))
        asked = algorithm_comparison.beside(history.final, rivals, episodes)
        parts[heads] = xr.merge([dataset(alignment), asked])
    return side_by_side(parts, "heads")


def draw(results: xr.Dataset) -> Figure:
    """What each rival leaves of one head and of two."""
    drawn = {
        "at its own optimum": algorithm_comparison.left_panel("own"),
        "tuned to the model": algorithm_comparison.left_panel("tuned"),
    }
    sentence = "Filled: cannot be told from the best rival."
    return panels.figure(results, panels.grid(HEADS, "heads", drawn), sentence)


AVERAGES = ("kernel average", "mirrored average")


def _left(*rivals: str) -> claims.Value:
    """What the nearest of some rivals leaves, tuned to the model."""
    return lambda results: (
        1 - results.rival_r_squared.sel(rival=list(rivals), tuning="tuned").max("rival")
    )


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "SOFTMAX-one": _left(*AVERAGES),
        "SOFTMAX-one-gd": _left("one step of GD"),
        "SOFTMAX-two": _left("centred step of GD"),
        "SOFTMAX-two-average": _left(*AVERAGES),
    },
)
