"""Ten linear layers with the same weights have the loss of ten steps of GD++.

Figure 7 of von Oswald et al. (2022): K = 10, recurrent, token values clipped to 10, in the model and
in its references. The released code has no configuration for ten layers; the model is trained at a
rate that falls to 0, and by the released code's recipe for deep recurrent models. Five layers with
separate weights are trained as the model is, as a comparison.

Expected: GD++ with one (eta, gamma) has loss .049 under the clip, and .0306 without it.
Alias: fig7
Cost: an hour on one core; quick: two minutes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.algorithms.token_descent import TokenDescent
from toyicl.analysis import metrics
from toyicl.core.datasets import Variables, dataset
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import reference_panels
from toyicl.studies.alignment import DeepStudy, alignment, released_loss
from toyicl.studies.deep_references import TUNED, UNCLIPPED, deep_references, tuned_gdpp
from toyicl.studies.shifts import shifts
from toyicl.studies.weights import interpolation, learned_steps
from toyicl.training import recipes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(DeepStudy):
    """Settings of ten layers."""

    model: Architecture = Architecture(depth=10, shared=True, token_clip=10.0)
    training: Training = replace(recipes.FALLING_FAST, steps=20_000)
    released_training: Training = recipes.RELEASED_DEEP
    """The released code's training of the same model."""


FULL = Settings()
QUICK = Settings(
    training=replace(recipes.FALLING_FAST, steps=1000, batch_size=128, snapshot_every=250),
    released_training=replace(recipes.RELEASED_DEEP, steps=500, batch_size=128, snapshot_every=250),
    gdpp_training=replace(recipes.TUNED_GDPP, steps=200, batch_size=128),
    evaluation_episodes=2000,
)
PATH_POINTS = 11
"""Number of points between the learned and the best eta and gamma."""


def trainings(settings: Settings) -> dict[str, Job]:
    """Ten layers with the same weights, by two recipes, five with separate weights, and GD++."""
    task, model = settings.task, settings.model
    untied = replace(model, depth=5, shared=False)
    return settings.trainings() | {
        "released": Job(model, task, settings.released_training),
        "five separate layers": Job(untied, task, settings.training),
        TUNED: tuned_gdpp(task, model, settings.gdpp_training),
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare ten layers with the best ten steps of GD and of GD++ under the model's clip."""
    history, released, five = (
        histories[name] for name in ("model", "released", "five separate layers")
    )
    references = deep_references(settings.task, settings.model, histories[TUNED])
    learned = learned_steps(settings, history.final)
    learned["learned_rate"] = ("seed", settings.task.context_size * learned["learned_step"][1])
    return dataset(
        alignment(settings, history, references),
        interpolation(settings, history.final, references["gdpp"]),
        learned,
        shifts(settings, history.final, references),
        {"five_loss": ("seed", metrics.losses(five.final, settings.episodes()))},
        released_loss(settings, released),
        _path(settings, learned, references["gdpp"]),
    )


def _path(settings: Settings, learned: Variables, best: TokenDescent) -> Variables:
    """Loss of GD++ with (h, gamma) on the line from the learned ones, at 0, to the best, at 1.

    The learned ones are means over seeds.
    """
    episodes, model = settings.episodes(), settings.model
    start = [float(np.mean(learned[name][1])) for name in ("learned_step", "learned_curvature")]
    end = [float(best.step[...]), float(best.curvature[...])]
    positions = np.linspace(0.0, 1.0, PATH_POINTS)
    points = [
        TokenDescent(step, curvature, model.depth, token_clip=model.token_clip)
        for step, curvature in np.linspace(start, end, PATH_POINTS).tolist()
    ]
    return {
        "path_loss": ("position", [float(metrics.loss(point, episodes)) for point in points]),
        "position": positions,
        "best_rate": settings.task.context_size * end[0],
        "best_curvature": end[1],
    }


def draw(results: xr.Dataset) -> Figure:
    """Loss, alignment with GD and GD++, and the four shifts."""
    sentence = (
        "Ten linear layers with the same weights. Tokens of models and references are clipped to 10; "
        "the best GD++ without a clip is out of reach."
    )
    return reference_panels.deep_figure(results, sentence)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-7-1": claim_values.loss_over("gdpp"),
        "VO-7-1-interpolated": claim_values.interpolated_over("gdpp"),
        "VO-7-near": claim_values.loss_over("gdpp"),
        "VO-7-1-cosine": claim_values.final("model_cosine", "gdpp"),
        "VO-7-eta": lambda results: results.learned_rate,
        "VO-7-gamma": lambda results: results.learned_curvature,
        "VO-7-minimum": lambda results: results.path_loss.max() / results.path_loss[0] - 1,
        "VO-7-unclipped": claim_values.loss_over(UNCLIPPED),
        "VO-7-2": lambda results: results.five_loss / claim_values.last(results.loss),
    },
)
