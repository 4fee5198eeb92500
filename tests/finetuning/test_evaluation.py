"""Zero-shot, in-context and finetuned answers, compared with loops over tasks and queries."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn

from toyicl.core.errors import BadInput
from toyicl.finetuning import evaluation
from toyicl.finetuning.evaluation import KINDS, FinetuningStudy, update_similarity
from toyicl.finetuning.updates import PARAMETERS, finetune, published
from toyicl.models.causal import CausalArchitecture
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.prompts import Classification, SequenceRegression, cross_entropy, half_squared

TASK = Classification(dim=4, outputs=3, context_size=3)
METHOD = published(cross_entropy)


@pytest.fixture(scope="module")
def model():
    return CausalArchitecture(width=8, heads=2, mlp_size=6)(TASK, jax.random.key(1))


@pytest.fixture(scope="module")
def data():
    return evaluation.draw_evaluation_set(TASK, jax.random.key(0), tasks=2, queries=2)


def test_an_evaluation_set_divides_episodes_into_demonstrations_and_queries(close, data):
    x, y, *_ = drawn(TASK.of_size(5), 0, 2)
    for task in range(2):
        close(data.x[task], x[:3, :, task])
        close(data.y[task], y[:3, :, task])
        close(data.queries[task], x[3:, :, task])
        close(data.labels[task], y[3:, :, task])


zero_shot = jax.jit(lambda model, query: model.zero_shot(query))
in_context = jax.jit(lambda model, x, y, query: model.in_context(x, y, query))


def test_the_three_ways_are_a_loop_over_tasks_and_queries(close, model, data):
    models = jax.jit(partial(evaluation.finetuned, **METHOD))(model, data, 0.3)
    found = jax.jit(partial(evaluation.three_ways, **METHOD))(model, data, 0.3)
    ranks = jax.jit(evaluation.demonstration_weights)(model, models, data)
    for task in range(2):
        x, y = data.x[task], data.y[task]
        tuned = jax.jit(lambda x, y: finetune(model, x, y, 0.3, **METHOD))(x, y)
        for place, query in enumerate(data.queries[task]):
            context = in_context(model, x, y, query)
            expected = (zero_shot(model, query), context, zero_shot(tuned, query))
            for seen, other in zip(found, expected, strict=True):
                close(seen.logits[task, place], other.logits, 1e-9)
                close(seen.attended[task, place], other.attended, 1e-9)
            weights = np.exp(context.scores) / np.exp(context.scores).sum(axis=-1, keepdims=True)
            for layer in range(2):
                for i in range(3):
                    read = weights[layer, :, 1 + 2 * i] + weights[layer, :, 2 + 2 * i]
                    close(ranks[0][task, place, layer, i], read.sum(), 1e-9)
                    asked = zero_shot(tuned, query).queries[layer]
                    example = zero_shot(tuned, x[i]).queries[layer]
                    close(ranks[1][task, place, layer, i], np.sum(asked * example), 1e-9)


def outputs(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(3, 4, 5, 2, 6)))


def test_a_change_has_similarity_1_with_itself(close):
    before, after, _ = outputs(0)
    found = update_similarity(before, after, after)
    close(found.similarity, np.ones((len(KINDS), 2)))
    close(found.norm_ratio, np.ones(2))
    assert not np.asarray(found.unmoved).any()
    assert not np.asarray(found.diverged).any()


def test_centring_removes_a_change_that_all_queries_have_in_common():
    """Two changes with a common and an independent part are similar as published, not if centred."""
    before, one, other = outputs(1)
    shared = 5.0
    found = update_similarity(before, before + shared + 0.3 * one, before + shared + 0.3 * other)
    raw, centred = (found.similarity[KINDS.index(kind)] for kind in ("raw", "centred raw"))
    assert np.all(np.asarray(raw) > 0.9)
    assert np.all(np.abs(np.asarray(centred)) < 0.5)


def test_layers_that_do_not_change_are_counted():
    before, after, _ = outputs(2)
    still = after.at[:, :, 0].set(before[:, :, 0])
    found = update_similarity(before, after, still)
    assert np.isnan(found.similarity[0, 0])
    assert np.isfinite(found.similarity[:, 1]).all()
    assert int(found.unmoved[0, 0]) == 20
    assert float(found.norm_ratio[0]) == 0


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_finetuning_mlps_does_not_change_attention_of_the_first_layer(dtype):
    """One program may compute the same output in two ways, which agree up to rounding."""
    with jax.enable_x64(dtype == "float64"):
        task = Classification()
        model = CausalArchitecture()(task, jax.random.key(1))
        data = evaluation.draw_evaluation_set(task, jax.random.key(0), tasks=6, queries=7)

        @jax.jit
        def similarity_of_mlps(model, data):
            method = METHOD | {"which": PARAMETERS["MLPs"]}
            ways = evaluation.three_ways(model, data, 0.3, **method)
            return update_similarity(*(seen.attended for seen in ways))

        found = similarity_of_mlps(model, data)
    assert found.unmoved.tolist() == [[42, 0]] * len(KINDS)
    assert np.isnan(found.similarity).tolist() == [[True, False]] * len(KINDS)
    assert not np.asarray(found.diverged).any()


def test_a_task_that_diverges_does_not_affect_the_others():
    before, one, other = outputs(4)
    found = update_similarity(before, one, other.at[3, 4].set(jnp.nan))
    rest = update_similarity(*(rows.reshape(1, 20, 2, 6)[:, :19] for rows in (before, one, other)))
    np.testing.assert_allclose(found.norm_ratio, rest.norm_ratio)
    np.testing.assert_allclose(found.similarity[:2], rest.similarity[:2])
    assert np.isfinite(found.similarity).all()
    assert found.diverged.tolist() == [[1, 1]] * len(KINDS)


@pytest.mark.slow
def test_finetuning_that_diverges_is_counted(model, data):
    ways = evaluation.three_ways(model, data, 1e300, **METHOD)
    found = update_similarity(*(seen.attended for seen in ways))
    assert np.asarray(found.diverged).all(axis=0).tolist() == [True, True]
    assert np.isnan(found.similarity).all()


def test_the_rate_is_chosen_by_score_and_divergence_is_reported(model, data):
    found = evaluation.choose_rate(model, data, (0.1, 1e300), **METHOD)
    assert found.diverged.tolist() == [False, True]
    assert float(found.best) == 0.1
    models = evaluation.finetuned(model, data, 0.1, **METHOD)
    logits = evaluation.zero_shot_per_task(models, data).logits
    np.testing.assert_allclose(found.scores[0], evaluation.accuracy(logits, data.labels))


def test_answers_that_are_not_finite_are_not_correct():
    labels = jnp.eye(3)
    assert evaluation.correct(labels, labels).tolist() == [True] * 3
    assert evaluation.correct(labels * jnp.nan, labels).tolist() == [False] * 3


def test_regression_is_scored_by_its_error(close):
    task = SequenceRegression(base=LinearRegression(dim=4, context_size=3))
    data = evaluation.draw_evaluation_set(task, jax.random.key(0), tasks=2, queries=4)
    close(evaluation.negative_error(0 * data.labels, data.labels), -np.mean(data.labels**2) / 2)
    model = CausalArchitecture(width=8, heads=2, mlp_size=6)(task, jax.random.key(1))
    found = evaluation.choose_rate(
        model,
        data,
        (1e-6, 10.0),
        **published(half_squared),
        score=evaluation.negative_error,
    )
    close(found.best, (1e-6, 10.0)[int(np.argmax(found.scores))])
    still = evaluation.zero_shot(model, data).logits
    close(found.scores[0], evaluation.negative_error(still, data.labels), 1e-4)


def test_untrained_models_are_measured_with_a_value_of_their_own(close):
    history = SimpleNamespace(learners={"w": np.arange(6.0).reshape(2, 3)})

    def measure(model, rate, factor):
        return factor * rate * model["w"]

    close(
        evaluation.untrained_with(measure, history, np.array([10.0, 100.0]), (2.0,)), [0.0, 600.0]
    )


def test_every_seed_is_measured_before_and_after_training(close):
    learners = {"w": np.arange(6.0).reshape(2, 3)}
    history = SimpleNamespace(learners=learners)

    def measure(model, factor):
        return factor * model["w"]

    close(evaluation.before_and_after(measure, history, (2.0,)), [[0.0, 4.0], [6.0, 10.0]])
    close(evaluation.trained(measure, history, (2.0,)), [4.0, 10.0])


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
