"""With some labels replaced by noise, one layer is still the best single step.

The noisy-label test in the released code of von Oswald et al. (2022): D of the ten context labels
are replaced by draws from N(0, 1), during training and evaluation, for several D.

Expected: the loss of the best step for each D, which is known in closed form; the step shrinks as D
grows.
Alias: labels
Cost: two minutes; quick: half a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.core.config import require, require_different
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.plots import figures, panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.weights import learned_steps
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the noisy labels."""

    replaced: tuple[int, ...] = (0, 2, 4, 6)
    """Numbers D of replaced labels, each with its own training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("replaced", self.replaced)
        most = self.task.context_size
        for count in self.replaced:
            rule = f"whole numbers between 0 and task.context_size ({most})"
            require(count in range(most + 1), "replaced", rule, count)

    def with_replaced(self, count: int) -> LinearRegression:
        """The task with a number of replaced labels."""
        return replace(self.task, distractors=count)


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=512, clip_norm=10.0), evaluation_episodes=2000
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each number of replaced labels."""
    return {
        f"{count} replaced": Job(settings.model, settings.with_replaced(count), settings.training)
        for count in settings.replaced
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the layer for each D with the best step for it."""
    parts = {}
    for count in settings.replaced:
        own = replace(settings, task=settings.with_replaced(count))
        history = histories[f"{count} replaced"]
        exact = theory.gradient_descent_optimum(own.task)
        parts[count] = dataset(
            alignment(own, history, best_references(own.task, 1)),
            learned_steps(own, history.final),
            {"exact_loss": exact.loss},
            {"exact_step": exact.learning_rates[0] / own.task.context_size},
        )
    return side_by_side(parts, "replaced")


def draw(results: xr.Dataset) -> Figure:
    """Final loss and learned step by D, and the loss during a training."""

    def against(name: str, exact: str, label: str) -> panels.Panel:
        def panel(axes: Axes, results: xr.Dataset) -> None:
            values = claim_values.last(results.loss) if name == "loss" else results[name]
            color = figures.MODEL
            figures.every_seed(axes, values, "replaced", label="trained", color=color, style="o")
            axes.plot(results.replaced, results[exact], "k:", label="best step, exact")
            axes.set(xlabel="number of replaced labels", ylabel=label, ylim=(0, None))
            axes.legend()

        return panel

    most = results.replaced.values[-1]
    drawn = {
        "final loss": against("loss", "exact_loss", "loss"),
        "learned step": against("learned_step", "exact_step", r"$\eta / N$"),
        f"loss during training, {most} labels replaced": panels.of(
            reference_panels.training_panel, replaced=most
        ),
    }
    return panels.figure(
        results, drawn, "One linear layer; some context labels are replaced by noise.", columns=3
    )


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {"labels": claim_values.loss_over("gd")},
)
