"""What stands in the place of finetuning: against a loop over draws, norms, and what they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from toyicl.finetuning import baselines, evaluation
from toyicl.finetuning.updates import finetune, published
from toyicl.models.causal import CausalArchitecture
from toyicl.tasks.prompts import Classification, cross_entropy

pytestmark = pytest.mark.usefixtures("plain_compiler")
TASK = Classification(dim=4, outputs=3, context_size=3)
METHOD = published(cross_entropy)
KEYS_AND_VALUES, OBJECTIVE = METHOD["which"], METHOD["objective"]


@pytest.fixture(scope="module")
def model():
    return CausalArchitecture(width=8, heads=2, mlp_size=6)(TASK, jax.random.key(1))


@pytest.fixture(scope="module")
def trial():
    return evaluation.draw_trial(TASK, jax.random.key(0), tasks=3, queries=2)


@pytest.fixture(scope="module")
def tuned(model, trial):
    return finetune(model, trial.x[0], trial.y[0], 0.3, **METHOD)


def flat(model):
    return {path: np.asarray(v[...]) for path, v in nnx.to_flat_state(nnx.state(model))}


def test_random_updates_have_the_norm_of_finetunings(close, model, tuned):
    random = baselines.random_update(jax.random.key(0), model, tuned, which=KEYS_AND_VALUES)
    before, after, other = flat(model), flat(random), flat(tuned)
    for path, value in before.items():
        close(np.linalg.norm(after[path] - value), np.linalg.norm(other[path] - value), 1e-9)
    assert any(np.abs(after[path] - other[path]).max() > 1e-3 for path in before)


def test_the_best_random_update_is_the_one_that_costs_least(model, trial, tuned):
    x, y = trial.x[0], trial.y[0]
    best = baselines.best_random_update(jax.random.key(0), model, tuned, x, y, count=5, **METHOD)

    def cost(changed):
        return np.mean([OBJECTIVE(changed, a, b) for a, b in zip(x, y, strict=True)])

    costs = [
        cost(baselines.random_update(key, model, tuned, which=KEYS_AND_VALUES))
        for key in jax.random.split(jax.random.key(0), 5)
    ]
    assert max(costs) > min(costs)
    np.testing.assert_allclose(cost(best), min(costs))


def test_another_tasks_models(close):
    models = {"weights": jnp.arange(3.0)}
    close(baselines.shifted_by_one(models)["weights"], [2.0, 0.0, 1.0])


def test_updates_of_weights_are_those_of_each_task(close, model, trial):
    """More draws hold those of fewer, so they cost no more; the single random one is none of them."""
    tuned = evaluation.finetuned(model, trial, 0.3, **METHOD)
    found = baselines.of_weights(jax.random.key(0), model, tuned, trial, draws=(1, 8), **METHOD)
    names = ["another task's", "random", "best of 1 random", "best of 8 random"]
    assert list(found) == names

    def costs(models):
        each = jax.vmap(jax.vmap(OBJECTIVE, (None, 0, 0)))(models, trial.x, trial.y)
        return np.asarray(jnp.mean(each, axis=1))

    one, many = costs(found["best of 1 random"]), costs(found["best of 8 random"])
    assert np.all(many <= one + 1e-12)
    assert np.any(many < one)
    assert np.all(costs(found["random"]) != one)
    for before, after in zip(jax.tree.leaves(tuned), jax.tree.leaves(found[names[0]]), strict=True):
        close(after[1], before[0])


def test_noise_is_not_alike():
    """Uniform noise is not centred: it is alike to a change that all entries share, unless centred."""
    before, after, _ = np.random.default_rng(3).normal(size=(3, 40, 40, 1, 64))
    found = baselines.of_outputs(jax.random.key(0), jnp.asarray(before), jnp.asarray(after + 1))
    assert list(found) == ["Gaussian noise", "uniform noise"]
    gaussian, uniform = (np.asarray(one.similarity) for one in found.values())
    assert np.all(np.abs(gaussian) < 0.02)
    assert np.all(uniform[:2] > 0.3)
    assert np.all(np.abs(uniform[2:]) < 0.02)
