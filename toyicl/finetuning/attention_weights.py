"""Changes of the weights that linear attention amounts to: by demonstrations, and by finetuning.

Each head of linear attention maps a query vector q to W q, with W = sum_i v_i k_i^T over the tokens
that the query attends to. Dai et al. (2022) write W_ZSL for those of a prompt without demonstrations.
Demonstrations add their v_i k_i^T to W. Finetuning of W_K and W_V changes the v_i and k_i of W_ZSL.
Both changes are matrices of one shape, (layer, head, key size, key size).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.core.config import require_at_most, require_size
from toyicl.finetuning.dual_form import context_weights
from toyicl.finetuning.rank_one import matrix_cosine
from toyicl.models.causal import CausalBlock, CausalTransformer


def layer_rows(model: CausalTransformer, tokens: jax.Array) -> list[jax.Array]:
    """What the attention of each layer reads, (T, width), for tokens (T, width)."""
    inputs: list[jax.Array] = []

    def keep(tokens: jax.Array) -> jax.Array:
        inputs.append(tokens)
        return tokens

    model.activations(tokens, keep)
    blocks = zip(model.blocks, inputs, strict=True)
    return [block.attention_norm(rows) for block, rows in blocks]


def head_weights(block: CausalBlock, rows: jax.Array) -> jax.Array:
    """W = sum_i v_i k_i^T of each head over rows (T, width): (heads, key size, key size).

    Scores are divided by sqrt(key size), and so is W.
    """
    keys, values = (
        jnp.einsum("tw,hkw->htk", rows, weights[...])
        for weights in (block.attention.key, block.attention.value)
    )
    return jax.vmap(context_weights)(keys, values) / jnp.sqrt(float(keys.shape[-1]))


def zero_shot_weights(model: CausalTransformer, x_query: jax.Array) -> jax.Array:
    """W_ZSL of each layer and head, from the tokens BOS x_q: (layer, heads, key size, key size)."""
    rows = layer_rows(model, model.query_tokens(x_query))
    return jnp.stack([head_weights(*pair) for pair in zip(model.blocks, rows, strict=True)])


def demonstration_change(model: CausalTransformer, x: jax.Array, y: jax.Array) -> jax.Array:
    """What demonstrations (N, d), (N, m) add to the weights of each layer and head.

    It does not depend on the query, which comes after all demonstrations. The shape is that of
    `zero_shot_weights`.
    """
    tokens = model.arrange(x, y, jnp.zeros_like(x[0]))
    rows = layer_rows(model, tokens)
    demonstrations = slice(1, tokens.shape[0] - model.input_tokens)
    pairs = zip(model.blocks, rows, strict=True)
    return jnp.stack([head_weights(block, each[demonstrations]) for block, each in pairs])


def finetuning_change(
    model: CausalTransformer, tuned: CausalTransformer, x_query: jax.Array
) -> jax.Array:
    """What finetuning changes in the zero-shot weights at a query, of their shape."""
    return zero_shot_weights(tuned, x_query) - zero_shot_weights(model, x_query)


class Overlap(NamedTuple):
    """How similar two changes of the weights of each layer are."""

    cosine: jax.Array
    """Cosine of the matrices of all heads of a layer as one vector, (layer,)."""
    norm_ratio: jax.Array
    """Norm of the second change divided by that of the first, (layer,)."""
    left: jax.Array
    """Mean squared cosine of the principal angles of the leading left singular vectors, (layer,)."""
    right: jax.Array
    """The same of the right singular vectors, (layer,)."""


def overlap(one: jax.Array, other: jax.Array, count: int) -> Overlap:
    """Compare two changes (layer, heads, size, size) by `count` leading singular vectors of each head.

    Unrelated random subspaces have a mean squared cosine of count / size. Raises BadInput for a count
    that is not between 1 and the size.
    """
    require_size("count", count)
    require_at_most("count", count, "the size of keys", one.shape[-1])
    flat = [change.reshape(len(change), -1) for change in (one, other)]
    norms = [jnp.linalg.norm(rows, axis=1) for rows in flat]
    left, right = zip(*(_leading(change, count) for change in (one, other)), strict=True)
    return Overlap(
        jax.vmap(matrix_cosine)(*flat),
        norms[1] / norms[0],
        jnp.mean(principal_cosines(*left) ** 2, axis=(1, 2)),
        jnp.mean(principal_cosines(*right) ** 2, axis=(1, 2)),
    )


def _leading(change: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The leading left and right singular vectors as columns, (..., size, count)."""
    left, _, right = jnp.linalg.svd(change)
    return left[..., :count], jnp.swapaxes(right, -1, -2)[..., :count]


def principal_cosines(one: jax.Array, other: jax.Array) -> jax.Array:
    """Cosines of the principal angles of two subspaces with orthonormal bases (..., size, count)."""
    return jnp.linalg.svd(jnp.swapaxes(one, -1, -2) @ other, compute_uv=False)


def random_change(key: jax.Array, change: jax.Array) -> jax.Array:
    """A change with the singular values of the given one and random singular vectors."""
    values = jnp.linalg.svd(change, compute_uv=False)
    left, right = (
        jax.random.orthogonal(k, change.shape[-1], change.shape[:-2], change.dtype)
        for k in jax.random.split(key)
    )
    return (left * values[..., None, :]) @ right
