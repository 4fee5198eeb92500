"""What most figures of the paper share: a model on linear regression, compared with references.

`Study` holds the settings. `alignment` returns variables for an `xarray.Dataset` with the dimensions
seed, step and reference; `plots.panels` draws them, and `harness.claim_values` computes the values of
claims from them. Another reference is another label of the dimension `reference`, and needs no new
variable.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import ArrayLike

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.analysis import metrics
from toyicl.core.config import named_in_errors, require_different, require_positive, require_size
from toyicl.core.datasets import Variables, seed_coordinate
from toyicl.core.episode import Episode, Learner
from toyicl.models.transformer import Architecture
from toyicl.studies.saddles import known_saddles
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training import recipes
from toyicl.training.loop import History, Job
from toyicl.training.step import Training

SNAPSHOTS = 101
"""Largest number of snapshots of a training at which models are compared with references."""
References = Mapping[str, Learner]
"""References by their labels, such as "gd"."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Study:
    """Settings of a figure about one model on linear regression."""

    task: LinearRegression = LinearRegression()
    """The task."""
    model: Architecture = Architecture()
    """The transformer."""
    training: Training = Training()
    """Its training."""
    evaluation_episodes: int = 10_000
    """Number of held-out episodes, the same for the model and the references."""
    scales: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5, 1.75, 2.0)
    """Factors alpha on the inputs."""
    factors: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0)
    """Factors on the targets, and Frobenius norms of contexts from other distributions."""

    def __post_init__(self) -> None:
        require_episodes("evaluation_episodes", self.evaluation_episodes, self.task)
        for name in ("scales", "factors"):
            values = getattr(self, name)
            require_different(name, values)
            for value in values:
                require_positive(name, value)

    def trainings(self) -> dict[str, Job]:
        """The training of the model on the task, named "model"."""
        return {"model": Job(self.model, self.task, self.training)}

    def episodes(self) -> Episode:
        """The held-out episodes."""
        return self.task.sample(jax.random.key(2022), self.evaluation_episodes)


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class DeepStudy(Study):
    """Settings of a figure that compares several layers with GD++, which has no effect at one step."""

    gdpp_training: Training = recipes.TUNED_GDPP
    """Training of GD++ as the paper tunes it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_size("model.depth", self.model.depth, least=2)


def best_references(task: LinearRegression, steps: int) -> dict[str, Learner]:
    """The best gradient descent and GD++ with this number of steps, which share their parameters."""
    found: dict[str, Learner] = {"gd": GradientDescent.shared(task, steps)}
    if steps > 1:
        found["gdpp"] = GradientDescentPlusPlus.shared(task, steps)
    return found


def alignment(
    study: Study, history: History, references: References, episodes: Episode | None = None
) -> Variables:
    """Loss, and the comparison with each reference, at up to 101 snapshots of every seed.

    Variables: `loss` (seed, step), `reference_loss` (reference,), the fields of `metrics.Comparison`
    (reference, seed, step), and `on_plateau` (seed,), whether the final loss is nearer to that of a
    saddle point than to that of the first reference. For one linear layer on a task with a closed form
    also `saddle_loss` (saddle,), the exact losses of its saddle points (`theory.saddle_losses`), and
    `nearest_saddle` (seed,), the index m of the one that is nearest to the final loss (see
    `metrics.nearest_saddle`); the first reference has to be the optimum of such a layer. For other
    models predicting 0 is the only saddle point that is considered.
    """
    episodes = study.episodes() if episodes is None else episodes
    history = thinned(history)
    observed = {name: metrics.observe(one, episodes) for name, one in references.items()}
    compared = metrics.over_snapshots(_compare_with_all, history.learners, observed, episodes)
    losses = np.array([metrics.loss(one, episodes) for one in references.values()])
    each = [compared[name]._asdict() for name in references]
    found: Variables = {
        "seed": history.seeds,
        "step": history.steps,
        "reference": list(references),
        "loss": (("seed", "step"), each[0]["loss"]),
        "reference_loss": ("reference", losses),
    }
    for variable in each[0]:
        if variable != "loss":
            values = np.stack([one[variable] for one in each])
            found[variable] = (("reference", "seed", "step"), values)
    zero = float(metrics.zero_loss(episodes))
    final = each[0]["loss"][:, -1]
    saddles = known_saddles(history.learners, study.task)
    if saddles is None:
        return found | {"on_plateau": ("seed", metrics.on_plateau(final, losses[0], zero))}
    nearest = metrics.nearest_saddle(final, losses[0], zero, saddles)
    return found | {
        "saddle": np.arange(len(saddles)),
        "saddle_loss": ("saddle", saddles),
        "nearest_saddle": ("seed", nearest),
        "on_plateau": ("seed", nearest < len(saddles) - 1),
    }


def released_loss(study: Study, history: History) -> Variables:
    """Loss of the model trained by the released code's recipe, (released_seed, released_step)."""
    history = thinned(history)
    values = metrics.over_snapshots(metrics.loss, history.learners, study.episodes())
    return {
        "released_loss": (("released_seed", "released_step"), values),
        "released_step": history.steps,
        **seed_coordinate(history.seeds, "released_seed"),
    }


def thinned(history: History, most: int = SNAPSHOTS) -> History:
    """A history with at most `most` snapshots, evenly spaced, including the last one."""
    every = -(-(len(history.steps) - 1) // (most - 1))
    kept = np.arange(len(history.steps))[::-1][:: max(every, 1)][::-1]
    learners = jax.tree.map(lambda leaf: leaf[:, kept], history.learners)
    return history._replace(learners=learners, steps=history.steps[kept])


def where_losses_change(history: History, losses: ArrayLike, most: int) -> History:
    """A history with at most `most` snapshots, between which the losses change equally.

    `losses`, (seed, snapshot), are those of its learners; changes that are not finite count as 0. Half
    of the distance between two snapshots is their distance in steps, so that the end of the training,
    where losses hardly change, has some as well. The first and the last snapshot are kept.
    """
    known = np.where(np.isfinite(losses), losses, np.nan)
    changes = np.nansum(abs(np.diff(known, axis=1)), axis=0)
    steps = np.diff(history.steps)
    distances = changes / max(changes.sum(), np.finfo(float).tiny) + steps / steps.sum()
    position = np.concatenate([[0.0], np.cumsum(distances)])
    wanted = np.linspace(0.0, position[-1], most)
    kept = np.unique(abs(position[:, None] - wanted[None]).argmin(axis=0))
    learners = jax.tree.map(lambda leaf: leaf[:, kept], history.learners)
    return history._replace(learners=learners, steps=history.steps[kept])


def _compare_with_all(
    learner: Learner, observed: dict[str, metrics.Observation], episodes: Episode
) -> dict[str, metrics.Comparison]:
    own = metrics.observe(learner, episodes)
    loss = metrics.observed_loss(own, learner, episodes)
    return {name: metrics.difference(own, other, loss) for name, other in observed.items()}
