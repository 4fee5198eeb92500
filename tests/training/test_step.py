"""The compiled chunk of training steps: devices, divided batches, objectives, state and settings."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from toyicl.analysis import metrics
from toyicl.core.episode import predict
from toyicl.core.errors import BadInput
from toyicl.core.random_numbers import efficient_key
from toyicl.core.variables import Fixed
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training import distributed
from toyicl.training.loop import Job, fit, fit_all, kind
from toyicl.training.step import StartFrom, Training, advance, advance_divided, start

TASK = LinearRegression(dim=3, context_size=4)
SHORT = Training(steps=20, batch_size=64, snapshot_every=10)
COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


@pytest.mark.usefixtures("full_compiler")
def test_devices_do_not_communicate():
    mesh = distributed.own_devices()
    assert mesh.size == 2
    run = jax.device_get(start(Architecture(), TASK, SHORT, 0))
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), run)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("run"))
    placed = jax.device_put((stacked, np.array([10, 10])), sharding)
    text = advance.lower(*placed, 10, mesh).compile().as_text()
    assert "while" in text
    assert re.search(COLLECTIVES, text) is None


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.slow
def test_devices_draw_their_own_part_in_single_precision():
    """The generator of 32 bits too needs nothing from other devices, and no device draws everything."""
    mesh = distributed.all_devices()
    with jax.enable_x64(False):
        run = jax.device_get(start(Architecture(), TASK, SHORT, 0))
        placed = jax.device_put(
            (run, np.int32(10)), jax.sharding.NamedSharding(mesh, PartitionSpec())
        )
        text = advance_divided.lower(*placed, 10, mesh).compile().as_text()
    assert not re.search("all-gather|all-to-all|collective-permute", text)
    assert "f32[4,3,32]" in text  # the inputs of half a batch
    assert not re.search(r"f32\[4,3,64\]|u32\[\d+,64\]", text)


@pytest.mark.usefixtures("full_compiler")
def test_a_divided_batch_trains_the_same_run(close):
    """Each device draws and uses its own part; only gradients are summed between devices."""
    mesh = distributed.all_devices()
    run = jax.device_get(start(Architecture(), TASK, SHORT, 0))
    together = jax.device_put(
        (run, np.int32(10)), jax.sharding.NamedSharding(mesh, PartitionSpec())
    )
    compiled = advance_divided.lower(*together, 10, mesh).compile()
    moved, losses = jax.device_get(advance_divided(*together, 10, mesh))
    one_device = jax.sharding.Mesh(jax.devices()[:1], ("run",))
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], run)
    expected, expected_losses = jax.device_get(advance(stacked, np.array([10]), 10, one_device))
    close(losses, expected_losses[0], 1e-9)
    for own, other in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
        close(own, other[0], 1e-9)
    text = compiled.as_text()
    assert re.search("all-reduce", text)
    assert not re.search("all-gather|all-to-all", text)
    assert "f64[4,3,32]" in text  # the inputs of half a batch
    assert "f64[4,3,64]" not in text


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"steps": 0}, "Training.steps must be a whole number of at least 1, got 0"),
        ({"steps": 150}, r"Training.steps must be a multiple of snapshot_every \(100\)"),
        ({"batch_size": -1}, "Training.batch_size must be a whole number"),
        ({"batch_size": 2.5}, "Training.batch_size must be a whole number"),
        ({"learning_rate": float("nan")}, "Training.learning_rate must be a finite number above 0"),
        (
            {"final_learning_rate": -1.0},
            "Training.final_learning_rate must be a finite number of at",
        ),
        ({"clip_norm": 0.0}, "Training.clip_norm must be a finite number above 0, got 0.0"),
        ({"b1": 1}, "Training.b1 must be at least 0 and below 1, got 1"),
        ({"b2": 1.0}, "Training.b2 must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Training(**bad)


def test_the_step_size_decreases_along_half_a_cosine(close):
    """For a constant gradient, the size of an update is the step size."""
    falling = Training(
        steps=20, snapshot_every=10, learning_rate=0.1, final_learning_rate=0.02, clip_norm=None
    )
    optimiser, gradient = falling.optimiser(), np.array([3.0])
    state, rates = optimiser.init(gradient), []
    for _ in range(20):
        moved, state = optimiser.update(gradient, state)
        rates.append(-float(moved[0]))
    expected = [0.02 + 0.08 * math.cos(math.pi * step / 40) ** 2 for step in range(20)]
    close(np.array(rates), np.array(expected), 1e-7)


@pytest.mark.usefixtures("full_compiler")
def test_a_decreasing_step_size_does_not_depend_on_the_chunk_length():
    own = Training(steps=12, batch_size=8, snapshot_every=12, final_learning_rate=0.0)
    many = replace(own, snapshot_every=4)
    one, other = (fit(Architecture(), TASK, each, seeds=1).final for each in (own, many))
    for whole, parts in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(whole, parts)


def absolute_error(learner, episodes):
    """Mean absolute error, another objective than that of any task."""
    return jnp.mean(jnp.abs(predict(learner, episodes) - episodes.y_query))


def equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_a_given_objective_is_minimised_as_in_a_loop_written_out(close):
    training = Training(steps=3, batch_size=16, snapshot_every=3, clip_norm=None)
    history = fit(Architecture(), TASK, training, seeds=[7], objective=absolute_error)

    weights_key, episodes_key = jax.random.split(jax.random.key(7))
    structure, parameters, fixed = nnx.split(Architecture()(TASK, weights_key), nnx.Param, ...)
    optimiser = optax.adam(1e-3, b2=0.98)
    state, losses = optimiser.init(parameters), []
    for step in range(3):
        episodes = TASK.sample(efficient_key(jax.random.fold_in(episodes_key, step)), 16)
        value, gradient = jax.value_and_grad(
            lambda values, episodes=episodes: absolute_error(
                nnx.merge(structure, values, fixed), episodes
            )
        )(parameters)
        losses.append(value)
        updates, state = optimiser.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)

    trained = jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], history.final))
    written_out = jax.tree.leaves(nnx.merge(structure, parameters, fixed))
    for own, expected in zip(trained, written_out, strict=True):
        close(own, expected, 1e-9)
    close(history.training_loss, [[np.mean(losses)]], 1e-9)
    default = fit(Architecture(), TASK, training, seeds=[7])
    assert not equal(default.final, history.final)


def test_the_default_objective_is_the_loss_of_the_tasks_episodes():
    default = fit(Architecture(), TASK, SHORT)
    assert equal(
        default.learners, fit(Architecture(), TASK, SHORT, objective=metrics.loss).learners
    )


def test_the_objective_is_part_of_the_compiled_program():
    """Jobs of one objective are trained together; another objective is another kind."""
    own = Job(Architecture(), TASK, SHORT, objective=absolute_error)
    damped = own._replace(build=Architecture(damping=0.5))
    assert kind(own) == kind(damped)
    assert kind(own) != kind(own._replace(objective=None))
    assert kind(own) != kind(own._replace(objective=metrics.loss))
    fit_all([own])
    before = advance._cache_size()
    fit_all([own, damped], seeds=2)
    assert advance._cache_size() == before


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.slow
def test_a_divided_batch_has_the_objective_too(close):
    mesh = distributed.all_devices()
    run = jax.device_get(start(Architecture(), TASK, SHORT, 0, absolute_error))
    placed = jax.device_put((run, np.int32(10)), jax.sharding.NamedSharding(mesh, PartitionSpec()))
    _, losses = jax.device_get(advance_divided(*placed, 10, mesh))
    history = fit(Architecture(), TASK, replace(SHORT, steps=10), objective=absolute_error)
    close(np.mean(losses), history.training_loss[0, 0], 1e-9)


class Counting(nnx.Module):
    """A learner with a parameter, a fixed number, and a variable of another type."""

    def __init__(self, other):
        self.rate, self.scale, self.inner = nnx.Param(1.0), Fixed(2.0), nnx.Dict(count=other)

    def __call__(self, x, y, x_query):
        return self.rate[...] * self.scale[...] * x_query[:1]


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        (nnx.BatchStat(jnp.zeros(3)), "BatchStat"),
        (nnx.Variable(jnp.zeros(())), "Variable"),
        (nnx.Cache(jnp.zeros(())), "Cache"),
    ],
)
def test_state_that_would_have_to_advance_is_refused_by_name(variable, name):
    message = rf"^learner\.inner\.count must be a flax\.nnx\.Param, .* got '{name}'"
    with pytest.raises(BadInput, match=message):
        fit(StartFrom(learner=Counting(variable)), TASK, SHORT)


def test_random_streams_of_a_learner_are_refused_by_name():
    class WithDropout(nnx.Module):
        def __init__(self):
            self.rate, self.dropout = nnx.Param(1.0), nnx.Dropout(0.1, rngs=nnx.Rngs(0))

        def __call__(self, x, y, x_query):
            return self.dropout(self.rate[...] * x_query[:1])

    with pytest.raises(BadInput, match=r"^learner\.dropout\.rngs\.count must be"):
        fit(StartFrom(learner=WithDropout()), TASK, SHORT)


def test_fixed_variables_are_kept_and_parameters_are_trained():
    history = fit(StartFrom(learner=Counting(Fixed(jnp.ones(2)))), TASK, SHORT)
    assert np.all(history.learners.scale[...] == 2)
    assert np.all(history.learners.inner["count"][...] == 1)
    assert history.learners.rate[...][0, -1] != 1
