"""Three ways to answer, against a loop over tasks and queries, and what stands beside them."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.finetuning import evaluation
from toyicl.finetuning.evaluation import KINDS, FinetuningStudy, likeness
from toyicl.finetuning.updates import WHICH, finetune, published
from toyicl.models.causal import CausalArchitecture
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.prompts import Classification, SequenceRegression, cross_entropy, half_squared

pytestmark = pytest.mark.usefixtures("plain_compiler")
TASK = Classification(dim=4, outputs=3, context_size=3)
METHOD = published(cross_entropy)


@pytest.fixture(scope="module")
def model():
    return CausalArchitecture(width=8, heads=2, mlp_size=6)(TASK, jax.random.key(1))


@pytest.fixture(scope="module")
def trial():
    return evaluation.draw_trial(TASK, jax.random.key(0), tasks=2, queries=2)


def test_a_trial_is_episodes_cut_in_two(close, trial):
    x, y, *_ = TASK.of_size(5).sample(jax.random.key(0), 2)
    for task in range(2):
        close(trial.x[task], x[:3, :, task])
        close(trial.y[task], y[:3, :, task])
        close(trial.queries[task], x[3:, :, task])
        close(trial.labels[task], y[3:, :, task])


zero_shot = jax.jit(lambda model, query: model.zero_shot(query))
in_context = jax.jit(lambda model, x, y, query: model.in_context(x, y, query))


def test_three_ways_are_a_loop_over_tasks_and_queries(close, model, trial):
    models = jax.jit(partial(evaluation.finetuned, **METHOD))(model, trial, 0.3)
    found = jax.jit(partial(evaluation.three_ways, **METHOD))(model, trial, 0.3)
    ranks = jax.jit(evaluation.demonstrations_ranked)(model, models, trial)
    for task in range(2):
        x, y = trial.x[task], trial.y[task]
        tuned = jax.jit(lambda x, y: finetune(model, x, y, 0.3, **METHOD))(x, y)
        for place, query in enumerate(trial.queries[task]):
            told = in_context(model, x, y, query)
            expected = (zero_shot(model, query), told, zero_shot(tuned, query))
            for seen, other in zip(found, expected, strict=True):
                close(seen.logits[task, place], other.logits, 1e-9)
                close(seen.attended[task, place], other.attended, 1e-9)
            weights = np.exp(told.scores) / np.exp(told.scores).sum(axis=-1, keepdims=True)
            for layer in range(2):
                for i in range(3):
                    read = weights[layer, :, 1 + 2 * i] + weights[layer, :, 2 + 2 * i]
                    close(ranks[0][task, place, layer, i], read.sum(), 1e-9)
                    asked = zero_shot(tuned, query).queries[layer]
                    example = zero_shot(tuned, x[i]).queries[layer]
                    close(ranks[1][task, place, layer, i], np.sum(asked * example), 1e-9)


def outputs(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(3, 4, 5, 2, 6)))


def test_a_change_beside_itself_is_alike_in_every_way(close):
    before, after, _ = outputs(0)
    found = likeness(before, after, after)
    close(found.similarity, np.ones((len(KINDS), 2)))
    close(found.norm_ratio, np.ones(2))
    assert not np.asarray(found.unmoved).any()
    assert not np.asarray(found.diverged).any()


def test_a_change_that_all_queries_share_is_gone_when_centred():
    """Two changes of a common part and independent ones: alike as published, not when centred."""
    before, one, other = outputs(1)
    shared = 5.0
    found = likeness(before, before + shared + 0.3 * one, before + shared + 0.3 * other)
    raw, centred = (found.similarity[KINDS.index(kind)] for kind in ("raw", "centred raw"))
    assert np.all(np.asarray(raw) > 0.9)
    assert np.all(np.abs(np.asarray(centred)) < 0.5)


def test_layers_that_do_not_move_are_counted():
    before, after, _ = outputs(2)
    still = after.at[:, :, 0].set(before[:, :, 0])
    found = likeness(before, after, still)
    assert np.isnan(found.similarity[0, 0])
    assert np.isfinite(found.similarity[:, 1]).all()
    assert int(found.unmoved[0, 0]) == 20
    assert float(found.norm_ratio[0]) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_finetuning_of_mlps_moves_no_attention_of_the_first_layer(dtype):
    """In one program, which may compute one output in two ways, up to rounding."""
    with jax.enable_x64(dtype == "float64"):
        task = Classification()
        model = CausalArchitecture()(task, jax.random.key(1))
        trial = evaluation.draw_trial(task, jax.random.key(0), tasks=6, queries=7)

        @jax.jit
        def alike(model, trial):
            method = METHOD | {"which": WHICH["MLPs"]}
            ways = evaluation.three_ways(model, trial, 0.3, **method)
            return likeness(*(seen.attended for seen in ways))

        found = alike(model, trial)
    assert found.unmoved.tolist() == [[42, 0]] * len(KINDS)
    assert np.isnan(found.similarity).tolist() == [[True, False]] * len(KINDS)
    assert not np.asarray(found.diverged).any()


def test_a_task_that_diverges_takes_nothing_from_the_others():
    before, one, other = outputs(4)
    found = likeness(before, one, other.at[3, 4].set(jnp.nan))
    rest = likeness(*(rows.reshape(1, 20, 2, 6)[:, :19] for rows in (before, one, other)))
    np.testing.assert_allclose(found.norm_ratio, rest.norm_ratio)
    np.testing.assert_allclose(found.similarity[:2], rest.similarity[:2])
    assert np.isfinite(found.similarity).all()
    assert found.diverged.tolist() == [[1, 1]] * len(KINDS)


def test_finetuning_that_diverges_is_counted(model, trial):
    ways = evaluation.three_ways(model, trial, 1e300, **METHOD)
    found = likeness(*(seen.attended for seen in ways))
    assert np.asarray(found.diverged).all(axis=0).tolist() == [True, True]
    assert np.isnan(found.similarity).all()


def test_the_rate_is_chosen_by_score_and_one_that_diverges_is_named(model, trial):
    found = evaluation.choose_rate(model, trial, (0.1, 1e300), **METHOD)
    assert found.diverged.tolist() == [False, True]
    assert float(found.best) == 0.1
    models = evaluation.finetuned(model, trial, 0.1, **METHOD)
    logits = evaluation.with_models(models, trial).logits
    np.testing.assert_allclose(found.scores[0], evaluation.accuracy(logits, trial.labels))


def test_what_is_not_finite_is_not_right():
    labels = jnp.eye(3)
    assert evaluation.right(labels, labels).tolist() == [True] * 3
    assert evaluation.right(labels * jnp.nan, labels).tolist() == [False] * 3


def test_regression_is_scored_by_its_error(close):
    task = SequenceRegression(base=LinearRegression(dim=4, context_size=3))
    trial = evaluation.draw_trial(task, jax.random.key(0), tasks=2, queries=4)
    close(evaluation.minus_error(0 * trial.labels, trial.labels), -np.mean(trial.labels**2) / 2)
    model = CausalArchitecture(width=8, heads=2, mlp_size=6)(task, jax.random.key(1))
    found = evaluation.choose_rate(
        model,
        trial,
        (1e-6, 10.0),
        **published(half_squared),
        score=evaluation.minus_error,
    )
    close(found.best, (1e-6, 10.0)[int(np.argmax(found.scores))])
    still = evaluation.zero_shot(model, trial).logits
    close(found.scores[0], evaluation.minus_error(still, trial.labels), 1e-4)


def test_untrained_models_are_told_each_its_own(close):
    history = SimpleNamespace(learners={"w": np.arange(6.0).reshape(2, 3)})

    def look(model, rate, factor):
        return factor * rate * model["w"]

    close(evaluation.untrained_with(look, history, np.array([10.0, 100.0]), (2.0,)), [0.0, 600.0])


def test_every_seed_is_looked_at_before_and_after(close):
    learners = {"w": np.arange(6.0).reshape(2, 3)}
    history = SimpleNamespace(learners=learners)

    def look(model, factor):
        return factor * model["w"]

    close(evaluation.before_and_after(look, history, (2.0,)), [[0.0, 4.0], [6.0, 10.0]])
    close(evaluation.trained(look, history, (2.0,)), [4.0, 10.0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tasks": 1}, "tasks must be a whole number of at least 2, got 1"),
        ({"queries": 0}, "queries must be a whole number of at least 1"),
        ({"rates": (0.1, 0.1)}, "rates must be one value or more, each once"),
        ({"rates": (-0.1,)}, "rates must be a finite number above 0, got -0.1"),
        ({"max_seeds": 0}, "max_seeds must be a whole number of at least 1"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(BadInput, match=message):
        FinetuningStudy(**bad)
