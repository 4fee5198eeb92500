"""Experiment files: how they are found, loaded and refused."""

from pathlib import Path

import pytest

from toyicl.core.errors import BadInput
from toyicl.harness import experiment

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
        (COMPLETE + "prerequisites = ('lm',)\n", r"prerequisites must be a function \(settings\)"),
    ],
)
def test_an_incomplete_experiment_file_is_refused(tmp_path, text, message):
    path = Path(tmp_path) / "mine.py"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        experiment.load(experiment.find(str(path)))
