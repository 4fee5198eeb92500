"""Every settings class refuses a value of the wrong kind, in every field, by the field's name.

Classes are found in the packages and in the experiments, so that a new one is tested as it is.
"""

import dataclasses
import importlib
import pkgutil
import types
import typing
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import refused

import toyicl
from toyicl.algorithms import GradientDescent
from toyicl.core.config import named_in_errors, settings, static
from toyicl.core.errors import BadSetting
from toyicl.harness import experiment
from toyicl.models.transformer import Architecture
from toyicl.studies.alignment import DeepStudy
from toyicl.tasks import LinearRegression, Mixture
from toyicl.training.step import StartFrom, Training

PACKAGES = ("tasks", "models", "algorithms", "training", "finetuning", "studies")
"""Packages all of whose dataclasses are settings, but for those in `OTHERS`."""
OTHERS = ("SharedRateLoss", "CacheRepair")
"""Dataclasses that users do not construct."""
CONSTRUCTED = {
    StartFrom: lambda: StartFrom(learner=GradientDescent(1.0)),
    DeepStudy: lambda: DeepStudy(model=Architecture(depth=2)),
}
"""Instances of classes that have no defaults, or none that are allowed together."""

VALUES = {
    "text": "no such value",
    "None": None,
    "bool": True,
    "int": 3,
    "float": 2.5,
    "array of NumPy": np.ones(2),
    "number of NumPy": np.ones(()),
    "array of numbers of JAX": jnp.ones(()),
    "array of whole numbers of JAX": jnp.ones((), int),
    "array of booleans of JAX": jnp.ones((), bool),
    "list": [1.0],
    "tuple of texts": ("no", "such"),
    "object": object(),
}
"""Values of all kinds, by the names of their kinds."""
OF_KIND = {
    bool: {"bool"},
    int: {"int"},
    float: {"int", "float"},
    str: {"text"},
    type(None): {"None"},
    tuple[str, ...]: {"tuple of texts"},
}
"""Kinds that an annotation accepts; no value of `VALUES` suits another annotation."""
TRACED = {
    int: {"array of whole numbers of JAX"},
    float: {"array of whole numbers of JAX", "array of numbers of JAX"},
    tuple[float, ...]: {"array of whole numbers of JAX", "array of numbers of JAX"},
}
"""Kinds that the annotation of a leaf of a pytree accepts as well."""


def classes_of_packages():
    """All dataclasses of the packages that settings are defined in."""
    found = {}
    for package in PACKAGES:
        for module in pkgutil.walk_packages([f"{toyicl.__path__[0]}/{package}"]):
            name = f"toyicl.{package}.{module.name}"
            for value in vars(importlib.import_module(name)).values():
                if dataclasses.is_dataclass(value) and getattr(value, "__module__", "") == name:
                    found[value.__qualname__] = value
    return {name: value for name, value in found.items() if name not in OTHERS}


def classes_of_experiments():
    """The settings class of every experiment, with full settings."""
    loaded = {listing.name: experiment.load(listing).full for listing in experiment.listings()}
    return {f"{name}.{type(full).__name__}": full for name, full in loaded.items()}


PACKAGED = {name: CONSTRUCTED.get(cls, cls)() for name, cls in classes_of_packages().items()}
INSTANCES = PACKAGED | classes_of_experiments()


