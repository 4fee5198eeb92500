"""Settings classes: static sizes, scales that can be traced, and checks with uniform messages.

A settings class is a frozen dataclass registered as a pytree. Fields declared with `static` (sizes,
names of distributions, switches) are part of its structure: another value means another compiled
program. All other fields are leaves, which may be traced: a sweep over them is one `jax.vmap`, and
a second run with other values compiles nothing.

Settings are checked once, when they are constructed: first whether each field has the kind of value
that its annotation states (`kinds`), then by the class's own `__post_init__`. Rebuilding a pytree from
its leaves checks nothing, since JAX puts placeholders of any type there.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

from toyicl.core.errors import BadSetting
from toyicl.core.kinds import require_kinds
from toyicl.core.memory import amount, available, number_size

NUMBERS = (int, float, np.integer, np.floating)
"""Types of numbers, whose values are checked."""
ARRAYS = (np.ndarray, jax.Array)
"""Types of arrays, possibly traced. A scale may be an array, whose values are not checked."""

LARGEST_SIZE = 2**31 - 1
"""Largest size, and largest seed: XLA counts with integers of 32 bits."""

TRACED = "_traced_fields"
"""Attribute of a settings class with the names of the fields that may be traced."""

Class = TypeVar("Class")

static = partial(field, metadata={"static": True})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, static))
def settings(cls: type[Class]) -> type[Class]:
    """Class decorator: a frozen keyword-only dataclass, checked at construction, and a pytree."""
    made: Any = dataclass(frozen=True, kw_only=True)(named_in_errors(cls))
    names = {part.name: bool(part.metadata.get("static")) for part in fields(made)}
    leaves = [name for name, is_static in names.items() if not is_static]
    structure = [name for name, is_static in names.items() if is_static]
    keys = [jax.tree_util.GetAttrKey(name) for name in leaves]
    setattr(made, TRACED, frozenset(leaves))

    def flatten(instance: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return _values(instance, leaves), _values(instance, structure)

    def flatten_with_keys(instance: Any) -> tuple[Iterable[Any], tuple[Any, ...]]:
        values = _values(instance, leaves)
        return tuple(zip(keys, values, strict=True)), _values(instance, structure)

    def unflatten(structure_values: Iterable[Any], leaf_values: Iterable[Any]) -> Any:
        instance = object.__new__(made)
        found = zip(
            [*structure, *leaves], itertools.chain(structure_values, leaf_values), strict=True
        )
        for name, value in found:
            object.__setattr__(instance, name, value)
        return instance

    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


def _values(instance: Any, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(getattr(instance, name) for name in names)


def named_in_errors(cls: type[Class]) -> type[Class]:
    """Class decorator: fields of the wrong kind are refused, and a BadSetting names the class.

    Contained in `settings`; for dataclasses of settings that are not pytrees, below `dataclass`. A
    dataclass that is derived from a decorated one is checked as well, by the `__post_init__` that it
    inherits or calls.
    """
    check = getattr(cls, "__post_init__", _no_check)

    @functools.wraps(check)
    def checked(self: Any) -> None:
        require_kinds(self, getattr(type(self), TRACED, frozenset()))
        try:
            check(self)
        except BadSetting as error:
            if error.owner is None:
                raise error.of(type(self)) from None
            raise

    cls.__post_init__ = checked  # type: ignore[attr-defined]
    return cls


def _no_check(self: Any) -> None:
    """The check of a class without one of its own."""


def require(allowed: bool, name: str, rule: str, value: Any, *, owner: type | None = None) -> None:
    """Check a condition on a setting, of the settings class `owner` if it is checked elsewhere.

    Raises BadSetting, with the setting's name, what is allowed, and the value that was given.
    """
    if not allowed:
        raise BadSetting(name, rule, value, owner)


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Check that a number, such as a seed, is whole, at least `least`, and at most `LARGEST_SIZE`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(whole and value >= least, name, f"a whole number of at least {least}", value)
    require(value <= LARGEST_SIZE, name, f"at most {LARGEST_SIZE}", value)


def require_size(name: str, value: Any, least: int = 1) -> None:
    """Check a size as `require_whole` does, and that so many numbers would fit into memory."""
    if isinstance(value, int | np.integer) and value >= least:
        require_memory(name, value, int(value))
    require_whole(name, value, least)


def require_memory(name: str, value: Any, numbers: int, **others: int) -> None:
    """Check that so many numbers, which a setting with some value needs at once, fit into memory.

    Sizes multiply, so that a wrong digit can ask for more memory than there is. XLA then aborts the
    process, or the operating system ends it. `numbers` should be a lower bound, so that nothing is
    refused that fits. Raises BadSetting with the estimate, with the memory that there is, and with
    `others`, the sizes that it depends on as well.
    """
    needed = numbers * number_size()
    if needed > available():
        sizes = " and ".join(f"{size} {number}" for size, number in others.items())
        rule = (
            f"small enough for memory, which is {amount(available())} here, where an estimated "
            f"{amount(needed)} or more is needed" + (f" with {sizes}" if sizes else "")
        )
        require(False, name, rule, value)


def require_positive(name: str, value: Any) -> None:
    """Check that a scale is finite and positive; the values of arrays are not checked."""
    rule = "a finite number above 0"
    if is_number(name, rule, value):
        require(bool(0 < value < math.inf), name, rule, value)


def require_not_negative(name: str, value: Any) -> None:
    """Check that a scale is finite and not negative; the values of arrays are not checked."""
    rule = "a finite number of at least 0"
    if is_number(name, rule, value):
        require(bool(0 <= value < math.inf), name, rule, value)


def require_finite(name: str, value: Any) -> None:
    """Check that a number is finite; the values of arrays are not checked."""
    rule = "a finite number"
    if is_number(name, rule, value):
        require(math.isfinite(value), name, rule, value)


def require_fraction(name: str, value: Any) -> None:
    """Check that a fraction is between 0 and 1; the values of arrays are not checked."""
    rule = "between 0 and 1"
    if is_number(name, rule, value):
        require(bool(0 <= value <= 1), name, rule, value)


def is_number(name: str, rule: str, value: Any) -> bool:
    """Whether a scale is a number, whose value can be checked, and not an array, possibly traced.

    Raises BadSetting for anything else.
    """
    number = isinstance(value, NUMBERS) and not isinstance(value, bool)
    require(number or isinstance(value, ARRAYS), name, rule, value)
    return number


def require_at_most(name: str, value: Any, limit_name: str, limit: Any) -> None:
    """Check that one scale is at most another; the values of arrays are not checked."""
    if isinstance(value, NUMBERS) and isinstance(limit, NUMBERS):
        require(bool(value <= limit), name, f"at most {limit_name} ({limit})", value)


def require_different(name: str, values: Sequence[Any]) -> None:
    """Check that there is at least one value, and that none is repeated: values label results."""
    rule = "one value or more, each once"
    require(0 < len(values) == len(set(values)), name, rule, values)


def require_increasing(name: str, values: Sequence[float]) -> None:
    """Check that values are in strictly increasing order."""
    ordered = all(a < b for a, b in itertools.pairwise(values))
    require(ordered, name, "in increasing order, each once", values)


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that a value is one of the named choices."""
    require(value in choices, name, "one of " + ", ".join(choices), value)
