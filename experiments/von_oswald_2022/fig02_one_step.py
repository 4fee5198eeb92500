"""One trained linear attention layer is one step of gradient descent.

Figure 2 of von Oswald et al. (2022): the loss during training, the alignment of predictions and
sensitivities, the final loss for other sizes, and the loss on scaled inputs. All are compared with
the best single step of gradient descent on the same episodes, and the loss with its exact value.

Expected, at the defaults: loss .2062 for both, cosine and norm ratio 1, learned eta/N .606.
Alias: fig2
Cost: about three minutes on two cores, nine tenths of them for panel (c).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.core.config import require, require_different, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.models.construction import require_one_linear_layer
from toyicl.plots import figures, panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.shifts import shifts
from toyicl.studies.weights import interpolation, learned_steps
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of Figure 2; by default, all trainings are as in the released code."""

    sizes: tuple[int, ...] = (5, 10, 20, 30, 40, 50)
    """Sizes N = d of panel (c), each with its own training."""
    size_max_seeds: int = 1
    """Largest number of seeds for each size in panel (c); one, as in the paper, shows no range."""
    size_training: Training = Training(snapshot_every=500)
    """Training for panel (c), the same as for the other panels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_linear_layer(self.model)
        require(self.task.outputs == 1, "task.outputs", "1 in this experiment", self.task.outputs)
        require_size("size_max_seeds", self.size_max_seeds)
        require_different("sizes", self.sizes)
        for size in self.sizes:
            self.task_of_size(size)  # a size that is not allowed is refused before any training

    def task_of_size(self, size: int) -> LinearRegression:
        """The task of panel (c) with N = d = size."""
        return replace(self.task, dim=size, context_size=size)


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000),
    sizes=(5, 10, 20),
    size_training=Training(steps=1000, batch_size=512, snapshot_every=500),
)


def trainings(settings: Settings) -> dict[str, Job]:
    """The layer of panels (a), (b) and (d), and one for each size of panel (c)."""
    of_sizes = {
        _name(size): Job(
            settings.model,
            settings.task_of_size(size),
            settings.size_training,
            max_seeds=settings.size_max_seeds,
        )
        for size in settings.sizes
    }
    return settings.trainings() | of_sizes


def _name(size: int) -> str:
    """Name of the training of a size."""
    return f"N = {size}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Measure what the four panels show."""
    references = best_references(settings.task, 1)
    history = histories["model"]
    exact = theory.gd_shared(settings.task, 1)
    return dataset(
        alignment(settings, history, references),
        interpolation(settings, history.final, references["gd"]),
        learned_steps(settings, history.final),
        shifts(settings, history.final, references),
        {"exact_reference_loss": ("reference", [exact.loss])},
        {"exact_step": exact.learning_rates[0] / settings.task.context_size},
        size_training=_describe(settings.size_training),
    ).merge(_over_sizes(settings, histories))


def _over_sizes(settings: Settings, histories: Histories) -> xr.Dataset:
    """Final losses of the model, gradient descent and interpolated weights for each N = d."""
    parts = {}
    for size in settings.sizes:
        own = replace(settings, task=settings.task_of_size(size))
        history = histories[_name(size)]
        references = best_references(own.task, 1)
        parts[size] = dataset(
            alignment(own, history, references),
            interpolation(own, history.final, references["gd"]),
        ).isel(step=-1)
    kept = ["loss", "reference_loss", "interpolated_loss", "on_plateau"]
    joined = side_by_side(parts, "size")[kept].drop_vars("step")
    return joined.rename({name: f"size_{name}" for name in (*kept, "seed")})


def _describe(training: Training) -> str:
    """Panel (c)'s training as text, and whether it is shorter than the paper's."""
    text = (
        f"{training.steps} steps of {training.batch_size} episodes with learning rate "
        f"{training.learning_rate:g} for each size"
    )
    full = training == replace(Training(), snapshot_every=training.snapshot_every)
    return text if full else f"shortened to {text}"


def draw(results: xr.Dataset) -> Figure:
    """The four panels, with every seed."""

    def training(axes: panels.Axes, results: xr.Dataset) -> None:
        reference_panels.training_panel(axes, results)
        exact = float(claim_values.of(results, "exact_reference_loss", "gd"))
        figures.floor_line(axes, exact, f"exact: {exact:.4f}")
        axes.legend()

    def sizes(axes: panels.Axes, results: xr.Dataset) -> None:
        gd = results.size_reference_loss.sel(reference="gd")
        # Interpolated losses of seeds on their plateau, whose attention is near 0, are off the scale.
        panels.curves(
            {"size_loss": "trained layer", "size_interpolated_loss": "interpolated weights"},
            along="size",
            markers="o^",
            xlabel="N = d",
            ylabel="loss",
            ylim=(0, 2.2 * float(gd.max())),
        )(axes, results)
        axes.plot(gd["size"], gd, "kx-.", label="one step of GD")
        axes.legend(loc="upper left")

    drawn = {
        "loss during training": training,
        "alignment with one step of GD": reference_panels.alignment_panel("gd"),
        "final loss by size": sizes,
        "scaled inputs": reference_panels.SHIFTS["larger inputs"],
    }
    stuck = figures.plateau_sentence(results.size_on_plateau.rename(size_seed="seed"))
    sentence = (
        f"One linear self-attention layer, {int(results.step[-1])} steps in (a), (b), (d). "
        f"Panel (c): {results.attrs['size_training']}. {stuck}"
    )
    return panels.figure(results, drawn, sentence)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-2a-1": claim_values.loss_over("gd"),
        "VO-2b-1": claim_values.final("model_cosine", "gd"),
        "VO-2b-1-norm": claim_values.final("norm_ratio", "gd"),
        "VO-2b-2-model": claim_values.final("model_difference", "gd"),
        "VO-2b-2": claim_values.final("prediction_difference", "gd"),
        "VO-2c-1": lambda results: (
            results.size_loss / claim_values.of(results, "size_reference_loss", "gd")
        ),
        "VO-2c-2": claim_values.interpolated_over("gd"),
        "VO-2d-1": claim_values.shift("inputs", "gd", low=0.5, high=2.0),
        "VO-P1-7": lambda results: results.learned_step / results.exact_step,
    },
)
