"""How the trainings of a run are described."""

from dataclasses import replace

from toyicl.harness.trainings import Declared, described
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training import recipes
from toyicl.training.loop import Job


def declared(name, training):
    return Declared(0, "", name, Job(Architecture(), LinearRegression(), training))


def test_trainings_of_the_same_recipe_and_length_are_named_together():
    short = replace(recipes.RELEASED, steps=100)
    trainings = [
        declared("model", recipes.FALLING),
        declared("released", recipes.RELEASED),
        declared("other model", recipes.FALLING),
        declared("shorter", short),
    ]
    assert described(trainings) == (
        "model, other model: falling rate, 40,000 steps of 512 episodes; "
        "released: released code, 5,000 steps of 2,048 episodes; "
        "shorter: released code, 100 steps of 2,048 episodes"
    )


def test_without_trainings_there_is_nothing_to_describe():
    assert described([]) == ""
