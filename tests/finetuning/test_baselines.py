"""Baselines for finetuning, compared with loops over random updates, and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from toyicl.finetuning import baselines, evaluation
from toyicl.finetuning.updates import finetune, published
from toyicl.models.causal import CausalArchitecture
from toyicl.tasks.prompts import Classification, cross_entropy

TASK = Classification(dim=4, outputs=3, context_size=3)
METHOD = published(cross_entropy)
KEYS_AND_VALUES, OBJECTIVE = METHOD["which"], METHOD["objective"]


@pytest.fixture(scope="module")
def model():
    return CausalArchitecture(width=8, heads=2, mlp_size=6)(TASK, jax.random.key(1))


@pytest.fixture(scope="module")
def data():
    return evaluation.draw_evaluation_set(TASK, jax.random.key(0), tasks=3, queries=2)


@pytest.fixture(scope="module")
def tuned(model, data):
    return finetune(model, data.x[0], data.y[0], 0.3, **METHOD)


def flat(model):
    return {path: np.asarray(v[...]) for path, v in nnx.to_flat_state(nnx.state(model))}


def test_random_updates_have_the_norm_of_finetuning(close, model, tuned):
    random = baselines.random_update(jax.random.key(0), model, tuned, which=KEYS_AND_VALUES)
    before, after, other = flat(model), flat(random), flat(tuned)
    for path, value in before.items():
        close(np.linalg.norm(after[path] - value), np.linalg.norm(other[path] - value), 1e-9)
    assert any(np.abs(after[path] - other[path]).max() > 1e-3 for path in before)


@pytest.mark.slow
def test_the_best_random_update_has_the_lowest_loss(model, data, tuned):
    x, y = data.x[0], data.y[0]
    best = baselines.best_random_update(jax.random.key(0), model, tuned, x, y, count=5, **METHOD)

    def cost(changed):
        return np.mean([OBJECTIVE(changed, a, b) for a, b in zip(x, y, strict=True)])

    costs = [
        cost(baselines.random_update(key, model, tuned, which=KEYS_AND_VALUES))
        for key in jax.random.split(jax.random.key(0), 5)
    ]
    assert max(costs) > min(costs)
    np.testing.assert_allclose(cost(best), min(costs))


def test_models_of_other_tasks_are_shifted_by_one(close):
    models = {"weights": jnp.arange(3.0)}
    close(baselines.other_tasks_models(models)["weights"], [2.0, 0.0, 1.0])


@pytest.mark.slow
def test_weight_baselines_are_those_of_each_task(close, model, data):
    """More draws include those of fewer, so that their loss is not higher."""
    tuned = evaluation.finetuned(model, data, 0.3, **METHOD)
    found = baselines.weight_baselines(
        jax.random.key(0), model, tuned, data, draws=(1, 8), **METHOD
    )
    names = ["another task's", "random", "best of 1 random", "best of 8 random"]
    assert list(found) == names

    def costs(models):
        each = jax.vmap(jax.vmap(OBJECTIVE, (None, 0, 0)))(models, data.x, data.y)
        return np.asarray(jnp.mean(each, axis=1))

    one, many = costs(found["best of 1 random"]), costs(found["best of 8 random"])
    assert np.all(many <= one + 1e-12)
    assert np.any(many < one)
    assert np.all(costs(found["random"]) != one)
    for before, after in zip(jax.tree.leaves(tuned), jax.tree.leaves(found[names[0]]), strict=True):
        close(after[1], before[0])


def test_noise_has_similarity_0_if_it_is_centred():
    """Uniform noise is not, and is similar to a change that all entries have in common."""
    before, after, _ = np.random.default_rng(3).normal(size=(3, 40, 40, 1, 64))
    found = baselines.output_baselines(
        jax.random.key(0), jnp.asarray(before), jnp.asarray(after + 1)
    )
    assert list(found) == ["Gaussian noise", "uniform noise"]
    gaussian, uniform = (np.asarray(one.similarity) for one in found.values())
    assert np.all(np.abs(gaussian) < 0.02)
    assert np.all(uniform[:2] > 0.3)
    assert np.all(np.abs(uniform[2:]) < 0.02)
