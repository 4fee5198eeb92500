"""What a transformer is made of besides attention: MLPs, an embedding, and the layer that joins all."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.attention import Attention, AttentionKind
from toyicl.tokens import Tokens, add, block_sizes, merge, project, split


class Block(nnx.Module):
    """One layer: attention, and an MLP if it has one, each as a residual update."""

    def __init__(
        self,
        token_size: int,
        key: jax.Array,
        *,
        heads: int,
        key_size: int | None,
        kind: AttentionKind,
        mlp_size: int | None,
        norm: bool,
        init_scale: float | jax.Array,
    ):
        attention_key, mlp_key = jax.random.split(key)
        self.attention = Attention(
            token_size,
            attention_key,
            heads=heads,
            key_size=key_size,
            kind=kind,
            init_scale=init_scale,
        )
        rngs = nnx.Rngs(mlp_key)
        self.attention_norm = _layer_norm(token_size, rngs) if norm else None
        self.mlp = None if mlp_size is None else MLP(token_size, mlp_size, init_scale, rngs)
        self.mlp_norm = _layer_norm(token_size, rngs) if norm and mlp_size else None

    def attend(self, tokens: Tokens, context: Tokens) -> Tokens:
        """The attention update of tokens that read the context."""
        return self.attention(
            _normalise(self.attention_norm, tokens), _normalise(self.attention_norm, context)
        )

    def think(self, tokens: Tokens) -> Tokens:
        """Tokens after the MLP."""
        if self.mlp is None:
            return tokens
        update = self.mlp(merge(_normalise(self.mlp_norm, tokens)))
        return add(tokens, split(update, block_sizes(tokens)))


class MLP(nnx.Module):
    """Two linear layers with a GELU between, on the last axis."""

    def __init__(self, size: int, hidden: int, init_scale: float | jax.Array, rngs: nnx.Rngs):
        draw = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")

        def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return jnp.sqrt(init_scale) * draw(key, shape, dtype)

        linear = partial(nnx.Linear, kernel_init=init, param_dtype=jnp.result_type(float))
        self.rise = linear(size, hidden, rngs=rngs)
        self.fall = linear(hidden, size, rngs=rngs)

    def __call__(self, rows: jax.Array) -> jax.Array:
        """Map rows (..., size) to rows of the same shape."""
        return self.fall(jax.nn.gelu(self.rise(rows)))


class Embedding(nnx.Module):
    """Tokens as vectors of another width: a linear map without bias, and an MLP if there is one."""

    def __init__(self, size: int, width: int, hidden: int | None, key: jax.Array):
        linear_key, mlp_key = jax.random.split(key)
        draw = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.linear = nnx.Param(draw(linear_key, (size, width)))
        self.mlp = None if hidden is None else MLP(width, hidden, 1.0, nnx.Rngs(mlp_key))

    def __call__(self, tokens: Tokens) -> Tokens:
        """Tokens as one block of the embedding's width."""
        rows = project(tokens, self.linear[...])
        return (rows if self.mlp is None else rows + self.mlp(rows),)


def _layer_norm(size: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(size, param_dtype=jnp.result_type(float), rngs=rngs)


def _normalise(norm: nnx.LayerNorm | None, tokens: Tokens) -> Tokens:
    return tokens if norm is None else split(norm(merge(tokens)), block_sizes(tokens))
