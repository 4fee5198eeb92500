"""Baselines for finetuning: random updates, the best of many, another task's update, and noise.

A similarity to finetuning is evidence only if it exceeds that of these baselines. Models are stacked
over tasks, like those of `evaluation.finetuned`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from toyicl.finetuning import similarity
from toyicl.finetuning.evaluation import EvaluationSet, UpdateSimilarity, similarity_of_changes
from toyicl.finetuning.updates import ExampleObjective, ParameterFilter, parts
from toyicl.models.causal import CausalTransformer


def random_update(
    key: jax.Array, model: CausalTransformer, tuned: CausalTransformer, *, which: ParameterFilter
) -> CausalTransformer:
    """The model after a random update in which each matrix changes by the norm of its finetuning."""
    divided, moved = parts(model, which), parts(tuned, which).chosen
    values, structure = jax.tree.flatten(divided.chosen)
    keys = jax.random.split(key, len(values))

    def change(key: jax.Array, value: jax.Array, other: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, value.shape, value.dtype)
        return value + noise * (jnp.linalg.norm(other - value) / jnp.linalg.norm(noise))

    changed = list(map(change, keys, values, jax.tree.leaves(moved)))
    return divided.model(jax.tree.unflatten(structure, changed))


def best_random_update(
    key: jax.Array,
    model: CausalTransformer,
    tuned: CausalTransformer,
    x: jax.Array,
    y: jax.Array,
    *,
    count: int,
    which: ParameterFilter,
    objective: ExampleObjective,
) -> CausalTransformer:
    """The one of `count` random updates with the lowest mean loss on demonstrations (N, d), (N, m)."""

    def loss(key: jax.Array) -> jax.Array:
        changed = random_update(key, model, tuned, which=which)
        return jnp.mean(jax.vmap(objective, (None, 0, 0))(changed, x, y))

    keys = jax.random.split(key, count)
    best = jnp.nanargmin(jax.lax.map(loss, keys, batch_size=min(count, 64)))
    return random_update(keys[best], model, tuned, which=which)


def other_tasks_models(models: Any) -> Any:
    """Models stacked over tasks, shifted so that each task has the model of another task."""
    return jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), models)


def weight_baselines(
    key: jax.Array,
    model: CausalTransformer,
    tuned: Any,
    data: EvaluationSet,
    *,
    which: ParameterFilter,
    objective: ExampleObjective,
    draws: Sequence[int],
) -> dict[str, Any]:
    """Models of every task after another task's update, a random one, and the best of many, by name.

    The best of many is computed for each number in `draws`; a larger number includes the updates of
    smaller ones.
    """
    one_key, best_key = jax.random.split(key)
    one_keys, best_keys = (jax.random.split(key, len(data.x)) for key in (one_key, best_key))

    def random(key: jax.Array, tuned: CausalTransformer) -> CausalTransformer:
        return random_update(key, model, tuned, which=which)

    def best(count: int, task: tuple[jax.Array, Any, jax.Array, jax.Array]) -> CausalTransformer:
        key, tuned, x, y = task
        return best_random_update(
            key, model, tuned, x, y, count=count, which=which, objective=objective
        )

    tasks = (best_keys, tuned, data.x, data.y)
    return {
        "another task's": other_tasks_models(tuned),
        "random": jax.vmap(random)(one_keys, tuned),
        **{f"best of {count} random": jax.lax.map(partial(best, count), tasks) for count in draws},
    }


def output_baselines(
    key: jax.Array, before: jax.Array, after: jax.Array
) -> dict[str, UpdateSimilarity]:
    """Similarity of a change of attention outputs to Gaussian noise, and to published U[0, 1) noise.

    Outputs before and after the change have shape (tasks, queries, layer, width). U[0, 1) is not
    centred.
    """
    gaussian_key, uniform_key = jax.random.split(key)
    gaussian = jax.random.normal(gaussian_key, after.shape, after.dtype)
    uniform = jax.random.uniform(uniform_key, after.shape, after.dtype)
    return {
        "Gaussian noise": similarity_to_noise(before, after, gaussian),
        "uniform noise": similarity_to_noise(before, after, uniform),
    }


def similarity_to_noise(before: jax.Array, after: jax.Array, noise: jax.Array) -> UpdateSimilarity:
    """Similarity of the change of attention outputs to noise, which is the other change itself."""
    changes = [
        similarity.updates(after, before, normalised=normalised) for normalised in (True, False)
    ]
    return similarity_of_changes(changes[0], noise, changes[1], noise)
