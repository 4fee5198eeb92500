"""The dials of a probe: each leads from one linear layer on linear tasks to something else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from toyicl.core.config import require
from toyicl.core.errors import BadInput
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression, Task
from toyicl.tasks.nonlinear import Teacher, TeacherRegression

Place = tuple[Task, Architecture]
"""Where a probe measures: a task, and the model that is trained on it."""

CLIP_BEYOND = 2
"""Layers beyond which tokens are clipped, as in the released code."""


class Axis(NamedTuple):
    """One departure from what is known to be gradient descent."""

    meaning: str
    """What its values say."""
    values: tuple[float, ...]
    """Values to measure at, if none are given."""
    turn: Callable[[Place, float], Place]
    """The task and the model with the dial at a value."""
    whole: bool = False
    """Whether its values are whole numbers; each is then a program of its own."""

    def place(self, name: str, place: Place, value: float) -> Place:
        """The task and the model with the dial at a value.

        Raises BadInput, which names the axis, for a value that is not allowed.
        """
        rule = f"whole numbers for {name}"
        require(not self.whole or float(value).is_integer(), "values", rule, value)
        try:
            return self.turn(place, int(value) if self.whole else float(value))
        except BadInput as error:
            raise BadInput(f"{name} cannot be {value:g} here: {error}") from error


def find(name: str) -> Axis:
    """The axis of a name; raises BadInput, with all names, if there is none."""
    if name not in AXES:
        raise BadInput(f"axis must be one of {', '.join(AXES)}, got {name!r}")
    return AXES[name]


def _model(**changes: Any) -> Callable[[Place, float], Place]:
    """An axis of the model: settings by name, "value" where the value goes."""

    def turn(place: Place, value: float) -> Place:
        task, model = place
        found: Any = {name: value if to == "value" else to for name, to in changes.items()}
        return task, replace(model, **found)

    return turn


def _depth(*, shared: bool) -> Callable[[Place, float], Place]:
    def turn(place: Place, value: float) -> Place:
        task, model = place
        clip = 10.0 if value > CLIP_BEYOND else None
        depth = int(value) + (model.tokens == "separate")  # whose first layer only arranges
        return task, replace(model, depth=depth, shared=shared, token_clip=clip)

    return turn


def _temperature(place: Place, value: float) -> Place:
    task, model = place
    kind = "softmax" if model.attention == "linear" else model.attention
    return task, replace(model, attention=kind, temperature=value)


def _teacher(kind: Teacher) -> Callable[[Place, float], Place]:
    def turn(place: Place, value: float) -> Place:
        task, model = place
        return TeacherRegression(base=_base(task), teacher=kind, fraction=value), model

    return turn


def _noise(place: Place, value: float) -> Place:
    task, model = place
    return _with_base(task, label_noise=value), model


def _anisotropy(place: Place, value: float) -> Place:
    task, model = place
    require(value >= 1, "the ratio of variances", "at least 1", value)
    variances = np.geomspace(value, 1.0, task.dim)
    return _with_base(task, covariance=tuple((variances / variances.mean()).tolist())), model


def _separate(place: Place, value: float) -> Place:
    task, model = place
    require(value in (0, 1), "tokens", "0 (joint) or 1 (separate)", value)
    if not value:
        return task, model
    separate = replace(model, tokens="separate", first_attention="softmax", key_size=20)
    return task, replace(separate, depth=model.depth + 1)


def _base(task: Task) -> LinearRegression:
    """The linear task that a task is built on."""
    base = task.base if isinstance(task, TeacherRegression) else task
    if not isinstance(base, LinearRegression):
        raise BadInput(f"the task must be linear underneath, got {type(base).__name__}")
    return base


def _with_base(task: Task, **changes: Any) -> Task:
    base = replace(_base(task), **changes)
    return replace(task, base=base) if isinstance(task, TeacherRegression) else base


SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
AXES: dict[str, Axis] = {
    "attention.softmax": Axis(
        "share of softmax in what attention reads: 0 linear, 1 softmax",
        SHARES,
        _model(attention="mixed", softmax_fraction="value"),
    ),
    "attention.temperature": Axis(
        "softmax attention, or its share of mixed: what its scores are divided by",
        (0.1, 0.3, 1.0, 3.0, 10.0),
        _temperature,
    ),
    "attention.heads": Axis("number of heads", (1, 2, 4), _model(heads="value"), whole=True),
    "model.depth": Axis(
        "number of layers, with weights of their own", (1, 2, 3), _depth(shared=False), whole=True
    ),
    "model.recurrent_depth": Axis(
        "number of layers, with the same weights", (1, 2, 3), _depth(shared=True), whole=True
    ),
    "mlp.gate": Axis(
        "factor on the update of an MLP of 40 units after each layer",
        (0.0, 0.25, 0.5, 0.75, 1.0),
        _model(mlp_size=40, mlp_gate="value"),
    ),
    "norm.gate": Axis(
        "how far tokens are normalised before attention: 1 is LayerNorm",
        (0.0, 0.25, 0.5, 0.75, 1.0),
        _model(layer_norm=True, norm_gate="value"),
    ),
    "task.sine": Axis("share of sin(2 w.x) in the labels", SHARES, _teacher("sine")),
    "task.network": Axis(
        "share of a network of 20 hidden units in the labels", SHARES, _teacher("network")
    ),
    "task.noise": Axis(
        "standard deviation of the noise on context labels", (0.0, 0.25, 0.5, 1.0, 2.0), _noise
    ),
    "task.anisotropy": Axis(
        "largest over smallest variance of the inputs, at the same mean",
        (1.0, 2.0, 5.0, 10.0, 30.0),
        _anisotropy,
    ),
    "tokens.separate": Axis(
        "0: joint tokens; 1: separate ones, with a softmax layer before",
        (0, 1),
        _separate,
        whole=True,
    ),
}
