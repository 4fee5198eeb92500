"""What determines a training, in a form that can be saved and compared."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import jax
import numpy as np

from toyicl.core import strict_json
from toyicl.harness.trainings import Declared

Description = dict[str, Any]
"""Learner, task, training settings, objective and seeds of a training, for JSON."""
MOST_ENTRIES = 16
"""Arrays with more entries are described by their digest."""


class _NotDescribed(Exception):  # noqa: N818 (it ends a description, and is no error of the user)
    """A value of which it cannot be told whether another one is equal."""


def describe(trainings: Sequence[Declared], seeds: Sequence[int]) -> dict[str, Description | None]:
    """The description of each training by its full name.

    None for a training with values that cannot be compared, such as functions with a closure.
    """
    return {one.full_name: _training(one, seeds) for one in trainings}


def continues(then: Description | None, now: Description | None) -> bool:
    """Whether a training can be resumed from another one: it may have further seeds, and no less."""
    if then is None or now is None:
        return False
    first = now["seeds"][: len(then["seeds"])]
    return then == now | {"seeds": first}


def _training(training: Declared, seeds: Sequence[int]) -> Description | None:
    job = training.job
    try:
        plain = {
            "build": _plain(job.build),
            "task": _plain(job.task),
            "training": _plain(job.training),
            "objective": _plain(job.objective),
            "seeds": list(job.seeds(seeds)),
        }
    except _NotDescribed:
        return None
    return json.loads(strict_json.text(plain))  # as it will be read back


def _plain(value: Any) -> Any:
    """A value for JSON, with the names of classes; raises _NotDescribed where that is not possible."""
    if isinstance(value, float):
        return strict_json.number(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, type | FunctionType):
        return _name(value)
    if dataclasses.is_dataclass(value):
        fields = {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
        return {"class": _name(type(value)), **fields}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic | jax.Array) and value.dtype.kind in "biuf":
        return _array(np.asarray(value))
    raise _NotDescribed


def _array(array: np.ndarray) -> Any:
    """The entries of an array, or their digest if there are many."""
    kind = f"{array.dtype.name} {array.shape}"
    if array.size <= MOST_ENTRIES:
        return [kind, _plain(array.tolist())]
    return [kind, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]


def _name(value: type | FunctionType) -> str:
    """Module and name of a class or a function that a module defines."""
    closure = getattr(value, "__closure__", None)
    if "<" in value.__qualname__ or closure:  # others may have the same name
        raise _NotDescribed
    return f"{value.__module__}.{value.__qualname__}"
