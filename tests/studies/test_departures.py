"""Factors: what each changes in a task and a model, and that traced values share one program."""

import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.models.transformer import Architecture
from toyicl.studies import departures
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.nonlinear import TeacherRegression
from toyicl.tasks.recall import Recall
from toyicl.training.loop import Job, kind
from toyicl.training.step import Training

TASK = LinearRegression(dim=3, context_size=4, input_distribution="normal")
START = (TASK, Architecture())
TRACED = (
    "attention.softmax",
    "attention.temperature",
    "mlp.gate",
    "norm.gate",
    "task.sine",
    "task.network",
    "task.noise",
    "task.anisotropy",
)


def with_values(*values, start=START):
    """The task and the model with values of some factors, set in their order."""
    for name, value in values:
        start = departures.find(name).at(name, start, value)
    return start


@pytest.mark.parametrize("name", TRACED)
def test_trainings_at_values_of_a_traced_factor_are_of_one_kind(name):
    training = Training(steps=2, snapshot_every=2, batch_size=4)
    first, *_, last = departures.find(name).values
    jobs = [Job(model, task, training) for task, model in map(_at(name), (first, last))]
    assert kind(jobs[0]) == kind(jobs[1])
    assert jobs[0] != jobs[1]


def _at(name):
    return lambda value: with_values((name, value))


@pytest.mark.parametrize("name", departures.FACTORS)
def test_every_value_of_a_factor_makes_another_setup(name):
    factor = departures.find(name)
    setups = [with_values((name, value)) for value in factor.values]
    assert all(setup not in setups[:index] for index, setup in enumerate(setups))
    assert factor.whole == (name not in TRACED)
    assert factor.meaning


SETUPS = [
    ("attention.softmax", 0.3, TASK, Architecture(attention="mixed", softmax_fraction=0.3)),
    ("attention.temperature", 3.0, TASK, Architecture(attention="softmax", temperature=3.0)),
    ("attention.heads", 2, TASK, Architecture(heads=2)),
    ("model.depth", 2, TASK, Architecture(depth=2)),
    ("model.depth", 3, TASK, Architecture(depth=3, token_clip=10.0)),
    ("model.recurrent_depth", 2, TASK, Architecture(depth=2, shared=True)),
    ("mlp.gate", 0.5, TASK, Architecture(mlp_size=40, mlp_gate=0.5)),
    ("norm.gate", 0.5, TASK, Architecture(layer_norm=True, norm_gate=0.5)),
    ("task.sine", 0.2, TeacherRegression(base=TASK, teacher="sine", fraction=0.2), Architecture()),
    (
        "task.network",
        0.2,
        TeacherRegression(base=TASK, teacher="network", fraction=0.2),
        Architecture(),
    ),
    ("tokens.separate", 0, TASK, Architecture()),
    (
        "tokens.separate",
        1,
        TASK,
        Architecture(tokens="separate", first_attention="softmax", key_size=20, depth=2),
    ),
]


@pytest.mark.parametrize(("name", "value", "task", "model"), SETUPS)
def test_a_factor_changes_only_its_own_settings(name, value, task, model):
    assert with_values((name, value)) == (task, model)
    assert isinstance(value, float) or with_values((name, float(value))) == (task, model)


def test_noise_is_on_the_context(close):
    (task, model) = with_values(("task.noise", 0.5))
    assert (task.label_noise, model) == (0.5, Architecture())
    assert with_values(("task.noise", 0.0))[0].label_noise == 0.0, "a number, for one program"


def test_anisotropy_keeps_the_mean_of_the_variances(close):
    variances = np.array(with_values(("task.anisotropy", 9.0))[0].covariance)
    close(variances, np.array([9.0, 3.0, 1.0]) * 3 / 13)
    assert set(with_values(("task.anisotropy", 1.0))[0].covariance) == {1.0}


def test_factors_can_be_set_in_any_order():
    base = with_values(("task.anisotropy", 2.0))[0]
    expected = (TeacherRegression(base=base, teacher="sine", fraction=0.5), Architecture(heads=2))
    values = (("task.anisotropy", 2.0), ("task.sine", 0.5), ("attention.heads", 2))
    assert with_values(*values) == with_values(*values[::-1]) == expected


def test_temperature_keeps_the_kind_of_softmax_attention():
    mixed = Architecture(attention="mixed", softmax_fraction=0.3, temperature=2.0)
    values = (("attention.softmax", 0.3), ("attention.temperature", 2.0))
    assert with_values(*values)[1] == with_values(*values[::-1])[1] == mixed


def test_depth_does_not_count_the_layer_that_copies_labels():
    values = (("tokens.separate", 1), ("model.depth", 2))
    assert with_values(*values)[1].depth == with_values(*values[::-1])[1].depth == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [("attention.softmax", 1.5)],
            r"^attention\.softmax cannot be 1\.5 here: Architecture\.softmax_",
        ),
        (
            [("attention.temperature", 0.0)],
            r"^attention\.temperature cannot be 0 here: Architecture\.temp",
        ),
        (
            [("attention.heads", 1.5)],
            r"^values must be whole numbers for attention\.heads, got 1\.5",
        ),
        (
            [("attention.heads", 0)],
            r"^attention\.heads cannot be 0 here: Architecture\.heads must be",
        ),
        (
            [("model.depth", 0)],
            r"^model\.depth cannot be 0 here: Architecture\.depth must be a whole",
        ),
        (
            [("task.sine", -0.1)],
            r"^task\.sine cannot be -0\.1 here: TeacherRegression\.fraction must be between",
        ),
        (
            [("task.noise", -1.0)],
            r"^task\.noise cannot be -1 here: LinearRegression\.label_noise must be",
        ),
        ([("task.anisotropy", 0.5)], r"here: the ratio of variances must be at least 1, got 0\.5$"),
        ([("tokens.separate", 2)], r"here: tokens must be 0 \(joint\) or 1 \(separate\), got 2$"),
        ([("task.noise", 1.0), ("task.sine", 0.5)], r"^task\.sine cannot be 0\.5 here: Teacher"),
        ([("task.sine", 0.5), ("task.noise", 1.0)], r"^task\.noise cannot be 1 here: Teacher"),
        ([("nonsense", 1)], r"^factor must be one of attention\.softmax, .*, got 'nonsense'$"),
    ],
)
def test_bad_values_are_named_with_their_factor(values, message):
    with pytest.raises(BadInput, match=message):
        with_values(*values)


def test_a_task_that_is_not_linear_underneath_is_named():
    with pytest.raises(BadInput, match=r"the task must be linear underneath, got Recall$"):
        with_values(("task.sine", 0.5), start=(Recall(base=TASK), Architecture()))
