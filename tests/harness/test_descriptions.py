"""Descriptions of trainings: equal where the training is, and none where that cannot be told."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from small import FULL, trainings

from toyicl.harness.descriptions import continues, describe
from toyicl.harness.trainings import Declared
from toyicl.models.transformer import Architecture
from toyicl.training.loop import Job

JOB = trainings(FULL)["first"]


def described(job, seeds=range(2)):
    return describe([Declared(0, "", "a", job)], seeds)["a"]


def loss(learner, episodes):
    return episodes.loss(learner)


def test_a_description_is_json_and_equal_for_equal_trainings():
    own = described(JOB)
    assert json.loads(json.dumps(own)) == own
    assert own == described(trainings(replace(FULL, evaluation_episodes=7))["first"])
    assert continues(own, own)


@pytest.mark.parametrize(
    "other",
    [
        JOB._replace(build=Architecture(heads=2)),
        JOB._replace(task=replace(FULL.task, input_range=2.0)),
        JOB._replace(training=replace(FULL.training, steps=400)),
        JOB._replace(training=replace(FULL.training, learning_rate=2e-3)),
        JOB._replace(objective=loss),
        JOB._replace(max_seeds=1),
    ],
)
def test_every_part_of_a_job_is_described(other):
    assert not continues(described(JOB), described(other))


def test_a_training_continues_one_with_fewer_seeds():
    assert continues(described(JOB, range(2)), described(JOB, range(5)))
    assert continues(described(JOB, range(2, 4)), described(JOB, range(2, 5)))
    assert not continues(described(JOB, range(5)), described(JOB, range(2)))
    assert not continues(described(JOB, range(2)), described(JOB, range(1, 5)))
    limited = JOB._replace(max_seeds=2)
    assert continues(described(limited, range(2)), described(limited, range(5)))
    assert not continues(described(limited, range(5)), described(limited, range(1)))


def test_objectives_and_large_arrays_are_told_apart():
    assert described(JOB._replace(objective=loss)) == described(JOB._replace(objective=loss))
    few, many = (Job(Architecture(), np.arange(size), FULL.training) for size in (3, 300))
    changed = many._replace(task=np.arange(300) * (np.arange(300) != 299))
    assert continues(described(few), described(few))
    assert continues(described(many), described(many))
    assert not continues(described(many), described(changed))
    assert len(json.dumps(described(many))) < 2000


def test_numbers_that_are_not_finite_are_described_as_text():
    first, second = (
        described(Job(Architecture(), [value, np.array([value])], FULL.training))
        for value in (float("nan"), float("inf"))
    )
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert continues(first, first)
    assert not continues(first, second)


def test_values_that_cannot_be_compared_are_not_described():
    scale = 2.0

    def scaled(learner, episodes):
        return scale * episodes.loss(learner)

    for objective in (scaled, lambda learner, episodes: 0.0, partial(loss), object()):
        own = described(JOB._replace(objective=objective))
        assert own is None
        assert not continues(own, own)
