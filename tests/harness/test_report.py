"""The report: complete, with links that lead to figures, and honest about what has not been run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

from toyicl.harness import outputs, report
from toyicl.harness.claims import Claim
from toyicl.harness.experiment import Listing, listings, load, place

FIGURES = Path(__file__).parents[2] / "figures"

RESULTS = xr.Dataset(
    {"loss": ("seed", [1.0, 2.0])},
    coords={"seed": [0, 1]},
    attrs={
        "command": "toyicl run a --seeds 2",
        "level": "full",
        "seeds": "[0, 1]",
        "settings": '{"task": {"dim": 10}}',
        "revision": "0123456789abcdef",
        "tree": "modified",
        "device": "2 x cpu",
        "cut": "Not the full settings: 2 of 5 seeds.",
    },
)
CLAIMS = [
    Claim("A-1-1", "it is | small", lambda r: r.loss, (0.0, 3.0), source="s", paper="p", floor=1.5),
    Claim(
        "A-1-1-more",
        "it is large",
        lambda r: r.loss,
        (5.0, 9.0),
        source="s",
        paper="p",
        kind="cosine",
        shown_with={"norm ratio": lambda r: r.loss / 2},
        note="Because.",
    ),
]


def chapter(folder, name="a", results=RESULTS):
    listing = Listing(name, Path(f"{name}.py"), "claims something", "a minute.")
    return report.Chapter(listing, results, folder / name, [c.judge(results) for c in CLAIMS])


def test_markdown_holds_every_verdict_with_figure_command_and_origin(tmp_path):
    text = report.markdown([chapter(tmp_path / "runs")], tmp_path / "figures")
    assert "1 statements, judged by 2 values: 1 hold, 1 fail, 0 were not run" in text
    assert "![a](../runs/a/figure.png)" in text
    assert "`toyicl run a --seeds 2`" in text
    assert "2 of 5 seeds" in text
    assert "revision 0123456789 (modified tree), 2 x cpu" in text
    assert "cost: a minute;" in text
    assert '`{"task": {"dim": 10}}`' in text
    assert "| holds | A-1-1: it is \\| small. | p | 1.5 (1, 2) | 1.5 | 0 to 3 |" in text
    assert "| **fails** | A-1-1-more: it is large. *(cosine)* Because. |" in text
    assert "| norm ratio 0.75 |" in text
    assert (
        "- a, A-1-1-more: it is large. Ours: 1.5 (1, 2); allowed: 5 to 9; the paper: p. Because."
        in text
    )
    assert "### Measured at less than full settings" in text


@pytest.mark.parametrize(
    ("level", "cut", "stated"),
    [
        ("full", "", "full"),
        ("full", "Not the full settings: 2 of 5 seeds.", "changed"),
        ("quick", "Not the full settings: training.steps 40 instead of 200.", "quick"),
    ],
)
def test_settings_are_stated_as_they_were(tmp_path, level, cut, stated):
    results = RESULTS.assign_attrs(level=level, cut=cut)
    text = report.markdown([chapter(tmp_path, results=results)], tmp_path)
    assert f"; settings: {stated}; seeds: [0, 1];" in text


def test_a_failure_that_is_independent_of_training_is_under_its_own_heading(tmp_path):
    claims = [CLAIMS[0], replace(CLAIMS[1], kind="by construction")]
    listing = Listing("a", Path("a.py"), "claims something", "a minute.")
    one = report.Chapter(listing, RESULTS, tmp_path, [c.judge(RESULTS) for c in claims])
    text = report.markdown([one], tmp_path)
    assert "### Analytical" in text
    assert "### Measured" not in text


def test_a_verdict_states_its_number_of_seeds(tmp_path):
    stuck = RESULTS.assign(on_plateau=("seed", [True, False]))
    text = report.markdown([chapter(tmp_path, results=stuck)], tmp_path)
    assert "| 2, 1 of 2 seeds |" in text


def test_claims_that_were_not_run_are_reported(tmp_path):
    text = report.markdown([chapter(tmp_path, results=None)], tmp_path)
    assert "2 were not run" in text
    assert "Not run yet. Command: `toyicl run a`" in text
    assert "figure.png" not in text


def test_the_page_is_the_same_report_and_is_written_on_request(tmp_path):
    chapters = [chapter(tmp_path), chapter(tmp_path, "b")]
    assert [path.name for path in report.write(chapters, tmp_path)] == [
        "README.md",
        "verdicts.json",
    ]
    paths = report.write(chapters, tmp_path, html=True)
    assert [path.name for path in paths] == ["README.md", "verdicts.json", "report.html"]
    page = paths[2].read_text()
    assert page.count("<table>") == 2
    assert '<img src="a/figure.png" alt="a"' in page
    assert "it is | small" in page
    assert "http" not in page


def test_the_verdicts_are_written_as_plain_data(tmp_path):
    unbounded = replace(CLAIMS[0], band=(0.0, float("inf")))
    listing = Listing("a", Path("a.py"), "claims something", "a minute.")
    one = report.Chapter(listing, RESULTS, tmp_path, [unbounded.judge(RESULTS)])
    *_, path = report.write([one, chapter(tmp_path, "b", results=None)], tmp_path)
    ran, not_run = json.loads(path.read_text())
    assert ran["command"] == "toyicl run a --seeds 2"
    assert ran["cut"] == "Not the full settings: 2 of 5 seeds."
    assert ran["records"][0]["band"] == [0.0, None]
    assert ran["records"][0]["verdict"] == "holds"
    assert not_run["command"] == "toyicl run b"
    assert not_run["records"][0]["measured"] is None


@pytest.mark.parametrize(
    ("value", "shown"), [("<script>", "&lt;script&gt;"), ("a & b", "a &amp; b")]
)
def test_the_page_shows_text_as_text(tmp_path, value, shown):
    strange = RESULTS.assign_attrs(cut=value)
    *_, page = report.write([chapter(tmp_path, results=strange)], tmp_path, html=True)
    assert value not in page.read_text()
    assert shown in page.read_text()


def checked_in():
    """Experiments whose results are checked in."""
    return [one for one in listings() if (place(FIGURES, one) / "results.nc").exists()]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of losses that overflow
@pytest.mark.parametrize("listing", checked_in(), ids=lambda listing: listing.name)
def test_verdicts_that_are_checked_in_are_those_of_the_results(listing):
    """`toyicl draw all --out figures` and `toyicl verify --out figures` write them anew."""
    folder = place(FIGURES, listing)
    judged = outputs.judge(load(listing), outputs.results_of(folder, pytest.fail))
    shipped = json.loads((FIGURES / "verdicts.json").read_text(encoding="utf-8"))
    (chapter,) = [one for one in shipped if one["experiment"] == listing.name]
    for kept in (json.loads((folder / "claims.json").read_text()), chapter["records"]):
        assert [record["id"] for record in kept] == [record["id"] for record in judged]
        for old, new in zip(kept, judged, strict=True):
            assert (old["verdict"], old["statement"]) == (new["verdict"], new["statement"])
            assert old["band"] == new["band"]
            assert old["note"] == new["note"]
            if new["measured"] is None:
                assert old["measured"] is None
            else:
                assert old["measured"] == pytest.approx(new["measured"], rel=1e-5)
