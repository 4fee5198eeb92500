"""Properties that every task and every learner must have; each contract raises an error otherwise.

A contract takes a `SampledTask` or a `RunLearner`, which compiles the programs that several contracts
need, each once.
"""

import dataclasses
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.episode import Episode, predict
from toyicl.core.errors import BadInput, BadSetting

EPISODES = 7
NUMBERS = (bool, int, float, np.number, np.ndarray, jax.Array)


def all_finite(tree):
    """Whether all values of a pytree are finite."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def refused(kind, function, *arguments, **options):
    """The error that a call must raise."""
    try:
        function(*arguments, **options)
    except kind as error:
        return error
    raise AssertionError(f"{function} accepted {arguments} {options}")


def leaves_are_numbers(tree):
    """Whether the leaves of a pytree are numbers and arrays."""
    return all(isinstance(leaf, NUMBERS) for leaf in jax.tree.leaves(tree))


def twice(tree):
    """A pytree of numbers and arrays, twice on a new leading axis."""
    return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), tree)


# Tasks


class SampledTask:
    """A task, and batches that two different programs sample from it."""

    def __init__(self, make):
        self.make = make

    @cached_property
    def task(self):
        return self.make()

    @cached_property
    def keys(self):
        return jax.random.split(jax.random.key(0), 2)

    @cached_property
    def batches(self):
        """A batch for each key, from a program that has the task as a constant."""
        task = self.task
        draw = jax.jit(lambda key: task.sample(key, EPISODES))
        return [draw(key) for key in self.keys]


def task_has_shapes_and_dtypes(case):
    task = case.task
    d, m, n = task.dim, task.outputs, task.context_size
    shapes = [(n, d, EPISODES), (n, m, EPISODES), (d, EPISODES), (m, EPISODES)]
    with jax.enable_x64(False):
        single = jax.eval_shape(lambda: task.sample(jax.random.key(0), EPISODES))
    for batch, dtype in ((single, "float32"), (case.batches[0], "float64")):
        assert isinstance(batch, Episode)
        assert [field.shape for field in batch] == shapes
        assert [field.dtype.name for field in batch] == [dtype] * 4


def task_draws_finite_numbers_that_depend_on_the_key(case):
    one, other = case.batches
    assert all_finite(case.batches)
    for first, second in zip(one, other, strict=True):
        assert np.any(first != second)


def task_is_a_function_of_its_settings_and_the_key(case):
    """Also of traced ones: a program with tasks and keys on a leading axis gives the same batches."""
    draw = jax.jit(jax.vmap(lambda task, key: task.sample(key, EPISODES)))
    mapped = draw(twice(case.task), case.keys)
    for index, batch in enumerate(case.batches):
        for together, alone in zip(mapped, batch, strict=True):
            np.testing.assert_allclose(together[index], alone, rtol=1e-12, atol=1e-12)


def bad_values(field, value):
    """Values that are never allowed for a setting with a value of the same type as the given one."""
    bad = ["no such value"] if field.default is None else ["no such value", None]
    if isinstance(value, float):
        return [*bad, float("nan"), float("inf"), True]
    if isinstance(value, int) and not isinstance(value, bool):
        size = field.name in ("dim", "outputs", "context_size")
        return [*bad, -1, 2.5, True] + [0] * size
    return bad


def task_refuses_bad_settings(case):
    """Each setting by its name, for values of another type and those that no such setting allows."""
    for field in dataclasses.fields(case.task):
        for bad in bad_values(field, getattr(case.task, field.name)):
            error = refused(BadSetting, dataclasses.replace, case.task, **{field.name: bad})
            assert (error.owner, error.field) == (type(case.task), field.name)


def task_refuses_bad_numbers_of_episodes(case):
    for bad in (0, -1, 2.5):
        error = refused(BadInput, case.task.sample, jax.random.key(0), bad)
        assert str(error) == f"episodes must be a whole number of at least 1, got {bad}"


def task_is_a_pytree(case):
    leaves, structure = jax.tree.flatten(case.task)
    assert leaves_are_numbers(case.task)
    assert jax.tree.unflatten(structure, leaves) == case.task
    assert hash(structure) == hash(jax.tree.structure(case.task))


TASK_CONTRACTS = (
    task_has_shapes_and_dtypes,
    task_draws_finite_numbers_that_depend_on_the_key,
    task_is_a_function_of_its_settings_and_the_key,
    task_refuses_bad_settings,
    task_refuses_bad_numbers_of_episodes,
    task_is_a_pytree,
)


# Learners

DIM, OUTPUTS, CONTEXT_SIZE = 3, 2, 6


def random_episodes():
    """Episodes of random numbers."""
    draw = np.random.default_rng(0)
    shapes = ((CONTEXT_SIZE, DIM), (CONTEXT_SIZE, OUTPUTS), (DIM,), (OUTPUTS,))
    return Episode(*(draw.normal(size=(*shape, EPISODES)) for shape in shapes))


class RunLearner:
    """A function that makes a learner, the learner, and its predictions on random episodes."""

    def __init__(self, make):
        self.make, self.episodes = make, random_episodes()

    @cached_property
    def learner(self):
        return self.make()

    def one(self, index=0):
        """One of the episodes, as arguments of the learner: x, y, x_query."""
        return tuple(field[..., index] for field in self.episodes[:3])

    @cached_property
    def predictions(self):
        """Predictions (outputs, episodes), from a program that is called for one episode at a time."""
        learner = self.learner
        answer = jax.jit(lambda *one: learner(*one))
        return np.stack([answer(*self.one(index)) for index in range(EPISODES)], axis=-1)


def dtypes_of_parameters(learner):
    leaves = [leaf for leaf in jax.tree.leaves(learner) if hasattr(leaf, "dtype")]
    return {leaf.dtype.name for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}


def learner_has_shapes_and_dtypes(case):
    """The prediction, and the dtypes of the parameters if it has any."""

    def single(*one):
        learner = case.make()
        arrays = [leaf for leaf in jax.tree.leaves(learner) if isinstance(leaf, jax.Array)]
        return learner(*one), arrays

    with jax.enable_x64(False):
        prediction, arrays = jax.eval_shape(single, *case.one())
    assert (prediction.shape, prediction.dtype.name) == ((OUTPUTS,), "float32")
    assert dtypes_of_parameters(arrays) <= {"float32"}
    assert case.predictions.shape == (OUTPUTS, EPISODES)
    assert case.predictions.dtype.name == "float64"
    assert dtypes_of_parameters(case.learner) <= {"float64"}


def learner_is_a_function_of_one_episode(case):
    """Another one that is made alike predicts the same, also for the episodes as a batch."""
    together = jax.jit(lambda batch: predict(case.make(), batch))(case.episodes)
    assert all_finite(together)
    np.testing.assert_allclose(together, case.predictions, rtol=1e-9, atol=1e-12)


def learner_has_finite_gradients(case):
    """With respect to the episode and to the parameters, also if all labels are 0."""
    x, y, x_query = case.one()
    has_parameters = leaves_are_numbers(case.learner)
    leaves, structure = jax.tree.flatten(case.learner if has_parameters else None)

    @jax.jit
    def gradients(leaves, *one):
        def total(leaves, *one):
            learner = jax.tree.unflatten(structure, leaves) if has_parameters else case.learner
            return jnp.sum(learner(*one))

        return jax.grad(total, argnums=(0, 1, 2, 3))(leaves, *one)

    leaves = [jnp.asarray(leaf) for leaf in leaves]
    for labels in (y, np.zeros_like(y)):
        of_parameters, *of_episode = gradients(leaves, x, labels, x_query)
        assert [part.shape for part in of_episode] == [x.shape, y.shape, x_query.shape]
        assert all_finite((of_parameters, of_episode))


def learner_is_a_pytree(case):
    """Learners on a leading axis, as arguments of a compiled function, predict like each alone."""
    assert leaves_are_numbers(case.learner)
    answer = jax.vmap(lambda learner, *one: learner(*one), (0, -1, -1, -1), -1)
    pair = (field[..., :2] for field in case.episodes[:3])
    together = jax.jit(answer)(twice(case.learner), *pair)
    np.testing.assert_allclose(together, case.predictions[:, :2], rtol=1e-9, atol=1e-12)


LEARNER_CONTRACTS = (
    learner_has_shapes_and_dtypes,
    learner_is_a_function_of_one_episode,
    learner_has_finite_gradients,
    learner_is_a_pytree,
)