def kinds_of(annotation, *, traced):
    """Names of the kinds of values that an annotation accepts, for the values above."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = (kinds_of(part, traced=traced) for part in typing.get_args(annotation))
        return set().union(*parts)
    return OF_KIND.get(annotation, set()) | (TRACED.get(annotation, set()) if traced else set())


def is_pytree(instance):
    """Whether a class is registered as a pytree, so that its scales may be traced."""
    return jax.tree_util.all_leaves([instance]) is False


def require_refusals(instance):
    """Check that an instance cannot be changed to have a value of the wrong kind in any field."""
    cls, hints = type(instance), typing.get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        traced = is_pytree(instance) and not field.metadata.get("static")
        accepted = kinds_of(hints[field.name], traced=traced)
        for kind, value in VALUES.items():
            if kind not in accepted:
                error = refused(BadSetting, partial(replace, instance, **{field.name: value}))
                assert (error.owner, error.field) == (cls, field.name), kind
                assert error.value is value, kind
                assert str(error).startswith(f"{cls.__name__}.{field.name} must be "), kind


@pytest.mark.parametrize("name", INSTANCES)
def test_every_field_refuses_values_of_other_kinds(name):
    require_refusals(INSTANCES[name])


@pytest.mark.parametrize("name", [name for name in INSTANCES if is_pytree(INSTANCES[name])])
def test_scales_may_be_traced(name):
    """Settings are constructed anew with traced scales, as in a sweep that is one `jax.vmap`."""
    rebuilt = jax.eval_shape(replace, INSTANCES[name])
    assert jax.tree.structure(rebuilt) == jax.tree.structure(INSTANCES[name])


def test_the_classes_are_found():
    found = {type(instance) for instance in INSTANCES.values()}
    assert {LinearRegression, Mixture, Architecture, Training, StartFrom} <= found
    assert {"Study", "DeepStudy", "FinetuningStudy", "DepartureSweep"} <= set(PACKAGED)
    assert len(INSTANCES) == len(PACKAGED) + len(experiment.listings())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Training(steps="100"), "Training.steps must be a whole number, got '100'"),
        (lambda: Training(steps=100.0), "Training.steps must be a whole number, got 100.0"),
        (lambda: Training(b1=None), "Training.b1 must be a number, got None"),
        (lambda: Training(clip_norm="no"), "Training.clip_norm must be a number or None, got 'no'"),
        (lambda: Architecture(depth=True), "Architecture.depth must be a whole number, got True"),
        (lambda: Architecture(shared=1), "Architecture.shared must be True or False, got 1"),
        (
            lambda: Architecture(tokens=2),
            "Architecture.tokens must be one of joint, separate, got 2",
        ),
        (
            lambda: LinearRegression(covariance=(1.0, "2")),
            "LinearRegression.covariance must be a tuple of numbers or None, got (1.0, '2')",
        ),
        (
            lambda: LinearRegression(input_range=np.ones(())),
            "LinearRegression.input_range must be a number, got array(1.)",
        ),
        (
            lambda: LinearRegression(covariance=np.eye(2)),
            "LinearRegression.covariance must be a tuple of numbers or None, "
            "got array([[1., 0.], [0., 1.]])",
        ),
        (lambda: Mixture(base=3), "Mixture.base must be a LinearRegression, got 3"),
        (lambda: StartFrom(learner=3), "StartFrom.learner must be a Learner, got 3"),
    ],
)
def test_messages_name_field_value_and_what_is_allowed(make, message):
    assert str(refused(BadSetting, make)) == message


@dataclasses.dataclass(frozen=True)
class Unchecked:
    size: int = 1


@dataclasses.dataclass(frozen=True)
@named_in_errors
class Checked:
    size: int = 1
    pair: tuple[int, float] = (1, 2.0)
    anything: Any = None


@settings
class Scales:
    size: int = static(default=1)
    scale: float | None = None


def test_a_class_that_checks_nothing_is_noticed():
    with pytest.raises(AssertionError):
        require_refusals(Unchecked())


def test_a_class_without_checks_of_its_own_is_checked():
    assert Checked(size=np.int64(2), anything=object()).size == 2
    assert Scales(scale=np.float32(2)).scale == 2
    for wrong in ((1,), (1, 2.0, 3.0), ("1", 2.0), [1, 2.0]):
        assert refused(BadSetting, Checked, pair=wrong).rule == "a tuple of 2 entries"
    require_refusals(Scales())
