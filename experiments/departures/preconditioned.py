"""Where inputs are not isotropic, a layer learns a preconditioner, not a step size.

Inputs x ~ N(0, diag(2, 1, .5, .25)), eight points. The optimum of one linear layer is known
exactly: a matrix G* in place of a learning rate (Ahn et al. 2023). No step of plain gradient
descent comes near it. This tests a critic's statement that agreement with one step follows from
linearity and symmetry.

Seeds may stay on a plateau on which labels are keys and one input is the value, the best matrix of
rank one; even `--settings.training.learning-rate 3e-3 --settings.training.steps 40000` does not
leave it. The losses of the best matrices of ranks 0 to 4, which are saddle points, are 1.875,
1.13937, .82564, .70443 and .66276.

Expected: loss .66276 for G* and for layers that leave the plateau, .7703 for the best single step.
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
from toyicl.core.episode import Learner
from toyicl.harness import catalogue, claim_values
from toyicl.harness.evaluation import Value
from toyicl.plots import figures, panels, reference_panels
from toyicl.studies.alignment import Study, alignment
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
    """Compare one layer with the best matrix and the best step size."""
    task, history = settings.task, histories["model"]
    best = correlated_inputs.best_step_matrix(task)
    scalar = correlated_inputs.best_scalar_step(task)
    episodes = task.sample(jax.random.key(2022), settings.evaluation_episodes)
    references: dict[str, Learner] = {
        "pgd": PreconditionedGradientDescent.best(task),
        "gd": GradientDescent(scalar.learning_rates[0]),
    }
    steps = np.asarray(jax.vmap(partial(implied_step, dim=task.dim))(history.final), float)
    mean_step = np.trace(steps, axis1=1, axis2=2)[:, None, None] / task.dim
    size = np.linalg.norm(best.matrix)
    exact = np.array([correlated_inputs.step_matrix_loss(task, step) for step in steps])
    return dataset(
        alignment(settings, history, references, episodes),
        {
            "exact_loss": ("seed", exact),
            "exact_reference_loss": ("reference", [best.loss, scalar.loss]),
        },
        {"matrix_distance": ("seed", _norms(steps - best.matrix) / size)},
        {"scalar_distance": ("seed", _norms(steps - mean_step * np.eye(task.dim)) / size)},
        {"matrix": (("seed", "row", "column"), steps)},
        {"best_matrix": (("row", "column"), best.matrix)},
    )


def _norms(matrices: np.ndarray) -> np.ndarray:
    """Frobenius norm of each matrix."""
    return np.linalg.norm(matrices, axis=(1, 2))


def draw(results: xr.Dataset) -> Figure:
    """Loss and alignment during training, and the diagonal of the learned matrix."""

    def losses(axes: panels.Axes, results: xr.Dataset) -> None:
        reference_panels.training_panel(axes, results)
        exact = float(claim_values.of(results, "exact_reference_loss", "pgd"))
        figures.floor_line(axes, exact, "best matrix, exact")
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # the legend hides no plateau
        axes.legend()

    def diagonal(axes: panels.Axes, results: xr.Dataset) -> None:
        for number, matrix in enumerate(results.matrix.values):
            label = f"learned ({results.sizes['seed']} seeds)" if number == 0 else None
            axes.plot(np.diagonal(matrix), "o-", color=figures.MODEL, label=label, alpha=0.75)
        axes.plot(np.diagonal(results.best_matrix), "k:", label="G*, exact")
        axes.set(xlabel="input, in order of decreasing variance", ylabel="diagonal of G")
        axes.legend()

    drawn = {
        "loss during training": losses,
        "alignment with the best matrix": reference_panels.alignment_panel("pgd"),
        "step size in each input direction": diagonal,
    }
    return panels.figure(results, drawn, "One linear layer, anisotropic inputs.", columns=3)


def _over_exact(reference: str) -> Value:
    """Exact loss of the layer divided by that of a reference."""
    return lambda results: (
        results.exact_loss / claim_values.of(results, "exact_reference_loss", reference)
    )


CLAIMS = catalogue.read(
    Path(__file__).parents[1] / "objections" / "claims.toml",
    {
        "CR-5": lambda results: results.matrix_distance,
        "CR-5-scalar": lambda results: results.matrix_distance / results.scalar_distance,
        "CR-5-loss": _over_exact("pgd"),
        "CR-5-gap": _over_exact("gd"),
    },
)
