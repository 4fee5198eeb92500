"""Losses of trained models and of references on shifted distributions: the columns of Figure 6."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from toyicl.analysis import metrics
from toyicl.core.datasets import Variables
from toyicl.core.episode import Episode, Learner
from toyicl.studies.alignment import References, Study
from toyicl.tasks.linear import InputDistribution, LinearRegression

OTHER_DISTRIBUTIONS: tuple[InputDistribution, ...] = (
    "frobenius_normal",
    "frobenius_exponential",
    "frobenius_laplace",
)
"""Distributions of the inputs over which the losses of other distributions are averaged."""


def larger_inputs(task: LinearRegression, alpha: float) -> LinearRegression:
    """Inputs scaled by alpha."""
    return task.scaled(alpha)


def larger_targets(task: LinearRegression, factor: float) -> LinearRegression:
    """Targets, that is weights, scaled by a factor."""
    mean = None if task.weight_mean is None else task.weight_mean * factor
    return replace(task, weight_scale=task.weight_scale * factor, weight_mean=mean)


def context_norms(task: LinearRegression, factor: float) -> LinearRegression:
    """Contexts scaled to a Frobenius norm."""
    return replace(task, input_range=factor)


def shifts(study: Study, models: Any, references: References) -> Variables:
    """Losses of models and references, with unchanged parameters, on shifted distributions.

    `amount` is the factor on inputs or targets, or the Frobenius norm of the context. Variables:
    `shifted_loss` (shift, amount, seed) and `shifted_reference_loss` (reference, shift, amount), NaN at
    amounts at which a shift is not measured.
    """
    others = [replace(study.task, input_distribution=name) for name in OTHER_DISTRIBUTIONS]
    families = {
        "inputs": ([study.task], larger_inputs, study.scales),
        "targets": ([study.task], larger_targets, study.factors),
        "distributions": (others, context_norms, study.factors),
        "distributions and targets": (others, larger_targets, study.factors),
    }
    amounts = sorted({*study.scales, *study.factors})
    seeds, count = len(jax.tree.leaves(models)[0]), study.evaluation_episodes
    own = np.full((len(families), len(amounts), seeds), np.nan)
    other = np.full((len(references), len(families), len(amounts)), np.nan)
    for index, (tasks, shift, values) in enumerate(families.values()):
        for value in values:
            place = amounts.index(value)
            each = [
                _losses(models, dict(references), _episodes(shift(task, value), count))
                for task in tasks
            ]
            mean, means = jax.tree.map(lambda *losses: np.mean(losses, axis=0), *each)
            own[index, place] = mean
            other[:, index, place] = [means[name] for name in references]
    return {
        "reference": list(references),
        "shift": list(families),
        "amount": amounts,
        "shifted_loss": (("shift", "amount", "seed"), own),
        "shifted_reference_loss": (("reference", "shift", "amount"), other),
    }


@partial(jax.jit, static_argnames="count")
def _episodes(task: Any, count: int) -> Episode:
    """Held-out episodes. They are compiled on their own, once for each distribution of the inputs."""
    return task.sample(jax.random.key(2023), count)


@jax.jit
def _losses(
    models: Any, references: dict[str, Learner], episodes: Episode
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Losses (seed,) of models, and the loss of each reference; compiled once for all shifts."""
    own = jax.lax.map(lambda model: metrics.loss(model, episodes), models)
    return own, {name: metrics.loss(one, episodes) for name, one in references.items()}
