"""Losses on shifted distributions, compared with those of one learner on one task at a time."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from compiled import drawn, loss

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.core.datasets import dataset
from toyicl.models.transformer import Architecture
from toyicl.studies.alignment import Study
from toyicl.studies.shifts import OTHER_DISTRIBUTIONS, larger_targets, shifts
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(dim=2, context_size=3)
STUDY = Study(task=TASK, evaluation_episodes=20, scales=(0.5, 2.0), factors=(1.0, 3.0))
REFERENCES = {"gd": GradientDescent(0.7, 2), "gdpp": GradientDescentPlusPlus(0.7, 0.1, 2)}


@pytest.fixture(scope="module")
def models():
    keys = jax.random.split(jax.random.key(0))
    return jax.vmap(Architecture(init_scale=0.3), (None, 0))(TASK, keys)


@pytest.fixture(scope="module")
def found(models):
    return dataset(shifts(STUDY, models, REFERENCES), {"seed": [0, 1]})


def others(**changes):
    return [replace(TASK, input_distribution=name, **changes) for name in OTHER_DISTRIBUTIONS]


def test_larger_targets_have_a_larger_mean():
    task = replace(TASK, weight_mean=2.0, weight_scale=0.5)
    assert larger_targets(task, 3.0) == replace(TASK, weight_mean=6.0, weight_scale=1.5)


@pytest.mark.parametrize(
    ("shift", "amount", "tasks"),
    [
        ("inputs", 2.0, [TASK.scaled(2.0)]),
        ("targets", 3.0, [replace(TASK, weight_scale=3.0)]),
        ("distributions", 3.0, others(input_range=3.0)),
        ("distributions and targets", 3.0, others(weight_scale=3.0)),
    ],
)
def test_losses_are_means_over_shifted_tasks(shift, amount, tasks, found, models, close):
    def mean(learner):
        each = [drawn(each, 2023, 20) for each in tasks]
        return np.mean([loss(learner, episodes) for episodes in each])

    here = found.sel(shift=[shift], amount=[amount]).squeeze(("shift", "amount"))
    for seed in (0, 1):
        model = jax.tree.map(lambda leaf, seed=seed: leaf[seed], models)
        close(here.shifted_loss.sel(seed=seed), mean(model), 1e-10)
    for name, reference in REFERENCES.items():
        close(here.shifted_reference_loss.sel(reference=name), mean(reference), 1e-10)


def test_losses_are_nan_exactly_where_a_shift_is_not_measured(found):
    assert found.amount.values.tolist() == [0.5, 1.0, 2.0, 3.0]
    for shift in found["shift"].values:
        amounts = STUDY.scales if shift == "inputs" else STUDY.factors
        here = found.sel({"shift": shift})
        for variable in (here.shifted_loss, here.shifted_reference_loss):
            measured = variable.dropna("amount", how="all")
            assert tuple(measured.amount.values) == amounts
            assert measured.notnull().all()
