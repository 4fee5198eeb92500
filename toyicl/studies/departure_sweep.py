"""The probe: models trained along one dial, or two, each beside gradient descent and its own control.

At each value of an axis (see `axes`) models are trained as one program where shapes allow, and set
beside the best gradient descent of as many steps on that task: by the loss that is left above it, by
cosine, norm ratio and distance, and by the share of the model's answers that it does not account for.
The same models before their first step are the control of every number.
"""

import itertools
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
from toyicl.core.episode import Episode, predict
from toyicl.models.transformer import Architecture
from toyicl.studies import departures
from toyicl.tasks.linear import LinearRegression, Task
from toyicl.theory import gram_spectrum
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training

TUNING_EPISODES = 20_000
STUCK = 0.75
"""Share of the way to gradient descent that a model on its plateau still misses: its loss is near that
of predicting 0, and even a softmax head at its best, which is no descent, misses less."""
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


@named_in_errors
@dataclass(frozen=True, kw_only=True)
class Probe:
    """Settings of a probe along one axis, or two."""

    task: LinearRegression = LinearRegression()
    """The task where all dials are at their linear end."""
    model: Architecture = Architecture()
    """The model there."""
    training: Training = Training(
        steps=5000, batch_size=512, snapshot_every=1000, learning_rate=3e-3
    )
    """The training at every point."""
    axis: str = "attention.softmax"
    """The dial; `toyicl probe` lists them."""
    values: tuple[float, ...] = ()
    """Its values; none takes the axis's own."""
    second_axis: str | None = None
    """A second dial, for a map."""
    second_values: tuple[float, ...] = ()
    """Its values; none takes the axis's own."""
    tolerance: float = 0.05
    """Share of its answers that a model may leave to be called explained."""
    evaluation_episodes: int = 20_000
    """Held-out episodes at each point."""

    def __post_init__(self) -> None:
        require_size("evaluation_episodes", self.evaluation_episodes)
        require_positive("tolerance", self.tolerance)
        require(self.second_axis != self.axis, "second_axis", "another than axis", self.axis)
        given = self.second_axis is not None or not self.second_values
        require(given, "second_values", "left out without second_axis", self.second_values)
        for values in self.along():
            require_increasing("values", values)
        # Refused here, before anything is trained.
        places = [self.place(point) for point in self.points()]
        apart = all(place not in places[:index] for index, place in enumerate(places))
        require(apart, "second_axis", f"one that leaves {self.axis} as it is", self.second_axis)

    def along(self) -> tuple[tuple[float, ...], ...]:
        """The values of each axis."""
        first = self.values or departures.find(self.axis).values
        if self.second_axis is None:
            return (first,)
        return first, self.second_values or departures.find(self.second_axis).values

    def points(self) -> list[tuple[float, ...]]:
        """The values of all axes at each point, the last axis fastest."""
        return list(itertools.product(*self.along()))

    def place(self, point: tuple[float, ...]) -> departures.Place:
        """The task and the model at a point."""
        place: departures.Place = (self.task, self.model)
        for name, value in zip(self._names(), point, strict=True):
            place = departures.find(name).place(name, place, value)
        return place

    def name(self, point: tuple[float, ...]) -> str:
        """Name of the training at a point."""
        return ", ".join(
            f"{axis} = {value}" for axis, value in zip(self._names(), point, strict=True)
        )

    def _names(self) -> list[str]:
        return [self.axis] if self.second_axis is None else [self.axis, self.second_axis]


def trainings(settings: Probe) -> dict[str, Job]:
    """One training at every point."""
    jobs = {}
    for point in settings.points():
        task, model = settings.place(point)
        jobs[settings.name(point)] = Job(model, task, settings.training)
    return jobs


