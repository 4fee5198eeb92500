"""Every experiment measures what its checked-in results hold, on models that were not trained.

The settings are quick ones with small tasks and few episodes, histories repeat the initial models at
every snapshot, and two of the five methods of finetuning are compared, so that nothing but `measure`
takes time. Values are not judged. The pretrained model is a tiny one with random weights.
"""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from tiny_language import load_tiny, tiny_heads

from toyicl.algorithms import token_descent
from toyicl.harness import experiment
from toyicl.harness.results import load_results
from toyicl.models.causal import CausalArchitecture
from toyicl.models.transformer import Architecture
from toyicl.studies import departure_sweep, language_model, update_comparison
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import correlated_descent
from toyicl.training.loop import History
from toyicl.training.step import Training

FIGURES = Path(__file__).parents[2] / "figures"
LOADED = {listing.name: experiment.load(listing) for listing in experiment.listings()}
SMALL = {
    "episodes": 4,
    "evaluation_episodes": 12,
    "limit_episodes": 12,
    "many_episodes": 12,
    "robust_episodes": 12,
    "sensitivity_episodes": 2,
    "spectrum_tasks": 600,
    "random_layers": 2,
    "curve_points": 3,
    "noise_width": 8,
    "queries": 6,
    "tasks": 2,
    "scales": (0.5, 1.0, 2.0),
    "factors": (1.0, 5.0),
}
"""Values of settings that have the same name in several experiments."""
CHANGES = {
    "attention_maps": {"rates": (0.1,)},
    "attention_pools": {
        "kappas": (0.4, 1.0),
        "dims": (5,),
        "pools": (2,),
        "alpha": 2.0,
        "plenty": 2.0,
    },
    "classroom": {"softmax_fractions": (0.0, 1.0), "depth": 2},
    "context_sizes": {"sizes": (3, 4)},
    "cosine_blindness": {"depth": 2},
    "departure_map": {"values": (0.0, 1.0), "second_values": (0.0, 1.0)},
    "dual_form": {"epochs": 1},
    "false_labels": {"rates": (0.1,)},
    "fig01_roll_out": {"depth": 3},
    "fig02_one_step": {"sizes": (3, 4)},
    "fig09_weights": {"most_heads": 4},
    "fig10_damping": {"depth": 3},
    "fig13_curvature": {"sizes": (4, 5)},
    "fig16_fixed_tasks": {"counts": (4, 8)},
    "growing_context": {"sizes": (3, 6)},
    "head_circuits": {"model": Architecture(key_size=2)},
    "linear_limit": {"points": 9000, "best_sizes": (5,)},
    "initial_guess": {"squared_means": (0.0, 25.0)},
    "linearised_finetuning": {"factors": (1.0, 0.1), "rates": (0.1,)},
    "mlp_update": {"step_sizes": (0.5, 1.0)},
    "noisy_labels": {"replaced": (0, 2)},
    "pool_prior": {"counts": (2, 5), "points": 1},
    "prop1_equivalence": {"depth": 3},
    "pretrained_model": {
        "demonstrations": 4,
        "counts": (2,),
        "rate_tasks": 1,
        "further_tasks": 2,
        "rates": (0.1,),
        "draws": 2,
    },
    "prop2_features": {"depth": 2, "width": 5},
    "recurrent_learners": {"sizes": (2, 3)},
    "regression_finetuning": {"rates": (0.1,)},
    "token_clip": {"depths": (2, 3), "clips": (1.0,)},
    "rotated_inputs": {"sizes": (4, 20)},
    "single_factors": {"factors": ("attention.softmax", "task.anisotropy")},
    "softmax_identities": {"depth": 2, "queries": 6},
    "update_similarity": {"rates": (0.1,), "draws": (64, 1024)},
    "zero_shot_weights": {"rates": (0.1,)},
    "views": {"steps": 2},
}
"""Values of settings that only one experiment has, or that it needs."""

