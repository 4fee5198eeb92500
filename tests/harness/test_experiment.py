"""Claims and experiment files: how verdicts are reached, and how files are found and refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from toyicl.core.datasets import seed_coordinate
from toyicl.core.errors import BadInput
from toyicl.harness import experiment
from toyicl.harness.claims import Claim

CLAIM = Claim(
    id="A",
    source="paper",
    statement="a is about 1",
    paper="1",
    value=lambda results: results.a,
    band=(0.9, 1.1),
    floor=1.0,
)

COMPLETE = '''"""mine: a claim.

Cost: none.
"""
from dataclasses import dataclass
@dataclass(frozen=True)
class Settings:
    """Mine."""
FULL = Settings()
QUICK = Settings()
def measure(settings, histories): pass
def draw(results): pass
CLAIMS = ()
'''


def results(values, stuck=None):
    stuck = [False] * len(values) if stuck is None else stuck
    return xr.Dataset(
        {"a": ("seed", np.array(values, float)), "on_plateau": ("seed", np.array(stuck))},
        coords={"seed": np.arange(len(values)) + 10},
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0, 0.95], "holds"),
        ([0.9, 1.1], "holds"),
        ([1.0, 1.2], "fails"),  # though the mean is in the band
        ([0.8, 1.0], "fails"),
        ([np.nan, 1.0], "fails"),
        ([np.inf, 1.0], "fails"),
        ([np.nan, np.nan], "fails"),
    ],
)
def test_a_claim_holds_only_if_every_seed_lies_in_the_band(values, verdict):
    record = CLAIM.judge(results(values))
    assert record["verdict"] == verdict
    json.dumps(record, allow_nan=False)


def test_a_verdict_gives_mean_and_range_over_seeds():
    record = CLAIM.judge(results([0.9, 1.1, 1.0]))
    assert record["measured"] == pytest.approx(1.0)
    assert record["spread"] == pytest.approx([0.9, 1.1])
    assert record["floor"] == 1.0


def test_seeds_on_their_plateau_are_named_and_left_out():
    record = CLAIM.judge(results([1.0, 5.0, 1.05], [False, True, False]))
    assert record["verdict"] == "holds"
    assert record["plateau_seeds"] == [11]
    assert record["spread"] == pytest.approx([1.0, 1.05])


def test_a_claim_fails_if_no_seed_left_its_plateau():
    record = CLAIM.judge(results([1.0, 1.0], [True, True]))
    assert record["verdict"] == "fails"
    assert record["measured"] is None


def by_size(stuck):
    return xr.Dataset(
        {
            "b": (("size", "size_seed"), np.array([[1.0, 9.0], [1.05, 1.0]])),
            "stuck": (("size", "size_seed"), np.array(stuck)),
        },
        coords={"size": [5, 50], **seed_coordinate([0, 1], "size_seed")},
    )


def test_a_claim_over_sizes_names_its_stuck_seeds_and_needs_one_left_at_each():
    claim = replace(CLAIM, value=lambda results: results.b, plateau="stuck")
    assert claim.judge(by_size([[False, False], [False, False]]))["verdict"] == "fails"
    record = claim.judge(by_size([[False, True], [False, False]]))
    assert record["verdict"] == "holds"
    assert record["plateau_seeds"] == ["size 5, size_seed 1"]
    assert record["spread"] == pytest.approx([1.0, 1.05])
    assert claim.judge(by_size([[False, True], [True, True]]))["verdict"] == "fails"


def test_without_results_a_claim_is_not_run():
    assert CLAIM.judge(None)["verdict"] == "not run"


def test_every_experiment_of_the_project_loads_and_states_its_cost():
    listings = experiment.listings()
    assert len({listing.name for listing in listings}) == len(listings) >= 2
    for listing in listings:
        loaded = experiment.load(listing)
        assert type(loaded.full) is type(loaded.quick)
        assert loaded.claims
        assert listing.cost != ""
        identifiers = [claim.id for claim in loaded.claims]
        assert len(set(identifiers)) == len(identifiers)


def test_a_complete_experiment_file_loads(tmp_path):
    path = Path(tmp_path) / "mine.py"
    path.write_text(COMPLETE)
    assert experiment.load(experiment.find(str(path))).name == "mine"


def test_a_similar_name_is_suggested():
    with pytest.raises(BadInput, match=r"did you mean fig2\?"):
        experiment.find("fig22")
    with pytest.raises(BadInput, match=r"got 'entirely_else'$"):
        experiment.find("entirely_else")


def test_an_experiment_is_found_by_its_alias_and_by_its_name():
    assert experiment.find("fig2") == experiment.find("fig02_one_step")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"""No name here."""', "must have a docstring whose first line is its claim"),
        ('"""mine: a claim."""', "has a line 'Cost: ...'"),
        ('"""mine: a claim.\n\nCost: none.\n"""\nCLAIMS = ()', "it lacks"),
        (COMPLETE.replace("@dataclass(frozen=True)\n", ""), "FULL must be an instance of a frozen"),
        (COMPLETE.replace("frozen=True", ""), "FULL must be an instance of a frozen"),
        (
            COMPLETE.replace("QUICK = Settings()", "QUICK = {}"),
            "QUICK must be of the class of FULL",
        ),
        (
            COMPLETE.replace("def measure(settings, histories): pass", "measure = {}"),
            "measure must be",
        ),
        (COMPLETE.replace("def draw(results): pass", "draw = None"), "draw must be a function"),
        (COMPLETE.replace("CLAIMS = ()", "CLAIMS = ('A',)"), "CLAIMS must be a tuple of Claim"),
    ],
)
def test_an_incomplete_experiment_file_is_refused(tmp_path, text, message):
    path = Path(tmp_path) / "mine.py"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        experiment.load(experiment.find(str(path)))
