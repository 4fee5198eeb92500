"""The contents of the teaching page, without a browser."""

import base64
import json
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from programs import here, toyicl

from toyicl.core.errors import BadInput
from toyicl.demo import build
from toyicl.demo.build import CLASSROOM, contents, place, render, shipped
from toyicl.harness import report
from toyicl.harness.results import load_results, save_results

RUN = shipped() / "teaching" / CLASSROOM
BOUNDS = shipped() / "departures" / build.BOUNDS
LANGUAGE_HEADS = shipped() / "language_model" / build.LANGUAGE_HEADS
MOST_BYTES = 1_500_000


def held(page_file):
    """The data stored in the page."""
    (text,) = re.findall(r'id="data">(.*?)</script>', page_file.read_text())
    return json.loads(text)


def test_the_page_is_one_small_file_that_refers_to_nothing(page_file):
    text = page_file.read_text()
    assert len(text.encode()) < MOST_BYTES
    assert "{{" not in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"<script[^>]* src|<img|<iframe|@import|url\((?!#)", text)


def test_the_page_holds_the_runs_weights_to_the_bit(page_file):
    """Arrays are (..., head, row, column); those of one input are 2 x 2, without padding."""
    data, results = held(page_file), load_results(RUN)
    mixed = results.sel(task="one input").isel(mixed_row=slice(2), mixed_column=slice(2))
    for kept, expected in (
        (data["learn"]["keyQuery"], results.key_query.expand_dims("head", -3)),
        (data["deep"]["valueOutput"], results.two_layers_value_output.expand_dims("head", -3)),
        (
            data["softmaxSweep"]["line"]["heads"]["2"]["keyQuery"],
            mixed.mixed_key_query.sel(heads=2),
        ),
        (
            data["softmaxSweep"]["line"]["heads"]["1"]["valueOutput"],
            mixed.mixed_value_output.sel(heads=1, head=[0]),
        ),
        (
            data["softmaxSweep"]["wide"]["heads"]["1"]["keyQuery"],
            results.mixed_key_query.sel(task="all inputs", heads=1, head=[0]),
        ),
        (data["clip"]["best"], load_results(BOUNDS).exact_loss.transpose("layers", "clip")),
    ):
        assert np.isfinite(expected).all()
        values = np.frombuffer(base64.b64decode(kept["base64"]), "<f4")
        np.testing.assert_array_equal(values.reshape(kept["shape"]), expected.values)


def test_the_page_holds_the_scores_and_eigenvalues_of_all_heads(page_file):
    kept, results = held(page_file)["heads"], load_results(LANGUAGE_HEADS)
    assert (kept["layers"], kept["count"]) == (results.sizes["layer"], results.sizes["head"])
    own = results.sel(source=["model", "other head"])
    for name in ("z", "fraction"):
        values = np.frombuffer(base64.b64decode(kept[name]["base64"]), "<f4")
        expected = own[name].transpose("source", "circuit", "layer", "head")
        np.testing.assert_array_equal(values.reshape(kept[name]["shape"]), expected.astype("f4"))
    stored = np.frombuffer(base64.b64decode(kept["values"]["base64"]), "<i2")
    values = stored.reshape(kept["values"]["shape"]) * kept["values"]["unit"]
    mean = values.mean(axis=-1)
    assert np.abs(mean[..., 1]).max() < 1e-3, (
        "the eigenvalues of a real matrix are in conjugate pairs"
    )
    np.testing.assert_allclose(
        np.abs(mean[..., 0]), np.sqrt(own.fraction.transpose(*expected.dims)), atol=1e-3
    )


def records():
    """The checked-in verdicts by identifier."""
    kept = json.loads((shipped() / report.RECORDS).read_text())
    return {record["id"]: record for one in kept["experiments"] for record in one["records"]}


def test_the_page_states_where_it_comes_from(page_file):
    assert "toyicl run classroom" in held(page_file)["made"]


def test_the_page_holds_the_verdicts_that_it_rests_on(page_file):
    kept = held(page_file)["verdicts"]
    assert list(kept) == build.cited()
    assert len(kept) > 25
    for name, record in records().items():
        if name in kept:
            assert kept[name] == record | {"command": kept[name]["command"]}
            assert kept[name]["command"].startswith("toyicl run ")


DENIED = {
    "VO-12-4": "refuted",
    "VO-1-2-K2": "not reproduced",
    "DEU-untrained": "inconclusive",
    "LM-4-exchanged": "inconclusive",
}
"""Verdicts that deny the statement they are on; the page states the opposite, or that it is open."""


@pytest.mark.parametrize("name", build.cited())
def test_a_sentence_rests_on_a_verdict_that_supports_it(name):
    verdict = records()[name]["verdict"]
    if name in DENIED:
        assert verdict == DENIED[name]
    else:
        assert verdict in ("reproduced", "proved", "holds")


