"""Dual forms: identities in both precisions, compared with loops and gradients, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toyicl.finetuning import dual_form

PRECISIONS = [("float64", 1e-10), ("float32", 1e-5)]


def squared(answer, label):
    return answer - label


def classified(logits, label):
    return jax.nn.softmax(logits) - label


DERIVATIVES = {"squared error": squared, "cross-entropy": classified}


def draw(seed, count=12, dim=5, outputs=3):
    x, y, query = (
        jax.random.normal(key, shape)
        for key, shape in zip(
            jax.random.split(jax.random.key(seed), 3),
            ((count, dim), (count, outputs), (dim,)),
            strict=True,
        )
    )
    return x, jax.nn.one_hot(jnp.argmax(y, axis=1), outputs, dtype=y.dtype), query


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_trained_layer_equals_attention_over_its_training(close, name, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        x, y, query = draw(0)
        start = jax.random.normal(jax.random.key(9), (3, 5))
        trained = dual_form.train(
            start, jnp.tile(x, (3, 1)), jnp.tile(y, (3, 1)), 0.1, DERIVATIVES[name]
        )
        answer = dual_form.answer_by_attention(start, trained, query)
        assert answer.dtype.name == dtype
        close(answer, trained.weights @ query, tolerance)


def test_training_is_a_loop_over_gradient_steps(close):
    x, y, _ = draw(1)
    weights = expected = jax.random.normal(jax.random.key(2), (3, 5))
    trained = dual_form.train(weights, x, y, 0.2, classified)
    for row, label in zip(x, y, strict=True):

        def cost(weights, row=row, label=label):
            return -label @ jax.nn.log_softmax(weights @ row)

        expected = expected - 0.2 * jax.grad(cost)(expected)
    close(trained.weights, expected)
    attended = [row @ trained.inputs[3] for row in np.asarray(x)]
    close(dual_form.attention_over_training(trained, trained.inputs[3]), attended)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), count=st.integers(1, 20))
def test_linear_attention_is_additive_over_demonstrations(dtype, tolerance, seed, count):
    with jax.enable_x64(dtype == "float64"):
        keys, values, query = draw(seed, count)
        own_keys, own_values, _ = draw(seed + 1, 2)
        together = dual_form.linear_attention(
            jnp.concatenate([keys, own_keys]), jnp.concatenate([values, own_values]), query
        )
        weights = dual_form.context_weights(own_keys, own_values) + dual_form.context_weights(
            keys, values
        )
        np.testing.assert_allclose(together, weights @ query, rtol=0, atol=tolerance * 100)
        by_hand = sum(v * (k @ query) for k, v in zip(keys, values, strict=True))
        np.testing.assert_allclose(
            dual_form.linear_attention(keys, values, query), by_hand, rtol=0, atol=tolerance * 100
        )


def test_softmax_attention_is_not_additive_over_demonstrations(close):
    keys, values, query = draw(3)
    whole = dual_form.softmax_attention(keys, values, query)
    parts = dual_form.softmax_attention(keys[:4], values[:4], query)
    parts = parts + dual_form.softmax_attention(keys[4:], values[4:], query)
    assert np.linalg.norm(whole - parts) > 0.05 * np.linalg.norm(whole)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_weight_update_is_the_negative_gradient_of_the_agreement(close, scale):
    keys, values, _ = draw(4)
    weights = scale * jax.random.normal(jax.random.key(5), (3, 5))
    added = dual_form.context_weights(keys, values)
    close(-jax.grad(dual_form.agreement)(weights, keys, values), added)
    descent = -jax.grad(dual_form.squares)(weights, keys, values)
    if scale:
        assert np.linalg.norm(descent - added) > 0.1 * np.linalg.norm(added)
    else:
        close(descent, added)


def test_the_agreement_has_no_minimum(close):
    keys, values, _ = draw(6)
    added = dual_form.context_weights(keys, values)
    costs = [float(dual_form.agreement(size * added, keys, values)) for size in (1, 10, 100)]
    close(costs[1:], [10 * costs[0], 100 * costs[0]])
    assert costs[0] < 0


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_softmax_attention_is_one_gradient_step_from_any_start(close, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        keys, values, query = draw(7)
        for seed in range(3):
            start = 5 * jax.random.normal(jax.random.key(seed), (3,))
            end = dual_form.local_step(keys, values, query, start)
            close(end, dual_form.softmax_attention(keys, values, query), tolerance)


def test_large_scores_do_not_overflow():
    keys, values, query = draw(8)
    end = dual_form.local_step(100 * keys, values, 10 * query, jnp.zeros(3))
    assert np.isfinite(end).all()
