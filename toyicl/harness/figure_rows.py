"""Rows of the table of figures: which claims a figure of a paper consists of, and its verdict.

A folder of experiments may have a file `figures.toml` with an entry for each figure, proposition or
question, in the order of the work. Every claim of the folder's catalogues is in exactly one of them;
findings are in none.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toyicl.core.errors import BadInput
from toyicl.harness import catalogue
from toyicl.harness.claims import OURS
from toyicl.harness.verdicts import (
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_RUN,
    PROVED,
    REFUTED,
    REPRODUCED,
)

FILE = "figures.toml"
"""Name of the file with the rows of a folder."""
TRUE, FALSE = (REPRODUCED, PROVED), (NOT_REPRODUCED, REFUTED)
WORST_LAST = ("not run", "true", "open", "false")
"""States of a claim, in the order in which a row shows the last of them."""
Record = Mapping[str, Any]
"""A verdict on a claim, as `claims.Statement.judge` makes it."""


@dataclass(frozen=True)
class Row:
    """A figure, a proposition or a question, with its claims."""

    figure: str
    claims: str
    """What it claims, in a few words."""
    headline: str
    """Id of the claim whose value stands for the row, unless another one is worse: see `shown`."""
    parts: Mapping[str, Sequence[str]]
    """Ids of its claims, by part, such as a panel."""

    def ids(self) -> list[str]:
        """The ids of all its claims."""
        return [name for ids in self.parts.values() for name in ids]


def read(folder: Path) -> tuple[Row, ...]:
    """The rows of a folder of experiments, in order; none if it has no file of rows.

    Raises BadInput for entries that are wrong, for an id that is not that of a claim in a catalogue of
    the folder, and for a claim that is in no row or in several.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Row(figure=name, **entry) for name, entry in content.items())
    except (TypeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(
            f"{path} must have entries with claims, headline and parts: {error}"
        ) from error
    _require_each_claim_once(path, rows)
    return rows


def read_all(folder: Path, groups: Sequence[str]) -> list[Row]:
    """The rows of several folders of experiments below a folder, in order.

    Raises BadInput as `read` does.
    """
    return [row for group in groups for row in read(folder / group)]


def _require_each_claim_once(path: Path, rows: Sequence[Row]) -> None:
    catalogues = [other for other in path.parent.glob("*.toml") if other.name != FILE]
    claims = {
        name
        for other in catalogues
        for name, entry in catalogue.entries(other).items()
        if entry["author"] != OURS
    }
    found = Counter(name for row in rows for name in row.ids())
    rules = {
        "ids must be those of claims in a catalogue of the folder": found.keys() - claims,
        "every claim must be in a row; these are in none": claims - found.keys(),
        "a claim must be in one row only; these are in several": {
            name for name, count in found.items() if count > 1
        },
        "a headline must be one of the row's claims": {
            row.headline for row in rows if row.headline not in row.ids()
        },
    }
    for rule, wrong in rules.items():
        if wrong:
            raise BadInput(f"{path}: {rule}, got {', '.join(sorted(wrong))}")


def verdict(row: Row, records: Mapping[str, Sequence[Record]]) -> str:
    """The verdict on a row, as text, from the records of each of its claims by id.

    Where its parts differ, it names those that are not true, open, or not run; if all are open, it
    gives the reasons.
    """
    own = [record for name in row.ids() for record in records[name]]
    true, false = _words(own)
    states = {
        part: _state([record for name in ids for record in records[name]])
        for part, ids in row.parts.items()
    }
    reasons = {record["reason"]: None for record in own if record["verdict"] == INCONCLUSIVE}
    inconclusive = f"{INCONCLUSIVE} ({'; '.join(reasons)})"
    words = {"true": true, "false": false, "open": inconclusive, "not run": NOT_RUN}
    kinds = set(states.values())
    if len(kinds) == 1:
        return words[kinds.pop()]
    listed = {
        state: ", ".join(part for part, own in states.items() if own == state)
        for state in ("false", "open", "not run")
        if state in kinds
    }
    if "true" in kinds:
        named = {"false": "not", "open": "open", "not run": "not run"}
        return "partly: " + "; ".join(f"{named[state]} {parts}" for state, parts in listed.items())
    if "false" not in kinds:
        return inconclusive
    rest = "; ".join(f"{state}: {parts}" for state, parts in listed.items() if state != "false")
    return f"{false} ({rest})"


def shown(row: Row, records: Mapping[str, Sequence[Record]]) -> Record:
    """The verdict whose value is shown in a row: one that its own verdict rests on.

    This is the headline's if nothing in the row is worse than it, and otherwise that of the first claim
    which is worst; false is worse than open, and open is worse than true.
    """
    ids = [row.headline, *(name for name in row.ids() if name != row.headline)]
    each = [record for name in ids for record in records[name]]
    return max(each, key=lambda record: WORST_LAST.index(_state([record])))


def _words(records: Sequence[Record]) -> tuple[str, str]:
    """What a row is called if all its parts are true, and if all are false."""
    if all(record["author"] == "critic" for record in records):
        return "objection holds", "objection refuted"
    if all(record["analytical"] for record in records):
        return PROVED, REFUTED
    return REPRODUCED, NOT_REPRODUCED


def _state(records: Sequence[Record]) -> str:
    """Whether a part is true, false, open, or was not run: false if one of its claims is."""
    found = [record["verdict"] for record in records]
    if any(one in FALSE for one in found):
        return "false"
    if any(one == INCONCLUSIVE for one in found):
        return "open"
    return "true" if all(one in TRUE for one in found) else "not run"
