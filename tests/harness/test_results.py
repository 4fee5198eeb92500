"""Runs on disk: what is saved comes back, whole or not at all."""

import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import xarray as xr

from toyicl.core import strict_json
from toyicl.core.errors import BadInput
from toyicl.core.random_numbers import GENERATOR
from toyicl.harness import atomic_files, checkpoints, outputs, provenance
from toyicl.harness import results as harness_results
from toyicl.harness.checkpoints import Checkpoint
from toyicl.harness.claims import Finding
from toyicl.harness.provenance import changed_since, changed_since_any, differences, identity_of
from toyicl.harness.results import describe, load_results, save_results
from toyicl.tasks.linear import LinearRegression

ARRAYS = {
    "step": np.array([20, 60]),
    "training_loss": np.array([[0.1, 0.0, 0.0], [0.1, np.nan, 0.3]]),
}
RESULTS = xr.Dataset(
    {"loss": (("seed", "step"), np.array([[1.0, 0.5], [1.0, np.nan]]))},
    coords={"seed": [0, 1], "step": [0, 100]},
    attrs={"format": checkpoints.FORMAT, "settings": "{}"},
)


FIGURES = Path(__file__).parents[2] / "figures"
FILES = ["results.nc", "results.nc.sha256"]


def test_results_come_back_as_they_were_saved(tmp_path):
    save_results(RESULTS, tmp_path)
    xr.testing.assert_identical(load_results(tmp_path), RESULTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_a_save_that_fails_leaves_the_earlier_results(tmp_path):
    save_results(RESULTS, tmp_path)
    broken = RESULTS.assign(odd=("seed", np.array([object(), object()])))
    with pytest.raises((TypeError, ValueError)):
        save_results(broken, tmp_path)
    xr.testing.assert_identical(load_results(tmp_path), RESULTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_missing_results_are_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(BadInput, match=r"which has no results\.nc"):
        load_results(tmp_path)


def test_no_changed_byte_gives_wrong_results(tmp_path):
    save_results(RESULTS, tmp_path)
    path = tmp_path / harness_results.RESULTS
    whole, unused = path.read_bytes(), 0
    for place in np.unique(np.linspace(0, len(whole) - 1, 5).astype(int)):
        flipped = whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]
        for broken in (flipped, whole[:place]):
            path.write_bytes(broken)
            notes = []
            try:
                loaded = load_results(tmp_path, notes.append)
            except atomic_files.Damaged:
                continue
            assert len(notes) == 1  # a byte that no variable and no attribute uses
            xr.testing.assert_identical(loaded, RESULTS)
            unused += 1
    assert unused < 5


def test_results_are_read_without_a_lock(tmp_path):
    """HDF5 locks what it opens, which a file system without locks refuses, as a locked file does."""
    save_results(RESULTS, tmp_path)
    with (tmp_path / harness_results.RESULTS).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        xr.testing.assert_identical(load_results(tmp_path, pytest.fail), RESULTS)


def test_results_of_another_format_are_refused(tmp_path):
    save_results(RESULTS.assign_attrs(format=99), tmp_path)
    with pytest.raises(BadInput, match="must have been written in format 2, got 99"):
        load_results(tmp_path)


@pytest.mark.parametrize("attributes", [{}, {"format": 1}, {"format": 99}])
def test_results_that_another_version_saved_are_refused_by_their_format(tmp_path, attributes):
    old = RESULTS.drop_attrs().assign_attrs(attributes)
    old.to_netcdf(tmp_path / harness_results.RESULTS, engine="h5netcdf")
    with pytest.raises(BadInput, match=r"written in format 2, got .*--fresh to start over"):
        load_results(tmp_path)


VARIED = xr.Dataset(
    {
        "loss": (("seed", "step"), np.array([[1.0, 0.5], [1.0, np.nan]])),
        "on_plateau": ("seed", [True, False]),
        "count": ("seed", np.array([3, 4], np.int32)),
        "text": ("name", ["a", "bc"]),
    },
    coords={"seed": ("seed", [0, 1], {"role": "seed"}), "step": [0, 100], "name": ["x", "y"]},
    attrs={"format": checkpoints.FORMAT, "settings": "{}", "tolerance": 0.05, "steps": 3},
)


def saved_again(folder, change):
    """Results as xarray saves them once more after a change."""
    path = folder / harness_results.RESULTS
    results = change(xr.load_dataset(path, engine="h5netcdf"))
    path.unlink()
    results.to_netcdf(path, engine="h5netcdf")


@pytest.mark.parametrize("digest", ["stale", "missing"])
def test_results_saved_again_with_further_attributes_and_variables_load_with_a_note(
    tmp_path, digest
):
    save_results(VARIED, tmp_path)

    def annotated(results):
        return results.assign(ratio=results.loss / 2).assign_attrs(remark="mine")

    saved_again(tmp_path, annotated)
    if digest == "missing":
        (tmp_path / "results.nc.sha256").unlink()
    notes = []
    xr.testing.assert_identical(load_results(tmp_path, notes.append), annotated(VARIED))
    (note,) = notes
    assert "was saved again" in note
    save_results(load_results(tmp_path), tmp_path)
    load_results(tmp_path, lambda note: pytest.fail(note))


@pytest.mark.parametrize(
    "encoding", [{"zlib": True, "complevel": 4}, {"chunksizes": (1, 1)}, {"shuffle": True}]
)
def test_results_saved_again_in_another_encoding_load(tmp_path, encoding):
    save_results(VARIED, tmp_path)
    path = tmp_path / harness_results.RESULTS
    results = xr.load_dataset(path, engine="h5netcdf")
    path.unlink()
    results.to_netcdf(path, engine="h5netcdf", encoding={"loss": encoding})
    xr.testing.assert_identical(load_results(tmp_path), VARIED)


def test_checked_in_results_load_after_xarray_has_saved_them_again(tmp_path):
    """Also those of versions that did not name the variables that a digest covers."""
    for path in sorted(FIGURES.rglob(harness_results.RESULTS))[:3]:
        results, notes = load_results(path.parent, pytest.fail), []
        folder = tmp_path / path.parent.name
        folder.mkdir()
        xr.load_dataset(path, engine="h5netcdf").to_netcdf(folder / path.name, engine="h5netcdf")
        xr.testing.assert_identical(load_results(folder, notes.append), results)
        assert len(notes) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results.assign_attrs(settings="[]"),
        lambda results: results.assign(loss=results.loss + 1e-12),
        lambda results: results.drop_vars("count"),
        lambda results: results.drop_vars("count").assign(other=results["count"]),
        lambda results: results.assign_coords(step=[0, 200]),
        lambda results: results.rename(count="counts"),
        lambda results: results.isel(seed=[0]),
        lambda results: results.drop_attrs(),
    ],
)
def test_results_saved_again_with_other_contents_are_refused(tmp_path, change):
    save_results(VARIED, tmp_path)
    saved_again(tmp_path, change)
    with pytest.raises((atomic_files.Damaged, BadInput)):
        load_results(tmp_path)


