"""Whether a training that was cut had finished."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from small import FULL

from toyicl.core import strict_json
from toyicl.harness import provenance
from toyicl.harness.loss_curves import any_is_falling, is_falling, is_shortened


@pytest.mark.parametrize(
    ("changes", "shortened"),
    [
        ({}, False),
        ({"training": replace(FULL.training, steps=100)}, True),
        ({"training": replace(FULL.training, steps=400)}, False),
        ({"training": replace(FULL.training, batch_size=16)}, True),
        ({"training": replace(FULL.training, learning_rate=1e-4)}, False),
        ({"task": replace(FULL.task, dim=2), "evaluation_episodes": 10}, False),
    ],
)
def test_fewer_steps_and_smaller_batches_are_a_shortened_training(changes, shortened):
    """Whatever the sentence in the caption says."""
    found = strict_json.text(provenance.changes(FULL, replace(FULL, **changes)))
    for cut in ("", "Not the full settings: training.steps 1 instead of 2."):
        assert is_shortened(xr.Dataset(attrs={"changes": found, "cut": cut})) == shortened


def test_settings_of_the_same_name_that_are_no_numbers_shorten_nothing():
    found = strict_json.text({"steps": (None, 5), "batch_size": ([1], [2])})
    assert not is_shortened(xr.Dataset(attrs={"changes": found}))


@pytest.mark.parametrize(("cut", "shortened"), [("", False), ("Not the full settings.", True)])
def test_results_of_earlier_versions_are_shortened_if_anything_differed(cut, shortened):
    assert is_shortened(xr.Dataset(attrs={"cut": cut})) == shortened


def ending(before, end, length=40):
    """A curve whose last two tenths are constant."""
    curve = np.full(length, 5.0)
    curve[-length // 5 :], curve[-length // 10 :] = before, end
    return curve


def test_a_loss_falls_if_its_last_tenth_is_more_than_1_percent_below_the_tenth_before():
    assert is_falling(ending(1.0, 0.985))
    assert not is_falling(ending(1.0, 0.995))
    assert not is_falling(ending(1.0, 1.5))


def test_noise_within_a_tenth_is_averaged():
    noise = 0.05 * (-1.0) ** np.arange(100)
    assert not is_falling(1.0 + noise)
    assert is_falling(np.geomspace(2.0, 1.0, 100) + 0.01 * noise)


def test_short_curves_and_missing_snapshots():
    assert not is_falling(np.array([1.0]))
    assert is_falling(np.array([1.0, 0.5]))
    assert is_falling(np.append(ending(1.0, 0.9), np.full(10, np.nan)))
    assert not is_falling(np.append(ending(1.0, 1.0), np.full(10, np.nan)))


def curves(falling):
    loss = [ending(1.0, 0.5 if one else 1.0) for one in falling]
    return xr.Dataset({"loss": (("seed", "step"), loss)}, coords={"seed": range(len(loss))})


def test_one_seed_that_counts_is_enough():
    stuck = xr.DataArray([False, True], dims="seed", coords={"seed": [0, 1]})
    assert any_is_falling(curves([False, True]), None)
    assert not any_is_falling(curves([False, True]), stuck)
    assert any_is_falling(curves([True, True]), stuck)
    assert not any_is_falling(curves([False, False]), None)


def test_a_seed_that_left_its_plateau_somewhere_counts():
    stuck = xr.DataArray([[True, True], [False, True]], dims=("size", "seed"))
    assert any_is_falling(curves([True, False]), stuck)
    assert not any_is_falling(curves([False, True]), stuck)


def test_results_without_a_loss_curve_do_not_fall():
    assert not any_is_falling(curves([True]).isel(step=-1), None)
    assert not any_is_falling(xr.Dataset(), None)
