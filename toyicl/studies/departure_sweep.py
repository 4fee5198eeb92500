"""Departure sweeps: models trained along one factor, or two, and compared with gradient descent.

At each value of a factor (see `departures`) a model is trained; values that change no shape are
trained as one program. The model is compared with the best gradient descent that takes as many steps on
the same task: by the loss that it lacks, by cosine, norm ratio and distance, and by the variance of
its predictions that gradient descent does not explain. The same numbers of the untrained models are the
controls.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.core.config import (
    named_in_errors,
    require,
    require_increasing,
    require_positive,
    require_size,
)
from toyicl.core.datasets import seed_coordinate
from toyicl.core.episode import Episode, Learner, predict, require_squared_error
from toyicl.models.transformer import Architecture
from toyicl.studies import departures
from toyicl.tasks.linear import LinearRegression, Task, require_episodes
from toyicl.theory import gram_spectrum
from toyicl.theory.step_search import minimise
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training

TUNING_EPISODES = 20_000
STUCK = 0.75
"""Excess (see `_compare`) above which a model counts as being on its plateau.

There its loss is close to that of predicting 0. The best softmax head, which is not gradient descent,
has a smaller excess. The saddle points of most models of a sweep are not known, so that one rule is
used for all of them; a linear layer on its first saddle point has an excess of 1 - 1/d."""
MOST_POINTS = 1000
"""Largest number of points of a sweep, each of which has trainings of its own."""
STAGES = ("untrained", "trained")
"""Labels of the dimension `stage`: models before their first step, and after their last."""
CONTROLLED = (
    "loss",
    "excess",
    "model_cosine",
    "norm_ratio",
    "prediction_difference",
    "unexplained",
)
"""Variables that are measured at both stages."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class DepartureSweep:
    """Settings of a sweep along one factor, or over two."""

    task: LinearRegression = LinearRegression()
    """The task from which the factors depart."""
    model: Architecture = Architecture()
    """The model from which the factors depart."""
    training: Training = Training(
        steps=5000, batch_size=512, snapshot_every=1000, learning_rate=3e-3
    )
    """The training at every point."""
    factor: str = "attention.softmax"
    """Name of the factor; `toyicl departures` lists them."""
    values: tuple[float, ...] = ()
    """Values of the factor; empty for its default values."""
    second_factor: str | None = None
    """Name of a second factor, for a map."""
    second_values: tuple[float, ...] = ()
    """Values of the second factor; empty for its default values."""
    tolerance: float = 0.05
    """Largest unexplained variance (1 - R^2) that counts as explained."""
    evaluation_episodes: int = 20_000
    """Held-out episodes at each point."""

    def __post_init__(self) -> None:
        require_episodes("evaluation_episodes", self.evaluation_episodes, self.task)
        require_positive("tolerance", self.tolerance)
        rule = "different from factor"
        require(self.second_factor != self.factor, "second_factor", rule, self.factor)
        given = self.second_factor is not None or not self.second_values
        require(given, "second_values", "empty without second_factor", self.second_values)
        for values in self.along():
            require_increasing("values", values)
        points = math.prod(map(len, self.along()))
        require(points <= MOST_POINTS, "values", f"at most {MOST_POINTS} points", points)
        # Every setup is made here, so that what is not allowed is refused before anything is trained.
        setups = [self.setup(point) for point in self.points()]
        different = all(setup not in setups[:index] for index, setup in enumerate(setups))
        rule = f"a factor that keeps the values of {self.factor}"
        require(different, "second_factor", rule, self.second_factor)

    def along(self) -> tuple[tuple[float, ...], ...]:
        """The values of each factor."""
        first = self.values or departures.find(self.factor).values
        if self.second_factor is None:
            return (first,)
        return first, self.second_values or departures.find(self.second_factor).values

    def points(self) -> list[tuple[float, ...]]:
        """The values of all factors at each point; those of the last factor change fastest."""
        return list(itertools.product(*self.along()))

    def setup(self, point: tuple[float, ...]) -> departures.Setup:
        """The task and the model at a point."""
        setup: departures.Setup = (self.task, self.model)
        for name, value in zip(self._names(), point, strict=True):
            setup = departures.find(name).at(name, setup, value)
        return setup

    def name(self, point: tuple[float, ...]) -> str:
        """Name of the training at a point."""
        return ", ".join(
            f"{name} = {value}" for name, value in zip(self._names(), point, strict=True)
        )

    def _names(self) -> list[str]:
        return [self.factor] if self.second_factor is None else [self.factor, self.second_factor]


def trainings(settings: DepartureSweep) -> dict[str, Job]:
    """One training at every point."""
    jobs = {}
    for point in settings.points():
        task, model = settings.setup(point)
        jobs[settings.name(point)] = Job(model, task, settings.training)
    return jobs


def measure(settings: DepartureSweep, histories: Histories) -> xr.Dataset:
    """Compare the model at every point with gradient descent, before and after training.

    Dimensions: factor (one entry, its name), value, second_value if there is a second factor, stage
    ("untrained", "trained"), seed.
    """
    rows = []
    for point in settings.points():
        (task, model), history = settings.setup(point), histories[settings.name(point)]
        # The first layer on separate tokens only copies labels to inputs.
        steps = model.depth - (model.tokens == "separate")
        rows.append(compare_with_descent(history, task, steps, settings.evaluation_episodes))
    along = dict(zip(("value", "second_value"), map(list, settings.along()), strict=False))
    shape = tuple(len(values) for values in along.values())
    variables = {}
    for name, (dims, first) in rows[0].items():
        values = np.stack([row[name][1] for row in rows])
        variables[name] = ((*along, *dims), values.reshape(*shape, *np.shape(first)))
    coordinates: dict[str, Any] = {
        **along,
        "stage": list(STAGES),
        **seed_coordinate(history.seeds),
    }
    return xr.Dataset(
        variables,
        coords=coordinates,
        attrs={
            "second_factor": settings.second_factor or "",
            "tolerance": settings.tolerance,
            "steps": int(settings.training.steps),
        },
    ).expand_dims({"factor": [settings.factor]})


