"""Constructed transformers compared with the algorithms that they implement, and interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import answer, random_context, random_model, rescale, reweigh
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.ridge import Ridge
from toyicl.algorithms.token_descent import TokenDescent
from toyicl.models.construction import (
    as_transformer,
    gradient_descent_circuits,
    gradient_descent_transformer,
    interpolate,
    repeated,
    softmax_heads,
    subtracted_heads,
    with_circuits,
)
from toyicl.models.tokens import joint_tokens
from toyicl.models.transformer import Architecture, Transformer

# Every size is compiled anew, so there are few examples and failing ones are not shrunk.
few = settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
SIZES = {"d": st.integers(1, 4), "m": st.integers(1, 3), "n": st.integers(1, 7)}


def random_weights(m, d):
    return jnp.asarray(np.random.default_rng([m, d]).normal(size=(m, d)))


@few
@given(**SIZES, depth=st.integers(1, 3), rate=st.floats(0.01, 1.0), started=st.booleans())
def test_proposition_1(d, m, n, depth, rate, started, close):
    """K layers are K steps of gradient descent, from any W_0, after every layer."""
    context = random_context(d, m, n)
    start = random_weights(m, d) if started else None

    @jax.jit
    def both(x, y, x_query):
        model = gradient_descent_transformer(rate, n, d, m, depth=depth, initial_weights=start)
        descents = [GradientDescent(rate, k + 1, initial_weights=start) for k in range(depth)]
        steps = [descent(x, y, x_query) for descent in descents]
        return model.layerwise(x, y, x_query), jnp.stack(steps)

    close(*both(*context), 1e-12)


@few
@given(**SIZES, started=st.booleans())
def test_labels_of_the_context_become_residuals(d, m, n, started, close):
    """One layer changes labels y_i to y_i - dW x_i and no input: a data update is a weight update."""
    x, y, _ = random_context(d, m, n)
    start = random_weights(m, d) if started else jnp.zeros((m, d))

    @jax.jit
    def update(x, y):
        model = gradient_descent_transformer(0.3, n, d, m, initial_weights=start)
        return model.layer(0).attention(joint_tokens(x, y), joint_tokens(x, y))

    inputs, labels = jnp.split(update(x, y), [d], axis=1)
    change = np.zeros((m, d))
    for point, label in zip(x, y, strict=True):
        change -= 0.3 / n * np.outer(start @ point - label, point)
    close(labels, -x @ change.T)
    assert np.all(inputs == 0)


@few
@given(**SIZES, depth=st.integers(1, 3))
def test_plus_plus_construction(d, m, n, depth, close):
    context = random_context(d, m, n)

    @jax.jit
    def both(x, y, x_query):
        model = gradient_descent_transformer(0.4, n, d, m, depth=depth, curvature=0.05)
        reference = GradientDescentPlusPlus(0.4, 0.05, depth)
        return model(x, y, x_query), reference(x, y, x_query)

    close(*both(*context), 1e-11)


def test_layers_may_have_different_steps(close):
    context, rates, curvatures = random_context(3, 2, 5), [0.5, 0.2, 0.9], [0.03, 0.05, 0.4]
    pairs = [
        gradient_descent_circuits(rate, 5, 3, 2, curvature=curvature)
        for rate, curvature in zip(rates, curvatures, strict=True)
    ]
    close(
        answer(with_circuits(pairs, 3, 2), *context),
        answer(GradientDescentPlusPlus(rates, curvatures, 3), *context),
    )


def test_circuits_are_those_of_the_paper(close):
    """W_K^T W_Q = [[I, 0], [0, 0]], P W_V = [[-gamma I, 0], [(eta/N) W_0, -(eta/N) I]]."""
    start = np.array([[1.0, 2.0]])
    key_query, value_output = gradient_descent_circuits(
        0.6, 3, 2, initial_weights=start, curvature=0.5
    )
    close(key_query, np.diag([1.0, 1.0, 0.0]))
    close(value_output, np.array([[-0.5, 0, 0], [0, -0.5, 0], [0.2, 0.4, -0.2]]))
    attention = with_circuits([(key_query, value_output)], 2).layer(0).attention
    close(attention.key_query[0], key_query)
    close(attention.value_output[0], value_output)


@pytest.mark.parametrize("depth", [1, 3])
def test_one_pair_of_circuits_is_shared(depth):
    model = gradient_descent_transformer(0.5, 4, 2, depth=depth)
    assert model.depth == depth
    assert len(model.blocks) == 1


def test_the_number_of_circuits_must_match_the_depth():
    pair = gradient_descent_circuits(0.5, 4, 2)
    rule = "circuits must be one pair, or one for each of 3 layers, got 2"
    with pytest.raises(ValueError, match=f"^{rule}$"):
        with_circuits([pair, pair], 2, depth=3)


def test_a_construction_may_have_a_traced_rate(close):
    context = random_context(2, 1, 4)
    swept = jax.vmap(lambda rate: gradient_descent_transformer(rate, 4, 2, depth=2)(*context))
    expected = [GradientDescent(rate, 2)(*context) for rate in (0.1, 0.7)]
    close(jax.jit(swept)(jnp.array([0.1, 0.7])), np.array(expected))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("factor", [0.3, -5.0])
def test_interpolating_a_rescaled_construction_with_the_original_gives_the_original(
    depth, factor, close
):
    context = random_context(3, 1, 5)
    model = gradient_descent_transformer(0.6, 5, 3, depth=depth, curvature=0.05)
    blend = interpolate(reweigh(model, rescale(factor)), model, 3)
    close(answer(blend, *context), answer(model, *context))
    close(blend.layer(0).attention.key_query, model.layer(0).attention.key_query)


def test_interpolation_takes_the_mean_of_the_circuits(close):
    one, other = random_model(1, seed=1), random_model(1, seed=2)
    mine, theirs = one.layer(0).attention, other.layer(0).attention
    scale = np.trace(theirs.key_query[0, :3, :3]) / np.trace(mine.key_query[0, :3, :3])
    blend = interpolate(one, other, 3).layer(0).attention
    close(blend.key_query, (scale * mine.key_query + theirs.key_query) / 2)
    close(blend.value_output, (mine.value_output / scale + theirs.value_output) / 2)


def test_interpolating_a_damped_model_with_itself_gives_itself(close):
    context, model = random_context(3, 1, 5), random_model(1, depth=2, damping=0.5)
    close(answer(interpolate(model, model, 3), *context), answer(model, *context), 1e-10)


def test_interpolation_keeps_initial_weights(close):
    context = random_context(3, 1, 5)
    models = [
        gradient_descent_transformer(0.6, 5, 3, initial_weights=factor * np.ones((1, 3)))
        for factor in (1.0, 3.0)
    ]
    middle = gradient_descent_transformer(0.6, 5, 3, initial_weights=2 * np.ones((1, 3)))
    close(answer(interpolate(*models, 3), *context), answer(middle, *context))


def test_shared_and_separate_layers_interpolate(close):
    context = random_context(3, 1, 5)
    pair = gradient_descent_circuits(0.6, 5, 3)
    shared, separate = with_circuits([pair], 3, depth=2), with_circuits([pair, pair], 3)
    for blend in (interpolate(shared, separate, 3), interpolate(separate, shared, 3)):
        close(answer(blend, *context), GradientDescent(0.6, 2)(*context))


def test_tokens_of_the_interpolated_model_are_clipped_like_the_models(close):
    context = random_context(3, 1, 5)
    pair = gradient_descent_circuits(0.6, 5, 3)
    clipped = with_circuits([pair], 3, depth=2, token_clip=0.01)
    blend = interpolate(clipped, with_circuits([pair], 3, depth=2), 3)
    close(answer(blend, *context), answer(clipped, *context))
    assert abs(answer(blend, *context)).max() <= 0.01 + 1e-7


@pytest.mark.parametrize("steps", [1, 3])
def test_references_become_transformers_with_the_same_predictions(close, steps):
    context = random_context(3, 1, 5)
    rates, curvatures = np.linspace(0.3, 0.6, steps), np.linspace(0.1, 0.2, steps)
    for reference in (
        GradientDescent(rates, steps),
        GradientDescentPlusPlus(rates, curvatures, steps),
        TokenDescent(rates / 5, curvatures, steps),
        TokenDescent(rates / 5, curvatures, steps, token_clip=0.8),
    ):
        model = as_transformer(reference, 5, 3)
        close(answer(model, *context), reference(*context))
    with pytest.raises(
        ValueError, match=r"^reference must be gradient descent or GD\+\+, got Ridge"
    ):
        as_transformer(Ridge(0.1), 5, 3)


@pytest.mark.parametrize("damping", [1.0, 0.75])
def test_a_repeated_layer_takes_damped_steps(close, damping):
    context = random_context(3, 1, 5)
    rolled = repeated(gradient_descent_transformer(0.6, 5, 3), 4, damping)
    close(answer(rolled, *context), GradientDescent(0.6 * damping, 4)(*context))
    with pytest.raises(ValueError, match=r"^model\.depth must be 1 to be repeated, got 2$"):
        repeated(random_model(1, depth=2), 4)
    with pytest.raises(ValueError, match=r"^depth must be a whole number of at least 1, got 0$"):
        repeated(random_model(1), 0)


def test_subtracted_heads_tend_to_the_covariance():
    with jax.enable_x64(True):
        x, y, x_query = random_context(3, 1, 5)
        logits = x @ x_query
        covariance = np.mean((logits - logits.mean()) * y[:, 0])
        errors = [
            abs(float(subtracted_heads(scale, 3)(x, y, x_query)[0]) - covariance)
            for scale in (0.1, 0.01)
        ]
    assert errors[1] < 0.01 * abs(covariance)
    assert errors[1] < errors[0] / 50, "the error is of second order"


def test_models_that_cannot_be_interpolated_are_refused():
    with pytest.raises(ValueError, match=r"^depth must be that of the reference, got 1$"):
        interpolate(random_model(1), random_model(1, depth=2), 3)
    with pytest.raises(ValueError, match=r"^heads must be 1 to interpolate weights, got 2$"):
        interpolate(random_model(2), random_model(1), 3)
    softmax = Transformer(Architecture(attention="softmax"), 3, 1, jax.random.key(0))
    with pytest.raises(ValueError, match=r"^attention must be linear to interpolate weights, got"):
        interpolate(softmax, random_model(1), 3)
    started = gradient_descent_transformer(0.6, 5, 3, initial_weights=np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"^initial_weights must be in both models"):
        interpolate(random_model(1), started, 3)


@pytest.mark.parametrize(("wide", "dtype"), [(True, "float64"), (False, "float32")])
def test_dtypes(wide, dtype):
    def values(x, y, x_query, start):
        model = gradient_descent_transformer(0.6, 5, 3, depth=3, initial_weights=start)
        blend = interpolate(model, model, 3)
        return [model(x, y, x_query), blend(x, y, x_query)]

    with jax.enable_x64(wide):
        shapes = jax.eval_shape(values, *random_context(3, 1, 5), np.ones((1, 3)))
    assert {value.dtype.name for value in shapes} == {dtype}


@few
@given(**SIZES)
def test_softmax_heads_are_weighted_averages_of_labels(d, m, n, close):
    x, y, x_query = random_context(d, m, n)
    scales, gains = np.array([2.0, -0.5, 0.0]), np.array([1.0, 3.0, -2.0])
    near = np.exp(scales[:, None] * (x @ x_query))
    averages = near @ y / near.sum(axis=1, keepdims=True)
    close(answer(softmax_heads(scales, gains, d, m), x, y, x_query), gains @ averages, 1e-10)


@few
@given(**SIZES, depth=st.integers(1, 3))
def test_stacked_softmax_heads_average_residuals(d, m, n, depth, close):
    x, y, x_query = random_context(d, m, n)
    rows, labels = np.concatenate([x, x_query[None]]), np.concatenate([y, np.zeros((1, m))])
    near = np.exp(0.7 * rows @ x.T)
    for _ in range(depth):
        labels = labels - 0.4 * near @ labels[:-1] / near.sum(axis=1, keepdims=True)
    model = softmax_heads([0.7], [0.4], d, m, depth=depth)
    close(answer(model, x, y, x_query), -labels[-1], 1e-10)


def test_softmax_heads_may_be_traced(close):
    context = random_context(3, 1, 4)
    swept = jax.vmap(lambda scale: answer(softmax_heads(scale[None], [1.0], 3), *context))
    scales = jnp.array([0.5, 2.0])
    close(swept(scales)[1], answer(softmax_heads([2.0], [1.0], 3), *context))


@pytest.mark.parametrize("gains", [[1.0, 2.0], [], 1.0])
def test_each_softmax_head_needs_a_gain(gains):
    with pytest.raises(ValueError, match=r"^gains must be a number for each head, "):
        softmax_heads([1.0], gains, 3)
