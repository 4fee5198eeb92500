"""Where the covariance of the inputs is rotated in each context, depth and updated inputs both help.

Normal inputs of covariance diag(1, 1/2, 1/4, 1/8, 1/16), the same in all episodes or rotated anew in
each. With a fixed covariance one layer can learn a preconditioner. With a rotated one no fixed matrix
is better than a step size, and a layer has to find the covariance in its context: several layers that
update labels take several steps, and layers that update inputs change their covariance, as GD++ does.

Expected: on rotated inputs two layers on labels have the loss of two steps of gradient descent, and
two layers on tokens that of GD++; with 200 points the best single layer has .03 of the loss of
predicting 0 if the covariance is fixed, and one step .21 if it is rotated.
Alias: rotated
Cost: five minutes on one core; quick: a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.analysis import metrics
from toyicl.core.config import require, require_increasing, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.core.episode import Learner
from toyicl.harness import catalogue
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels
from toyicl.studies.alignment import Study
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import Optimum
from toyicl.training import recipes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the inputs; `task` is that of the fixed covariance."""

    task: LinearRegression = LinearRegression(
        dim=5,
        context_size=20,
        input_distribution="normal",
        covariance=(1.0, 0.5, 0.25, 0.125, 0.0625),
    )
    training: Training = replace(recipes.FALLING_FAST, steps=10_000, batch_size=256)
    evaluation_episodes: int = 20_000
    sizes: tuple[int, ...] = (10, 20, 50, 100, 200)
    """Numbers of context points for which exact losses are computed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given, task = self.task.covariance is not None, self.task
        require(given, "task.covariance", "a covariance, which can be rotated", task.covariance)
        require_increasing("sizes", self.sizes)
        for size in self.sizes:
            require_size("sizes", size)

    def tasks(self) -> dict[str, LinearRegression]:
        """The task with each kind of covariance."""
        return {"fixed": self.task, "rotated": replace(self.task, rotated=True)}


FULL = Settings()
QUICK = replace(
    FULL,
    training=replace(FULL.training, steps=1500, batch_size=128),
    evaluation_episodes=2000,
    sizes=(20, 200),
)
MODELS = {
    "1 layer": Architecture(init_scale=0.02),
    "2 layers, labels": Architecture(depth=2, update_inputs=False, init_scale=0.02),
    "2 layers, tokens": Architecture(depth=2, init_scale=0.02),
}
"""Models by what their layers update. The last layer is read at the query's label only."""


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each covariance and each model."""
    return {
        f"{kind}, {name}": Job(model, task, settings.training)
        for kind, task in settings.tasks().items()
        for name, model in MODELS.items()
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Losses of the models and of the best scalar steps on the same episodes."""
    parts = {}
    for kind, task in settings.tasks().items():
        episodes = replace(settings, task=task).episodes()
        each = [histories[f"{kind}, {name}"] for name in MODELS]
        known = references(task)
        losses = np.stack([metrics.losses(one.final, episodes) for one in each])
        found = [float(metrics.loss(one, episodes)) for one in known.values()]
        parts[kind] = dataset(
            {
                "seed": each[0].seeds,
                "reference": list(known),
                "model": list(MODELS),
                "loss": (("model", "seed"), losses),
                "on_plateau": (("model", "seed"), _stuck(task, losses)),
                "reference_loss": ("reference", found),
                "zero_loss": float(metrics.zero_loss(episodes)),
            }
        )
    return xr.merge(
        [side_by_side(parts, "inputs"), exact(settings)], combine_attrs="drop_conflicts"
    )


def _stuck(task: LinearRegression, losses: np.ndarray) -> np.ndarray:
    """Which seeds are on a plateau, of losses (model, seed).

    One layer is, if its loss is nearer to that of its last saddle point, or on rotated inputs to that
    of predicting 0, than to its optimum; two layers, if their loss is nearer to the optimum of one
    layer than to the lowest loss of all seeds.
    """
    if task.rotated:
        zero = theory.step_matrix_loss(replace(task, rotated=False), np.zeros((task.dim, task.dim)))
        saddle, optimum = zero, theory.correlated_gd(task, 1).loss
    else:
        saddle, optimum = theory.saddle_losses(task)[-2:]
    least = losses[1:].min(axis=1, keepdims=True)
    return np.vstack([losses[:1] > (saddle + optimum) / 2, losses[1:] > (optimum + least) / 2])


