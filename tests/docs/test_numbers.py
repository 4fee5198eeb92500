"""Numbers on the pages about later work and the language model are those of the verdicts."""

import json
import re

import pytest
import xarray as xr
from pages import DOCS, NAMES, PAGES, ROOT

NUMBERS = {
    "later_work.md": {
        "XIE-guess-25": "1.001",
        "XIE-heads-1": "1.02",
        "XIE-heads-25": "1.46",
        "MEAN-one-head-1": ".97",
        "MEAN-one-head-25": ".70",
        "AHN-one": "1.0001",
        "PRE-layers-2": "1.00",
        "PRE-layers-3": ".94",
        "PRE-layers-4": ".91",
        "BLP-steps-K2": ".979",
        "BLP-steps-K5": ".983",
        "LAB-inputs-K2": ".65",
        "LAB-rotated-gdpp": ".43",
        "MIX-adapts": ".90",
        "MIX-diagonal-3": ".188",
        "MIX-gdpp-0": ".268",
        "PRIOR-memory": "2.1",
        "LU-simulation-10": ".247",
        "LU-simulation-20": ".040",
        "CONTEXT-ratio-10": "1.61",
        "CONTEXT-ratio-640": "3.16",
        "LARGE-ratio": "3.29",
        "RECURRENT-linear": "1.004",
        "RECURRENT-linear-cosine": ".997",
        "RANK-cosine": ".09",
        "LM-4": ".31",
    },
    "language_model.md": {
        "LM-icl": ".22 [.17, .28]",
        "LM-3": ".36 [.09, .64]",
        "LM-3-chance": ".02",
        "LM-4": ".31 [.26, .37]",
        "LM-4-random": ".30 [.25, .36]",
        "LM-4-large": ".062 [.017, .108]",
        "LM-4-large-centred": ".018 [-.007, .044]",
        "LM-4-exchanged": ".010 [-.079, .099]",
        "LM-4-another": ".015 [-.087, .117]",
        "LM-4-another-centred": "-.092 [-.143, -.041]",
        "LM-causal": ".02 [-.04, .08]",
        "LM-5": ".02 [-.01, .05]",
        "LM-6": ".00 [-.04, .04]",
        "LM-raw": ".23 [.18, .29]",
        "LM-false-context": ".001 [-.001, .003]",
        "LM-heads-keys": ".007",
        "LM-heads-values": ".028",
        "LM-heads-trained-keys": "1.00",
        "LM-heads-trained-values": "1.00",
    },
}
"""By page and id: a measured value, with its interval or without, as the page states it."""
NUMBER = re.compile(r"-?\d*\.\d+")


@pytest.fixture(scope="module")
def records():
    known = json.loads((ROOT / "figures" / "verdicts.json").read_text())["experiments"]
    return {record["id"]: record for one in known for record in one["records"]}


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page, own in NUMBERS.items() for name in own]
)
def test_numbers_are_those_of_the_verdicts(page, name, records):
    stated, record = NUMBERS[page][name], records[name]
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert re.search(rf"(?<![\d.-]){re.escape(stated)}(?!\d)", text)
    found = NUMBER.findall(stated)
    for number, value in zip(
        found, [record["measured"], *(record["interval"] or ())], strict=False
    ):
        digits = len(number.partition(".")[2])
        assert float(number) == pytest.approx(round(value, digits), abs=1e-9)


RESTS = re.compile(r"\[([A-Z]+-[\w-]+)\]\(([^)]*figures/[^)]*)\)")
"""A link to the results that a statement rests on, with the identifier of the verdict as its text."""


@pytest.fixture(scope="module")
def experiments():
    known = json.loads((ROOT / "figures" / "verdicts.json").read_text())["experiments"]
    return {record["id"]: one["experiment"] for one in known for record in one["records"]}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_statement_rests_on_a_verdict_that_supports_it(page, records, experiments):
    for name, folder in RESTS.findall(page.read_text(encoding="utf-8")):
        assert records[name]["verdict"] in ("reproduced", "proved", "holds"), name
        assert (page.parent / folder).resolve().name == experiments[name]


def test_the_questions_by_symptom_name_their_verdicts(records):
    text = (DOCS / "faq.md").read_text(encoding="utf-8")
    assert len(RESTS.findall(text)) >= 7
    still, seeds = re.search(r"Of (\d+) seeds of one layer, (\d+) were", text).groups()[::-1]
    assert int(still) / int(seeds) == pytest.approx(records["PLATEAU-escape"]["measured"])


