"""Two trained layers are explained by GD++ and by no other candidate algorithm.

Two recurrent layers (Figure 3) are compared with GD, GD++, Newton's method, conjugate gradients and
ridge regression. Each candidate is used twice: with its optimal parameters on the task (ridge
regression with a penalty large enough for float32), and with parameters fitted to the model on half
of the episodes; candidates with fewer parameters than GD++ get a factor on their predictions. All
are judged on the other half by a confidence set: the candidates that are not distinguishably worse
than the best. Two steps with momentum, and two of Chebyshev's method, have the same residual
polynomials as two steps of GD with two learning rates, and are not listed.

Expected: the set contains GD++ alone, with either kind of parameters.
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
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture
from toyicl.plots import comparison_panels, panels
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
"""Number of contexts on which residual polynomials are measured."""
STEPS = 8
"""Largest number of steps of gradient descent and of conjugate gradients that is tried."""
DRAWN = ("two steps of GD", "GD++", "Newton, two iterations", "ridge, penalty .1")
"""Candidates whose residual polynomials are measured."""


def candidates(task: LinearRegression) -> dict[str, Learner]:
    """The candidate algorithms, with optimal parameters on the task."""
    return {
        "one step of GD": GradientDescent.shared(task, 1),
        "two steps of GD": GradientDescent.shared(task, 2),
        "two rates of GD": GradientDescent.per_step(task, 2),
        "GD++": GradientDescentPlusPlus.shared(task, 2),
        "Newton, two iterations": IterativeNewton.best(task, 2),  # one is two steps of GD
        "conjugate gradients": ConjugateGradients(2),
        "ridge, penalty .1": Ridge(0.1),
    }


def families(task: LinearRegression) -> dict[str, dict[int, Learner]]:
    """Iterative algorithms by the number of their steps."""
    return {
        "gradient descent": {k: GradientDescent.shared(task, k) for k in range(1, STEPS + 1)},
        "conjugate gradients": {k: ConjugateGradients(k) for k in range(1, STEPS + 1)},
    }


trainings = Study.trainings


def measure(settings: Study, histories: Histories) -> xr.Dataset:
    """Compare every candidate with every seed, and measure residual polynomials."""
    task, history = settings.task, histories["model"]
    models, episodes, known = history.final, settings.episodes(), candidates(task)
    steps = {
        name: algorithm_comparison.nearest_steps(models, family, episodes)
        for name, family in families(task).items()
    }
    return xr.merge(
        [
            dataset(alignment(settings, history, best_references(task, 2))),
            algorithm_comparison.compare(models, known, episodes),
            algorithm_comparison.residuals(
                models, {name: known[name] for name in DRAWN}, episodes.x[..., :CONTEXTS]
            ),
            dataset({"nearest_steps": (("family", "seed"), list(steps.values()))}),
        ]
    ).assign_coords(family=list(steps))


def draw(results: xr.Dataset) -> Figure:
    """Unexplained variance by candidate, and the residual polynomials."""
    drawn: dict[str, panels.Panel] = {
        "optimal parameters on the task": comparison_panels.unexplained_panel("task"),
        "parameters fitted to the model": comparison_panels.unexplained_panel("model"),
        "residual polynomials": comparison_panels.residual_panel,
    }
    nearest = "; ".join(
        f"{name} {', '.join(f'{count:.0f}' for count in counts.dropna('seed').values)}"
        for name, counts in zip(results.family.values, results.nearest_steps, strict=True)
    )
    sentence = (
        "Two recurrent layers. Filled: in the confidence set, that is, not distinguishably worse than "
        f"the best candidate. Number of steps that is nearest to each seed: {nearest}."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _distances(results: xr.Dataset) -> xr.DataArray:
    """Relative distance of the predictions to those of each fitted candidate, the root of 1 - R^2."""
    return (1 - results.candidate_r_squared.sel(tuning="model")).clip(0) ** 0.5


def _over_next(results: xr.Dataset) -> xr.DataArray:
    """Distance to GD++ divided by that to the next candidate."""
    distances = _distances(results)
    others = distances.drop_sel(candidate="GD++")
    return distances.sel(candidate="GD++") / others.min("candidate")


def _in_set(*names: str) -> Value:
    """1 if a candidate is in the confidence set with its optimal parameters on the task, else 0."""
    return lambda results: (
        results.candidate_in_set.sel(candidate=list(names), tuning="task").any("candidate") * 1.0
    )


CLAIMS = (
    *catalogue.read(
        Path(__file__).with_name("claims.toml"),
        {
            "CONFIDENCE-gdpp": _in_set("GD++"),
            "CONFIDENCE-gd": _in_set("one step of GD", "two steps of GD"),
        },
    ),
    *catalogue.read(
        Path(__file__).parents[1] / "objections" / "claims.toml",
        {
            "CR-2": claim_values.final("model_cosine", "gd"),
            "CR-2-predictions": claim_values.ratio_of_references(
                "prediction_difference", "gd", "gdpp"
            ),
            "CR-3": _over_next,
        },
    ),
)
