"""Rivals beside every seed of a trained model: which of them explain it, measured and drawn.

`confidence_set` compares one model. Here each seed is compared with every rival as it is and once more
tuned to that seed, and the residual polynomials of models and rivals are laid over each other.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from matplotlib.axes import Axes

from toyicl.analysis.black_box import residual_polynomial
from toyicl.analysis.confidence_set import (
    CandidateFit,
    Scaled,
    best_steps,
    confidence_set,
    tuned,
)
from toyicl.core.episode import Episode, Learner, predict
from toyicl.plots import figures, panels

TUNINGS = ("own", "tuned")
FIELDS = ("r_squared", "r_squared_range", "model_cosine", "norm_ratio", "in_set")
_UNKNOWN = (np.nan, np.nan)
NOTHING = CandidateFit(
    r_squared=np.nan,
    r_squared_range=_UNKNOWN,
    model_cosine=np.nan,
    model_cosine_range=_UNKNOWN,
    norm_ratio=np.nan,
    norm_ratio_range=_UNKNOWN,
    deficit=np.nan,
    deficit_range=_UNKNOWN,
    in_set=False,
)
"""What is said of a model that has no answers."""
LEAST = 1e-7
"""Smallest share that is drawn, near the rounding of float32."""
LOOKS = (*panels.LOOKS[1:], ("0.5", "-"))
"""Colours and line styles of rivals; the models are black dots."""


def beside(models: Any, rivals: Mapping[str, Learner], episodes: Episode) -> xr.Dataset:
    """Every rival beside every seed's model (leaves (seed, ...)), as it is and tuned to that seed.

    Rivals are tuned on the first half of the episodes, with as many free numbers for each as can be
    had (see `given_as_many`), and all are judged on the second half. Dimensions: seed, tuning ("own",
    "tuned"), rival; variables: the fields of `CandidateFit`, with `rival_` in front. A seed that
    diverged, or answers nothing but 0, is explained by none, and a rival that diverged while it was
    tuned explains nothing: NaN.
    """
    half = episodes.x_query.shape[-1] // 2
    first = jax.tree.map(lambda leaf: leaf[..., :half], episodes)
    second = held_out(episodes)
    free = given_as_many(rivals)
    rows = []
    for model in _each(models):
        if not _answers(model, episodes):
            rows.append([dict.fromkeys(rivals, NOTHING) for _ in TUNINGS])
            continue
        fitted = {name: tuned(one, model, first) for name, one in free.items()}
        rows.append([_explained(model, group, second) for group in (rivals, fitted)])
    dims = ("seed", "tuning", "rival")
    variables: dict[str, Any] = {}
    for field in FIELDS:
        values = [
            [[getattr(group[name], field) for name in rivals] for group in row] for row in rows
        ]
        table = np.array(values)
        variables[f"rival_{field}"] = ((*dims, "end") if table.ndim > len(dims) else dims, table)
    return xr.Dataset(variables, coords={"rival": list(rivals), "tuning": list(TUNINGS)})


def given_as_many(rivals: Mapping[str, Learner]) -> dict[str, Learner]:
    """The same rivals, those with fewer parameters than the freest with a factor on their answers."""
    counts = {name: _free_numbers(one) for name, one in rivals.items()}
    most = max(counts.values())
    return {name: one if counts[name] == most else Scaled(one) for name, one in rivals.items()}


def nearest_steps(models: Any, family: Mapping[int, Learner], episodes: Episode) -> np.ndarray:
    """The number of steps at which an iterative rival is nearest each seed's model, (seed,).

    Judged on the same episodes as in `beside`; NaN for a seed that diverged or answers only 0.
    """
    judged = held_out(episodes)
    return np.array(
        [
            best_steps(model, family, judged)[0] if _answers(model, judged) else np.nan
            for model in _each(models)
        ]
    )


def held_out(episodes: Episode) -> Episode:
    """The half of the episodes that rivals are not tuned on."""
    half = episodes.x_query.shape[-1] // 2
    return jax.tree.map(lambda leaf: leaf[..., half:], episodes)


def residuals(models: Any, rivals: Mapping[str, Learner], x: jax.Array) -> xr.Dataset:
    """Residual polynomials of every seed's model and of rivals, on contexts x (N, d, contexts).

    Variables: `eigenvalue` (direction), `residual` (seed, direction), `rival_residual` (drawn,
    direction), with the rivals' names along `drawn`.
    """
    read = jax.jit(partial(residual_polynomial, x=x))
    found = jax.vmap(read)(models)
    seeds = found.residuals.shape[0]
    others = np.stack([read(one).residuals.ravel() for one in rivals.values()])
    return xr.Dataset(
        {
            "eigenvalue": ("direction", found.eigenvalues[0].ravel()),
            "residual": (("seed", "direction"), found.residuals.reshape(seeds, -1)),
            "rival_residual": (("drawn", "direction"), others),
        },
        coords={"drawn": list(rivals)},
    )


def left_panel(tuning: str) -> panels.Panel:
    """What each rival leaves of every seed's answers; filled where it is in the set."""

    def draw(axes: Axes, results: xr.Dataset) -> None:
        chosen = results.sel(tuning=tuning)
        places = np.arange(results.sizes["rival"])
        for seed, stuck in zip(chosen.seed.values, results.on_plateau.values, strict=True):
            row = chosen.sel(seed=seed)
            kept = row.rival_in_set.values.astype(bool)
            missing = np.maximum(1 - row.rival_r_squared.values, LEAST)
            color = "0.7" if stuck else figures.MODEL
            axes.plot(missing, places, "o", color=color, mfc="none", alpha=0.7)
            axes.plot(missing[kept], places[kept], "o", color=color, alpha=0.7)
        axes.set(xscale="log", xlabel="share of the model's answers that it leaves")
        axes.set_yticks(places, results.rival.values if tuning == TUNINGS[0] else [])
        axes.invert_yaxis()

    return draw


