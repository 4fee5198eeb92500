"""Catalogues of statements: the claims of one work, and toyicl's findings on it, as a TOML file."""

import copy
import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toyicl.core.errors import BadInput
from toyicl.harness.claim_values import with_cosine, with_staged_cosine
from toyicl.harness.claims import OURS, Claim, Finding
from toyicl.harness.evaluation import Value

HEAD = ("work", "author")
"""Entries of a catalogue that are not statements."""


def read(catalogue: Path, values: Mapping[str, Value]) -> tuple[Claim | Finding, ...]:
    """The statements of a catalogue for which values are given: {id: value}.

    The first lines of `experiments/von_oswald_2022/claims.toml` explain the entries. Raises BadInput
    for an id that is not in the catalogue and for entries that are wrong.
    """
    found = entries(catalogue)
    unknown = [name for name in values if name not in found]
    if unknown:
        raise BadInput(f"claims must be in {catalogue}, got {', '.join(unknown)}")
    return tuple(_statement(name, found[name], value) for name, value in values.items())


def entries(catalogue: Path) -> dict[str, dict[str, Any]]:
    """The entries of a catalogue by id, each with its work and its author.

    Raises BadInput for a file that cannot be read, that is not TOML, or that has anything but the work,
    the author and tables.
    """
    try:
        content = _parsed(catalogue.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{catalogue} must be a file of claims, got {error.strerror}") from error
    except ValueError as error:  # of TOML or of UTF-8
        raise BadInput(f"{catalogue} must be a TOML file: {error}") from error
    found = {name: entry for name, entry in content.items() if name not in HEAD}
    unknown = [name for name, entry in found.items() if not isinstance(entry, dict)]
    if unknown or "work" not in content:
        raise BadInput(
            f"{catalogue} must have a work, may have an author, and has a table for each statement, "
            f"got {', '.join(unknown) or 'no work'}"
        )
    head = {"work": content["work"], "author": content.get("author", "paper")}
    return {name: head | copy.deepcopy(entry) for name, entry in found.items()}


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> dict[str, Any]:
    """The content of a TOML file. All experiments of a work read its file, which is parsed once."""
    return tomllib.loads(text)


def _statement(name: str, entry: dict[str, Any], value: Value) -> Claim | Finding:
    rest = dict(entry)
    shown = with_cosine(rest.pop("reference") or None) if "reference" in rest else {}
    shown |= with_staged_cosine() if rest.pop("control", False) else {}
    try:
        common: dict[str, Any] = {
            "id": name,
            "statement": rest.pop("statement"),
            "value": value,
            "source": f"{rest['work']}, {rest.pop('source')}",
            "floor": rest.pop("exact", None),
            "shown_with": shown,
        }
        if rest["author"] == OURS:
            del rest["author"]
            return Finding(band=tuple(rest.pop("band")), **common, **rest)
        return Claim(reference=rest.pop("value", None), **common, **rest)
    except (KeyError, TypeError) as error:
        raise BadInput(f"claim {name} of the catalogue must have known entries: {error}") from error