class Sentences(HTMLParser):
    """Text in elements of the class `result`, outside and inside sentences with verdicts."""

    def __init__(self, text):
        super().__init__()
        self.within, self.loose, self.tied, self.values = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in ("meta", "link", "input", "br"):
            return
        own = dict(attributes)
        names = own.get("data-verdict") or (self.within[-1][1] if self.within else None)
        result = "result" in (own.get("class") or "").split()
        self.within.append((result or bool(self.within and self.within[-1][0]), names))
        if "data-value" in own:
            self.values.append((own["data-value"], names))

    def handle_endtag(self, tag):
        if self.within:
            self.within.pop()

    def handle_data(self, data):
        if self.within and self.within[-1][0] and data.strip():
            names = self.within[-1][1]
            if names is None:
                self.loose.append(data)
            else:
                self.tied.setdefault(names, []).append(data)


def body():
    text = (build.PAGE / "page.html").read_text()
    return text[text.index("<main") : text.index("</main>")]


def test_every_sentence_about_results_has_a_verdict():
    found = Sentences(body())
    assert found.loose == []
    assert len(found.tied) > 20
    assert found.values
    for value, names in found.values:
        assert value in names.split(), "a number must be that of its sentence's verdict"


def test_a_sentence_without_a_verdict_would_be_found():
    found = Sentences('<p class="result"><span data-verdict="A">One.</span> Two.</p><p>Three.</p>')
    assert found.loose == [" Two."]
    assert found.tied == {"A": ["One."]}


def test_the_tour_has_twelve_steps_and_those_with_results_name_them():
    steps = build.story()["steps"]
    assert len(steps) == 12
    assert [i for i, step in enumerate(steps, 1) if step.get("verdict")] == [2, 7, 9, 10, 11]
    assert all(f'id="{step["section"]}"' in body() for step in steps)


def save(folder, **attributes):
    kept = {"format": load_results(RUN).attrs["format"], "sweep": "{}", **attributes}
    results = xr.Dataset({"loss": 1.0}, attrs=kept)
    folder.mkdir(parents=True)
    save_results(results, folder)
    return folder


def test_a_full_run_of_ones_own_is_shown_before_what_is_checked_in(tmp_path):
    mine = tmp_path / CLASSROOM
    assert place(tmp_path) == RUN
    save(mine, level="quick")
    assert place(tmp_path) == RUN
    shutil.rmtree(mine)
    save(mine, level="full")
    assert place(tmp_path) == mine


def test_a_quick_run_is_shown_where_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "shipped", lambda: tmp_path / "nothing")
    assert place(tmp_path) is None
    mine = save(tmp_path / CLASSROOM, level="quick")
    assert place(tmp_path) == mine


def test_other_results_are_refused():
    results = load_results(RUN)
    with pytest.raises(BadInput, match=r"a run of classroom, got a run of fig02_one_step"):
        contents(results.assign_attrs(experiment="fig02_one_step"), {})
    with pytest.raises(BadInput, match=r"a single run of classroom, got a sweep"):
        contents(results.assign_attrs(sweep='{"task.dim": [3]}'), {})
    settings = json.loads(results.attrs["settings"])
    settings["task"]["input_distribution"] = "normal"
    with pytest.raises(
        BadInput,
        match=r"default values of the task's input_distribution, got input_distribution normal",
    ):
        contents(results.assign_attrs(settings=json.dumps(settings)), {})


def test_what_an_installed_package_needs_is_carried():
    root = shipped().parent
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    carried = wheel["wheel"]["force-include"]
    for source in (
        "figures/teaching/classroom/results.nc",
        f"figures/departures/{build.BOUNDS}/results.nc",
        f"figures/{report.RECORDS}",
    ):
        assert carried[source] == f"toyicl/{source}"
        assert (root / source).is_file()


def test_without_verdicts_the_page_has_none(tmp_path):
    assert build.verdicts(tmp_path) == {"figures": [], "experiments": []}


def test_what_text_says_is_text(tmp_path):
    results = load_results(RUN).assign_attrs(command="</script><b>")
    text = render(contents(results, build.verdicts(tmp_path)))
    assert "</script><b>" not in text
    assert "&lt;/script&gt;&lt;b&gt;" in text


def test_the_command_writes_the_page(tmp_path):
    answer = toyicl("demo", "--out", "my page.html", "--no-open", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "wrote my page.html\n"
    assert "</html>" in (tmp_path / "my page.html").read_text()


@pytest.mark.parametrize(
    ("out", "why"), [("missing/page.html", "there is no folder missing"), (".", "is a folder")]
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path, out, why):
    answer = here("demo", "--out", out, "--no-open", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith(
        "toyicl: out must be a file in a folder that exists and can be written"
    )
    assert why in answer.stderr


@pytest.mark.slow
def test_what_is_lacking_is_trained(tmp_path):
    program = """
from pathlib import Path
from toyicl.demo import build
build.shipped = lambda: Path("nothing")
from toyicl.__main__ import main
main()
"""
    command = [sys.executable, "-c", program, "demo", "--no-open"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "training quick settings into runs/classroom" in answer.stderr
    data = held(tmp_path / "toyicl.html")
    assert "toyicl run classroom --quick --seeds 2" in data["made"]
    assert data["learn"]["seeds"] == [0, 1]
    assert data["verdicts"] == {}
    assert data["clip"] is None
    assert data["heads"] is None