def residual_panel(axes: Axes, results: xr.Dataset) -> None:
    """What models and rivals leave in each eigendirection, over its eigenvalue."""
    order = np.argsort(results.eigenvalue.values)
    values = results.eigenvalue.values[order]
    for number, name in enumerate(results.drawn.values):
        color, style = LOOKS[number % len(LOOKS)]
        line = results.rival_residual.sel(drawn=name).values[order]
        axes.plot(values, line, style, color=color, label=str(name))
    for number, stuck in enumerate(results.on_plateau.values):
        if not stuck:
            axes.plot(values, results.residual.values[number][order], "k.", markersize=1)
    axes.plot([], [], "k.", label="trained")
    axes.set(xlabel="eigenvalue s", ylabel="R(s)", ylim=(-0.6, 1.1))
    axes.legend()


def _each(models: Any) -> list[Any]:
    """Every seed's model by itself."""
    seeds = jax.tree.leaves(models)[0].shape[0]
    return [jax.tree.map(lambda leaf, n=n: leaf[n], models) for n in range(seeds)]


def _explained(
    model: Learner, group: Mapping[str, Learner], episodes: Episode
) -> dict[str, CandidateFit]:
    """What those rivals say whose answers are finite; NOTHING for the others."""
    finite = {
        name: one
        for name, one in group.items()
        if bool(jnp.isfinite(jax.jit(predict)(one, episodes)).all())
    }
    return dict.fromkeys(group, NOTHING) | confidence_set(model, finite, episodes)


def _answers(model: Learner, episodes: Episode) -> bool:
    """Whether a model's predictions are finite, and not all 0."""
    predictions = jax.jit(predict)(model, episodes)
    return bool(jnp.isfinite(predictions).all() & jnp.any(predictions != 0))


def _free_numbers(rival: Learner) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(rival, nnx.Param)))
