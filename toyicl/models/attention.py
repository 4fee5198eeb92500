"""Attention: how queries read a context, and one layer of it as the update that it makes to tokens.

There is one function for each kind of reading, linear, softmax and mixed. The transformer, the causal
transformer and the dual forms all read through them, or through the parts they are made of: scores
of queries and keys, weights made of scores, and the weighted sum of values. Causal attention is the
same reading with a mask.

Only two products of a layer's weights matter, for each head: the key-query circuit W_K^T W_Q, which
scores tokens against each other, and the value-output circuit P W_V, which turns what was read into
an update. `Attention` therefore works with the circuits, which are formed once, outside the batch.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import (
    require_choice,
    require_fraction,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.core.products import broadcast_last, contract, reshape
from toyicl.core.variables import Fixed

AttentionKind = Literal["linear", "softmax", "mixed"]
KINDS: tuple[AttentionKind, ...] = get_args(AttentionKind)


@settings
class AttentionSettings:
    """Settings of one attention layer.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    kind: AttentionKind = static(default="linear")
    """Linear attention, softmax attention, or a mixture of what both read."""
    heads: int = static(default=1)
    """Number of attention heads."""
    key_size: int | None = static(default=None)
    """Width of keys, queries and values in each head; None means the token size."""
    temperature: float = 1.0
    """Softmax temperature, in addition to 1/sqrt(key size)."""
    softmax_fraction: float = 0.0
    """In mixed attention, the weight of what softmax attention reads, from 0 to 1."""
    init_scale: float = 0.002
    """Variance of the initial weights, times fan-in."""

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, KINDS)
        require_size("heads", self.heads)
        if self.key_size is not None:
            require_size("key_size", self.key_size)
        require_positive("temperature", self.temperature)
        require_fraction("softmax_fraction", self.softmax_fraction)
        require_positive("init_scale", self.init_scale)


def scores_of(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Inner products of queries (q, size) and keys (N, size): (q, N); of one query (size,): (N,)."""
    return contract(queries, keys, (1, 1))


def linear_weights(scores: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Weights of linear attention: the scores themselves, and 0 where `mask` is False."""
    return scores if mask is None else jnp.where(mask, scores, 0)


def softmax_weights(scores: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Weights of softmax attention: normalised over the last axis, and 0 where `mask` is False."""
    allowed = scores if mask is None else jnp.where(mask, scores, -jnp.inf)
    count = scores.shape[-1]
    largest = jax.lax.stop_gradient(jnp.max(allowed, axis=-1, initial=-jnp.inf))
    exponentials = jnp.exp(allowed - broadcast_last(largest, count))
    return exponentials / broadcast_last(jnp.sum(exponentials, axis=-1), count)


def weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    """sum_i weights_i value_i: weights (q, N), values (N, size) -> (q, size); (N,) -> (size,)."""
    return contract(weights, values)


def read_linear(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """What linear attention reads for each query: sum_i (query . key_i) value_i.

    It is not divided by the number of keys, N. The product of three matrices, queries (q, D),
    keys^T (D, N), values (N, E), is taken in the order that multiplies less: by the scores (q, N),
    or by the scatter matrix (D, E). One query may come without its row axis, (D,).
    """
    count = 1 if queries.ndim == 1 else queries.shape[0]
    (points, size), value_size = keys.shape, values.shape[1]
    if count * points * (size + value_size) <= (points + count) * size * value_size:
        return read_by_scores(queries, keys, values)
    return read_by_scatter(queries, keys, values)


def read_by_scores(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """`read_linear` in the order (Q K^T) V: q N (D + E) products."""
    return weighted_sum(linear_weights(scores_of(queries, keys)), values)


def read_by_scatter(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """`read_linear` in the order Q (K^T V): (q + N) D E products."""
    return contract(queries, contract(keys, values, (0, 0)))


def read_softmax(
    queries: jax.Array, keys: jax.Array, values: jax.Array, scale: float | jax.Array = 1.0
) -> jax.Array:
    """What softmax attention reads: the mean of value_i weighted by softmax_i(scale query . key_i)."""
    return weighted_sum(softmax_weights(scale * scores_of(queries, keys)), values)


def read_mixed(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    scale: float | jax.Array,
    fraction: float | jax.Array,
) -> jax.Array:
    """`fraction` of what softmax attention reads plus 1 - `fraction` of what linear attention reads."""
    linear = read_linear(queries, keys, values)
    return (1 - fraction) * linear + fraction * read_softmax(queries, keys, values, scale)


class Attention(nnx.Module):
    """Multi-head attention of some tokens over a context, without normalisation by N.

    update(e_j) = sum_h P_h sum_i W_V,h e_i weigh((W_K,h e_i) . (W_Q,h e_j)), von Oswald et al. (2022),
    equation 1. Weights: query, key, value (heads, key_size, token_size), output
    (heads, token_size, key_size), truncated normal of variance init_scale / fan-in.
    """

    def __init__(self, token_size: int, key: jax.Array, settings: AttentionSettings):
        size = settings.key_size or token_size
        query_key, key_key, value_key, output_key = jax.random.split(key, 4)
        inward = jax.nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2, batch_axis=0
        )
        outward = jax.nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=(0, -1), out_axis=-2
        )
        gain = jnp.sqrt(settings.init_scale)
        inner = (settings.heads, size, token_size)
        outer = (settings.heads, token_size, size)
        self.query = nnx.Param(gain * inward(query_key, inner))
        self.key = nnx.Param(gain * inward(key_key, inner))
        self.value = nnx.Param(gain * inward(value_key, inner))
        self.output = nnx.Param(gain * outward(output_key, outer))
        self.kind = settings.kind
        self.temperature = Fixed(jnp.asarray(settings.temperature, float))
        self.softmax_fraction = Fixed(jnp.asarray(settings.softmax_fraction, float))

    @property
    def key_query(self) -> jax.Array:
        """The circuit W_K^T W_Q of each head, (heads, token_size, token_size)."""
        return jnp.swapaxes(self.key[...], -1, -2) @ self.query[...]

    @property
    def value_output(self) -> jax.Array:
        """The circuit P W_V of each head, (heads, token_size, token_size)."""
        return self.output[...] @ self.value[...]

    def __call__(self, tokens: jax.Array, context: jax.Array) -> jax.Array:
        """The update of tokens (q, size), or of one (size,), that attend to a context (N, size)."""
        heads, size, _ = self.key_query.shape
        key_query = self.key_query.reshape(heads * size, size)
        value_output = jnp.swapaxes(self.value_output, 0, 1).reshape(size, heads * size)
        together = contract(tokens, key_query, (1, 1))
        queries = reshape(together, (together.size // size, size))  # a row for each token and head
        read = reshape(self._read(queries, context), together.shape)
        return contract(read, value_output, (1, 1))

    def _read(self, queries: jax.Array, context: jax.Array) -> jax.Array:
        """What queries of all heads read; the context provides both keys and values."""
        if self.kind == "linear":
            return read_linear(queries, context, context)
        scale = 1 / (self.temperature[...] * jnp.sqrt(float(self.key[...].shape[-2])))
        if self.kind == "softmax":
            return read_softmax(queries, context, context, scale)
        return read_mixed(queries, context, context, scale, self.softmax_fraction[...])
