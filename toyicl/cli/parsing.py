"""Words to values: tyro's parsing with its complaints as one line, and the settings of a sweep."""

import contextlib
import dataclasses
import difflib
import io
import math
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import tyro
import tyro.extras

from toyicl.core.errors import BadInput

NONE_OR = r":( \S+:)? no type matching \{{None\}}\|{} could .* \['(.*?)'\]\. .*"
REWORDED = {
    r":( INT:)? invalid literal for int\(\) with base 10:": " must be a whole number, got",
    r":( FLOAT:)? could not convert string to float:": " must be a number, got",
    NONE_OR.format("INT"): r" must be None or a whole number, got '\2'",
    NONE_OR.format("FLOAT"): r" must be None or a number, got '\2'",
    r" for argument 'value'": "",
}
"""What is said of words that are not of a kind, by what tyro says."""


def parse_command(kinds: dict[str, Callable[..., Any]], words: Sequence[str]) -> Any:
    """The command that the words stand for.

    Raises BadInput with what tyro has to say of bad ones.
    """
    with _complaints():
        return tyro.extras.subcommand_cli_from_dict(
            kinds, prog="toyicl", description="`toyicl --version` prints the version.", args=words
        )


def parse_sweep(settings: Any, words: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each swept setting by its path, from words such as task.input_range=0.5,1,2.

    FIRST:LAST:COUNT stands for evenly spaced numbers, as in `parse_values`.

    Raises BadInput for a setting that does not exist or is not a single value, and for values that are
    missing, alike, or of the wrong kind.
    """
    sweep: dict[str, list[Any]] = {}
    for word in words:
        name, equals, texts = word.partition("=")
        path = name.strip().removeprefix("settings.").replace("-", "_")
        if not equals or not texts.strip():
            raise BadInput(
                f"sweep must be SETTING=VALUE,VALUE,... or SETTING=FIRST:LAST:COUNT, got {word!r}"
            )
        if path in sweep:
            raise BadInput(f"sweep must name a setting once, got {path} again")
        kind = _kind(settings, path)
        values = _values(kind, path, texts)
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise BadInput(f"sweep of {path} must have values that differ, got {twice[0]!r} twice")
        sweep[path] = values
    return sweep


def parse_values(text: str) -> tuple[float, ...]:
    """Numbers from FIRST:LAST:COUNT, both ends included, or from VALUE,VALUE,...

    Raises BadInput for anything else, for numbers that are not finite, and for a COUNT of 1 that would
    leave LAST out.
    """
    rule = (
        "values must be FIRST:LAST:COUNT, with a COUNT of at least 2, or VALUE,VALUE,..., of finite "
        f"numbers, got {text!r}"
    )
    try:
        if ":" in text:
            first, last, count = text.split(":")
            size = int(count)
            if size == 1 and float(first) != float(last):
                raise ValueError  # LAST would be left out
            step = (float(last) - float(first)) / max(size - 1, 1)
            values = [float(first) + step * index for index in range(size)]
        else:
            values = [float(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(rule) from None
    if not values or not all(math.isfinite(value) for value in values):
        raise BadInput(rule)
    return tuple(float(f"{value:.12g}") for value in values)


def with_values(settings: Any, values: dict[str, Any]) -> Any:
    """Settings with other values at some paths.

    Raises BadInput, from the settings themselves, for a value that is not allowed.
    """
    for path, value in values.items():
        settings = _with_value(settings, path.split("."), value)
    return settings


def _with_value(settings: Any, path: list[str], value: Any) -> Any:
    first, *rest = path
    inner = _with_value(getattr(settings, first), rest, value) if rest else value
    return dataclasses.replace(settings, **{first: inner})


def _kind(settings: Any, path: str) -> Any:
    """The type of the single value at a path."""
    known, here = _paths(settings), settings
    for name in path.split("."):
        if not dataclasses.is_dataclass(here) or name not in typing.get_type_hints(type(here)):
            nearest = difflib.get_close_matches(path, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise BadInput(f"sweep must name a setting, got {path!r}{hint}")
        kind = typing.get_type_hints(type(here))[name]
        here = getattr(here, name)
    if path not in known:
        raise BadInput(f"sweep must name a single value, got {path}, which holds several")
    return kind


def _paths(settings: Any, before: str = "") -> list[str]:
    """Paths of all settings that are single values."""
    found: list[str] = []
    for field in dataclasses.fields(settings):
        value, path = getattr(settings, field.name), f"{before}{field.name}"
        kind = typing.get_type_hints(type(settings))[field.name]
        if dataclasses.is_dataclass(value):
            found += _paths(value, f"{path}.")
        elif "tuple" not in str(kind):
            found.append(path)
    return found


def _values(kind: Any, path: str, texts: str) -> list[Any]:
    """The values that a word lists, or those of the range that it gives."""
    if ":" not in texts or not {int, float} & {kind, *typing.get_args(kind)}:
        return [_parse_value(kind, path, text.strip()) for text in texts.split(",")]
    try:
        numbers = parse_values(texts)
    except BadInput as error:
        raise BadInput(f"sweep of {path}: {error}") from None
    try:
        return [_parse_value(kind, path, _as_text(number)) for number in numbers]
    except BadInput as error:
        raise BadInput(f"{error}, from {texts}") from None


def _as_text(value: float) -> str:
    """A number as one would type it: a whole one without a point."""
    return str(int(value)) if value.is_integer() else repr(value)


def _parse_value(kind: Any, path: str, text: str) -> Any:
    value = dataclasses.make_dataclass(path, [("value", Annotated[kind, tyro.conf.Positional])])
    with _complaints(f"sweep of {path}: "):
        parsed: Any = tyro.cli(value, args=[text], config=(tyro.conf.FlagConversionOff,))
    return parsed.value


@contextlib.contextmanager
def _complaints(before: str = "") -> Iterator[None]:
    """Turn what tyro prints before it exits with an error into a BadInput of one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        raise BadInput(_one_line(before, complaint.getvalue())) from None


def _one_line(before: str, box: str) -> str:
    """The message in tyro's framed text: its lines up to the first rule, joined, in our words."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:] if not line.startswith("╰")]
    text = before + " ".join(line for line in lines if not line.startswith("───"))
    text = text.split("For full helptext")[0].split("Argument helptext")[0]
    text = re.sub(r" in toyicl (\w+ )?--help", "", text)
    text = text.replace("Error parsing ", "").replace("__tyro-dummy-inner__.", "")
    text = re.sub(r"\s+", " ", text).strip()
    for found, ours in REWORDED.items():
        text = re.sub(found, ours, text)
    return text
