"""Datasets of results: which dimension holds the seeds, also after results are joined and saved."""

import numpy as np
import pytest
import xarray as xr

from toyicl.core.datasets import dataset, seed_coordinate, seed_dim, side_by_side
from toyicl.harness import sweeps


def results(seeds):
    return dataset(
        {"loss": (("seed", "step"), np.zeros((len(seeds), 2)))},
        {"seed": np.array(seeds), "step": [0, 10]},
    )


def test_the_dimension_of_seeds_is_marked_on_its_coordinate():
    own = results([0, 1]).rename(seed="size_seed")
    assert seed_dim(own) == seed_dim(own.loss) == "size_seed"
    two = own.assign(other=("own_seed", np.zeros(3)), **seed_coordinate(range(3), "own_seed"))
    assert seed_dim(two.other) == "own_seed"
    assert seed_dim(two.loss) == "size_seed"


def test_a_dimension_that_is_called_seed_needs_no_mark():
    assert seed_dim(xr.DataArray(np.zeros((2, 3)), dims=("step", "seed"))) == "seed"


def test_values_without_one_dimension_of_seeds_are_refused():
    own = results([0, 1])
    two = own.assign(
        other=(("seed", "own_seed"), np.zeros((2, 3))), **seed_coordinate(range(3), "own_seed")
    )
    for values in (own.loss.mean("seed"), two.other, own.step):
        with pytest.raises(ValueError, match="values must have one dimension whose coordinate"):
            seed_dim(values)


@pytest.mark.parametrize("others", [[0, 1], [0, 1, 2]], ids=["as many seeds", "more seeds"])
def test_the_mark_survives_joining_sweeping_and_saving(tmp_path, others):
    parts = [one.rename(seed="own_seed") for one in (results([0, 1]), results(others))]
    for joined in (
        side_by_side(dict(zip("ab", parts, strict=True)), "size"),
        sweeps.labelled(parts, {"a": [1, 2]}),
    ):
        joined.to_netcdf(tmp_path / "joined.nc", engine="h5netcdf")
        for own in (joined, xr.load_dataset(tmp_path / "joined.nc", engine="h5netcdf")):
            assert seed_dim(own.loss) == "own_seed"
    for own in sweeps.points_of(sweeps.labelled(parts, {"a": [1, 2]}), {"a": [1, 2]}):
        assert seed_dim(own.loss) == "own_seed"


def test_parts_of_different_length_are_padded():
    short = dataset({"loss": (("seed", "step"), [[1.0]]), "seed": [0], "step": [0]})
    seeds = {"on_plateau": ("seed", [True, False])}
    long = dataset(
        {"loss": (("seed", "step"), [[1.0, 2.0], [3.0, 4.0]]), "seed": [0, 1], "step": [0, 5]},
        seeds,
    )
    joined = side_by_side({1: short.assign(on_plateau=("seed", [True])), 2: long}, "heads")
    assert joined.loss.sel(heads=1).isnull().sum() == 3
    assert joined.on_plateau.dtype == bool
    assert not joined.on_plateau.sel(heads=1, seed=1)
