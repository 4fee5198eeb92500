"""Rows of the table of figures: each claim is in one row, and verdicts name the parts that differ."""

import re

import pytest

from toyicl.core.errors import BadInput
from toyicl.harness import catalogue, experiment, figure_rows
from toyicl.harness.claims import OURS
from toyicl.harness.figure_rows import Row

CLAIM = """source = "s"
statement = "t"
paper = "p"
relation = "increases"
"""
CLAIMS = f"""work = "W"
[A]
{CLAIM}
[B]
{CLAIM}
[F]
author = "toyicl"
source = "s"
statement = "t"
paper = "p"
band = [0, 1]
"""
ROWS = """["Figure 2"]
claims = "two"
headline = "B"
parts = { "loss" = ["B"] }
["Figure 1"]
claims = "one"
headline = "A"
parts = { "loss" = ["A"] }
"""


def folder(tmp_path, rows):
    (tmp_path / "claims.toml").write_text(CLAIMS)
    (tmp_path / "figures.toml").write_text(rows)
    return tmp_path


@pytest.mark.parametrize("group", experiment.GROUPS)
def test_every_claim_of_a_group_with_rows_is_in_exactly_one(group):
    """The reader itself raises an error otherwise; this counts once more, without it."""
    place = experiment.folder() / group
    rows = figure_rows.read(place)
    if not rows:
        return
    claims = [
        name
        for path in place.glob("*.toml")
        if path.name != figure_rows.FILE
        for name, entry in catalogue.entries(path).items()
        if entry["author"] != OURS
    ]
    assert sorted(name for row in rows for name in row.ids()) == sorted(claims)


def test_every_figure_and_proposition_of_the_paper_has_a_row():
    rows = figure_rows.read(experiment.folder() / "von_oswald_2022")
    names = [f"Figure {number}" for number in range(1, 17)]
    names += [f"Proposition {number}" for number in (1, 2, 3)]
    found = {re.sub(",.*", "", row.figure) for row in rows}
    assert found >= set(names)


def test_rows_are_read_in_order(tmp_path):
    rows = figure_rows.read(folder(tmp_path, ROWS))
    assert [row.figure for row in rows] == ["Figure 2", "Figure 1"]
    assert rows[0].parts == {"loss": ["B"]}
    assert figure_rows.read(tmp_path / "empty") == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["A"]', '["C"]', r"figures.toml: ids must be those of claims .*, got C$"),
        ('["A"]', '["A", "F"]', r"ids must be those of claims .*, got F$"),  # a finding
        ('["A"]', "[]", r"every claim must be in a row; .*, got A$"),
        ('["A"]', '["A", "B"]', r"a claim must be in one row only; .*, got B$"),
        ('headline = "A"', 'headline = "B"', r"a headline must be one of the row's claims, got B$"),
        ("claims =", "claim =", r"figures.toml must have entries with claims, headline and parts"),
    ],
)
def test_wrong_rows_are_named(tmp_path, old, new, message):
    with pytest.raises(BadInput, match=message):
        figure_rows.read(folder(tmp_path, ROWS.replace(old, new)))


def verdict(found, author="paper", analytical=False):
    """The verdict on a row with one claim in each part, or several."""
    parts = {part: [f"{part}{i}" for i in range(len(own))] for part, own in found.items()}
    records = {
        f"{part}{i}": [
            {"verdict": one, "author": author, "analytical": analytical, "reason": "because"}
        ]
        for part, own in found.items()
        for i, one in enumerate(own)
    }
    return figure_rows.verdict(Row("Figure 1", "one", next(iter(records)), parts), records)


YES, NO, OPEN, NONE = ["reproduced"], ["not reproduced"], ["inconclusive"], ["not run"]


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"a": YES, "b": YES}, "reproduced"),
        ({"a": NO, "b": NO}, "not reproduced"),
        ({"a": OPEN, "b": OPEN}, "inconclusive (because)"),
        ({"a": NONE, "b": NONE}, "not run"),
        ({"a": YES, "b": NO, "c": NO}, "partly: not b, c"),
        ({"a": YES, "b": OPEN}, "partly: open b"),
        ({"a": YES, "b": OPEN, "c": NO, "d": NONE}, "partly: not c; open b; not run d"),
        ({"a": NO, "b": OPEN}, "not reproduced (open: b)"),
        ({"a": NONE, "b": OPEN}, "inconclusive (because)"),
        ({"a": YES + NO, "b": YES}, "partly: not a"),
        ({"a": YES + OPEN, "b": YES}, "partly: open a"),
        ({"a": OPEN + NO}, "not reproduced"),
        ({"a": YES + NONE}, "not run"),
    ],
)
def test_a_row_is_reproduced_if_all_its_parts_are(found, text):
    assert verdict(found) == text


def test_rows_of_critics_are_about_objections_and_analytical_ones_about_proofs():
    assert verdict({"a": YES}, "critic") == "objection holds"
    assert verdict({"a": ["refuted"], "b": NO}, "critic") == "objection refuted"
    assert verdict({"a": YES, "b": NO}, "critic") == "partly: not b"
    assert verdict({"a": ["proved"]}, analytical=True) == "proved"
    assert verdict({"a": ["refuted"]}, analytical=True) == "refuted"


@pytest.mark.parametrize(
    ("verdicts", "number"),
    [
        ("reproduced reproduced reproduced", 1),
        ("reproduced inconclusive inconclusive", 1),
        ("inconclusive reproduced inconclusive", 0),
        ("inconclusive inconclusive not_reproduced", 2),
        ("not_reproduced inconclusive not_reproduced", 0),
        ("refuted proved proved", 0),
        ("not_run reproduced not_run", 1),
    ],
)
def test_the_number_of_a_row_is_that_of_a_claim_which_its_verdict_rests_on(verdicts, number):
    """The headline, the second claim here, is shown unless another claim is worse."""
    found = [one.replace("_", " ") for one in verdicts.split()]
    records = {name: [{"id": name, "verdict": one}] for name, one in zip("ABC", found, strict=True)}
    row = Row("Figure 1", "one", "B", {"a": ["A"], "b": ["B", "C"]})
    assert figure_rows.shown(row, records)["id"] == "ABC"[number]