def compare_with_descent(
    history: History, task: Task, steps: int, evaluation_episodes: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Compare each seed with the best gradient descent on its task, before and after training.

    Variables by name, as dimensions and values: those of `CONTROLLED` (stage, seed), others (seed,);
    and numbers: `reference_loss`, the loss of gradient descent, and `zero_loss`, that of predicting 0,
    on these episodes; `exact_reference_loss` and `exact_zero_loss`, their means over the distribution
    of episodes, NaN where there is no closed form.
    """
    episodes = task.sample(jax.random.key(2022), evaluation_episodes)
    reference = best_descent(task, steps)
    exact = exact_losses(task, steps)
    first = jax.tree.map(lambda leaf: leaf[:, 0], history.learners)
    trained = _compare(history.final, reference, episodes, *exact)
    untrained = _compare(first, reference, episodes, *exact)
    names = ("exact_reference_loss", "exact_zero_loss")
    found = trained | dict(zip(names, map(np.asarray, exact), strict=True))
    return {
        name: (("stage", "seed"), np.stack([untrained[name], values]))
        if name in CONTROLLED
        else (("seed",) * np.ndim(values), np.asarray(values))
        for name, values in found.items()
    }


def best_descent(task: Task, steps: int) -> GradientDescent:
    """The best gradient descent with one learning rate on a task.

    Where losses have no closed form, the learning rate is searched for on `TUNING_EPISODES` episodes,
    which are not used for anything else. Raises BadInput unless `steps` is at least 1 and the episodes
    are scored by the squared error, whose gradient the steps follow.
    """
    require_size("steps", steps)
    if _has_closed_form(task):
        return GradientDescent.shared(task, steps)  # type: ignore[arg-type]
    episodes = task.sample(jax.random.key(2021), TUNING_EPISODES)
    require_squared_error("episodes of the task", type(episodes))
    answers = predict(GradientDescent(1.0), episodes)
    one = float(jnp.vdot(answers, episodes.y_query) / jnp.vdot(answers, answers))
    if steps == 1:
        return GradientDescent(one)

    # K steps that are each as long as the best single step are too long rather than too short.
    starts = [np.array(factor * one) for factor in (1.0, 0.5)]
    rate = minimise(SharedRateLoss(steps), starts, episodes).parameters
    return GradientDescent(float(rate), steps)


@dataclass(frozen=True)
class SharedRateLoss:
    """Objective of the search: the log of the loss of K steps with one learning rate."""

    steps: int
    """Number of steps, K."""

    def __call__(self, learning_rate: jax.Array, episodes: Episode) -> jax.Array:
        """The objective at a learning rate, ()."""
        return jnp.log(metrics.loss(GradientDescent(learning_rate, self.steps), episodes))


def exact_losses(task: Task, steps: int) -> tuple[float, float]:
    """Losses of the best gradient descent and of predicting 0 over all episodes; NaN if unknown."""
    if not _has_closed_form(task):
        return np.nan, np.nan
    best = theory.gd_shared(task, steps)  # type: ignore[arg-type]
    return best.loss, theory.predict_zero_loss(task)  # type: ignore[arg-type]


def _has_closed_form(task: Task) -> bool:
    plain = isinstance(task, LinearRegression) and task.covariance is None and not task.distractors
    return plain and task.input_distribution in gram_spectrum.COORDINATE_MOMENTS  # type: ignore[attr-defined]


@jax.jit
def _compare(
    models: Any,
    reference: GradientDescent,
    episodes: Episode,
    exact_reference_loss: float,
    exact_zero_loss: float,
) -> dict[str, jax.Array]:
    """Measures of each model, (seed,), and losses of the reference and of predicting 0, numbers.

    The excess is the loss of the model minus that of the reference on the same episodes, divided by the
    loss of predicting 0 minus that of the reference, which are exact where they are known: 0 is as good
    as the reference, 1 no better than predicting 0. `unexplained` is 1 - R^2, the squared distance of
    the predictions divided by the squared norm of the model's.
    """
    other = metrics.observe(reference, episodes)

    def observe(model: Learner) -> tuple[metrics.Observation, jax.Array]:
        own = metrics.observe(model, episodes)
        return own, metrics.observed_loss(own, model, episodes)

    own, losses = jax.lax.map(observe, models)
    compared = jax.vmap(metrics.difference, (0, None, 0))(own, other, losses)
    reference_loss, zero_loss = metrics.loss(reference, episodes), metrics.zero_loss(episodes)
    squares = jnp.sum((own.predictions - other.predictions[None]) ** 2, axis=(1, 2))
    known = ~jnp.isnan(exact_reference_loss)
    exact_gain = exact_zero_loss - exact_reference_loss
    gain = jnp.where(known, exact_gain, zero_loss - reference_loss)
    excess = (compared.loss - reference_loss) / gain
    return {
        **compared._asdict(),
        "excess": excess,
        "unexplained": squares / jnp.sum(own.predictions**2, axis=(1, 2)),
        "reference_loss": reference_loss,
        "zero_loss": zero_loss,
        "on_plateau": excess > STUCK,
    }
