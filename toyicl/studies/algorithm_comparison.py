"""Candidate algorithms compared with every seed of a trained model.

`confidence_set` compares one model with candidates. Here each seed is compared with every candidate
twice: with parameters that are optimal on the task, and with parameters fitted to that seed's model.
The residual polynomials of models and candidates are measured on the same contexts.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from toyicl.analysis.black_box import residual_polynomial
from toyicl.analysis.confidence_set import (
    CandidateFit,
    Scaled,
    best_steps,
    confidence_set,
    tuned,
)
from toyicl.core.episode import Episode, Learner, predict

TUNINGS = ("task", "model")
"""Labels of the dimension `tuning`: what the parameters of candidates are fitted to."""
FIELDS = ("r_squared", "r_squared_range", "model_cosine", "norm_ratio", "in_set")
"""Fields of `CandidateFit` that are kept."""
_UNKNOWN = (np.nan, np.nan)
NOT_COMPARED = CandidateFit(
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
"""The fit of a candidate where the model or the candidate has no usable predictions."""


def compare(models: Any, candidates: Mapping[str, Learner], episodes: Episode) -> xr.Dataset:
    """Compare every candidate with every seed's model (leaves (seed, ...)).

    Parameters are fitted on the first half of the episodes, with numbers of parameters that are as
    equal as possible (see `with_equal_parameters`); all candidates are judged on the second half.
    Dimensions: seed, tuning ("task", "model"), candidate; variables: the fields of `CandidateFit`,
    with `candidate_` in front. Values are NaN for a model that diverged or predicts only 0, and for a
    candidate that diverged while it was fitted.
    """
    half = episodes.x_query.shape[-1] // 2
    first = jax.tree.map(lambda leaf: leaf[..., :half], episodes)
    second = held_out(episodes)
    adjustable = with_equal_parameters(candidates)
    rows = []
    for model in _each(models):
        if not _has_predictions(model, episodes):
            rows.append([dict.fromkeys(candidates, NOT_COMPARED) for _ in TUNINGS])
            continue
        fitted = {name: tuned(one, model, first) for name, one in adjustable.items()}
        rows.append([_fits(model, group, second) for group in (candidates, fitted)])
    dims = ("seed", "tuning", "candidate")
    variables: dict[str, Any] = {}
    for field in FIELDS:
        values = [
            [[getattr(group[name], field) for name in candidates] for group in row] for row in rows
        ]
        table = np.array(values)
        named = (*dims, "end") if table.ndim > len(dims) else dims
        variables[f"candidate_{field}"] = (named, table)
    coordinates = {"candidate": list(candidates), "tuning": list(TUNINGS)}
    return xr.Dataset(variables, coords=coordinates)


def with_equal_parameters(candidates: Mapping[str, Learner]) -> dict[str, Learner]:
    """The candidates; those with fewer parameters than others get a factor on their predictions."""
    counts = {name: _parameters(one) for name, one in candidates.items()}
    most = max(counts.values())
    return {name: one if counts[name] == most else Scaled(one) for name, one in candidates.items()}


def nearest_steps(models: Any, family: Mapping[int, Learner], episodes: Episode) -> np.ndarray:
    """The number of steps at which an iterative candidate is nearest to each seed's model, (seed,).

    Judged on the same episodes as in `compare`; NaN for a model that diverged or predicts only 0.
    """
    judged = held_out(episodes)
    return np.array(
        [
            best_steps(model, family, judged)[0] if _has_predictions(model, judged) else np.nan
            for model in _each(models)
        ]
    )


def held_out(episodes: Episode) -> Episode:
    """The half of the episodes on which no candidate is fitted."""
    half = episodes.x_query.shape[-1] // 2
    return jax.tree.map(lambda leaf: leaf[..., half:], episodes)


def residuals(models: Any, candidates: Mapping[str, Learner], x: jax.Array) -> xr.Dataset:
    """Residual polynomials of every seed's model and of candidates, on contexts x (N, d, contexts).

    Variables: `eigenvalue` (direction,), `residual` (seed, direction), and `candidate_residual`
    (drawn, direction), where the coordinate `drawn` has the names of these candidates.
    """
    measure = jax.jit(partial(residual_polynomial, x=x))
    found = jax.vmap(measure)(models)
    seeds = found.residuals.shape[0]
    others = np.stack([measure(one).residuals.ravel() for one in candidates.values()])
    return xr.Dataset(
        {
            "eigenvalue": ("direction", found.eigenvalues[0].ravel()),
            "residual": (("seed", "direction"), found.residuals.reshape(seeds, -1)),
            "candidate_residual": (("drawn", "direction"), others),
        },
        coords={"drawn": list(candidates)},
    )


def _each(models: Any) -> list[Any]:
    """The model of each seed."""
    seeds = jax.tree.leaves(models)[0].shape[0]
    return [jax.tree.map(lambda leaf, n=n: leaf[n], models) for n in range(seeds)]


def _fits(
    model: Learner, group: Mapping[str, Learner], episodes: Episode
) -> dict[str, CandidateFit]:
    """The fits of candidates whose predictions are finite; NOT_COMPARED for the others."""
    finite = {
        name: one
        for name, one in group.items()
        if bool(jnp.isfinite(jax.jit(predict)(one, episodes)).all())
    }
    return dict.fromkeys(group, NOT_COMPARED) | confidence_set(model, finite, episodes)


def _has_predictions(model: Learner, episodes: Episode) -> bool:
    """Whether a model's predictions are finite, and not all 0."""
    predictions = jax.jit(predict)(model, episodes)
    return bool(jnp.isfinite(predictions).all() & jnp.any(predictions != 0))


def _parameters(candidate: Learner) -> int:
    """Number of parameters of a candidate."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(candidate, nnx.Param)))
