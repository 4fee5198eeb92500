"""The rank-one update of an MLP compared with the context that it stands for, and slow versions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.finetuning import rank_one
from toyicl.models.attention import AttentionSettings
from toyicl.models.attention_mlp import AttentionMLP
from toyicl.models.layers import MLP, Block, LayerSettings
from toyicl.tasks.linear import LinearRegression

DRAW = np.random.default_rng(3)
SIZE, HIDDEN, POINTS = 5, 7, 6


def tolerance():
    """Relative tolerance in the precision of the tests."""
    return 1e-10 if jnp.result_type(float) == jnp.float64 else 1e-5


def rows(*shape):
    return jnp.asarray(DRAW.normal(size=shape))


def mlp():
    from flax import nnx

    one = MLP(SIZE, HIDDEN, 1.0, nnx.Rngs(0))
    one.up_proj.bias[...] = rows(HIDDEN)
    one.down_proj.bias[...] = rows(SIZE)
    return one


def test_the_changed_matrix_maps_one_vector_as_the_given_one_maps_the_other():
    weights, before, after = rows(HIDDEN, SIZE), rows(SIZE), rows(SIZE)
    update = rank_one.rank_one_update(weights, before, after)
    slow = np.array(
        [
            [
                sum(weights[i, k] * (after[k] - before[k]) for k in range(SIZE)) * before[j]
                for j in range(SIZE)
            ]
            for i in range(HIDDEN)
        ]
    ) / sum(b**2 for b in before)
    np.testing.assert_allclose(update, slow, rtol=100 * tolerance(), atol=tolerance())
    assert np.linalg.matrix_rank(np.asarray(update), tol=1e-4) == 1
    np.testing.assert_allclose(
        (weights + update) @ before, weights @ after, rtol=100 * tolerance(), atol=tolerance()
    )


def test_an_mlp_with_the_update_answers_without_a_context_as_with_it(close):
    one, before, after = mlp(), rows(SIZE), rows(SIZE)
    close(rank_one.with_context(one, before, after)(before), one(after))
    close(rank_one.first_matrix(one), one.up_proj.kernel[...].T)
    assert float(jnp.max(jnp.abs(one(after) - one(before)))) > 0.01


@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("norm", [False, True])
def test_a_block_with_the_update_makes_of_a_query_what_it_makes_with_a_context(kind, norm, close):
    attention = AttentionSettings(kind=kind, heads=2, init_scale=1.0)
    settings = LayerSettings(
        attention=attention, mlp_size=HIDDEN, mlp_gate=0.7, layer_norm=norm, norm_gate=0.6
    )
    block = Block(SIZE, jax.random.key(0), settings)
    query, context = rows(SIZE), rows(POINTS, SIZE)
    expected = block.apply_mlp(query + block.attend(query, context))
    changed = rank_one.block_with_context(block, query, context)
    close(changed.apply_mlp(query), expected)
    assert float(jnp.max(jnp.abs(block.apply_mlp(query) - expected))) > 0.01


def test_a_block_without_an_mlp_is_refused():
    block = Block(SIZE, jax.random.key(0), LayerSettings())
    with pytest.raises(BadInput, match="block must have an MLP"):
        rank_one.block_with_context(block, rows(SIZE), rows(POINTS, SIZE))


def test_the_gradient_of_demonstrations_is_that_of_finite_differences():
    with jax.enable_x64(True):
        task = LinearRegression(dim=SIZE - 1, context_size=POINTS)
        model = AttentionMLP(mlp_size=3)(task, jax.random.key(0))
        x, y = rows(POINTS, SIZE - 1), rows(POINTS, 1)
        tokens = jax.vmap(model.token)(x)

        def answer(mlp, token):
            return -mlp(token)[-1:]

        gradient = rank_one.demonstration_gradient(answer, model.mlp, tokens, y)
        weights, small = rank_one.first_matrix(model.mlp), 1e-6

        def loss(weights):
            changed = rank_one.with_first_matrix(model.mlp, weights)
            errors = [
                answer(changed, token) - label for token, label in zip(tokens, y, strict=True)
            ]
            return float(sum(jnp.sum(error**2) for error in errors)) / 2 / POINTS

        for place in np.ndindex(weights.shape):
            change = jnp.zeros(weights.shape).at[place].set(small)
            slope = (loss(weights + change) - loss(weights - change)) / (2 * small)
            np.testing.assert_allclose(gradient[place], slope, rtol=1e-5, atol=1e-9)


def test_no_left_factor_has_a_larger_cosine_than_the_largest(close):
    gradient, before = rows(HIDDEN, SIZE), rows(SIZE)
    largest = rank_one.best_rank_one_cosine(gradient, before)
    best = jnp.outer(-gradient @ before, before)
    close(rank_one.matrix_cosine(best, -gradient), largest)
    for _ in range(50):
        other = jnp.outer(rows(HIDDEN), before)
        assert float(rank_one.matrix_cosine(other, -gradient)) < float(largest)
