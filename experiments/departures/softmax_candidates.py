"""One softmax head is a kernel average of the labels; two heads are close to a centred step.

One and two softmax heads (Figures 11 and 12) are compared with gradient descent and its centred
form, ridge regression, and learners that compare the query with each context point: kernel
averages, kernel ridge regression, functional gradient descent, the label of the nearest point and
the mean label. Each candidate has its optimal parameters on the task, found by training where there
is no closed form (ridge regressions have a penalty large enough for float32), and is then fitted to
the model, with numbers of parameters that are as equal as possible. A head may attend to points
opposite to the query and reverse the sign: on linear labels this mirrored average is as good.

Expected: one head is a kernel average times a number; two heads are close to the centred step.
Alias: softmax_rivals
Cost: ten minutes; quick: one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture
from toyicl.plots import comparison_panels, panels
from toyicl.studies import algorithm_comparison
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.training.loop import Histories, Job
from toyicl.training.step import StartFrom, Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the softmax heads and of the candidates."""

    training: Training = Training(steps=10_000, batch_size=512, learning_rate=3e-3)
    candidate_training: Training = Training(
        steps=2000, batch_size=512, learning_rate=1e-2, clip_norm=10.0
    )
    """Training of the candidates whose optimal parameters have no closed form."""


FULL = Settings()
QUICK = Settings(
    training=Training(steps=3000, batch_size=256, learning_rate=3e-3),
    candidate_training=Training(steps=500, batch_size=256, learning_rate=1e-2, clip_norm=10.0),
    evaluation_episodes=2000,
)
HEADS = {1: "one head", 2: "two heads"}
TRAINED: dict[str, Learner] = {
    "kernel average": NadarayaWatson(3.0),
    "descent over functions": FunctionalDescent(1.0, 1.0),
}
"""Candidates that are trained on the task, with their initial parameters."""


def trainings(settings: Settings) -> dict[str, Job]:
    """One and two softmax heads, and the candidates that are trained on the task."""
    training = settings.candidate_training
    of_candidates = {
        name: Job(StartFrom(learner=start), settings.task, training, max_seeds=1)
        for name, start in TRAINED.items()
    }
    of_heads = {
        name: Job(Architecture(attention="softmax", heads=heads), settings.task, settings.training)
        for heads, name in HEADS.items()
    }
    return of_candidates | of_heads


def candidates(settings: Settings, histories: Histories) -> dict[str, Learner]:
    """The candidate algorithms, with optimal parameters on the task."""
    trained: dict[str, Any] = {
        name: jax.tree.map(lambda leaf: leaf[0], histories[name].final) for name in TRAINED
    }
    mirrored = NadarayaWatson(-trained["kernel average"].scale[...])
    return {
        "one step of GD": GradientDescent.shared(settings.task, 1),
        "centred step of GD": CentredDescent.best(settings.task),
        **trained,
        "mirrored average": Scaled(mirrored, -1.0),
        "ridge, penalty .1": Ridge(0.1),
        "kernel ridge, penalty .1": KernelRidge(0.3, 0.1),
        "nearest label": NearestNeighbour(),
        "mean label": AveragedLabels(),
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare every candidate with every seed, for one head and for two."""
    references, episodes = best_references(settings.task, 1), settings.episodes()
    known = candidates(settings, histories)
    parts = {}
    for heads, name in HEADS.items():
        history = histories[name]
        aligned = dataset(alignment(settings, history, references))
        compared = algorithm_comparison.compare(history.final, known, episodes)
        parts[heads] = xr.merge([aligned, compared])
    return side_by_side(parts, "heads")


def draw(results: xr.Dataset) -> Figure:
    """Unexplained variance by candidate, a row for each number of heads."""
    drawn = {
        "optimal parameters on the task": comparison_panels.unexplained_panel("task"),
        "parameters fitted to the model": comparison_panels.unexplained_panel("model"),
    }
    sentence = (
        "Softmax attention compared with candidate algorithms. Filled: in the confidence set, that is, "
        "not distinguishably worse than the best candidate."
    )
    return panels.figure(results, panels.grid(HEADS, "heads", drawn), sentence)


AVERAGES = ("kernel average", "mirrored average")


def _unexplained(*names: str) -> Value:
    """Variance that the best of some candidates leaves unexplained, fitted to the model."""
    return lambda results: (
        1 - results.candidate_r_squared.sel(candidate=list(names), tuning="model").max("candidate")
    )


def _median(value: Value) -> Value:
    """The median of a value over seeds."""
    return lambda results: value(results).median("seed")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "SOFTMAX-one": _unexplained(*AVERAGES),
        "SOFTMAX-one-gd": _unexplained("one step of GD"),
        "SOFTMAX-two": _median(_unexplained("centred step of GD")),
        "SOFTMAX-two-average": _median(_unexplained(*AVERAGES)),
    },
)
