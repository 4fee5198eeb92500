"""Experiments give the numbers that they gave before the packages were reorganised.

`helpers/recorded_numbers.json` holds results of the version before (commit 70ba8c5), computed by its
command line in double precision on two CPU devices, with the names and options of that time. In single
precision training draws other random numbers since then. Values may differ by `TOLERANCE`, relative to
the largest value of their variable; whole numbers and truth values must be equal.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from programs import toyicl

RECORDED = json.loads(
    (Path(__file__).parents[1] / "helpers" / "recorded_numbers.json").read_text(encoding="utf-8")
)
TOLERANCE = {"regression_finetuning": 1e-9, "fig02_one_step": 1e-9, "cosine_blindness": 1e-8}
"""Largest relative difference for each experiment. Sums are taken in another order, and the step sizes
of `cosine_blindness` are found by another optimiser."""
AS_USERS = {"JAX_DISABLE_MOST_OPTIMIZATIONS": 0, "XLA_FLAGS": ""}
"""The compiler as users have it."""
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
NEW_NAMES: dict[str, tuple[str, dict[str, str]]] = {
    "gd_loss": ("reference_loss", {}),
    "exact_gd_loss": ("exact_reference_loss", {}),
    "size_gd_loss": ("size_reference_loss", {}),
    "scaled_loss": ("shifted_loss", {"shift": "inputs"}),
    "target_loss": ("shifted_loss", {"shift": "targets"}),
    "law_loss": ("shifted_loss", {"shift": "distributions"}),
    "law_target_loss": ("shifted_loss", {"shift": "distributions and targets"}),
    "scaled_gd_loss": ("shifted_reference_loss", {"shift": "inputs"}),
    "target_gd_loss": ("shifted_reference_loss", {"shift": "targets"}),
    "law_gd_loss": ("shifted_reference_loss", {"shift": "distributions"}),
    "law_target_gd_loss": ("shifted_reference_loss", {"shift": "distributions and targets"}),
}
"""Old names of variables: the new name, and labels of the new dimensions. Other variables have kept
their names. The old values are those of the label "gd" of a new dimension `reference`."""
AMOUNTS = ("alpha", "factor")
"""Old dimensions of the shifts, whose labels are among those of the new dimension `amount`."""


def found(results, name, recorded):
    """The values of a variable by its old name, with its old dimensions."""
    new, labels = NEW_NAMES.get(name, (name, {}))
    if "reference" in results[new].dims:
        labels = labels | {"reference": "gd"}
    values = results[new].sel(labels, drop=True)
    for dim in AMOUNTS:
        if dim in recorded[name]["dims"]:
            values = values.sel(amount=recorded[dim]["values"]).rename(amount=dim)
    assert set(values.dims) == set(recorded[name]["dims"]), name
    return values.transpose(*recorded[name]["dims"]).values


@pytest.mark.parametrize(
    ("experiment", "compiler"),
    [
        ("fig02_one_step", {}),
        pytest.param("cosine_blindness", AS_USERS, marks=pytest.mark.slow),
        pytest.param("regression_finetuning", AS_USERS, marks=pytest.mark.slow),
    ],
)
def test_numbers_are_those_of_the_version_before(tmp_path, experiment, compiler):
    words = [experiment, "--quick", "--seeds=2", *OPTIONS[experiment].split()]
    numerics = {"JAX_NUM_CPU_DEVICES": 2, "JAX_ENABLE_X64": 1, **compiler}
    answer = toyicl("run", *words, "--out", tmp_path, **numerics)
    assert answer.returncode == 0, answer.stderr
    results = xr.load_dataset(tmp_path / experiment / "results.nc", engine="h5netcdf")
    recorded = RECORDED["results"][experiment]
    for name in recorded.keys() - AMOUNTS:
        expected = np.array(recorded[name]["values"], recorded[name]["dtype"])
        own = found(results, name, recorded).astype(expected.dtype, casting="same_kind")
        if expected.dtype.kind == "f":
            most = TOLERANCE[experiment] * np.nanmax(np.abs(expected))
            np.testing.assert_allclose(own, expected, rtol=0, atol=most, err_msg=name)
        else:
            np.testing.assert_array_equal(own, expected, err_msg=name)
