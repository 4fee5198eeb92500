"""Which snapshots of the training the experiment `classroom` keeps for the teaching page."""

import sys

import numpy as np
import pytest

from toyicl.demo.build import CLASSROOM
from toyicl.harness import experiment


@pytest.fixture(scope="module")
def classroom():
    experiment.load(experiment.find(CLASSROOM))
    return sys.modules[f"toyicl_experiment_{CLASSROOM}"]


def test_a_seed_that_falls_late_has_as_many_snapshots_as_several_that_fall_early(classroom):
    early, late = np.ones(101), np.ones(101)
    early[10:21], early[21:] = np.linspace(1, 0, 11), 0
    late[70:81], late[81:] = np.linspace(1, 0, 11), 0
    found = classroom.largest_changes(np.stack([early, early, early, late]))
    assert found.shape == (1, 101)
    assert found[0, 25] - found[0, 5] == pytest.approx(1)
    assert found[0, 85] - found[0, 65] == pytest.approx(1)


def test_a_diverged_seed_does_not_count(classroom):
    found = classroom.largest_changes([[1.0, np.nan, np.inf, 0.5], [1.0, 0.8, 0.8, 0.7]])
    np.testing.assert_allclose(found, [[0.0, 0.2, 0.2, 0.3]])
