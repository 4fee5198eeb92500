"""Changes of the weights of linear attention compared with attention outputs and slow versions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn

from toyicl.core.errors import BadInput
from toyicl.finetuning import attention_weights, finetune, published
from toyicl.models.causal import CausalArchitecture
from toyicl.tasks.prompts import Classification, cross_entropy

TASK = Classification(dim=3, outputs=2, context_size=4)
ARCHITECTURE = CausalArchitecture(attention="linear", width=8, heads=2, mlp_size=6)
MODEL = ARCHITECTURE(TASK, jax.random.key(0))
DRAW = np.random.default_rng(5)


@pytest.fixture(scope="module")
def episode():
    x, y, query, _ = drawn(TASK, 1, 1)
    return x[..., 0], y[..., 0], query[..., 0]


def attended(model, weights, queries):
    """What each layer adds to a query, from its weights (layer, heads, k, k)."""
    outputs = jnp.stack([block.attention.output[...] for block in model.blocks])
    return jnp.einsum("lhwv,lhvk,lhk->lw", outputs, weights, queries)


def test_zero_shot_weights_give_the_attention_output(episode, close):
    query = episode[2]
    found = MODEL.zero_shot(query)
    weights = attention_weights.zero_shot_weights(MODEL, query)
    close(attended(MODEL, weights, found.queries), found.attended)


def test_demonstrations_add_their_change_to_the_weights_of_the_other_tokens(episode, close):
    """In context a query attends to BOS, the demonstrations and itself."""
    x, y, query = episode
    found = MODEL.in_context(x, y, query)
    rows = attention_weights.layer_rows(MODEL, MODEL.arrange(x, y, query))
    others = jnp.stack(
        [
            attention_weights.head_weights(block, row[jnp.array([0, -1])])
            for block, row in zip(MODEL.blocks, rows, strict=True)
        ]
    )
    change = attention_weights.demonstration_change(MODEL, x, y)
    close(attended(MODEL, others + change, found.queries), found.attended)


def test_head_weights_are_a_sum_of_outer_products(close):
    block, rows = MODEL.blocks[0], jnp.asarray(DRAW.normal(size=(5, 8)))
    for head in range(2):
        key, value = (w[...][head] for w in (block.attention.key, block.attention.value))
        slow = sum(jnp.outer(value @ row, key @ row) for row in rows) / 2.0
        close(attention_weights.head_weights(block, rows)[head], slow)


def test_finetuning_changes_the_weights_by_what_it_changes_in_the_attention_output(episode, close):
    x, y, query = episode
    tuned = finetune(MODEL, x, y, 0.3, **published(cross_entropy))
    change = attention_weights.finetuning_change(MODEL, tuned, query)
    before, after = MODEL.zero_shot(query), tuned.zero_shot(query)
    first = attended(MODEL, change, before.queries)[0]
    close(first, (after.attended - before.attended)[0])
    assert float(jnp.linalg.norm(first)) > 1e-3
    same = attention_weights.finetuning_change(MODEL, MODEL, query)
    assert float(jnp.max(jnp.abs(same))) == 0


def matrices(*shape):
    return jnp.asarray(DRAW.normal(size=shape))


def test_a_change_overlaps_with_a_multiple_of_itself_entirely(close):
    change = matrices(2, 3, 4, 4)
    found = attention_weights.overlap(change, -3 * change, 2)
    close(found.cosine, -jnp.ones(2))
    close(found.norm_ratio, 3 * jnp.ones(2))
    close(found.left, jnp.ones(2))
    close(found.right, jnp.ones(2))


def test_principal_cosines_are_those_of_scipy():
    from scipy.linalg import subspace_angles

    one, other = (np.linalg.qr(DRAW.normal(size=(6, 2)))[0] for _ in range(2))
    found = attention_weights.principal_cosines(jnp.asarray(one), jnp.asarray(other))
    np.testing.assert_allclose(found, np.cos(np.sort(subspace_angles(one, other))), rtol=1e-4)


def test_random_changes_keep_singular_values_and_overlap_as_by_chance():
    change = matrices(1, 1, 8, 8)
    keys = jax.random.split(jax.random.key(0), 4000)
    random = jax.vmap(lambda key: attention_weights.random_change(key, change))(keys)
    values = jnp.linalg.svd(change, compute_uv=False)
    np.testing.assert_allclose(
        jnp.linalg.svd(random[:5, 0, 0], compute_uv=False),
        np.broadcast_to(values[0, 0], (5, 8)),
        rtol=1e-4,
        atol=1e-5,
    )
    found = jax.vmap(lambda other: attention_weights.overlap(change, other, 2))(random)
    np.testing.assert_allclose(jnp.mean(found.cosine), 0, atol=0.01)
    np.testing.assert_allclose(jnp.std(found.cosine), 1 / 8, atol=0.01)
    np.testing.assert_allclose(jnp.mean(found.left), 2 / 8, atol=0.01)
    np.testing.assert_allclose(jnp.mean(found.right), 2 / 8, atol=0.01)


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_of_singular_vectors_out_of_bounds_is_refused(count):
    with pytest.raises(BadInput, match="count must be"):
        attention_weights.overlap(matrices(1, 1, 4, 4), matrices(1, 1, 4, 4), count)
