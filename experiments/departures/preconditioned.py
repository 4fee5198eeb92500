"""Where inputs are not isotropic, a layer learns a preconditioner, not a step size.

Inputs x ~ N(0, diag(2, 1, .5, .25)), eight points: the exact optimum of one linear layer is a matrix
G* (Ahn et al. 2023), and no step of plain gradient descent comes near it. A critic's reading, that the
match with one step follows from linearity and symmetry, is put to the test here.

Seeds may rest on a plateau where labels are keys and one input is the value, a matrix of rank one; not
even `--settings.training.learning-rate 3e-3 --settings.training.steps 40000` leaves it.

Expected: loss .66276 for G* and for layers that leave that plateau, .7703 for the best single step.
Cost: two minutes; quick: half a minute.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.algorithms.iterative import PreconditionedGradientDescent
from toyicl.analysis.weights import implied_step
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue
from toyicl.plots import figures, panels
from toyicl.studies.alignment import Learner, Study, alignment
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import correlated_inputs
from toyicl.training.loop import Histories
from toyicl.training.step import Training

FULL = Study(
    task=LinearRegression(
        dim=4, context_size=8, input_distribution="normal", covariance=(2.0, 1.0, 0.5, 0.25)
    ),
    evaluation_episodes=20_000,
)
QUICK = replace(FULL, training=Training(steps=2000, batch_size=512, learning_rate=3e-3))
trainings = Study.trainings


def measure(settings: Study, histories: Histories) -> xr.Dataset:
    """Train one layer, and set it beside the best matrix and the best step size."""
    task = settings.task
    history = histories["model"]
    best, scalar = (
        correlated_inputs.best_step_matrix(task),
        correlated_inputs.best_scalar_step(task),
    )
    episodes = task.sample(jax.random.key(2022), settings.evaluation_episodes)
    rivals: dict[str, Learner] = {
        "pgd": PreconditionedGradientDescent.best(task),
        "gd": GradientDescent(scalar.learning_rates[0]),
    }
    steps = np.asarray(jax.vmap(partial(implied_step, dim=task.dim))(history.final), float)
    level = np.trace(steps, axis1=1, axis2=2)[:, None, None] / task.dim
    size = np.linalg.norm(best.matrix)
    exact = np.array([correlated_inputs.step_matrix_loss(task, step) for step in steps])
    return dataset(
        alignment(settings, history, rivals, episodes),
        {"exact_pgd_loss": best.loss, "exact_gd_loss": scalar.loss, "exact_loss": ("seed", exact)},
        {"on_plateau": ("seed", exact > scalar.loss)},  # where fewer directions are learned than d
        {"matrix_distance": ("seed", _norms(steps - best.matrix) / size)},
        {"scalar_distance": ("seed", _norms(steps - level * np.eye(task.dim)) / size)},
        {
            "matrix": (("seed", "row", "column"), steps),
            "best_matrix": (("row", "column"), best.matrix),
        },
    )


def _norms(matrices: np.ndarray) -> np.ndarray:
    return np.linalg.norm(matrices, axis=(1, 2))


def draw(results: xr.Dataset) -> Figure:
    """Loss and alignment while training, and the diagonal that was learned."""

    def losses(axes: panels.Axes, results: xr.Dataset) -> None:
        panels.training_panel(axes, results)
        figures.floor_line(axes, float(results.exact_pgd_loss), "best matrix, exact")
        axes.legend()

    def diagonal(axes: panels.Axes, results: xr.Dataset) -> None:
        for number, matrix in enumerate(results.matrix.values):
            label = f"learned ({results.sizes['seed']} seeds)" if number == 0 else None
            axes.plot(np.diagonal(matrix), "o-", color=figures.MODEL, label=label, alpha=0.75)
        axes.plot(np.diagonal(results.best_matrix), "k:", label="G*, exact")
        axes.set(xlabel="input, by falling variance", ylabel="diagonal of G")
        axes.legend()

    drawn = {
        "loss during training": losses,
        "alignment with the best matrix": panels.alignment_panel("pgd"),
        "the step it takes in each direction": diagonal,
    }
    return panels.figure(results, drawn, "One linear layer, anisotropic inputs.", columns=3)


CLAIMS = catalogue.read(
    Path(__file__).parents[1] / "objections" / "claims.toml",
    {
        "CR-5": lambda results: results.matrix_distance,
        "CR-5-scalar": lambda results: results.matrix_distance / results.scalar_distance,
        "CR-5-loss": lambda results: results.exact_loss / results.exact_pgd_loss,
        "CR-5-gap": lambda results: results.exact_loss / results.exact_gd_loss,
    },
)