def measure(settings: Probe, histories: Histories) -> xr.Dataset:
    """Compare the model at every point with gradient descent, trained and untrained.

    Dimensions: axis (one entry, its name), value, second_value if there is a second axis, stage
    ("untrained", "trained"), seed.
    """
    rows = []
    for point in settings.points():
        (task, model), history = settings.place(point), histories[settings.name(point)]
        steps = model.depth - (model.tokens == "separate")  # a layer of those only arranges
        rows.append(beside_descent(history, task, steps, settings.evaluation_episodes))
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
            "second_axis": settings.second_axis or "",
            "tolerance": settings.tolerance,
            "steps": int(settings.training.steps),
        },
    ).expand_dims({"axis": [settings.axis]})


def beside_descent(
    history: History, task: Task, steps: int, evaluation_episodes: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Each seed compared with the best gradient descent on its task, before and after training.

    Variables by name, as dimensions and values: those of `CONTROLLED` (stage, seed), others (seed,),
    and the losses of gradient descent and of predicting 0, numbers: on these episodes, and over all
    episodes, NaN where there is no closed form.
    """
    episodes = task.sample(jax.random.key(2022), evaluation_episodes)
    reference = best_descent(task, steps)
    floor = exact_losses(task, steps)
    first = jax.tree.map(lambda leaf: leaf[:, 0], history.learners)
    found = _beside(history.final, reference, episodes, *floor)
    control = _beside(first, reference, episodes, *floor)
    exact = dict(zip(("exact_gd_loss", "exact_zero_loss"), map(np.asarray, floor), strict=True))
    return {
        name: (("stage", "seed"), np.stack([control[name], values]))
        if name in CONTROLLED
        else (("seed",) * np.ndim(values), np.asarray(values))
        for name, values in (found | exact).items()
    }


def best_descent(task: Task, steps: int) -> GradientDescent:
    """The best gradient descent of one step size on a task: in closed form where there is one.

    Elsewhere the step size is searched for on 20,000 episodes of its own.
    """
    if _has_closed_form(task):
        return GradientDescent.shared(task, steps)  # type: ignore[arg-type]
    episodes = task.sample(jax.random.key(2021), TUNING_EPISODES)
    answers = predict(GradientDescent(1.0), episodes)
    one = float(jnp.vdot(answers, episodes.y_query) / jnp.vdot(answers, answers))
    if steps == 1:
        return GradientDescent(one)

    from scipy.optimize import minimize_scalar  # takes most of a second, and few commands tune

    @jax.jit
    def loss(factor: jax.Array) -> jax.Array:
        return metrics.loss(GradientDescent(factor * one, steps), episodes)

    # In units of the best single step, which may be tiny, and below 0.
    found = minimize_scalar(lambda factor: float(loss(jnp.asarray(factor))), bounds=(0, 2))
    return GradientDescent(float(found.x) * one, steps)


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
def _beside(
    models: Any,
    reference: GradientDescent,
    episodes: Episode,
    exact_gd_loss: float,
    exact_zero_loss: float,
) -> dict[str, jax.Array]:
    """What is measured of each model, (seed,), and of the reference, a number.

    The excess is how far the model is above the reference on the same episodes, over the exact distance
    of the reference from predicting 0, where that is known.
    """
    other = metrics.observe(reference, episodes)
    own, losses = jax.lax.map(
        lambda model: (metrics.observe(model, episodes), metrics.loss(model, episodes)), models
    )
    compared = jax.vmap(metrics.difference, (0, None, 0))(own, other, losses)
    gd_loss, zero_loss = metrics.loss(reference, episodes), metrics.zero_loss(episodes)
    apart = jnp.sum((own.predictions - other.predictions[None]) ** 2, axis=(1, 2))
    known = ~jnp.isnan(exact_gd_loss)
    way = jnp.where(known, exact_zero_loss - exact_gd_loss, zero_loss - gd_loss)
    excess = (compared.loss - gd_loss) / way
    return {
        **compared._asdict(),
        "excess": excess,
        "unexplained": apart / jnp.sum(own.predictions**2, axis=(1, 2)),
        "gd_loss": gd_loss,
        "zero_loss": zero_loss,
        "on_plateau": excess > STUCK,
    }
