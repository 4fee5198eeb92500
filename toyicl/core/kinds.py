"""Kinds of settings: whether a value is of the type that a field is annotated with.

A setting of the wrong kind, such as the text "100" for a number of steps, would otherwise fail much
later, or be used as something else: True as a depth of 1. `require_kinds` compares each field of a
dataclass with its annotation. A field that a compiled program may trace also accepts arrays of JAX.
"""

import functools
import types
import typing
from dataclasses import fields
from typing import Any, Literal, Protocol, TypeVar, Union

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.errors import BadSetting

SIMPLE: dict[Any, tuple[type, ...]] = {
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    bool: (bool, np.bool_),
    None: (type(None),),
    type(None): (type(None),),
}
"""Types of the values that annotations of single values accept."""
SCALARS: dict[Any, Any] = {int: jnp.integer, float: (jnp.integer, jnp.floating)}
"""Types of the entries of traced arrays that annotations of single values accept."""
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    None: "None",
    type(None): "None",
}
"""Annotations of single values in words."""
PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}
"""Annotations of the entries of a tuple in words."""


def require_kinds(settings: Any, traced: frozenset[str] = frozenset()) -> None:
    """Check that every field of a dataclass has a value of the kind that its annotation states.

    `traced` are the names of fields that may also be arrays of JAX, traced or not; their values are
    not checked. Raises BadSetting that names the first field of another kind.
    """
    cls: Any = type(settings)
    for name, annotation in _annotations(cls):
        value = getattr(settings, name)
        if not is_of_kind(annotation, value, traced=name in traced):
            raise BadSetting(name, described(annotation), value, cls)


@functools.cache
def _annotations(cls: type) -> tuple[tuple[str, Any], ...]:
    """The fields of a dataclass with their annotations."""
    hints = typing.get_type_hints(cls)
    return tuple((part.name, hints[part.name]) for part in fields(cls))


def is_of_kind(annotation: Any, value: Any, *, traced: bool = False) -> bool:
    """Whether a value is of the kind that an annotation states, or an array if it may be traced.

    Annotations that state no kind that could be checked, such as `Any`, accept every value.
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(is_of_kind(one, value, traced=traced) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if annotation in SIMPLE:
        if traced and isinstance(value, jax.Array):
            return annotation in SCALARS and _has_entries(value, SCALARS[annotation])
        kept = isinstance(value, SIMPLE[annotation])
        return kept and (annotation is bool or not isinstance(value, bool))
    if origin is tuple:
        return _is_tuple(inner, value, traced=traced)
    if getattr(annotation, "_is_protocol", False):
        instance = not isinstance(value, type)  # a class has the members of its instances
        return instance and all(hasattr(value, name) for name in _members(annotation))
    kind = origin or annotation
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


def _has_entries(value: jax.Array, kinds: Any) -> bool:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(jnp.issubdtype(value.dtype, kind) for kind in allowed)


def _is_tuple(inner: tuple[Any, ...], value: Any, *, traced: bool) -> bool:
    """Whether a value is a tuple whose entries are of the given kinds; `...` repeats the first one.

    Numbers that may be traced may also be an array, or a matrix by its rows.
    """
    numbers = traced and inner[-1:] == (...,) and inner[0] in SCALARS
    if numbers and isinstance(value, jax.Array):
        return _has_entries(value, SCALARS[inner[0]])
    if not isinstance(value, tuple):
        return False
    if numbers and value and all(isinstance(row, tuple) for row in value):
        return all(_is_tuple(inner, row, traced=traced) for row in value)
    kinds = (inner[0],) * len(value) if inner[-1:] == (...,) else inner
    same_length = len(kinds) == len(value)
    return same_length and all(
        is_of_kind(kind, entry, traced=traced) for kind, entry in zip(kinds, value, strict=True)
    )


def _members(protocol: type) -> set[str]:
    """Names that a class must have to follow a protocol; `__call__` is the only special one."""
    bases = (base for base in protocol.__mro__ if base not in (Protocol, typing.Generic, object))
    names = {name for base in bases for name in vars(base)}
    return {name for name in names if name == "__call__" or not name.startswith("_")}


def described(annotation: Any) -> str:
    """An annotation in words, for messages: "a whole number or None", "one of joint, separate"."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        parts = sorted(inner, key=lambda part: part is type(None))
        return " or ".join(described(part) for part in parts)
    if origin is tuple:
        whose = PLURALS.get(inner[0], f"entries that are each {described(inner[0])}")
        return f"a tuple of {whose}" if inner[-1:] == (...,) else f"a tuple of {len(inner)} entries"
    if isinstance(annotation, TypeVar):
        return str(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    name = getattr(annotation, "__name__", str(annotation))
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"
