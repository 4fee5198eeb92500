"""With label noise of mixed scales, one layer is the best step, and two layers adapt to the noise.

Table 1 of Vladymyrov et al. (2024): linear regression with ten standard normal inputs and weights,
twenty points, and label noise of a scale sigma ~ U(0, s) that is drawn for each episode. All values are
losses minus that of ridge regression with the known sigma. One linear layer is compared with its
optimum. Ridge regression has a constant penalty, that of the estimated noise, or a function of the
estimate that is trained. Two layers have full or diagonal weights, and are compared with the best two
steps of GD++, which cannot depend on the noise.

Expected: the losses of the table; diagonal layers are as good as full ones, and below GD++.
Alias: noise
Cost: 15 minutes on one core; quick: a minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms.ridge import AdaptiveRidge, Ridge, TunedAdaptiveRidge
from toyicl.analysis import metrics
from toyicl.core.config import named_in_errors, require, require_increasing, require_positive
from toyicl.core.datasets import Variables, dataset, side_by_side
from toyicl.core.episode import Episode, Learner
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.diagonal import DiagonalArchitecture
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.tasks.linear import require_episodes
from toyicl.tasks.mixed_noise import MixedNoise
from toyicl.theory import mixed_noise
from toyicl.training import recipes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import StartFrom, Training

ONE, TUNED, DIAGONAL, FULL_LAYERS = "one layer", "tuned ridge", "diagonal layers", "full layers"
ADAPTIVE, KNOWN, ZERO = "adaptive ridge", "known noise", "predicting 0"
"""Labels of what is evaluated next to the models."""
BATCH = 50_000
"""Number of held-out episodes that are in memory together."""
MODELS = (ONE, TUNED, DIAGONAL, FULL_LAYERS)
"""Labels of the dimension `model`: what is trained."""
PUBLISHED: dict[str, dict[float, float]] = {
    ONE: {0: 1.768, 1: 1.639, 2: 1.396, 3: 1.175, 4: 1.015, 5: 0.907, 6: 0.841, 7: 0.806},
    "constant ridge": {0: 0, 1: 0.009, 2: 0.066, 3: 0.161, 4: 0.265, 5: 0.365, 6: 0.454, 7: 0.530},
    ADAPTIVE: {0: 0, 1: 0.003, 2: 0.016, 3: 0.034, 4: 0.053, 5: 0.068, 6: 0.081, 7: 0.092},
    TUNED: {0: 0, 1: 0.002, 2: 0.010, 3: 0.023, 4: 0.037, 5: 0.049, 6: 0.060, 7: 0.068},
    "GD++": {0: 0.341, 1: 0.295, 3: 0.265, 7: 0.530},
    DIAGONAL: {0: 0.265, 1: 0.214, 3: 0.188, 7: 0.259},
    FULL_LAYERS: {0: 0.264, 1: 0.215, 3: 0.188, 7: 0.263},
}
"""The rows of the published table that are measured here, by the largest noise; two layers where there
are several."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the noise, the models and their trainings."""

    task: MixedNoise = MixedNoise()
    """The task; its largest noise is replaced by each of `noises`."""
    noises: tuple[float, ...] = (0.0, 1.0, 3.0, 7.0)
    """Largest noise of the tasks, s."""
    two_layer_noises: tuple[float, ...] = (0.0, 3.0)
    """Those of `noises` for which two layers are trained."""
    training: Training = replace(
        recipes.FALLING, steps=6000, batch_size=256, learning_rate=2e-3, snapshot_every=500
    )
    """Training of one layer and of the tuned ridge."""
    two_layer_training: Training = replace(
        recipes.FALLING, steps=8000, batch_size=256, learning_rate=2e-3, snapshot_every=500
    )
    """Training of two layers."""
    max_seeds: int = 5
    """Largest number of seeds of each training."""
    evaluation_episodes: int = 300_000
    """Number of held-out episodes for each noise and each seed."""

    def __post_init__(self) -> None:
        for name in ("noises", "two_layer_noises"):
            require_increasing(name, getattr(self, name))
        rule = f"among noises {self.noises}"
        known = set(self.two_layer_noises) <= set(self.noises)
        require(known, "two_layer_noises", rule, self.two_layer_noises)
        require_positive("max_seeds", self.max_seeds)
        require_episodes("evaluation_episodes", self.evaluation_episodes, self.task)

    def with_noise(self, largest: float) -> MixedNoise:
        """The task with a largest noise."""
        return replace(self.task, largest_noise=largest)

    def models(self, largest: float) -> dict[str, Any]:
        """The builders of what is trained with a largest noise, by name."""
        found: dict[str, Any] = {ONE: Architecture()}
        if largest:
            start = TunedAdaptiveRidge(1.0, largest)
            found[TUNED] = StartFrom(learner=start)
        if largest in self.two_layer_noises:
            found |= {DIAGONAL: DiagonalArchitecture(), FULL_LAYERS: Architecture(depth=2)}
        return found


