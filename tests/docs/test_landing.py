"""The landing page and the README's first screen agree, and state results that are checked in."""

import json
import re

import yaml
from pages import DOCS, README, ROOT, blocks

LANDING = DOCS / "index.md"
ITEM = re.compile(r"^- \*\*.*?(?=^- |^\n|^$)", re.M | re.S)
RESULT = re.compile(
    r"([\d.]+)\s+times\s[^;]*?\((?:95%\s+interval\s+)?([\d.]+)\s+to\s+([\d.]+);\s+\[([\w-]+)\]\(([^)]*)\)"
)
"""A number, its interval, the id of its claim, and the folder of its results."""


def results(page):
    """The bullet points of a page before its first heading of the second level, without line breaks."""
    top = page.read_text(encoding="utf-8").partition("\n## ")[0]
    return [" ".join(item.split()) for item in ITEM.findall(top)]


def test_both_pages_state_the_same_three_results():
    shown = results(README)
    assert len(shown) == 3
    assert [item.replace("](../figures", "](figures") for item in results(LANDING)] == shown


def test_the_results_are_those_of_the_verdicts():
    known = json.loads((ROOT / "figures" / "verdicts.json").read_text())["experiments"]
    records = {one["id"]: (entry, one) for entry in known for one in entry["records"]}
    found = [match for item in results(README) for match in RESULT.findall(item)]
    assert [match[3] for match in found] == ["VO-2a-1", "VO-3a-1", "VO-3a-2", "VO-12-1"]
    for *numbers, name, folder in found:
        entry, record = records[name]
        assert record["verdict"] == "reproduced"
        assert folder.endswith(f"/{entry['experiment']}")
        expected = [record["measured"], *record["interval"]]
        assert [float(number) for number in numbers] == [round(value, 3) for value in expected]


def test_the_example_of_the_landing_page_is_that_of_the_readme():
    """The README's is executed, as a doctest."""
    (readme,) = [text for language, _, text, _ in blocks(README) if language == "python"]
    lines = readme.strip().splitlines()
    code = [line.removeprefix(">>> ") for line in lines if line.startswith(">>> ")]
    printed = [line for line in lines if not line.startswith(">>> ")]
    shown = [
        (language, list(filter(None, text.splitlines())))
        for language, _, text, _ in blocks(LANDING)
    ]
    assert ("python", code) in shown
    assert ("text", printed) in shown
    assert len(code) <= 10


def test_the_page_on_citing_agrees_with_the_citation_file():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    page = (DOCS / "citing.md").read_text()
    assert f"version = {{{citation['version']}}}" in page
    assert f"title   = {{{citation['title']}}}" in page
    paper = citation["references"][0]
    assert f"{{{paper['title']}}}" in page
    for author in paper["authors"]:
        assert author["family-names"] in page
