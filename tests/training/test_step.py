"""The compiled chunk: no device speaks to another, a divided batch is the same batch; its settings."""

import math
import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training import distributed
from toyicl.training import step as training_step
from toyicl.training.loop import fit
from toyicl.training.step import Training, advance, advance_divided, start

TASK = LinearRegression(dim=3, context_size=4)
SHORT = Training(steps=20, batch_size=64, snapshot_every=10)
COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def test_devices_do_not_speak_to_each_other():
    mesh = distributed.own_devices()
    assert mesh.size == 2
    run = jax.device_get(start(Architecture(), TASK, SHORT, 0))
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), run)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("run"))
    placed = jax.device_put((stacked, np.array([10, 10])), sharding)
    text = advance.lower(*placed, 10, mesh).compile().as_text()
    assert "while" in text
    assert re.search(COLLECTIVES, text) is None


def test_a_divided_batch_trains_the_same_run(close):
    """Each device draws and works on its own part; only gradients are summed between them."""
    mesh = distributed.all_devices()
    run = jax.device_get(start(Architecture(), TASK, SHORT, 0))
    together = jax.device_put(
        (run, np.int32(10)), jax.sharding.NamedSharding(mesh, PartitionSpec())
    )
    compiled = advance_divided.lower(*together, 10, mesh).compile()
    moved, losses = jax.device_get(advance_divided(*together, 10, mesh))
    expected, expected_losses = jax.device_get(training_step._train(run, 10, 10))
    close(losses, expected_losses, 1e-9)
    for own, other in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
        close(own, other, 1e-9)
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


def test_the_step_size_falls_along_half_a_cosine(close):
    """A constant gradient moves Adam by its step size."""
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


def test_a_falling_step_size_is_the_same_in_one_chunk_and_in_many():
    own = Training(steps=12, batch_size=8, snapshot_every=12, final_learning_rate=0.0)
    many = replace(own, snapshot_every=4)
    one, other = (fit(Architecture(), TASK, each, seeds=1).final for each in (own, many))
    for whole, parts in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(whole, parts)
