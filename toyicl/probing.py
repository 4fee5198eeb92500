"""The probe: models trained along one dial, or two, each beside gradient descent and its own control.

At each value of an axis (see `axes`) models are trained as one program where shapes allow, and set
beside the best gradient descent of as many steps on that task: by the loss that is left above it, by
cosine, norm ratio and distance, and by the share of the model's answers that it does not account for.
The same models before their first step are the control of every number.
"""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar

from toyicl import axes, metrics, panels, plotting, spectrum
from toyicl.episode import Episode, predict
from toyicl.experiment import Fit
from toyicl.fitting import History, Job
from toyicl.references import GradientDescent
from toyicl.settings import require, require_different, require_positive, require_size
from toyicl.tasks import LinearRegression, Task
from toyicl.training import Training
from toyicl.transformer import Architecture

TUNING_EPISODES = 20_000
CONTROLLED = (
    "loss",
    "excess",
    "model_cosine",
    "norm_ratio",
    "prediction_difference",
    "unexplained",
)
NAMES = {
    "excess": "excess",
    "model_cosine": "model cosine",
    "norm_ratio": "norm ratio",
    "unexplained": "left by GD",
}
"""Titles of what is drawn."""
SMALL = (3.3, 2.2)
"""Width and height of a panel, in inches, where several axes are drawn."""
MEANINGS = (
    "Excess: share of the way from predicting 0 to GD that is missing. Left by GD: share of the "
    "model's squared answers that GD does not account for."
)


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
    evaluation_episodes: int = 5000
    """Held-out episodes at each point."""

    def __post_init__(self) -> None:
        require_size("evaluation_episodes", self.evaluation_episodes)
        require_positive("tolerance", self.tolerance)
        require(self.second_axis != self.axis, "second_axis", "another than axis", self.axis)
        given = self.second_axis is not None or not self.second_values
        require(given, "second_values", "left out without second_axis", self.second_values)
        for values in self.along():
            require_different("values", values)
        # Refused here, before anything is trained.
        places = [self.place(point) for point in self.points()]
        apart = all(place not in places[:index] for index, place in enumerate(places))
        require(apart, "second_axis", f"one that leaves {self.axis} as it is", self.second_axis)

    def along(self) -> tuple[tuple[float, ...], ...]:
        """The values of each axis."""
        first = self.values or axes.find(self.axis).values
        if self.second_axis is None:
            return (first,)
        return first, self.second_values or axes.find(self.second_axis).values

    def points(self) -> list[tuple[float, ...]]:
        """The values of all axes at each point, the last axis fastest."""
        return list(itertools.product(*self.along()))

    def place(self, point: tuple[float, ...]) -> axes.Place:
        """The task and the model at a point."""
        place: axes.Place = (self.task, self.model)
        for name, value in zip(self._names(), point, strict=True):
            place = axes.find(name).place(name, place, value)
        return place

    def _names(self) -> list[str]:
        return [self.axis] if self.second_axis is None else [self.axis, self.second_axis]


def measure(settings: Probe, fit: Fit) -> xr.Dataset:
    """Train at every point, and set each model beside gradient descent, trained and untrained.

    Dimensions: axis (one entry, its name), value, second_value if there is a second axis, seed.
    """
    points, label = settings.points(), " x ".join(settings._names())
    places = [settings.place(point) for point in points]
    jobs = [
        Job(model, task, settings.training, ", ".join(f"{value:g}" for value in point))
        for point, (task, model) in zip(points, places, strict=True)
    ]
    rows = []
    for (task, model), history in zip(places, fit.together(jobs, label=label), strict=True):
        steps = model.depth - (model.tokens == "separate")  # a layer of those only arranges
        rows.append(beside_descent(history, task, steps, settings.evaluation_episodes))
    along = dict(zip(("value", "second_value"), map(list, settings.along()), strict=False))
    shape = tuple(len(values) for values in along.values())
    variables = {}
    for name in rows[0]:
        values = np.stack([np.asarray(row[name]) for row in rows])
        dims = (*along, "seed") if values.ndim > 1 else tuple(along)
        variables[name] = (dims, values.reshape(*shape, *values.shape[1:]))
    coordinates: dict[str, Any] = {**along, "seed": history.seeds}
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
) -> dict[str, jax.Array]:
    """Each seed beside the best gradient descent on its task, and beside itself before training.

    Arrays (seed,) by name, those of the untrained models with "untrained_" in front, and the losses of
    gradient descent and of predicting 0, numbers.
    """
    episodes = task.sample(jax.random.key(2022), evaluation_episodes)
    reference = best_descent(task, steps)
    first = jax.tree.map(lambda leaf: leaf[:, 0], history.learners)
    found = _beside(history.final, reference, episodes)
    control = _beside(first, reference, episodes)
    return found | {f"untrained_{name}": control[name] for name in CONTROLLED}


def best_descent(task: Task, steps: int) -> GradientDescent:
    """The best gradient descent of one step size on a task: in closed form where there is one.

    Elsewhere the step size is searched for on 20,000 episodes of its own.
    """
    plain = isinstance(task, LinearRegression) and task.covariance is None and not task.distractors
    if plain and task.input_law in spectrum.COORDINATE_MOMENTS:  # type: ignore[attr-defined]
        return GradientDescent.shared(task, steps)  # type: ignore[arg-type]
    episodes = task.sample(jax.random.key(2021), TUNING_EPISODES)
    answers = predict(GradientDescent(1.0), episodes)
    one = float(jnp.vdot(answers, episodes.y_query) / jnp.vdot(answers, answers))
    if steps == 1:
        return GradientDescent(one)

    @jax.jit
    def loss(factor: jax.Array) -> jax.Array:
        return metrics.loss(GradientDescent(factor * one, steps), episodes)

    # In units of the best single step, which may be tiny, and below 0.
    found = minimize_scalar(lambda factor: float(loss(jnp.asarray(factor))), bounds=(0, 2))
    return GradientDescent(float(found.x) * one, steps)


