"""On weights with a mean, a layer matches gradient descent if its initial guess is trained.

Xie et al. (2025) draw the weights of each episode from N(mean, I). One step of gradient descent from
the mean is the best that one linear layer can do, but a query token (x_q, 0) makes a layer start from
0. They add a trainable initial guess to the query's token, here (x_q, -W_0 x_q). Layers with W_0 = 0,
with one head and with d + 1 heads, and layers whose W_0 is trained are compared with one step of
gradient descent from the mean and from 0, for several means.

Expected: with a trained W_0 the loss of one step from the mean, .5769 for every mean. The best step
from 0 has loss .6923, 1.1538 and 3.4615 for a squared norm of the mean of 1, 5 and 25.
Alias: guess
Cost: eight minutes on one core; quick: a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms import GradientDescent
from toyicl.core.config import require, require_different, require_not_negative
from toyicl.core.datasets import Variables, dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment
from toyicl.tasks.linear import LinearRegression
from toyicl.training import recipes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training

MODELS = {
    "zero": r"$W_0 = 0$, one head",
    "heads": r"$W_0 = 0$, $d + 1$ heads",
    "trained": r"trained $W_0$, one head",
}
"""Names of the models in figures, by label."""
STARTS = {"gd": "GD from the mean", "gd_zero": "GD from 0"}
"""Names of the references in figures, by label."""


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the means."""

    task: LinearRegression = LinearRegression(dim=5, context_size=20, input_distribution="normal")
    training: Training = replace(
        recipes.FALLING_FAST, steps=3000, batch_size=256, snapshot_every=250, learning_rate=1e-2
    )
    squared_means: tuple[float, ...] = (0.0, 1.0, 5.0, 25.0)
    """Squared Euclidean norms of the mean of the weights, whose entries are all equal."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("squared_means", self.squared_means)
        for square in self.squared_means:
            require_not_negative("squared_means", square)
        guess, heads = self.model.initial_guess, self.model.heads
        require(guess == "zero", "model.initial_guess", "zero, as both kinds are trained", guess)
        require(heads == 1, "model.heads", "1, as d + 1 heads are trained too", heads)

    def with_mean(self, square: float) -> "Settings":
        """The settings with a task whose weights have a mean of a squared norm."""
        entries = self.task.dim * self.task.outputs
        return replace(self, task=replace(self.task, weight_mean=(square / entries) ** 0.5))

    def models(self) -> dict[str, Architecture]:
        """The architectures by label."""
        return {
            "zero": self.model,
            "heads": replace(self.model, heads=self.task.dim + 1),
            "trained": replace(self.model, initial_guess="trained"),
        }


FULL = Settings()
QUICK = Settings(
    training=replace(FULL.training, steps=1500, batch_size=128),
    squared_means=(0.0, 25.0),
    evaluation_episodes=4000,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each model and each mean."""
    return {
        _name(label, square): Job(model, settings.with_mean(square).task, settings.training)
        for label, model in settings.models().items()
        for square in settings.squared_means
    }


def _name(label: str, square: float) -> str:
    """Name of the training of a model on a mean."""
    return f"{label}, squared mean {square:g}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare every model with one step from the mean and from 0."""
    by_mean = {}
    for square in settings.squared_means:
        own = settings.with_mean(square)
        by_model = {
            label: dataset(_compared(own, histories[_name(label, square)]))
            for label in settings.models()
        }
        by_mean[square] = side_by_side(by_model, "model").assign(_exact(own.task))
    return side_by_side(by_mean, "squared_mean")


def _compared(study: Study, history: History) -> Variables:
    """The comparison with both references, and the distance of the initial guess from the mean."""
    task = study.task
    references = {"gd": GradientDescent.from_mean(task), "gd_zero": GradientDescent.shared(task)}
    found = alignment(study, history, references)
    guess = history.final.initial_weights
    start = np.zeros((len(history.seeds), 1, 1)) if guess is None else jax.device_get(guess[...])
    distance = np.sqrt(np.mean((start - float(task.weight_mean or 0.0)) ** 2, axis=(1, 2)))
    return found | {"guess_error": ("seed", distance)}


