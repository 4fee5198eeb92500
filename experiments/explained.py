"""explained: which algorithms account for two trained layers, and what GD++ owes to its free numbers.

Two recurrent layers (Figure 3) beside GD, GD++, momentum, Chebyshev, Newton, conjugate gradients and
ridge: each at its own optimum on the task, and again with its parameters tuned to the model on half of
the episodes. All are judged on the other half, by the set of rivals that cannot be told from the best.

Expected: GD++ alone, with its own two numbers or with tuned ones; one and two steps of GD are out.
Cost: not yet run at full settings; quick: some minutes.
"""

from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import claims, panels, plotting, reading, study
from toyicl.episode import Learner
from toyicl.experiment import Fit
from toyicl.explain import best_steps, explain, tuned
from toyicl.iterative import Chebyshev, ConjugateGradients, HeavyBall, IterativeNewton
from toyicl.references import GradientDescent, GradientDescentPlusPlus, Ridge
from toyicl.tasks import LinearRegression
from toyicl.training import Training
from toyicl.transformer import Architecture

FULL = study.Study(
    model=Architecture(depth=2, shared=True),
    training=Training(clip_norm=10.0),
)
QUICK = study.Study(
    model=FULL.model,
    training=Training(steps=1000, batch_size=256, learning_rate=4e-3, clip_norm=10.0),
    evaluation_episodes=2000,
)
CONTEXTS = 100
"""Contexts whose residuals are drawn."""
NAMES = {"model_cosine": "rival_cosine", "norm_ratio": "rival_norm_ratio"}
"""What is measured of rivals, where the comparison while training has the same name."""
STEPS = 8
"""Most steps of gradient descent and of conjugate gradients that are tried."""


def rivals(task: LinearRegression) -> dict[str, Learner]:
    """The algorithms that two layers may be, each at its best on the task."""
    return {
        "one step of GD": GradientDescent.shared(task, 1),
        "two steps of GD": GradientDescent.shared(task, 2),
        "two rates of GD": GradientDescent.per_step(task, 2),
        "GD++": GradientDescentPlusPlus.shared(task, 2),
        "momentum": HeavyBall.best(task, 2),
        "Chebyshev": Chebyshev.best(task, 2),
        "Newton, two iterations": IterativeNewton.best(task, 2),  # one is two steps of GD
        "conjugate gradients": ConjugateGradients(2),
        "ridge": Ridge(0.1),
    }


def measure(settings: study.Study, fit: Fit) -> xr.Dataset:
    """Train, and ask every rival of every seed, as it is and tuned."""
    task = settings.task
    history = fit(settings.model, task, settings.training, label="two layers")
    half = settings.evaluation_episodes // 2
    episodes = settings.episodes()
    first = jax.tree.map(lambda leaf: leaf[..., :half], episodes)
    second = jax.tree.map(lambda leaf: leaf[..., half:], episodes)
    own = rivals(task)
    tables: dict[str, list] = {}
    steps: dict[str, list] = {}
    for index in range(len(history.seeds)):
        model = jax.tree.map(lambda leaf, index=index: leaf[index], history.final)
        fitted = {name: tuned(one, model, first) for name, one in own.items()}
        found = [explain(model, group, second) for group in (own, fitted)]
        for field in ("r_squared", "r_squared_range", "model_cosine", "norm_ratio", "in_set"):
            table = [[getattr(group[name], field) for name in own] for group in found]
            tables.setdefault(field, []).append(table)
        families: dict[str, dict[int, Learner]] = {
            "gd": {k: GradientDescent.shared(task, k) for k in range(1, STEPS + 1)},
            "cg": {k: ConjugateGradients(k) for k in range(1, STEPS + 1)},
        }
        for name, family in families.items():
            steps.setdefault(f"best_{name}_steps", []).append(best_steps(model, family, second)[0])
    contexts = episodes.x[..., :CONTEXTS]
    read = jax.jit(partial(reading.residual_polynomial, x=contexts))
    drawn = {
        name: own[name] for name in ("two steps of GD", "GD++", "Newton, two iterations", "ridge")
    }
    residuals = {name: read(one).residuals.ravel() for name, one in drawn.items()}
    models = jax.vmap(read)(history.final)
    dims = ("seed", "tuning", "rival")
    return study.dataset(
        study.alignment(settings, history, study.best_references(task, 2)),
        {
            NAMES.get(name, name): (
                (*dims, "end") if name.endswith("range") else dims,
                np.array(table),
            )
            for name, table in tables.items()
        },
        {name: ("seed", values) for name, values in steps.items()},
        {"eigenvalue": ("direction", models.eigenvalues[0].ravel())},
        {"residual": (("seed", "direction"), models.residuals.reshape(len(history.seeds), -1))},
        {"rival_residual": (("drawn", "direction"), np.stack([*residuals.values()]))},
    ).assign_coords(rival=list(own), tuning=["own", "tuned"], drawn=list(drawn))