def references(task: LinearRegression) -> dict[str, Learner]:
    """One and two scalar steps of gradient descent, and two of GD++ with parameters of their own."""
    one, two = (theory.correlated_gd(task, steps, per_step=True) for steps in (1, 2))
    curved = theory.correlated_gdpp(task, 2, per_layer=True)
    gammas = (*curved.curvatures, 0.0)
    return {
        "gd, 1 step": GradientDescent(one.learning_rates[0]),
        "gd, 2 steps": GradientDescent(two.learning_rates, 2),
        "gd++, 2 steps": GradientDescentPlusPlus(curved.learning_rates, gammas, 2),
    }


def exact(settings: Settings) -> xr.Dataset:
    """Losses over the number of points, as fractions of that of predicting 0.

    One layer on fixed inputs is the best step matrix; the others are scalar steps, whose losses on
    fixed and rotated inputs are equal.
    """
    rows = []
    for size in settings.sizes:
        task = replace(settings.task, context_size=size)
        zero = theory.step_matrix_loss(task, np.zeros((task.dim, task.dim)))
        best: list[Optimum] = [theory.correlated_gd(task, k, per_step=True) for k in (1, 2)]
        curved = theory.correlated_gdpp(task, 2)
        matrix = theory.best_step_matrix(task).loss
        rows.append([loss / zero for loss in (matrix, *(one.loss for one in (*best, curved)))])
    names = ["best matrix", "gd, 1 step", "gd, 2 steps", "gd++, 2 steps"]
    values = (("size", "algorithm"), np.array(rows))
    return xr.Dataset(
        {"exact_fraction": values}, coords={"size": list(settings.sizes), "algorithm": names}
    )


def draw(results: xr.Dataset) -> Figure:
    """Losses of the models on both kinds of inputs, and exact losses over the number of points."""
    drawn: dict[str, panels.Panel] = {
        f"{kind} covariance": panels.of(_losses, inputs=kind) for kind in results.inputs.values
    }
    drawn["exact losses of long contexts"] = _fractions
    sentence = (
        "Linear layers that update labels only, or whole tokens, on inputs of a fixed covariance, or "
        "of one that is rotated in each context. Points: each seed, hollow on a plateau; lines: the "
        "best scalar steps."
    )
    return panels.figure(results, drawn, sentence, columns=3, size=(4.2, 3.2))


def _losses(axes: Axes, results: xr.Dataset) -> None:
    for place, name in enumerate(results.model.values):
        own = results.sel(model=name)
        figures.seeds_at(axes, place, own.loss, own.on_plateau)
    for number, name in enumerate(results.reference.values):
        color, line = panels.LOOKS[number + 1]
        value = float(results.reference_loss.sel(reference=name))
        axes.axhline(
            value, color=color, linestyle=line, label=name.replace("gd", "GD"), linewidth=1
        )
    axes.set_xticks(range(results.sizes["model"]), ["1 layer", "2, labels", "2, tokens"])
    axes.set(ylabel="loss", ylim=(0, None), xlim=(-0.5, 2.5))
    axes.legend(fontsize="small")


def _fractions(axes: Axes, results: xr.Dataset) -> None:
    for number, name in enumerate(results.algorithm.values):
        color, line = panels.LOOKS[number]
        values = results.exact_fraction.sel(algorithm=name)
        label = (
            "1 layer, fixed" if name == "best matrix" else name.replace("gd", "GD") + ", rotated"
        )
        axes.plot(results["size"], values, line, marker="o", color=color, label=label)
    axes.set(xlabel="context points, N", ylabel="loss over that of predicting 0")
    axes.set(ylim=(0, None))
    axes.legend(fontsize="small")


def _over_two_steps(results: xr.Dataset) -> xr.DataArray:
    """Loss divided by that of two scalar steps of gradient descent."""
    return results.loss / results.reference_loss.sel(reference="gd, 2 steps", drop=True)


def _longest(results: xr.Dataset, algorithm: str) -> xr.DataArray:
    return results.exact_fraction.isel(size=-1, drop=True).sel(algorithm=algorithm, drop=True)


def _slope(results: xr.Dataset) -> xr.DataArray:
    """Slope of the log loss of the best single layer in log N, between the two longest contexts."""
    loss = results.exact_fraction.sel(algorithm="best matrix", drop=True)[-2:]
    change = np.log(loss.values[1] / loss.values[0])
    return xr.DataArray(change / np.log(loss["size"].values[1] / loss["size"].values[0]))


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "BLP-fixed": _slope,
        "BLP-rotated": lambda results: (
            _longest(results, "gd, 2 steps") - _longest(results, "gd, 1 step")
        ),
        "LAB-rotated-steps": _over_two_steps,
        "LAB-rotated-gdpp": _over_two_steps,
        "LAB-fixed-matrix": _over_two_steps,
    },
)
