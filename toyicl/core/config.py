"""What every settings class shares: sizes that are static, scales that can be traced, one error style.

A settings class is a frozen dataclass registered as a pytree. Fields declared with `static` (sizes,
laws, switches) are part of its structure: another value means another compiled program. All other
fields are leaves: they may be traced, so a sweep over them is one `jax.vmap` and a second run with
other values compiles nothing.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

from toyicl.core.errors import BadInput

NUMBERS = (int, float, np.integer, np.floating)
"""What can be checked: a leaf may also be traced, an array, or stand for one in a pytree."""

Class = TypeVar("Class")

static = partial(field, metadata={"static": True})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, static))
def settings(cls: type[Class]) -> type[Class]:
    """Class decorator: a frozen keyword-only dataclass, registered as a pytree."""
    return jax.tree_util.register_dataclass(dataclass(frozen=True, kw_only=True)(cls))


def require(allowed: bool, name: str, rule: str, value: Any) -> None:
    """Raise a BadInput that names the setting, what is allowed and what was given."""
    if not allowed:
        raise BadInput(f"{name} must be {rule}, got {value!r}")


def require_size(name: str, value: Any, least: int = 1) -> None:
    """Check that a size is a whole number of at least `least`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(whole and value >= least, name, f"a whole number of at least {least}", value)


def require_positive(name: str, value: Any) -> None:
    """Check that a scale is finite and positive; what is traced or an array cannot be checked."""
    require(not isinstance(value, str), name, "a finite number above 0", value)
    if isinstance(value, NUMBERS):
        require(bool(0 < value < math.inf), name, "a finite number above 0", value)


def require_not_negative(name: str, value: Any) -> None:
    """Check that a scale is finite and not negative; what is traced or an array cannot be checked."""
    require(not isinstance(value, str), name, "a finite number of at least 0", value)
    if isinstance(value, NUMBERS):
        require(bool(0 <= value < math.inf), name, "a finite number of at least 0", value)


def require_share(name: str, value: Any) -> None:
    """Check that a share is between 0 and 1; what is traced or an array cannot be checked."""
    require(not isinstance(value, str), name, "between 0 and 1", value)
    if isinstance(value, NUMBERS):
        require(bool(0 <= value <= 1), name, "between 0 and 1", value)


def require_different(name: str, values: Sequence[Any]) -> None:
    """Check that there is at least one value, and none twice: they label results."""
    rule = "one value or more, each once"
    require(0 < len(values) == len(set(values)), name, rule, values)


def require_increasing(name: str, values: Sequence[float]) -> None:
    """Check that values stand in increasing order, each once."""
    ordered = all(a < b for a, b in itertools.pairwise(values))
    require(ordered, name, "in increasing order, each once", values)


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that a value is one of the named choices."""
    require(value in choices, name, "one of " + ", ".join(choices), value)