HEAVY = (
    "attention_maps", "classroom", "confidence_sets", "fig03_five_layers", "fig04_sine",
    "fig05_separate_tokens", "fig07_ten_layers", "fig08_twelve_blocks", "growing_context",
    "attention_pools", "fig02_one_step", "fig03_two_layers", "fig06_shifts", "fig09_weights",
    "labels_and_inputs", "mlp_update", "one_to_four_layers", "pretrained_model", "rotated_inputs",
    "linearised_finetuning", "momentum_attention", "other_tasks", "recurrent_learners",
    "regression_finetuning", "single_factors", "softmax_candidates", "token_clip",
    "update_similarity",
)  # fmt: skip
"""Experiments whose measurement takes five seconds and more to compile."""


def tiny(settings, changes):
    """Settings with small tasks and models, trainings of two snapshots, and few episodes."""
    if isinstance(settings, Training):
        return replace(settings, steps=4, batch_size=4, snapshot_every=2)
    if isinstance(settings, Architecture):
        return replace(settings, depth=min(settings.depth, 3))
    if isinstance(settings, CausalArchitecture):
        return replace(settings, depth=1)
    if isinstance(settings, LinearRegression):
        dim = settings.dim if settings.covariance else min(settings.dim, 2)
        return replace(settings, dim=dim, context_size=4, outputs=min(settings.outputs, 2))
    parts = {
        field.name: tiny(getattr(settings, field.name), {})
        for field in fields(settings)
        if is_dataclass(getattr(settings, field.name))
    }
    names = {field.name for field in fields(settings)}
    small = {name: value for name, value in SMALL.items() if name in names and name not in changes}
    return replace(settings, **(parts | small | changes))


def untrained(job):
    """A history in which nothing is learned: the initial models of all seeds at each snapshot.

    Its arrays are on the host, as those of a training are.
    """
    seeds = np.arange(len(job.seeds(2)))
    keys = jax.random.split(jax.random.key(0), len(seeds))
    models = jax.jit(jax.vmap(job.build, (None, 0)))(job.task, keys)
    steps = np.arange(0, int(job.training.steps) + 1, job.training.snapshot_every)
    repeated = jax.tree.map(lambda leaf: np.stack([leaf] * len(steps), 1), models)
    losses = np.ones((len(seeds), len(steps) - 1))
    return History(repeated, steps, seeds, losses, np.full(len(seeds), -1))


@pytest.fixture(scope="module", autouse=True)
def less_to_compile():
    """Few episodes to tune on, and two methods of finetuning, each of which is a program."""
    methods = update_comparison.METHODS
    every = dict(methods)
    for name in ("queries", "MLPs", "all"):
        del methods[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(departure_sweep, "TUNING_EPISODES", 100)
        patch.setattr(token_descent, "SEARCH_EPISODES", 100)
        patch.setattr(correlated_descent, "CONTEXTS", 200)
        patch.setattr(language_model, "load", load_tiny)
        patch.setattr(language_model, "load_heads", tiny_heads)
        yield
    methods.clear()
    methods.update(every)


@pytest.fixture(autouse=True)
def settings_of_users():
    """Experiments may broadcast arrays of different rank, as they do on a user's machine."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in LOADED]
)
def test_what_is_measured_is_what_is_checked_in(name):
    one = LOADED[name]
    settings = tiny(one.quick, CHANGES.get(name, {}))
    histories = {label: untrained(job) for label, job in one.trainings(settings).items()}
    results = one.measure(settings, histories)
    assert isinstance(results, xr.Dataset)
    kept = load_results(FIGURES / experiment.find(name).group / name)
    for measured, saved in (
        (results.data_vars, kept.data_vars),
        (results.coords, kept.coords),
    ):
        assert {n: v.dims for n, v in measured.items()} == {n: v.dims for n, v in saved.items()}
    assert set(results.attrs) <= set(kept.attrs)
    if histories:
        assert seed_coordinates(results)
        assert seed_coordinates(results) == seed_coordinates(kept)


def seed_coordinates(results):
    return {name for name, values in results.coords.items() if values.attrs.get("role") == "seed"}
