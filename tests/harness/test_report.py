"""The report: complete, with links that lead to figures, and honest about what has not been run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

from toyicl.harness import figure_rows, outputs, report
from toyicl.harness.claims import Claim, Finding
from toyicl.harness.experiment import GROUPS, Listing, folder, listings, load, place
from toyicl.harness.figure_rows import Row
from toyicl.harness.margins import MARGINS

FIGURES = Path(__file__).parents[2] / "figures"

RESULTS = xr.Dataset(
    {"loss": ("seed", [1.0, 1.5, 1.5])},
    coords={"seed": [0, 1, 2]},
    attrs={
        "command": "toyicl run a --seeds 3",
        "level": "full",
        "seeds": "[0, 1, 2]",
        "settings": '{"task": {"dim": 10}}',
        "revision": "0123456789abcdef",
        "tree": "modified",
        "device": "2 x cpu",
        "cut": "Not the full settings: 3 of 5 seeds.",
    },
)
CLAIMS = [
    Claim(
        "A-1",
        "it is | small (mean loss)",
        lambda results: results.loss,
        relation="less",
        reference=3.0,
        source="W, s",
        work="W",
        paper="1.5, printed",
        floor=1.5,
    ),
    Claim(
        "C-1",
        "it is large",
        lambda results: results.loss,
        relation="equals",
        quantity="cosine",
        reference=5.0,
        source="critics, s",
        work="critics",
        author="critic",
        paper="5",
        kind="cosine",
        shown_with={"norm ratio": lambda results: results.loss / 2},
        note="Because.",
    ),
    Finding("T-1", "it is between", lambda results: results.loss, (1.25, 9.0), source="s"),
]
ROWS = [
    Row("Figure 1", "all is small", "A-1", {"loss": ["A-1"]}),
    Row("Size", "all is large", "C-1", {"loss": ["C-1"]}),
]


def chapter(folder, name="a", results=RESULTS, claims=CLAIMS):
    listing = Listing(name, Path(f"{name}.py"), "claims something", "a minute; quick: a second.")
    return report.Chapter(listing, results, folder / name, [c.judge(results) for c in claims])


def written(folder, **changes):
    return report.markdown([chapter(folder, **changes)], ROWS, folder)


def cells(text, start):
    """The cells of the line of a table that contains a text."""
    (line,) = [line for line in text.splitlines() if line.startswith("|") and start in line]
    return [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]


def test_the_report_begins_with_a_line_for_each_figure(tmp_path):
    text = written(tmp_path)
    assert text.index("### W") < text.index("### critics") < text.index("## a: claims something")
    assert cells(text, "all is small") == [
        "Figure 1", "all is small", "reproduced", "mean loss", "1.333 [0.6162, 2.05]",
        "1.5, printed", "3", "a minute",
    ]  # fmt: skip
    assert cells(text, "all is large")[2] == "**objection refuted**"


def test_claims_are_listed_with_what_their_verdicts_are_based_on(tmp_path):
    text = written(tmp_path)
    verdict, claim, theirs, own, each, exact, compared, *_ = cells(text, "A-1: it is ")
    assert (verdict, theirs, own) == ("reproduced", "1.5, printed", "1.333 [0.6162, 2.05]")
    assert (claim, each) == ("A-1: it is / small (mean loss).", "1, 1.5, 1.5")
    assert (exact, compared) == ("1.5", "less than 3")
    verdict, claim, *_, shown = cells(text, "C-1: ")
    assert verdict == "**objection refuted**"
    assert claim == "C-1: Critic: it is large. *(cosine)* Found: not so. Because."
    assert shown == "norm ratio 0.6667"


def test_findings_are_in_a_section_of_their_own_and_not_counted(tmp_path):
    text = written(tmp_path)
    before, after = text.split("## Findings of toyicl")
    assert "T-1" not in before
    assert cells(after, "T-1: ")[:2] == ["**fails**", "a"]
    assert cells(before, "| paper |") == ["paper", "1", "0", "1"]
    assert cells(before, "| critic |") == ["critic", "0", "1", "1"]


def test_the_report_has_every_margin(tmp_path):
    text = written(tmp_path)
    for quantity, margin in MARGINS.items():
        assert cells(text, f"| {quantity} |") == [quantity, f"±{margin}", margin.why]


def test_an_experiment_is_listed_with_figure_command_and_origin(tmp_path):
    text = report.markdown([chapter(tmp_path / "runs")], ROWS, tmp_path / "figures")
    assert "![a](../runs/a/figure.png)" in text
    assert "`toyicl run a --seeds 3`" in text
    assert "3 of 5 seeds" in text
    assert "revision 0123456789 (modified tree), 2 x cpu" in text
    assert "cost: a minute; quick: a second;" in text
    assert '`{"task": {"dim": 10}}`' in text


def test_an_inconclusive_verdict_states_its_reason(tmp_path):
    two = RESULTS.isel(seed=slice(2))
    assert cells(written(tmp_path, results=two), "A-1: ")[0] == "inconclusive: too few seeds"


@pytest.mark.parametrize(
    ("level", "cut", "stated"),
    [
        ("full", "", "full"),
        ("full", "Not the full settings: 3 of 5 seeds.", "changed"),
        ("quick", "Not the full settings: training.steps 40 instead of 200.", "quick"),
    ],
)
def test_settings_are_stated_as_they_were(tmp_path, level, cut, stated):
    results = RESULTS.assign_attrs(level=level, cut=cut)
    text = written(tmp_path, results=results)
    assert f"; settings: {stated}; seeds: 0 to 2;" in text


@pytest.mark.parametrize(
    ("seeds", "stated"),
    [
        ({}, "settings: changed; cost:"),
        ({"seed": [3]}, "; seeds: 3; cost"),
        ({"seed": [0, 2, 3]}, "; seeds: 0, 2, 3; cost"),
        ({"seed": [0, 1, 2], "released_seed": [0, 1]}, "; seeds: 0 to 2 (released 0, 1); cost"),
        ({"block_seed": [1, 2, 3]}, "; seeds: block 1 to 3; cost"),
    ],
)
def test_seeds_are_those_of_the_trainings_and_not_all_that_were_given(tmp_path, seeds, stated):
    """`attrs["seeds"]` has all seeds of the run, of which a training may have fewer, or more."""
    results = xr.Dataset(coords=seeds, attrs=RESULTS.attrs | {"seeds": "[0, 1, 2, 3, 4]"})
    assert stated in report.markdown([chapter(tmp_path, results=results, claims=[])], [], tmp_path)


def test_seeds_on_their_plateau_are_named_with_their_loss(tmp_path):
    stuck = RESULTS.assign(on_plateau=("seed", [True, False, False]))
    stuck["loss"] = stuck.loss.expand_dims(step=[0]).transpose("seed", "step")
    claim = replace(CLAIMS[0], value=lambda results: results.loss.isel(step=-1))
    text = written(tmp_path, results=stuck, claims=[claim, *CLAIMS[1:]])
    assert "seed 0 (loss 1)" in cells(text, "A-1: ")[1]
    assert cells(text, "all is small")[-2] == "2 of 3"


def test_claims_that_were_not_run_are_reported(tmp_path):
    text = written(tmp_path, results=None)
    assert cells(text, "all is small")[2] == "not run"
    assert "Not run yet. Command: `toyicl run a`" in text
    assert "figure.png" not in text


def test_points_of_a_sweep_are_named(tmp_path):
    one = chapter(tmp_path)
    swept = [record | {"point": {"task.dim": dim}} for dim in (5, 6) for record in one.verdicts]
    text = report.markdown([one._replace(verdicts=swept)], ROWS, tmp_path)
    assert cells(text, "A-1: (task.dim = 5)")[0] == "reproduced"
    assert cells(text, "A-1: (task.dim = 6)")[0] == "reproduced"


def test_the_page_is_the_same_report_and_is_written_on_request(tmp_path):
    chapters = [chapter(tmp_path), chapter(tmp_path, "b", claims=[])]
    assert [path.name for path in report.write(chapters, ROWS, tmp_path)] == [
        "README.md",
        "verdicts.json",
    ]
    paths = report.write(chapters, ROWS, tmp_path, html=True)
    assert [path.name for path in paths] == ["README.md", "verdicts.json", "report.html"]
    page = paths[2].read_text()
    assert page.count("<table>") == paths[0].read_text().count("|---|\n")
    assert '<img src="a/figure.png" alt="a"' in page
    assert "it is | small" in page
    assert "http" not in page


def strict(text):
    """Strict JSON, which has neither Infinity nor NaN."""
    return json.loads(text, parse_constant=pytest.fail)


def test_the_verdicts_are_written_as_plain_data(tmp_path):
    results = RESULTS.assign(loss=("seed", [1.0, 1.5, float("nan")]))
    one = chapter(tmp_path, results=results)
    *_, path = report.write([one], ROWS, tmp_path)
    found = strict(path.read_text())
    assert found["figures"][0] == {
        "work": "W",
        "figure": "Figure 1",
        "claims": "all is small",
        "verdict": "not reproduced",
        "ours": "1.25 (1 to 1.5)",
        "paper": "1.5, printed",
    }
    (ran,) = found["experiments"]
    assert ran["command"] == "toyicl run a --seeds 3"
    assert ran["cut"] == "Not the full settings: 3 of 5 seeds."
    assert [record["verdict"] for record in ran["records"]] == ["not reproduced"] * 2 + ["fails"]
    *_, path = report.write([chapter(tmp_path, "b", results=None)], ROWS, tmp_path)
    (not_run,) = strict(path.read_text())["experiments"]
    assert not_run["command"] == "toyicl run b"
    assert not_run["records"][0]["measured"] is None


@pytest.mark.parametrize(
    ("value", "shown"), [("<script>", "&lt;script&gt;"), ("a & b", "a &amp; b")]
)
def test_the_page_shows_text_as_text(tmp_path, value, shown):
    strange = RESULTS.assign_attrs(cut=value)
    *_, page = report.write([chapter(tmp_path, results=strange)], ROWS, tmp_path, html=True)
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
    (chapter,) = [one for one in shipped["experiments"] if one["experiment"] == listing.name]
    for kept in (json.loads((folder / "claims.json").read_text()), chapter["records"]):
        assert [record["id"] for record in kept] == [record["id"] for record in judged]
        for old, new in zip(kept, judged, strict=True):
            assert (old["verdict"], old["statement"]) == (new["verdict"], new["statement"])
            assert old["criterion"] == new["criterion"]
            assert old["note"] == new["note"]
            if new["measured"] is None:
                assert old["measured"] is None
            else:
                assert old["measured"] == pytest.approx(new["measured"], rel=1e-5)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of losses that overflow
def test_the_readme_shows_the_tables_of_figures_of_the_checked_in_results():
    """`toyicl verify --out figures --figures` prints them."""
    chapters = []
    for listing in listings():
        place_of_results = place(FIGURES, listing)
        results = outputs.results_of(place_of_results, pytest.fail)
        judged = outputs.judge(load(listing), results)
        chapters.append(report.Chapter(listing, results, place_of_results, judged))
    tables = report.figure_tables(chapters, figure_rows.read_all(folder(), GROUPS))
    readme = (FIGURES.parent / "README.md").read_text(encoding="utf-8")
    assert readme.split("<!-- figures -->")[1].split("<!-- /figures -->")[0].strip() == tables
    assert tables in (FIGURES / "README.md").read_text(encoding="utf-8")