UPDATES = {
    "W_K and W_V, as published": "keys and values",
    "the same, layer-causal": "layer-causal",
    "as published with the other label of each demonstration": "labels exchanged",
    "as published on another task, whose labels have the other meaning": "another task's",
    "the MLPs": "MLPs",
    "random, changing attention outputs as much as finetuning": "large random",
    "random, with the norm of finetuning in each matrix": "random",
    "the best of 16 random ones": "best random",
}
"""Rows of the table of controls, and their labels in the results."""


def test_the_table_of_controls_is_that_of_the_results():
    results = xr.load_dataset(
        ROOT / "figures/language_model/pretrained_model/results.nc", engine="h5netcdf"
    )
    text = (DOCS / "language_model.md").read_text(encoding="utf-8")
    similarity = results.similarity.mean(("layer", "task"))
    for row, update in UPDATES.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
        shown = [float(number) for number in NUMBER.findall(line.partition(f"| {row} |")[2])]
        own = similarity.sel(update=update)
        expected = [own.sel(kind="normalised"), own.sel(kind="centred")]
        assert shown[:2] == [pytest.approx(round(float(value), 3)) for value in expected]
        accuracy = float(results.accuracy.sel(update=update).mean("task"))
        assert shown[2:] == [pytest.approx(round(accuracy, 2))]
    row = "| random weights in place of the trained ones |"
    (line,) = [line for line in text.splitlines() if line.startswith(row)]
    own = results.untrained_similarity.sel(factor=1.0).mean(("layer", "task"))
    expected = [own.sel(kind="normalised"), own.sel(kind="centred")]
    shown = [float(number) for number in NUMBER.findall(line)]
    assert shown == [pytest.approx(round(float(value), 3)) for value in expected]


ROWS_BY_RATE = {
    "SimAOU": "similarity_by_rate",
    "size of the change": "norm_ratio_by_rate",
    "accuracy": "accuracy_by_rate",
}


@pytest.mark.parametrize("row", ROWS_BY_RATE)
@pytest.mark.parametrize(("name", "method"), [("plain", 0), ("layer-causal", 1)])
def test_the_table_of_rates_is_that_of_the_results(row, name, method):
    results = xr.load_dataset(
        ROOT / "figures/language_model/pretrained_model/results.nc", engine="h5netcdf"
    )
    own = results[ROWS_BY_RATE[row]].isel(layerwise=method)
    if "kind" in own.dims:
        own = own.sel(kind="normalised")
    expected = own.mean([dim for dim in own.dims if dim != "rate"]).values
    text = (DOCS / "language_model.md").read_text(encoding="utf-8")
    (line,) = [one for one in text.splitlines() if one.startswith(f"| {row}, {name} |")]
    shown = [cell.strip() for cell in line.split("|")[2:-1]]
    digits = [len(cell.partition(".")[2]) for cell in shown]
    assert len(shown) == results.sizes["rate"]
    assert [float(cell) for cell in shown] == [
        pytest.approx(value, abs=0.51 * 10.0**-n) for value, n in zip(expected, digits, strict=True)
    ]


def test_the_table_of_heads_is_that_of_the_results(records):
    results = xr.load_dataset(
        ROOT / "figures/language_model/head_circuits/results.nc", engine="h5netcdf"
    )
    text = (DOCS / "language_model.md").read_text(encoding="utf-8")
    far, opposite = (records[name]["measured"] for name in ("LM-heads", "LM-heads-signs"))
    heads = results.sizes["layer"] * results.sizes["head"]
    assert f"| {far:.0f} of {heads} |" in text
    assert f"with opposite signs | {opposite:.0f} (" in text
    fractions = results.fraction.sel(source="model").quantile([0.5, 0.95], ("layer", "head"))
    for circuit, name in (("key_query", r"$W_K^\top W_Q$"), ("value_output", "$P W_V$")):
        (line,) = [
            one
            for one in text.splitlines()
            if one.startswith(f"| fraction of the identity in {name}")
        ]
        shown = [float(number) for number in NUMBER.findall(line)][:2]
        own = fractions.sel(circuit=circuit).values
        assert shown == [pytest.approx(own[0], abs=6e-4), pytest.approx(own[1], abs=6e-3)]
