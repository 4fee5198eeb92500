"""Analyses of weights, for constructed models, for reparameterised ones and for random ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import answer, random_context, random_model, rescale, reweigh, split_at_random

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis.weights import (
    circuit_scores,
    implied_step,
    random_circuit_score,
    read_layer,
)
from toyicl.models.construction import (
    gradient_descent_circuits,
    gradient_descent_transformer,
    with_circuits,
)
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_implied_step_is_the_odd_part_of_the_prediction(heads, damping, close):
    """(f(w) - f(-w)) / 2 = w^T S G x_q for all weights; the derivative by x_q and w is S G."""
    x, _, x_query = random_context(3, 1, 5)
    model = random_model(heads, damping=damping)

    def odd(weights, query):
        above, below = (model(x, sign * x @ weights[:, None], query) for sign in (1, -1))
        return (above - below)[0] / 2

    step = np.asarray(implied_step(model, 3))
    weights = np.array([0.5, -1.0, 2.0])
    close(jax.jit(odd)(weights, x_query), weights @ x.T @ x @ step @ x_query, 1e-10)
    mixed = jax.jit(jax.jacobian(jax.jacobian(odd), argnums=1))(weights, x_query)
    close(mixed, x.T @ x @ step, 1e-10)


def test_the_implied_step_of_a_later_layer(close):
    model = random_model(1, depth=2)
    attention = model.blocks[1].attention
    scores, written = np.asarray(attention.key_query[0]), np.asarray(attention.value_output[0])
    expected = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):
            expected[a, b] = -(written[3, a] * scores[3, b] + written[3, 3] * scores[a, b])
    close(implied_step(model, 3, layer=1), expected)


CHANGES = {
    "as constructed": lambda index, *weights: weights,
    "rescaled": rescale(3.7),
    "rescaled with a sign": rescale(-0.2),
    "split at random": split_at_random,
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_step_and_curvature_of_a_construction_are_recovered(name, close):
    model = gradient_descent_transformer(0.6, 4, 3, curvature=0.05)
    reading = read_layer(reweigh(model, CHANGES[name]), 3)
    close(reading.step, 0.15)
    close(reading.curvature, 0.05)
    assert reading.off_construction < 1e-12


def test_the_reading_of_two_heads_is_their_sum(close):
    """For the construction divided between two heads."""
    key_query, value_output = gradient_descent_circuits(0.6, 4, 3, curvature=0.05)
    attention = (model := random_model(2)).layer(0).attention
    attention.key[...] = attention.value[...] = jnp.stack([jnp.eye(4)] * 2)
    attention.query[...] = jnp.stack([key_query, 2 * key_query])
    attention.output[...] = jnp.stack([0.5 * value_output, 0.25 * value_output])
    reading = read_layer(model, 3)
    close(reading.step, 0.15)
    close(reading.curvature, 0.05)
    assert reading.off_construction < 1e-12
    context = random_context(3, 1, 4)
    close(answer(model, *context), GradientDescent(0.6)(*context))


def test_the_distance_from_the_construction_is_relative(close):
    """||G - c I|| / ||G|| for a step matrix of diagonal (1, 3): 1.414 / 3.162."""
    _, value_output = gradient_descent_circuits(2.0, 2, 2)
    model = with_circuits([(jnp.diag(jnp.array([1.0, 3.0, 0.0])), value_output)], 2)
    reading = read_layer(model, 2)
    close(reading.step, 2.0)
    close(reading.off_construction, np.sqrt(2 / 10))


def test_random_weights_are_far_from_the_construction():
    assert read_layer(random_model(1), 3).off_construction > 0.5


def test_circuit_scores_are_0_for_the_construction():
    model = gradient_descent_transformer(0.8, 6, 3, 2, depth=2, curvature=0.05)
    for layer in range(2):
        scores = circuit_scores(model, 3, layer)
        assert scores.key_query.shape == scores.value_output.shape == (1,)
        assert max(*scores.key_query, *scores.value_output) < 1e-12


def test_a_circuit_score_is_a_distance_from_the_identity(close):
    """Rotation by a right angle has the largest score; entries outside the block do not count."""
    model = gradient_descent_transformer(0.8, 6, 2)
    attention = model.blocks[0].attention
    turned = jnp.array([[0.0, -1, 7], [1, 0, 7], [7, 7, 7]])
    for sine in (0.0, 0.6, 1.0):
        mixed = sine * turned + jnp.sqrt(1 - sine**2) * jnp.eye(3)
        attention.query[...] = mixed[None]
        close(circuit_scores(model, 2).key_query, np.array([sine]), 1e-12)
    assert circuit_scores(model, 2).value_output == 0, "one output"


def test_random_weights_have_the_score_of_random_matrices():
    """In root mean square over 400 heads; with wide keys, entries are nearly independent."""
    dim = outputs = 4
    task = LinearRegression(dim=dim, outputs=outputs)
    model = Architecture(heads=400, key_size=30)(task, jax.random.key(0))
    expected = random_circuit_score(dim)
    for scores in circuit_scores(model, dim):
        assert scores.shape == (400,)
        error = np.std(scores**2) / 20
        assert abs(np.mean(scores**2) - expected**2) < 4 * error
        assert 0 < error < 0.01
    assert expected == pytest.approx(np.sqrt(15 / 16))


@pytest.mark.parametrize("changes", [{"embedding_size": 7}, {"tokens": "separate"}])
def test_separate_and_embedded_tokens_are_refused(changes):
    model = Architecture(**changes)(LinearRegression(dim=3), jax.random.key(0))
    with pytest.raises(ValueError, match=r"^token size must be that of a model on joint tokens"):
        circuit_scores(model, 3)


@pytest.mark.parametrize(("wide", "dtype"), [(True, "float64"), (False, "float32")])
def test_dtypes(wide, dtype):
    def values():
        model = gradient_descent_transformer(0.6, 5, 3, depth=3)
        return [*read_layer(model, 3), implied_step(model, 3), *circuit_scores(model, 3)]

    with jax.enable_x64(wide):
        shapes = jax.eval_shape(values)
    assert {value.dtype.name for value in shapes} == {dtype}
