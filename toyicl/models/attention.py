"""One attention layer, linear, softmax or in between, as the update it makes to tokens.

Only two products of its weights matter, for each head: the key-query circuit W_K^T W_Q, which scores
tokens against each other, and the value-output circuit P W_V, which turns what was read into an
update. The layer therefore works with the circuits, formed once outside the batch.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.models.tokens import Tokens, block_sizes, project, split, sum_of

AttentionKind = Literal["linear", "softmax", "mixed"]


class Fixed(nnx.Variable):
    """A number of the model that training leaves as it is; it may be traced."""


def read_linear(rows: Tokens, context: Tokens) -> Tokens:
    """What linear attention reads for each row: sum_i (row . e_i) e_i, as blocks of the row's shape.

    The product of three matrices, rows (q, D), context^T (D, N), context (N, D), is taken in
    whichever order multiplies less: by way of the scores (q, N), or of the scatter (D, D).
    """
    size = sum(block_sizes(context))
    points = context[0].shape[0]
    count = 1 if rows[0].ndim == 1 else rows[0].shape[0]
    if 2 * count * points <= (points + count) * size:
        return read_by_scores(rows, context)
    return read_by_scatter(rows, context)


def read_by_scores(rows: Tokens, context: Tokens) -> Tokens:
    """`read_linear` in the order (Q K^T) V: 2 q N D products."""
    scores = sum_of([row @ block.T for row, block in zip(rows, context, strict=True)])
    return tuple(scores @ block for block in context)


def read_by_scatter(rows: Tokens, context: Tokens) -> Tokens:
    """`read_linear` in the order Q (K^T V): (q + N) D^2 products."""
    return tuple(
        sum_of([row @ (other.T @ block) for row, other in zip(rows, context, strict=True)])
        for block in context
    )


def read_softmax(rows: Tokens, context: Tokens, scale: float | jax.Array) -> Tokens:
    """What softmax attention reads: the mean of e_i weighted by softmax_i(scale row . e_i)."""
    scores = sum_of([row @ block.T for row, block in zip(rows, context, strict=True)])
    weights = jax.nn.softmax(scale * scores, axis=-1)
    return tuple(weights @ block for block in context)


def read_mixed(
    rows: Tokens, context: Tokens, scale: float | jax.Array, share: float | jax.Array
) -> Tokens:
    """A share of what softmax attention reads, and the rest of what linear attention reads."""
    linear, softmax = read_linear(rows, context), read_softmax(rows, context, scale)
    return tuple((1 - share) * a + share * b for a, b in zip(linear, softmax, strict=True))


class Attention(nnx.Module):
    """Multi-head attention of some tokens over a context, without normalisation by N.

    update(e_j) = sum_h P_h sum_i W_V,h e_i weigh((W_K,h e_i) . (W_Q,h e_j)), von Oswald et al. (2022),
    equation 1. Weights: query, key, value (heads, key_size, token_size), output
    (heads, token_size, key_size), truncated normal of variance init_scale / fan-in.
    """

    def __init__(
        self,
        token_size: int,
        key: jax.Array,
        *,
        heads: int = 1,
        key_size: int | None = None,
        kind: AttentionKind = "linear",
        temperature: float | jax.Array = 1.0,
        softmax_share: float | jax.Array = 0.0,
        init_scale: float | jax.Array = 0.002,
    ):
        size = key_size or token_size
        query_key, key_key, value_key, output_key = jax.random.split(key, 4)
        inward = jax.nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2, batch_axis=0
        )
        outward = jax.nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=(0, -1), out_axis=-2
        )
        gain = jnp.sqrt(init_scale)
        inner, outer = (heads, size, token_size), (heads, token_size, size)
        self.query = nnx.Param(gain * inward(query_key, inner))
        self.key = nnx.Param(gain * inward(key_key, inner))
        self.value = nnx.Param(gain * inward(value_key, inner))
        self.output = nnx.Param(gain * outward(output_key, outer))
        self.kind = kind
        self.temperature = Fixed(jnp.asarray(temperature, float))
        self.softmax_share = Fixed(jnp.asarray(softmax_share, float))

    @property
    def key_query(self) -> jax.Array:
        """The circuit W_K^T W_Q of each head, (heads, token_size, token_size)."""
        return jnp.swapaxes(self.key[...], -1, -2) @ self.query[...]

    @property
    def value_output(self) -> jax.Array:
        """The circuit P W_V of each head, (heads, token_size, token_size)."""
        return self.output[...] @ self.value[...]

    def __call__(self, tokens: Tokens, context: Tokens) -> Tokens:
        """The update of tokens (q rows, or one without a row axis) that attend to N context rows."""
        sizes = block_sizes(context)
        updates = []
        for key_query, value_output in zip(self.key_query, self.value_output, strict=True):
            rows = split(project(tokens, key_query.T), sizes)
            updates.append(project(self._read(rows, context), value_output.T))
        return split(sum_of(updates), sizes)

    def _read(self, rows: Tokens, context: Tokens) -> Tokens:
        if self.kind == "linear":
            return read_linear(rows, context)
        scale = 1 / (self.temperature[...] * jnp.sqrt(float(self.key[...].shape[-2])))
        if self.kind == "softmax":
            return read_softmax(rows, context, scale)
        return read_mixed(rows, context, scale, self.softmax_share[...])
