"""What may stand in the place of finetuning: random changes, the best of many, another task's, noise.

A change of a model counts for something only if these count for less. Models are stacked over tasks, as
`contrast.finetuned` leaves them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from toyicl.finetuning import similarity
from toyicl.finetuning.evaluation import EvaluationSet, Likeness, changes_alike
from toyicl.finetuning.updates import Objective, Which, parts
from toyicl.models.causal import CausalTransformer


def random_update(
    key: jax.Array, model: CausalTransformer, tuned: CausalTransformer, *, which: Which
) -> CausalTransformer:
    """The model after a random change, of each matrix by as much as it was finetuned, in norm."""
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
    which: Which,
    objective: Objective,
) -> CausalTransformer:
    """That of `count` random updates which costs least on the demonstrations, (N, d), (N, m)."""

    def cost(key: jax.Array) -> jax.Array:
        changed = random_update(key, model, tuned, which=which)
        return jnp.mean(jax.vmap(objective, (None, 0, 0))(changed, x, y))

    keys = jax.random.split(key, count)
    best = jnp.nanargmin(jax.lax.map(cost, keys, batch_size=min(count, 64)))
    return random_update(keys[best], model, tuned, which=which)


def shifted_by_one(models: Any) -> Any:
    """Models stacked over tasks, each in the place of the task before: another task's update."""
    return jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), models)


def of_weights(
    key: jax.Array,
    model: CausalTransformer,
    tuned: Any,
    trial: EvaluationSet,
    *,
    which: Which,
    objective: Objective,
    draws: Sequence[int],
) -> dict[str, Any]:
    """Models of every task after another task's update, a random one, and the best of many, by name.

    The best of more draws is of the same ones, and others.
    """
    one_key, best_key = jax.random.split(key)
    one_keys, best_keys = (jax.random.split(key, len(trial.x)) for key in (one_key, best_key))

    def random(key: jax.Array, tuned: CausalTransformer) -> CausalTransformer:
        return random_update(key, model, tuned, which=which)

    def best(count: int, task: tuple[jax.Array, Any, jax.Array, jax.Array]) -> CausalTransformer:
        key, tuned, x, y = task
        return best_random_update(
            key, model, tuned, x, y, count=count, which=which, objective=objective
        )

    tasks = (best_keys, tuned, trial.x, trial.y)
    return {
        "another task's": shifted_by_one(tuned),
        "random": jax.vmap(random)(one_keys, tuned),
        **{f"best of {count} random": jax.lax.map(partial(best, count), tasks) for count in draws},
    }


def of_outputs(key: jax.Array, before: jax.Array, told: jax.Array) -> dict[str, Likeness]:
    """How alike to a change of attention outputs noise is: Gaussian, and U[0, 1) as published, by name.

    Outputs are (tasks, queries, layer, width). U[0, 1) is not centred.
    """
    gaussian_key, uniform_key = jax.random.split(key)
    gaussian = jax.random.normal(gaussian_key, told.shape, told.dtype)
    uniform = jax.random.uniform(uniform_key, told.shape, told.dtype)
    return {
        "Gaussian noise": noise_alike(before, told, gaussian),
        "uniform noise": noise_alike(before, told, uniform),
    }


def noise_alike(before: jax.Array, one: jax.Array, noise: jax.Array) -> Likeness:
    """How alike attention outputs changed and noise, which is taken for the change itself."""
    changes = [
        similarity.updates(one, before, normalised=normalised) for normalised in (True, False)
    ]
    return changes_alike(changes[0], noise, changes[1], noise)
