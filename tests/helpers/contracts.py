"""What every task and every learner must satisfy, as checks that fail with an AssertionError."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.episode import Episode, predict
from toyicl.core.errors import BadInput, BadSetting

EPISODES = 7


def same(one, other, tolerance=0.0):
    """Check that two pytrees have the same structure and, to a tolerance, the same numbers."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def differs(one, other):
    """Check that some number of two pytrees differs."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    assert any(bool(jnp.any(a != b)) for a, b in pairs)


def refused(kind, function, *arguments, **options):
    """The error that a call must raise."""
    try:
        function(*arguments, **options)
    except kind as error:
        return error
    raise AssertionError(f"{function} accepted {arguments} {options}")


def task_has_shapes(task):
    batch = task.sample(jax.random.key(0), EPISODES)
    d, m, n = task.dim, task.outputs, task.context_size
    assert isinstance(batch, Episode)
    shapes = [(n, d, EPISODES), (n, m, EPISODES), (d, EPISODES), (m, EPISODES)]
    assert [field.shape for field in batch] == shapes
    assert all(bool(jnp.isfinite(field).all()) for field in batch)


def task_has_the_precision_s_dtype(task):
    for wide, dtype in ((True, "float64"), (False, "float32")):
        with jax.enable_x64(wide):
            drawn = jax.eval_shape(lambda: task.sample(jax.random.key(0), EPISODES))
        assert {field.dtype.name for field in drawn} == {dtype}


def task_is_a_function_of_the_key(task):
    batch = task.sample(jax.random.key(0), EPISODES)
    same(batch, task.sample(jax.random.key(0), EPISODES))
    differs(batch, task.sample(jax.random.key(1), EPISODES))


def task_refuses_bad_sizes(task):
    """Every size that is a setting of its own, not one of the task that it is derived from."""
    for field in dataclasses.fields(task):
        size = field.metadata.get("static") and isinstance(getattr(task, field.name), int)
        if not size or field.name.endswith("seed"):
            continue
        for bad in (-1, 0, 2.5, None, "3", True):
            error = refused(BadSetting, dataclasses.replace, task, **{field.name: bad})
            assert (error.owner, error.field) == (type(task), field.name)


def task_refuses_no_episodes(task):
    for bad in (0, -1, 2.5):
        refused(BadInput, task.sample, jax.random.key(0), bad)


def task_can_be_mapped_over_its_settings(task):
    """Two copies on a leading axis are sampled like one."""
    stacked = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), task)
    keys = jax.random.split(jax.random.key(0), 2)
    both = jax.vmap(lambda task, key: task.sample(key, EPISODES))(stacked, keys)
    for index, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], both)
        same(one, task.sample(key, EPISODES), 1e-12)


def task_can_be_compiled(task):
    compiled = jax.jit(lambda task, key: task.sample(key, EPISODES))(task, jax.random.key(0))
    same(compiled, task.sample(jax.random.key(0), EPISODES), 1e-12)


def task_is_a_pytree(task):
    leaves, structure = jax.tree.flatten(task)
    assert jax.tree.unflatten(structure, leaves) == task
    assert hash(structure) == hash(jax.tree.structure(task))


TASK_CONTRACTS = (
    task_has_shapes,
    task_has_the_precision_s_dtype,
    task_is_a_function_of_the_key,
    task_refuses_bad_sizes,
    task_refuses_no_episodes,
    task_can_be_mapped_over_its_settings,
    task_can_be_compiled,
    task_is_a_pytree,
)

DIM, OUTPUTS, CONTEXT_SIZE = 3, 2, 6


def episodes(seed=0, count=EPISODES):
    """Episodes of random numbers, for learners."""
    keys = jax.random.split(jax.random.key(seed), 4)
    shapes = ((CONTEXT_SIZE, DIM), (CONTEXT_SIZE, OUTPUTS), (DIM,), (OUTPUTS,))
    drawn = (
        jax.random.normal(key, (*shape, count)) for key, shape in zip(keys, shapes, strict=True)
    )
    return Episode(*drawn)


def one_of(batch, index):
    """One episode of a batch: x, y, x_query."""
    return tuple(field[..., index] for field in batch[:3])


def learner_has_shape_and_dtype(make):
    for wide, dtype in ((True, "float64"), (False, "float32")):
        with jax.enable_x64(wide):
            prediction = jax.eval_shape(make(), *one_of(episodes(), 0))
        assert (prediction.shape, prediction.dtype.name) == ((OUTPUTS,), dtype)


def learner_predicts_a_batch_like_each_episode(make):
    learner, batch = make(), episodes()
    together = predict(learner, batch)
    assert bool(jnp.isfinite(together).all())
    for index in range(EPISODES):
        alone = learner(*one_of(batch, index))
        np.testing.assert_allclose(together[:, index], alone, rtol=1e-9, atol=1e-12)


def learner_can_be_compiled(make):
    learner, one = make(), one_of(episodes(), 0)
    compiled = jax.jit(lambda learner, *one: learner(*one))(learner, *one)
    np.testing.assert_allclose(compiled, learner(*one), rtol=1e-9, atol=1e-12)


def learner_depends_on_its_arguments_alone(make):
    learner, one = make(), one_of(episodes(), 0)
    same(learner(*one), learner(*one))
    same(make()(*one), learner(*one))


def learner_has_finite_gradients(make):
    learner, one = make(), one_of(episodes(), 0)
    gradients = jax.grad(lambda *one: jnp.sum(learner(*one)), argnums=(0, 1, 2))(*one)
    assert [g.shape for g in gradients] == [part.shape for part in one]
    assert all(bool(jnp.isfinite(g).all()) for g in gradients)


def learner_is_a_pytree(make):
    """It can be rebuilt from its leaves, and two on a leading axis predict like one."""
    learner, one = make(), one_of(episodes(), 0)
    leaves, structure = jax.tree.flatten(learner)
    same(jax.tree.unflatten(structure, leaves)(*one), learner(*one))
    if leaves:
        both = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), learner)
        predictions = jax.vmap(lambda learner: learner(*one))(both)
        for prediction in predictions:
            np.testing.assert_allclose(prediction, learner(*one), rtol=1e-9, atol=1e-12)


LEARNER_CONTRACTS = (
    learner_has_shape_and_dtype,
    learner_predicts_a_batch_like_each_episode,
    learner_can_be_compiled,
    learner_depends_on_its_arguments_alone,
    learner_has_finite_gradients,
    learner_is_a_pytree,
)
