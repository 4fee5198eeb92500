"""Parsing of command-line arguments, and of the values of a sweep."""

import contextlib
import dataclasses
import difflib
import io
import math
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import tyro
import tyro.extras

from toyicl.core.errors import BadInput, BadSetting
from toyicl.core.nesting import nested

Class = TypeVar("Class")
MOST_POINTS = 10_000
"""Largest number of values of a setting, and of points of a sweep, which have their own trainings."""
MOST_LINES = 3
"""Most lines of a message about a command line that cannot be parsed."""


def parse_command(kinds: dict[str, Callable[..., Any]], words: Sequence[str]) -> Any:
    """Parse command-line arguments into a command.

    Raises BadUsage, with tyro's own message, if they are not valid, and BadSetting for a setting
    whose value is not allowed.
    """
    name = words[0] if words else ""
    with _errors():
        if name in kinds:  # so that messages and help are those of this command alone
            return tyro.cli(kinds[name], prog=f"toyicl {name}", args=words[1:])
        return tyro.extras.subcommand_cli_from_dict(
            kinds, prog="toyicl", description="`toyicl --version` prints the version.", args=words
        )


def parse_known(kind: type[Class], words: Sequence[str]) -> tuple[Class, list[str]]:
    """The options of one command, and the arguments that belong to none of them.

    Raises BadUsage for known options with bad values.
    """
    with _errors():
        return tyro.cli(kind, args=words, return_unknown_args=True, add_help=False)


def name_as_given(error: BadSetting, settings: Any, words: Sequence[str]) -> str:
    """The message of an error in settings, with the setting named as the user wrote it.

    `settings` are those that the words change by options such as --settings.training.steps. If several
    of the settings are of the error's class, it is the one whose options were given.
    """
    if error.owner is None:
        return str(error)
    places = [path for path, value in nested(settings) if isinstance(value, error.owner)]
    options = [
        word.partition("=")[0].removeprefix("--settings.").replace("-", "_")
        for word in words
        if word.startswith("--settings.")
    ]
    exact = [path for path in places if f"{path}{error.field}" in options]
    touched = [path for path in places if any(option.startswith(path) for option in options)]
    for found in (exact, touched, places):
        if len(found) == 1:
            return error.under(found[0] + error.field)
    return str(error)


def parse_sweep(settings: Any, words: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each swept setting by its path, from words such as task.input_range=0.5,1,2.

    FIRST:LAST:COUNT means evenly spaced numbers, as in `parse_values`.

    Raises BadInput for a setting that does not exist or is not a single value, and for values that are
    missing, alike, of the wrong kind, or too many.
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
    points = math.prod(map(len, sweep.values()))
    if points > MOST_POINTS:
        raise BadInput(f"sweep must have at most {MOST_POINTS} points, got {points}")
    return sweep


def parse_seeds(text: str) -> range:
    """Seeds from a number N, for 0, ..., N - 1, or from FIRST:END, for FIRST, ..., END - 1.

    Raises BadInput for anything else, and where that is no seed.
    """
    from toyicl.core.config import LARGEST_SIZE

    first, colon, end = text.partition(":")
    try:
        seeds = range(int(first), int(end)) if colon else range(int(text))
    except ValueError:
        seeds = range(0)
    if not seeds or seeds.start < 0:
        raise BadInput(
            "seeds must be a whole number of at least 1, or FIRST:END with 0 <= FIRST < END for the "
            f"seeds FIRST to END - 1, got {text!r}"
        )
    if seeds.stop > LARGEST_SIZE:
        raise BadInput(f"seeds must be below {LARGEST_SIZE}, got {text!r}")
    return seeds


def parse_values(text: str) -> tuple[float, ...]:
    """Numbers from FIRST:LAST:COUNT, both ends included, or from VALUE,VALUE,...

    Raises BadInput for anything else, for numbers that are not finite, for more than `MOST_POINTS` of
    them, and for a COUNT of 1 that would leave LAST out.
    """
    rule = (
        "values must be FIRST:LAST:COUNT, with a COUNT of at least 2, or VALUE,VALUE,..., of finite "
        f"numbers, got {text!r}"
    )
    try:
        if ":" in text:
            first, last, count = text.split(":")
            size = int(count)
            if size > MOST_POINTS:
                raise BadInput(f"values must have a COUNT of at most {MOST_POINTS}, got {text!r}")
            if size == 1 and float(first) != float(last):
                raise ValueError  # LAST would be left out
            step = (float(last) - float(first)) / max(size - 1, 1)
            values = [float(first) + step * index for index in range(size)]
        else:
            values = [float(part) for part in text.split(",")]
    except BadInput:
        raise
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
        try:
            settings = _with_value(settings, path.split("."), value)
        except BadSetting as error:
            raise BadInput(_under_path(error, settings, path)) from None
    return settings


def _under_path(error: BadSetting, settings: Any, path: str) -> str:
    """The message of an error, with the setting's path if it is in the settings that hold `path`."""
    if error.owner is None:
        return str(error)
    holders = [
        before
        for before, value in nested(settings)
        if path.startswith(before) and isinstance(value, error.owner)
    ]
    return error.under(holders[-1] + error.field) if holders else str(error)


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
    """Parse a text as a value of a type, by the rules of the command line."""
    from toyicl.core.kinds import described

    value = dataclasses.make_dataclass("value", [("value", Annotated[kind, tyro.conf.Positional])])
    try:
        with _errors():
            parsed: Any = tyro.cli(value, args=[text], config=(tyro.conf.FlagConversionOff,))
    except BadUsage:
        raise BadInput(f"sweep of {path} must be {described(kind)}, got {text!r}") from None
    return parsed.value


class BadUsage(BadInput):
    """The command-line arguments are not valid; the message is tyro's."""


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn tyro's exit with an error into a BadSetting, if that is its cause, or a BadUsage."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, BadSetting):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        raise BadUsage(_without_frame(message.getvalue())) from None


def _without_frame(text: str) -> str:
    """The text in the frame that tyro draws, a line for each of its first sections.

    The help texts of options that it lists are left out: they can be many times as long as the message.
    """
    rows = [line.strip("\u256d\u256e\u2570\u256f\u2502 ") for line in text.splitlines()]
    sections: list[list[str]] = [[]]
    for row in rows:
        if row.startswith("\u2500"):
            sections.append([])
        elif row:
            sections[-1].append(row)
    return "\n".join([_in_one_line(section) for section in sections if section][:MOST_LINES])


def _in_one_line(section: Sequence[str]) -> str:
    """A section of a message; of one that lists options, its heading and the options."""
    heading, *rows = section
    options = [row for row in rows if row.startswith("-")]
    if heading.endswith(":") and options:
        return f"{heading} {', '.join(options)}"
    return " ".join(section)
