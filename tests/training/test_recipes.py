"""Names of training recipes."""

from dataclasses import replace

import pytest

from toyicl.training import recipes
from toyicl.training.step import Training


@pytest.mark.parametrize("name", recipes.NAMES)
def test_a_recipe_is_named_by_its_optimiser_alone(name):
    training = recipes.NAMES[name]
    assert recipes.name(training) == name
    longer = replace(training, steps=2 * training.steps, batch_size=3)
    assert recipes.name(longer) == name
    assert recipes.describe(longer) == f"{name}, {longer.steps:,} steps of 3 episodes"
    assert recipes.name(replace(training, b1=0.5)) == "own settings"
    assert recipes.name(replace(training, learning_rate=0.123)) == "own settings"


def test_the_default_training_is_that_of_the_released_code():
    assert recipes.name(Training()) == "released code"
