"""Catalogues: each entry becomes one statement, and wrong entries are named."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.harness import catalogue, experiment, figure_rows
from toyicl.harness.claims import Finding

CATALOGUES = sorted(
    path for path in Path(experiment.folder()).glob("*/*.toml") if path.name != figure_rows.FILE
)
TABLES = [tomllib.loads(path.read_text()) for path in CATALOGUES]
WORKS = tuple(
    f"{part['work']}, "
    for table in TABLES
    for part in (table, *table.values())
    if isinstance(part, dict) and "work" in part
)
ENTRY = """work = "W"
[A-1]
source = "s"
statement = "t"
paper = "p"
relation = "equals"
quantity = "loss"
value = 0.5
"""
FINDING = """work = "W"
author = "critic"
[A-1]
author = "toyicl"
source = "s"
statement = "t"
paper = "p"
band = [0.0, inf]
"""
LOADED = [experiment.load(listing) for listing in experiment.listings()]
ALL = [statement for one in LOADED for statement in one.claims]


def test_every_entry_is_judged_by_exactly_one_experiment():
    entries = [name for path in CATALOGUES for name in catalogue.entries(path)]
    assert sorted(statement.id for statement in ALL) == sorted(entries)


@pytest.mark.parametrize("statement", ALL, ids=lambda statement: statement.id)
def test_every_statement_can_be_false_and_shows_what_a_cosine_hides(statement):
    low, high = statement.accepted.low, statement.accepted.high
    assert low <= high
    assert not (low == -np.inf and high == np.inf)
    assert statement.source.startswith(WORKS)
    if statement.kind == "cosine":
        assert {"norm ratio", "cosine untrained"} <= statement.shown_with.keys()


def loss(results):
    return results.loss


def test_a_catalogue_of_ones_own_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    more = 'exact = 0.4\nreference = "gd"\nkind = "cosine"\nwhere = { heads = 2 }\n'
    path.write_text(ENTRY + 'printed = "0.5"\nover = ["size"]\n' + more)
    (claim,) = catalogue.read(path, {"A-1": loss})
    assert (claim.accepted.low, claim.accepted.high) == (0.45, 0.55)
    assert (claim.floor, claim.source, claim.author) == (0.4, "W, s", "paper")
    assert (claim.where, claim.over, claim.kind) == ({"heads": 2}, ["size"], "cosine")


def test_entries_by_toyicl_are_findings(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FINDING)
    (finding,) = catalogue.read(path, {"A-1": loss})
    assert isinstance(finding, Finding)
    assert finding.band == (0.0, np.inf)
    path.write_text(ENTRY.replace('work = "W"', 'work = "W"\nauthor = "critic"'))
    (claim,) = catalogue.read(path, {"A-1": loss})
    assert claim.author == "critic"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (ENTRY, "A-2", r"^claims must be in .*, got A-2$"),
        (ENTRY + "colour = 1\n", "A-1", r"^claim A-1 of the catalogue must have known entries: "),
        (
            ENTRY + "band = [0, 1]\n",
            "A-1",
            r"^claim A-1 of the catalogue must have known entries: ",
        ),
        (ENTRY.replace('source = "s"\n', ""), "A-1", r"^claim A-1 .*: 'source'$"),
        (FINDING.replace("band = [0.0, inf]\n", ""), "A-1", r"^claim A-1 .*: 'band'$"),
        (FINDING.replace("[0.0, inf]", "[1.0, 0.0]"), "A-1", r"^finding A-1: band must be .*low"),
        (ENTRY.replace("equals", "near"), "A-1", r"^claim A-1: relation must be one of equals, "),
        (ENTRY.replace("value = 0.5\n", ""), "A-1", r"^claim A-1: equals, less and greater need a"),
        (ENTRY.replace('quantity = "loss"\n', ""), "A-1", r"^claim A-1: equals needs a quantity"),
        (
            ENTRY.replace('"loss"', '"lost"'),
            "A-1",
            r"^claim A-1: quantity must be one of loss ratio",
        ),
        (ENTRY.replace("0.5", "0.0"), "A-1", r"^claim A-1: the value compared with must differ"),
        (ENTRY.replace("0.5", "inf"), "A-1", r"^claim A-1: reference must be a finite number"),
        (
            ENTRY.replace("equals", "increases"),
            "A-1",
            r"^claim A-1: increases and decreases compare",
        ),
        (ENTRY.replace("work =", "wrok ="), "A-1", r" must have a work, .*, got wrok$"),
        ('autor = "critic"\n' + ENTRY, "A-1", r" must have a work, .*, got autor$"),
        (ENTRY.replace("[A-1]", "[A-1"), "A-1", r" must be a TOML file: "),
        (ENTRY + 'author = "me"\n', "A-1", r"^claim A-1: author must be one of paper, critic"),
    ],
)
def test_a_wrong_catalogue_is_named(tmp_path, text, name, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        catalogue.read(path, {name: loss})
