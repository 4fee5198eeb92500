"""Runs on disk: what is saved comes back, whole or not at all."""

import json

import numpy as np
import pytest
import xarray as xr

from toyicl import runs
from toyicl.errors import BadInput
from toyicl.tasks import LinearRegression

RESULTS = xr.Dataset(
    {"loss": (("seed", "step"), np.array([[1.0, 0.5], [1.0, np.nan]]))},
    coords={"seed": [0, 1], "step": [0, 100]},
    attrs={"settings": "{}"},
)


def test_results_come_back_as_they_were_saved(tmp_path):
    runs.save_results(RESULTS, tmp_path)
    xr.testing.assert_identical(runs.load_results(tmp_path), RESULTS)
    assert [path.name for path in tmp_path.iterdir()] == ["results.nc"]


def test_a_save_that_fails_leaves_the_earlier_results(tmp_path):
    runs.save_results(RESULTS, tmp_path)
    broken = RESULTS.assign(odd=("seed", np.array([object(), object()])))
    with pytest.raises((TypeError, ValueError)):
        runs.save_results(broken, tmp_path)
    xr.testing.assert_identical(runs.load_results(tmp_path), RESULTS)
    assert [path.name for path in tmp_path.iterdir()] == ["results.nc"]


def test_missing_results_are_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(BadInput, match=r"which has no results\.nc"):
        runs.load_results(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="out must be a folder that can be written"):
        runs.prepare_folder(blocked / "runs")


def test_provenance_says_what_made_the_results():
    task = LinearRegression(dim=3, covariance=(1.0, 2.0, 3.0))
    origin = runs.provenance({"ignored": 1}, seeds=2, quick=True)
    assert json.loads(origin["seeds"]) == [0, 1]
    assert origin["level"] == "quick"
    assert {"python", "jax", "flax"} <= set(json.loads(origin["versions"]))
    assert len(origin["revision"]) == 40 or origin["revision"] == "unknown"
    assert runs.as_plain(task)["covariance"] == [1.0, 2.0, 3.0]
    assert json.loads(json.dumps(runs.as_plain(task)))["dim"] == 3