def draw(results: xr.Dataset) -> Figure:
    """What each rival leaves, as it is and tuned, and the residual polynomials."""

    def left(axes: Axes, results: xr.Dataset, *, tuning: str) -> None:
        chosen = results.sel(tuning=tuning)
        places = np.arange(results.sizes["rival"])
        for seed, stuck in zip(chosen.seed.values, results.on_plateau.values, strict=True):
            row = chosen.sel(seed=seed)
            kept = row.in_set.values
            missing = np.maximum(1 - row.r_squared.values, 1e-7)
            color = "0.7" if stuck else plotting.MODEL
            axes.plot(missing, places, "o", color=color, mfc="none", alpha=0.7)
            axes.plot(missing[kept], places[kept], "o", color=color, alpha=0.7)
        axes.set(xscale="log", xlabel="share of the model's answers that it leaves")
        axes.set_yticks(places, results.rival.values if tuning == "own" else [])
        axes.invert_yaxis()

    def residuals(axes: Axes, results: xr.Dataset) -> None:
        order = np.argsort(results.eigenvalue.values)
        values = results.eigenvalue.values[order]
        for name, (color, style) in zip(results.drawn.values, LOOKS, strict=True):
            line = results.rival_residual.sel(drawn=name).values[order]
            axes.plot(values, line, style, color=color, label=str(name))
        for number, stuck in enumerate(results.on_plateau.values):
            if not stuck:
                axes.plot(values, results.residual.values[number][order], "k.", markersize=1)
        axes.plot([], [], "k.", label="trained")
        axes.set(xlabel="eigenvalue s", ylabel="R(s)", ylim=(-0.6, 1.1))
        axes.legend()

    drawn: dict[str, panels.Panel] = {
        "each at its own optimum": partial(left, tuning="own"),
        "tuned to the model": partial(left, tuning="tuned"),
        "what is left in each eigendirection": residuals,
    }
    sentence = "Two recurrent layers; filled: cannot be told from the best rival."
    return panels.figure(results, drawn, sentence, columns=3)


LOOKS = ((plotting.REFERENCE, "--"), (plotting.THIRD, "-"), (plotting.FOURTH, "-."), ("0.4", ":"))


def _left(results: xr.Dataset) -> xr.DataArray:
    """Root of what each tuned rival leaves, a relative distance of predictions."""
    return (1 - results.r_squared.sel(tuning="tuned")).clip(0) ** 0.5


def _over_next(results: xr.Dataset) -> xr.DataArray:
    left = _left(results)
    return left.sel(rival="GD++") / left.drop_sel(rival="GD++").min("rival")


CLAIMS = (
    *claims.read(
        Path(__file__).with_name("probes.toml"),
        {
            "EXPLAINED-gdpp": lambda results: results.in_set.sel(rival="GD++", tuning="own") * 1.0,
            "EXPLAINED-gd": lambda results: (
                results.in_set.sel(tuning="own", rival=["one step of GD", "two steps of GD"]).any(
                    "rival"
                )
                * 1.0
            ),
        },
    ),
    *claims.read(
        Path(__file__).with_name("critics.toml"),
        {
            "CR-2": claims.final("model_cosine"),
            "CR-2-predictions": lambda results: claims.last(
                results.prediction_difference / results.prediction_difference_gdpp
            ),
            "CR-3": _over_next,
        },
    ),
)
