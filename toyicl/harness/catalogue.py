"""Catalogues of claims: the statements of one work, as a TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toyicl.core.errors import BadInput
from toyicl.harness.claim_values import with_cosine, with_staged_cosine
from toyicl.harness.claims import Claim, Value


def read(catalogue: Path, values: Mapping[str, Value]) -> tuple[Claim, ...]:
    """The claims of a catalogue for which values are given: {id: value}.

    The first lines of `experiments/von_oswald_2022/claims.toml` explain the entries. Raises BadInput
    for an id that is not in the catalogue and for entries that are wrong.
    """
    entries = tomllib.loads(catalogue.read_text(encoding="utf-8"))
    unknown = [name for name in values if name not in entries]
    if unknown:
        raise BadInput(f"claims must be in {catalogue}, got {', '.join(unknown)}")
    return tuple(_claim(entries["work"], name, entries[name], values[name]) for name in values)


def _claim(work: str, name: str, entry: dict[str, Any], value: Value) -> Claim:
    rest = dict(entry)
    shown = with_cosine(rest.pop("reference") or None) if "reference" in rest else {}
    shown |= with_staged_cosine() if rest.pop("control", False) else {}
    try:
        return Claim(
            name,
            rest.pop("statement"),
            value,
            tuple(rest.pop("band")),
            source=f"{work}, {rest.pop('source')}",
            floor=rest.pop("exact", None),
            shown_with=shown,
            **rest,
        )
    except (KeyError, TypeError) as error:
        raise BadInput(f"claim {name} of the catalogue must have known entries: {error}") from error
