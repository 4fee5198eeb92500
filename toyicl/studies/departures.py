"""Factors that lead away from one linear layer on linear tasks, each with the values to measure at."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from toyicl.core.config import require
from toyicl.core.errors import BadInput
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression, Task
from toyicl.tasks.nonlinear import Teacher, TeacherRegression

Setup = tuple[Task, Architecture]
"""A task, and the model that is trained on it."""

CLIP_BEYOND = 2
"""Number of layers beyond which tokens are clipped, as in the released code."""


class Factor(NamedTuple):
    """One way to depart from a setup in which the model is known to be gradient descent."""

    meaning: str
    """What its values mean."""
    values: tuple[float, ...]
    """Values to measure at, if none are given."""
    change: Callable[[Setup, float], Setup]
    """Gives the task and the model a value of the factor."""
    whole: bool = False
    """Whether its values are whole numbers; each of them is then compiled by itself."""

    def at(self, name: str, setup: Setup, value: float) -> Setup:
        """The task and the model with a value of the factor, which has the given name.

        Raises BadInput, which names the factor, for a value that is not allowed.
        """
        rule = f"whole numbers for {name}"
        require(not self.whole or float(value).is_integer(), "values", rule, value)
        try:
            return self.change(setup, int(value) if self.whole else float(value))
        except BadInput as error:
            raise BadInput(f"{name} cannot be {value:g} here: {error}") from error


def find(name: str) -> Factor:
    """The factor with a name; raises BadInput, with all names, if there is none."""
    if name not in FACTORS:
        raise BadInput(f"factor must be one of {', '.join(FACTORS)}, got {name!r}")
    return FACTORS[name]


def _model(**changes: Any) -> Callable[[Setup, float], Setup]:
    """A factor of the model: settings by name, with "value" in place of the factor's value."""

    def change(setup: Setup, value: float) -> Setup:
        task, model = setup
        found: Any = {name: value if to == "value" else to for name, to in changes.items()}
        return task, replace(model, **found)

    return change


def _depth(*, shared: bool) -> Callable[[Setup, float], Setup]:
    def change(setup: Setup, value: float) -> Setup:
        task, model = setup
        clip = 10.0 if value > CLIP_BEYOND else None
        depth = int(value) + (model.tokens == "separate")  # whose first layer only copies labels
        return task, replace(model, depth=depth, shared=shared, token_clip=clip)

    return change


def _temperature(setup: Setup, value: float) -> Setup:
    task, model = setup
    kind = "softmax" if model.attention == "linear" else model.attention
    return task, replace(model, attention=kind, temperature=value)


def _teacher(kind: Teacher) -> Callable[[Setup, float], Setup]:
    def change(setup: Setup, value: float) -> Setup:
        task, model = setup
        return TeacherRegression(base=_base(task), teacher=kind, fraction=value), model

    return change


def _noise(setup: Setup, value: float) -> Setup:
    task, model = setup
    return _with_base(task, label_noise=value), model


def _anisotropy(setup: Setup, value: float) -> Setup:
    task, model = setup
    require(value >= 1, "the ratio of variances", "at least 1", value)
    variances = np.geomspace(value, 1.0, task.dim)
    return _with_base(task, covariance=tuple((variances / variances.mean()).tolist())), model


def _separate(setup: Setup, value: float) -> Setup:
    task, model = setup
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


FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FACTORS: dict[str, Factor] = {
    "attention.softmax": Factor(
        "fraction of softmax attention: 0 is linear, 1 is softmax",
        FRACTIONS,
        _model(attention="mixed", softmax_fraction="value"),
    ),
    "attention.temperature": Factor(
        "softmax temperature, in addition to 1/sqrt(key size)",
        (0.1, 0.3, 1.0, 3.0, 10.0),
        _temperature,
    ),
    "attention.heads": Factor("number of heads", (1, 2, 4), _model(heads="value"), whole=True),
    "model.depth": Factor(
        "number of layers, each with its own weights", (1, 2, 3), _depth(shared=False), whole=True
    ),
    "model.recurrent_depth": Factor(
        "number of layers, all with the same weights", (1, 2, 3), _depth(shared=True), whole=True
    ),
    "mlp.gate": Factor(
        "factor on the update of an MLP of 40 units after each layer",
        (0.0, 0.25, 0.5, 0.75, 1.0),
        _model(mlp_size=40, mlp_gate="value"),
    ),
    "norm.gate": Factor(
        "interpolation between tokens (0) and their LayerNorm (1) as the input of attention",
        (0.0, 0.25, 0.5, 0.75, 1.0),
        _model(layer_norm=True, norm_gate="value"),
    ),
    "task.sine": Factor("fraction of sin(2 w.x) in the labels", FRACTIONS, _teacher("sine")),
    "task.network": Factor(
        "fraction of the output of a network of 20 hidden units in the labels",
        FRACTIONS,
        _teacher("network"),
    ),
    "task.noise": Factor(
        "standard deviation of the noise on context labels", (0.0, 0.25, 0.5, 1.0, 2.0), _noise
    ),
    "task.anisotropy": Factor(
        "ratio of the largest and the smallest variance of the inputs, at a fixed mean",
        (1.0, 2.0, 5.0, 10.0, 30.0),
        _anisotropy,
    ),
    "tokens.separate": Factor(
        "0: inputs and labels in joint tokens; 1: in separate tokens, after a softmax layer",
        (0, 1),
        _separate,
        whole=True,
    ),
}
