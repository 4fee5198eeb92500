"""Experiments give the numbers that they gave before the packages were reorganised.

`helpers/recorded_numbers.json` holds results of the version before (commit 70ba8c5), computed by its
command line in single precision on two CPU devices, with the names and options of that time. The same
runs of this version must give the same bits on the same kind of CPU, also from a process that compiles
anew. On other processors XLA generates other instructions: there, values may differ by 1e-5 relative to
the largest of their variable.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from programs import toyicl

from toyicl.training import compilation_cache

RECORDED = json.loads(
    (Path(__file__).parents[1] / "helpers" / "recorded_numbers.json").read_text(encoding="utf-8")
)
OTHER_CPU = 1e-5
"""Largest difference on other processors, relative to the largest value of the variable."""
TRAINING = (
    "--settings.training.steps=40 --settings.training.snapshot-every=20 "
    "--settings.training.batch-size=16"
)
OPTIONS = {
    "fig02_one_step": f"{TRAINING} --settings.training.learning-rate=0.03 "
    "--settings.evaluation-episodes=50 --settings.sizes 3 --settings.size-max-seeds=1 "
    "--settings.size-training.steps=20 --settings.size-training.snapshot-every=20 "
    "--settings.size-training.batch-size=8 --settings.size-training.learning-rate=0.03",
    "cosine_blindness": "--settings.episodes=50 --settings.depth=2",
    "regression_finetuning": f"{TRAINING} --settings.training.learning-rate=0.01 "
    "--settings.tasks=2 --settings.queries=3",
}
NEW_NAMES: dict[str, dict[str, tuple[str, dict[str, str]]]] = {}
"""Where variables that have another name now are found, by experiment: the new name, and the labels of
new dimensions. Other variables are found under their old name."""


def found(results, experiment, name):
    """The values of a variable by its old name."""
    new, labels = NEW_NAMES.get(experiment, {}).get(name, (name, {}))
    return results[new].sel(labels, drop=True)


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param("fig02_one_step", marks=pytest.mark.slow),
        "cosine_blindness",
        "regression_finetuning",
    ],
)
def test_numbers_are_those_of_the_version_before(tmp_path, experiment):
    words = [experiment, "--quick", "--seeds=2", *OPTIONS[experiment].split()]
    answer = toyicl("run", *words, "--out", tmp_path, JAX_NUM_CPU_DEVICES=2)
    assert answer.returncode == 0, answer.stderr
    results = xr.load_dataset(tmp_path / experiment / "results.nc", engine="h5netcdf")
    exact = RECORDED["cpu"] == compilation_cache.kind_of_cpu()
    for name, recorded in RECORDED["results"][experiment].items():
        own = found(results, experiment, name)
        expected = np.array(recorded["values"], recorded["dtype"])
        assert set(own.dims) == set(recorded["dims"]), name
        values = own.transpose(*recorded["dims"]).values
        assert values.dtype == expected.dtype, name
        if exact or expected.dtype.kind != "f":
            np.testing.assert_array_equal(values, expected, err_msg=name)
        else:
            most = np.nanmax(np.abs(expected))
            np.testing.assert_allclose(
                values, expected, rtol=0, atol=OTHER_CPU * most, equal_nan=True, err_msg=name
            )
