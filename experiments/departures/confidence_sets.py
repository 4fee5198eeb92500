"""Which algorithms account for two trained layers, and what GD++ owes to its free numbers.

Two recurrent layers (Figure 3) beside GD, GD++, Newton, conjugate gradients and ridge: each at its own
optimum on the task, ridge at a penalty that float32 bears, and again tuned to the model on half of the
episodes, those with fewer parameters than GD++ with a factor on their answers. All are judged on the
other half, by the set of rivals that cannot be told from the best. Two steps of momentum, or of
Chebyshev's method, are two rates of GD: the same polynomials.

Expected: GD++ alone, with its own two numbers or with tuned ones; one and two steps of GD are out.
Alias: explained
Cost: ten minutes; quick: one.
"""

from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.iterative import ConjugateGradients, IterativeNewton
from toyicl.algorithms.ridge import Ridge
from toyicl.core.datasets import dataset
from toyicl.core.episode import Learner
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.studies import algorithm_comparison
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories
from toyicl.training.step import Training

FULL = Study(
    model=Architecture(depth=2, shared=True),
    training=Training(clip_norm=10.0),
)
QUICK = Study(
    model=FULL.model,
    training=Training(steps=3000, batch_size=512, learning_rate=2e-3, clip_norm=10.0),
    evaluation_episodes=2000,
)
CONTEXTS = 100
"""Contexts whose residuals are drawn."""
STEPS = 8
"""Most steps of gradient descent and of conjugate gradients that are tried."""


def rivals(task: LinearRegression) -> dict[str, Learner]:
    """The algorithms that two layers may be, each at its best on the task."""
    return {
        "one step of GD": GradientDescent.shared(task, 1),
        "two steps of GD": GradientDescent.shared(task, 2),
        "two rates of GD": GradientDescent.per_step(task, 2),
        "GD++": GradientDescentPlusPlus.shared(task, 2),
        "Newton, two iterations": IterativeNewton.best(task, 2),  # one is two steps of GD
        "conjugate gradients": ConjugateGradients(2),
        "ridge, penalty .1": Ridge(0.1),
    }


trainings = Study.trainings


def measure(settings: Study, histories: Histories) -> xr.Dataset:
    """Train, and ask every rival of every seed, as it is and tuned."""
    task = settings.task
    history = histories["model"]
    models, episodes, own = history.final, settings.episodes(), rivals(task)
    drawn = ("two steps of GD", "GD++", "Newton, two iterations", "ridge, penalty .1")
    families: dict[str, dict[int, Learner]] = {
        "best_gd_steps": {k: GradientDescent.shared(task, k) for k in range(1, STEPS + 1)},
        "best_cg_steps": {k: ConjugateGradients(k) for k in range(1, STEPS + 1)},
    }
    return xr.merge(
        [
            dataset(alignment(settings, history, best_references(task, 2))),
            algorithm_comparison.beside(models, own, episodes),
            algorithm_comparison.residuals(
                models, {name: own[name] for name in drawn}, episodes.x[..., :CONTEXTS]
            ),
        ]
    ).assign(
        {
            name: ("seed", algorithm_comparison.nearest_steps(models, family, episodes))
            for name, family in families.items()
        }
    )


def draw(results: xr.Dataset) -> Figure:
    """What each rival leaves, as it is and tuned, and the residual polynomials."""
    drawn: dict[str, panels.Panel] = {
        "each at its own optimum": algorithm_comparison.left_panel("own"),
        "tuned to the model": algorithm_comparison.left_panel("tuned"),
        "what is left in each eigendirection": algorithm_comparison.residual_panel,
    }
    steps = [results[f"best_{name}_steps"].dropna("seed").values for name in ("gd", "cg")]
    said = [", ".join(f"{count:.0f}" for count in counts) for counts in steps]
    sentence = (
        "Two recurrent layers; filled: cannot be told from the best rival. Nearest numbers of steps, "
        f"by seed: {said[0]} of GD, each at its best rate, {said[1]} of conjugate gradients."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _left(results: xr.Dataset) -> xr.DataArray:
    """Root of what each tuned rival leaves, a relative distance of predictions."""
    return (1 - results.rival_r_squared.sel(tuning="tuned")).clip(0) ** 0.5


def _over_next(results: xr.Dataset) -> xr.DataArray:
    left = _left(results)
    return left.sel(rival="GD++") / left.drop_sel(rival="GD++").min("rival")


CLAIMS = (
    *catalogue.read(
        Path(__file__).with_name("claims.toml"),
        {
            "EXPLAINED-gdpp": lambda results: (
                results.rival_in_set.sel(rival="GD++", tuning="own") * 1.0
            ),
            "EXPLAINED-gd": lambda results: (
                results.rival_in_set.sel(
                    tuning="own", rival=["one step of GD", "two steps of GD"]
                ).any("rival")
                * 1.0
            ),
        },
    ),
    *catalogue.read(
        Path(__file__).parents[1] / "objections" / "claims.toml",
        {
            "CR-2": claim_values.final("model_cosine", "gd"),
            "CR-2-predictions": lambda results: claim_values.last(
                claim_values.of(results, "prediction_difference", "gd")
                / claim_values.of(results, "prediction_difference", "gdpp")
            ),
            "CR-3": _over_next,
        },
    ),
)
