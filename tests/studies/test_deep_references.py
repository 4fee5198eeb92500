"""References of models of several layers."""

import pytest
from compiled import drawn

from toyicl.algorithms import token_descent
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.algorithms.token_descent import TokenDescent
from toyicl.analysis.metrics import loss
from toyicl.models.transformer import Architecture
from toyicl.studies.deep_references import (
    TUNED,
    UNCLIPPED,
    deep_references,
    tuned_gdpp,
)
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import fit_all
from toyicl.training.step import Training

TASK = LinearRegression(dim=3, context_size=4)
TUNING = Training(steps=60, batch_size=64, snapshot_every=20, learning_rate=0.02, clip_norm=None)


@pytest.fixture(autouse=True)
def short_searches(monkeypatch):
    monkeypatch.setattr(token_descent, "SEARCH_EPISODES", 2000)


def tuned(model, *, per_layer=False):
    (history,) = fit_all([tuned_gdpp(TASK, model, TUNING, per_layer=per_layer)], seeds=3)
    return history


@pytest.mark.parametrize(
    ("shared", "clip"),
    [
        (True, 1.0),
        pytest.param(True, None, marks=pytest.mark.slow),
        pytest.param(False, 1.0, marks=pytest.mark.slow),
    ],
)
def test_references_take_as_many_steps_under_the_clip_of_the_model(shared, clip):
    model = Architecture(depth=3, shared=shared, token_clip=clip)
    history = tuned(model, per_layer=not shared)
    assert list(history.seeds) == [0], "one run"
    found = deep_references(TASK, model, history, per_layer=not shared)
    expected = ["gd", "gdpp", TUNED] + [UNCLIPPED] * (clip is not None)
    assert list(found) == expected
    assert {one.steps for one in found.values()} == {3}
    assert found[TUNED].step[...].shape == (() if shared else (3,))
    for name in ("gd", "gdpp", TUNED):
        own = getattr(found[name], "token_clip", None)
        assert (own is None) == (clip is None)
    episodes = drawn(TASK, 3, 5000)
    losses = {name: float(loss(one, episodes)) for name, one in found.items()}
    assert losses["gdpp"] < losses["gd"]
    if clip is not None:
        assert losses[UNCLIPPED] < losses["gdpp"]


def test_tuning_lowers_the_loss_of_gdpp_from_its_start():
    model = Architecture(depth=3, shared=True)
    found = deep_references(TASK, model, tuned(model))[TUNED]
    start = TokenDescent.tuning_start(TASK, 3)
    episodes = drawn(TASK, 4, 5000)
    assert float(loss(found, episodes)) < 0.97 * float(loss(start, episodes))


def test_one_step_is_that_of_gradient_descent_without_a_clip():
    best, exact = TokenDescent.gd(TASK, 1, None), GradientDescent.shared(TASK, 1)
    step = float(best.step[...]) * TASK.context_size
    assert step == pytest.approx(float(exact.learning_rate[...]))