def test_a_folder_in_the_place_of_results_is_an_error_that_names_it(tmp_path):
    (tmp_path / harness_results.RESULTS).mkdir()
    with pytest.raises(BadInput, match=r"results\.nc must be a file, got a folder"):
        load_results(tmp_path)


def test_a_damaged_run_is_listed_and_hides_no_other(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        folder.mkdir()
        checkpoints.save(folder, Checkpoint({}, [], {"a": ARRAYS}))
    for path in bad.glob("*/*/about.json"):
        path.write_text("{")
    save_results(RESULTS, bad)  # lacks what a listing says
    assert "no undamaged checkpoint is left" in describe(bad)[-1]
    assert describe(good)[1:] == [f"{'':<8} training: a, 2 runs, 4 of 6 chunks"]
    assert describe(tmp_path / "none") == []


def test_an_identity_holds_what_has_to_be_equal():
    task = LinearRegression(dim=3, covariance=(1.0, 2.0, 3.0))
    identity = provenance.identity("name", task, 2, {"task.dim": [1, 2]})
    assert identity["settings"]["covariance"] == [1.0, 2.0, 3.0]
    assert identity["seeds"] == [0, 1]
    assert identity["precision"] == "float64"
    assert differences(identity, identity) == []


@dataclass(frozen=True)
class Unchecked:
    """Settings of an experiment of one's own, whose values nothing checks."""

    most: float = float("inf")
    values: np.ndarray = field(default_factory=lambda: np.array([[float("nan"), 1.0]]))


def strict(text):
    return json.loads(text, parse_constant=pytest.fail)


def test_numbers_that_are_not_finite_are_text_in_everything_that_is_saved(tmp_path):
    identity = provenance.identity("name", Unchecked(), 1, {"most": [1.0, -float("inf")]})
    assert identity["settings"] == {"most": "inf", "values": [["nan", 1.0]]}
    assert identity == provenance.identity("name", Unchecked(), 1, {"most": [1.0, -float("inf")]})
    checkpoints.save(tmp_path, Checkpoint(identity, [], {"a": ARRAYS}))
    (about,) = tmp_path.rglob("about.json")
    assert strict(about.read_text())["identity"] == identity
    attributes = provenance.attributes(identity, [provenance.origin("")], False, "toyicl")
    assert strict(attributes["settings"]) == identity["settings"]
    results = RESULTS.expand_dims(most=[1.0, -float("inf")]).assign_attrs(attributes)
    assert identity_of(results) == provenance.completed(identity)
    falls = Finding("A", "a", lambda results: results.loss, (0.0, 1.0), source="s")
    experiment = SimpleNamespace(claims=[falls])
    places = [record["point"] for record in outputs.judge(experiment, results)]
    assert places == [{"most": 1.0}, {"most": "-inf"}]
    strict(strict_json.text(places))


def test_differences_name_the_field_and_both_values():
    one = {"a": {"b": 1, "c": 2}, "d": [0]}
    other = {"a": {"b": 1, "c": 3}, "e": None, "d": [0, 1]}
    assert differences(one, other) == [
        "a.c (2 there, 3 here)",
        "d ([0] there, [0, 1] here)",
    ]


def test_provenance_names_the_program_of_the_results():
    identity = provenance.identity("name", LinearRegression(), 2, {})
    origin = provenance.origin("abc")
    attributes = provenance.attributes(
        identity, [{"revision": "first"}, origin], quick=True, command="toyicl run name"
    )
    assert json.loads(attributes["seeds"]) == [0, 1]
    assert attributes["level"] == "quick"
    assert attributes["command"] == "toyicl run name"
    assert {"python", "jax", "flax"} <= set(json.loads(attributes["versions"]))
    assert len(attributes["revision"]) == 40 or attributes["revision"] == "unknown"
    assert json.loads(attributes["origins"])[0]["revision"] == "first"
    assert json.loads(attributes["origins"])[1]["experiment_file"] == "abc"
    results = RESULTS.assign_attrs(attributes)
    assert differences(identity_of(results), identity) == []


def test_results_without_numerics_were_computed_with_the_defaults_and_the_numbers_of_jax():
    with jax.enable_x64(False):
        identity = provenance.identity("name", LinearRegression(), 1, {})
    attributes = provenance.attributes(identity, [provenance.origin("abc")], False, "toyicl")
    del attributes["numerics"]
    found = differences(identity_of(RESULTS.assign_attrs(attributes)), identity)
    assert found == [f"numerics.random_numbers (jax.random there, {GENERATOR} here)"]


def test_runs_in_double_precision_have_the_random_numbers_of_jax():
    identity = provenance.identity("name", LinearRegression(), 1, {})
    assert identity["precision"] == "float64"
    assert identity["numerics"]["random_numbers"] == "jax.random"


def test_a_changed_program_or_experiment_file_is_noticed():
    now = provenance.origin("abc")
    assert changed_since(now, now) == ""
    assert changed_since(now | {"experiment_file": "d"}, now).endswith("experiment file")
    other = now | {"source": "d", "experiment_file": "d", "revision": "e"}
    assert changed_since(other, now) == "another revision (e)"
    older = {name: value for name, value in now.items() if name != "experiment_file"}
    assert changed_since(older, now) == ""
    assert changed_since_any([], now) == changed_since_any([now, older], now) == ""
    assert changed_since_any([other, now], now) == "another revision (e)"
    newer = other | {"revision": "f"}
    assert changed_since_any([other, newer, now], now) == "another revision (f)"