@jax.jit
def _beside(models: Any, reference: GradientDescent, episodes: Episode) -> dict[str, jax.Array]:
    """What is measured of each model, (seed,), and of the reference, a number."""
    other = metrics.observe(reference, episodes)
    own = jax.lax.map(partial(metrics.observe, episodes=episodes), models)
    compared = jax.vmap(metrics.difference, (0, None, None))(own, other, episodes)
    gd_loss = metrics.squared_error(other.predictions, episodes)
    zero_loss = metrics.zero_loss(episodes)
    apart = jnp.sum((own.predictions - other.predictions[None]) ** 2, axis=(1, 2))
    return {
        **compared._asdict(),
        "excess": (compared.loss - gd_loss) / (zero_loss - gd_loss),
        "unexplained": apart / jnp.sum(own.predictions**2, axis=(1, 2)),
        "gd_loss": gd_loss,
        "zero_loss": zero_loss,
        # Only where gradient descent itself gets away from predicting 0 is there a plateau to tell.
        "on_plateau": (gd_loss < 0.8 * zero_loss) & (compared.loss > (gd_loss + zero_loss) / 2),
    }


def draw(results: xr.Dataset) -> Figure:
    """Curves along one axis, or maps over two, of all that was measured."""
    if "second_value" in results.dims:
        return _draw_map(results)
    return draw_axes(results, {str(results["axis"][0].item()): ""})


def draw_axes(results: xr.Dataset, titles: dict[str, str]) -> Figure:
    """A row of panels for each axis: what is missing, cosine, norm ratio, what GD leaves."""
    drawn: dict[str, panels.Panel] = {}
    for name, title in titles.items():
        before = f"{title}: " if title else ""
        for variable, shown in NAMES.items():
            panel = partial(_along, variable=variable, axis=name)
            drawn[before + shown] = panels.of(panel, axis=name)
    sentence = (
        f"{MEANINGS} Dotted: the same models untrained; grey rings: seeds on their plateau. "
        f"{results.attrs['steps']} training steps at every value."
    )
    size = plotting.PANEL if len(titles) == 1 else SMALL
    return panels.figure(results, drawn, sentence, columns=4, size=size)


def _along(canvas: Axes, results: xr.Dataset, *, variable: str, axis: str) -> None:
    names = {variable: "trained", f"untrained_{variable}": "untrained"}
    results = results.dropna("value", how="all", subset=["loss"])  # values of other axes
    values = results["value"].values
    log = len(values) > 1 and bool((values > 0).all()) and values.max() / values.min() >= 30
    stuck = results.on_plateau.astype(bool)
    for (name, label), style in zip(names.items(), ("-o", ":s"), strict=True):
        color = plotting.MODEL if name == variable else plotting.REFERENCE
        shown = results[name].where(~stuck) if name == variable else results[name]
        plotting.every_seed(canvas, shown, "value", label=label, color=color, style=style)
    for rings in results[variable].where(stuck).transpose("seed", "value"):
        if rings.notnull().any():
            canvas.plot(values, rings, "o", color="0.6", mfc="none")
    for line in canvas.lines:
        line.set_markersize(3)
    canvas.set(xlabel=axis, xscale="log" if log else "linear")
    if variable == "unexplained":
        canvas.set(yscale="log")
        plotting.floor_line(canvas, float(results.attrs["tolerance"]), "tolerance")
    else:
        low, high = canvas.get_ylim()
        canvas.set(ylim=(max(low, -0.5), min(high, 3)))
    canvas.legend()


def _typical(results: xr.Dataset, variable: str) -> xr.DataArray:
    """The median over the seeds that left their plateau; over all where none did."""
    values, stuck = results[variable].isel(axis=0), results.on_plateau.isel(axis=0)
    return values.where(~stuck | stuck.all("seed")).median("seed")


def _draw_map(results: xr.Dataset) -> Figure:
    """A heat map over both axes of each median over seeds, with the contour of the tolerance."""
    name, second = str(results["axis"][0].item()), str(results.attrs["second_axis"])
    tolerance = float(results.attrs["tolerance"])

    def heat(canvas: Axes, _: xr.Dataset, *, variable: str) -> None:
        medians = _typical(results, variable).clip(-0.5, 2)
        image = canvas.pcolormesh(
            results["value"], results.second_value, medians.T, cmap="viridis", shading="nearest"
        )
        canvas.figure.colorbar(image, ax=canvas, shrink=0.8)
        left = _typical(results, "unexplained").T
        crossed = float(left.min()) < tolerance < float(left.max())
        if crossed and min(left.shape) > 1:
            lines = canvas.contour(
                results["value"], results.second_value, left, [tolerance], colors="white"
            )
            canvas.clabel(lines, fmt={tolerance: f"{tolerance:g} left"})
        canvas.set(xlabel=name, ylabel=second)
        canvas.grid(visible=False)

    drawn: dict[str, panels.Panel] = {
        title: partial(heat, variable=variable) for variable, title in NAMES.items()
    }
    sentence = (
        f"{MEANINGS} Medians over the seeds that left their plateau "
        f"({int(results.on_plateau.sum())} of {results.on_plateau.size} did not); "
        f"{results.attrs['steps']} training steps at every point. White: where "
        f"gradient descent leaves {tolerance:.0%} of the model's answers."
    )
    counted = results.drop_vars("on_plateau")  # by the sentence; to name each would take a page
    return panels.figure(counted, drawn, sentence)