FULL = Settings()
QUICK = Settings(
    noises=(0.0, 3.0),
    two_layer_noises=(3.0,),
    training=replace(FULL.training, steps=1000, batch_size=128),
    two_layer_training=replace(FULL.two_layer_training, steps=1000, batch_size=128),
    evaluation_episodes=5000,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each model and each largest noise."""
    return {
        f"{name}, noise {largest:g}": Job(
            build,
            settings.with_noise(largest),
            settings.training if name in (ONE, TUNED) else settings.two_layer_training,
            max_seeds=settings.max_seeds,
        )
        for largest in settings.noises
        for name, build in settings.models(largest).items()
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Losses minus that of ridge regression with the known noise, for each largest noise."""
    parts = {}
    for largest in settings.noises:
        task, exact = settings.with_noise(largest), _exact(settings.with_noise(largest))
        trained = {n: histories[f"{n}, noise {largest:g}"] for n in settings.models(largest)}
        seeds = trained[ONE].seeds
        # Each seed is evaluated on episodes of its own, so that intervals over seeds also cover the
        # variance of the evaluation, which is larger than that of the trainings.
        found = [
            _losses(task, _of_seed(trained, row), int(seed), settings.evaluation_episodes)
            for row, seed in enumerate(seeds)
        ]
        known = np.array([each[KNOWN] for each in found])
        zeros = np.array([each[ZERO] for each in found])
        own = {}
        for name in trained:
            losses = np.array([each[name] for each in found])
            stuck = _stuck(losses, known + exact["exact_one"], zeros)
            values: Variables = {"excess": ("seed", losses - known), "on_plateau": ("seed", stuck)}
            own[name] = dataset({"seed": seeds}, values)
        adaptive = np.array([each[ADAPTIVE] for each in found]) - known
        shared: Variables = {
            "seed": seeds,
            "adaptive": ("seed", adaptive),
            "known": ("seed", known),
            **exact,
        }
        joined = side_by_side(own, "model").reindex(model=list(MODELS))
        parts[largest] = joined.merge(dataset(shared))
    joined = side_by_side(parts, "noise")
    joined["on_plateau"] = joined.on_plateau.fillna(0).astype(bool)
    return joined


def _exact(task: MixedNoise) -> dict[str, float]:
    """Exact losses minus that of ridge with the known noise, of methods that are linear in labels."""
    mean = mixed_noise.with_mean_noise(task.base, float(task.largest_noise))
    known = mixed_noise.known_noise_loss(task.base, float(task.largest_noise))
    return {
        "exact_known": known,
        "exact_one": theory.gradient_descent_optimum(mean).loss - known,
        "exact_constant": theory.ridge(mean)[0] - known,
        "exact_gdpp": theory.gdpp_per_layer(mean, 2).loss - known,
    }


def _of_seed(trained: Mapping[str, History], row: int) -> dict[str, Learner]:
    """The trained models of one seed."""
    return {
        name: jax.tree.map(lambda leaf: leaf[row], history.final)
        for name, history in trained.items()
    }


def _losses(
    task: MixedNoise, models: Mapping[str, Learner], seed: int, episodes: int
) -> dict[str, float]:
    """Mean losses on a seed's held-out episodes: of models, adaptive ridge, known noise, and of 0."""
    learners = {**models, ADAPTIVE: AdaptiveRidge()}
    means = dict.fromkeys((*learners, KNOWN, ZERO), 0.0)
    for start in range(0, episodes, BATCH):
        size = min(BATCH, episodes - start)
        key = jax.random.fold_in(jax.random.key(2022 + seed), start)
        drawn, scale = task.sample_with_noise(key, size)
        found = {name: metrics.loss(one, drawn) for name, one in learners.items()}
        found |= {KNOWN: _known_noise_loss(drawn, scale), ZERO: metrics.zero_loss(drawn)}
        for name, loss in found.items():
            means[name] += size / episodes * float(loss)
    return means


@jax.jit
def _known_noise_loss(episodes: Episode, scale: jax.Array) -> jax.Array:
    """Loss of ridge regression with the penalty sigma^2 of each episode."""

    def answer(x: jax.Array, y: jax.Array, x_query: jax.Array, scale: jax.Array) -> jax.Array:
        return Ridge(scale**2)(x, y, x_query)

    answers = jax.vmap(answer, in_axes=-1, out_axes=-1)(*episodes[:3], scale)
    return 0.5 * jnp.mean(jnp.sum((answers - episodes.y_query) ** 2, axis=0))


def _stuck(losses: np.ndarray, one_layer: np.ndarray, zeros: np.ndarray) -> list[bool]:
    """Whether each loss is nearer to that of predicting 0 than to that of one layer, (seed,)."""
    rows = zip(losses, one_layer, zeros, strict=True)
    return [bool(metrics.on_plateau(np.array([loss]), one, zero)[0]) for loss, one, zero in rows]


def draw(results: xr.Dataset) -> Figure:
    """All rows of the table over the largest noise, with the published values."""
    drawn: dict[str, panels.Panel] = {
        "one layer": _rows({ONE: _excess(ONE)}, {ONE: "exact_one"}),
        "ridge regression": _rows(
            {
                "constant ridge": panels.selected("exact_constant"),
                ADAPTIVE: panels.selected("adaptive"),
                TUNED: _excess(TUNED),
            },
            {"constant ridge": "exact_constant"},
        ),
        "two layers": _rows(
            {
                "GD++": panels.selected("exact_gdpp"),
                DIAGONAL: _excess(DIAGONAL),
                FULL_LAYERS: _excess(FULL_LAYERS),
            },
            {"GD++": "exact_gdpp"},
        ),
    }
    sentence = (
        "Loss minus that of ridge regression with the known noise, whose scale is drawn from U(0, s) "
        "in each episode. Points: measured, each seed; lines: exact; crosses: published."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _rows(values: dict[str, Value], exact: dict[str, str]) -> panels.Panel:
    """Rows of the table as points, with exact values as lines and published ones as crosses."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        noises = results.noise.values
        for (name, value), (color, line) in zip(values.items(), panels.LOOKS, strict=False):
            found = value(results)
            for seed in found.transpose(..., "noise").values.reshape(-1, len(noises)):
                axes.plot(noises, seed, "o", color=color, markersize=4, alpha=0.7)
            axes.plot([], [], "o", color=color, label=name)
            if name in exact:
                axes.plot(noises, results[exact[name]], line, color=color, linewidth=1)
            published = [PUBLISHED[name].get(float(noise), np.nan) for noise in noises]
            axes.plot(noises, published, "x", color="black", markersize=7)
        axes.plot([], [], "x", color="black", label="published")
        axes.set(xlabel="largest noise s", ylabel="loss minus that of ridge", ylim=(0, None))
        axes.legend()

    return draw


def _excess(name: str) -> Value:
    return panels.selected("excess", model=name)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        **{f"MIX-one-{s}": _excess(ONE) for s in (1, 3, 7)},
        **{f"MIX-constant-{s}": panels.selected("exact_constant") for s in (1, 3, 7)},
        **{f"MIX-adaptive-{s}": panels.selected("adaptive") for s in (1, 3, 7)},
        **{f"MIX-tuned-{s}": _excess(TUNED) for s in (1, 3, 7)},
        **{f"MIX-diagonal-{s}": _excess(DIAGONAL) for s in (0, 3)},
        **{f"MIX-full-{s}": _excess(FULL_LAYERS) for s in (0, 3)},
        **{f"MIX-gdpp-{s}": panels.selected("exact_gdpp") for s in (0, 3)},
        "MIX-exact": lambda r: _excess(ONE)(r) / r.exact_one,
        "MIX-adapts": lambda r: _excess(DIAGONAL)(r) / r.exact_gdpp,
    },
)