def _exact(task: LinearRegression) -> dict[str, tuple[tuple[()], float]]:
    """Exact losses of the best single step from the mean and from 0."""
    starts = {"exact_mean_loss": float(task.weight_mean or 0.0), "exact_zero_loss": 0.0}
    return {
        name: ((), theory.gradient_descent_optimum(theory.recentred(task, start)).loss)
        for name, start in starts.items()
    }


def draw(results: xr.Dataset) -> Figure:
    """Losses over the mean, training at the largest mean, the trained guess and the alignment."""
    largest = results.squared_mean.values[-1]
    drawn = {
        "final loss": _loss_panel,
        f"loss during training, squared mean {largest:g}": _training_panel,
        r"distance of $W_0$ from the mean": _over_means(
            lambda results: results.guess_error, ylabel="root mean square of the entries"
        ),
        "cosine with GD from the mean": _over_means(
            claim_values.final("model_cosine", "gd"), ylabel="mean cosine of sensitivities"
        ),
    }
    sentence = (
        "One linear layer on weights with a mean. Points and lines: trained models, each seed. Black "
        "lines: exact losses of the best single step of gradient descent."
    )
    return panels.figure(results, drawn, sentence)


def _loss_panel(axes: Axes, results: xr.Dataset) -> None:
    """Final loss of every seed over the mean, with the exact losses of both starts."""
    places = np.arange(results.sizes["squared_mean"])
    for name, start, line in (("exact_mean_loss", "the mean", "-"), ("exact_zero_loss", "0", ":")):
        axes.plot(places, results[name], "k", linestyle=line, label=f"best step from {start}")
    _over_means(lambda results: claim_values.last(results.loss), ylabel="loss", yscale="log")(
        axes, results
    )


def _training_panel(axes: Axes, results: xr.Dataset) -> None:
    """The loss of every seed during training, at the largest mean."""
    chosen = results.isel(squared_mean=-1)
    for label, (color, line) in zip(MODELS, panels.LOOKS, strict=False):
        for number, (_, seed) in enumerate(chosen.loss.sel(model=label).groupby("seed")):
            name = None if number else MODELS[label]
            axes.plot(chosen.step, seed.values.ravel(), line, color=color, label=name, linewidth=1)
    axes.axhline(float(chosen.exact_mean_loss), color="black", linestyle="-")
    axes.axhline(float(chosen.exact_zero_loss), color="black", linestyle=":")
    axes.set(xlabel="training step", ylabel="loss", yscale="log")
    axes.legend()


def _over_means(value: Value, **settings: str) -> panels.Panel:
    """A value of every seed as points over the means, with a colour for each model."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        values = value(results)
        places = np.arange(values.sizes["squared_mean"])
        for number, (label, name) in enumerate(MODELS.items()):
            points = values.sel(model=label).transpose("squared_mean", "seed").values
            for seed in range(points.shape[1]):
                axes.plot(
                    places + 0.12 * (number - 1),
                    points[:, seed],
                    "osD"[number],
                    color=panels.LOOKS[number][0],
                    label=None if seed else name,
                    markersize=3.5,
                    alpha=0.75,
                )
        axes.set_xticks(places, [f"{square:g}" for square in values.squared_mean.values])
        axes.set(xlabel="squared norm of the mean of the weights", **settings)
        axes.legend()

    return draw


def _over_start(reference: str) -> Value:
    """The final loss divided by that of a step on the same episodes."""
    return claim_values.loss_over(reference)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        **{f"XIE-guess-{square}": _over_start("gd") for square in (1, 5, 25)},
        **{f"XIE-heads-{square}": _over_start("gd") for square in (1, 5, 25)},
        "MEAN-zero": _over_start("gd"),
        **{f"MEAN-one-head-{square}": _over_start("gd_zero") for square in (1, 5, 25)},
        "MEAN-guess": lambda results: results.guess_error,
        "MEAN-exact": claim_values.largest("exact_mean_loss"),
        "MEAN-exact-zero": claim_values.largest("exact_zero_loss"),
    },
)
