"""The gallery shows every experiment with its verdicts, from the results that are checked in."""

import html
import json

import pages
import pytest
from pages import ROOT

from toyicl.harness import experiment, report_tables


@pytest.fixture(scope="module")
def gallery():
    return pages.load("gallery")


@pytest.fixture(scope="module")
def entries(gallery):
    return gallery.entries()


def test_every_experiment_has_a_card_and_a_page_with_all_its_verdicts(gallery, entries):
    known = json.loads((ROOT / "figures" / "verdicts.json").read_text())["experiments"]
    assert {entry.listing.name for entry in entries} == {one["experiment"] for one in known}
    shown = {entry.listing.name: gallery.page(entry) for entry in entries}
    for one in known:
        text = shown[one["experiment"]]
        rows = text.split("<tr>")
        for record in one["records"]:
            code = f"<code>{html.escape(record['id'])}</code>"
            verdict = f">{report_tables.verdict_on(record)}</span>"
            found = [row for row in rows if code in row and verdict in row.partition("<code>")[0]]
            assert any(html.escape(record["statement"]) in row for row in found), record["id"]
        assert f"`{one['command']}`" in text


def test_groups_have_headings(gallery, entries):
    assert set(gallery.TITLES) == set(experiment.GROUPS)
    index = gallery.index(entries)
    assert all(f"\n## {title}\n" in index for title in gallery.TITLES.values())


def test_a_card_follows_the_verdicts(gallery, entries):
    (entry,) = [entry for entry in entries if entry.listing.name == "fig02_one_step"]
    before = gallery.index([entry])
    records = [dict(record) for record in entry.verdicts["records"]]
    changed = next(record for record in records if record["verdict"] == "reproduced")
    changed["verdict"] = "not reproduced"
    after = gallery.index([entry._replace(verdicts=dict(entry.verdicts) | {"records": records})])
    assert "not reproduced" not in before
    assert 'class="verdict no">1 not reproduced<' in after


def test_a_page_shows_the_settings_of_the_run_under_the_names_of_the_command_line(gallery, entries):
    (entry,) = [entry for entry in entries if entry.listing.name == "fig02_one_step"]
    text = gallery.page(entry)
    saved = json.loads(entry.attributes["settings"])
    option = "<td><code>--settings.task.context_size</code></td>"
    assert f"{option}<td><code>{saved['task']['context_size']}</code></td>" in text


def test_a_page_shows_what_was_reduced(gallery, entries):
    entry = entries[0]
    reduced = "Reduced: 100 of 5,000 steps"
    assert reduced not in gallery.page(entry)
    assert reduced in gallery.page(
        entry._replace(attributes=dict(entry.attributes) | {"cut": reduced})
    )
