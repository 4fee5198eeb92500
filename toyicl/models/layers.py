"""What a transformer is made of besides attention: MLPs, an embedding, and the layer that joins all."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.models.attention import Attention, AttentionKind, Fixed
from toyicl.models.tokens import Tokens, add, block_sizes, merge, project, split


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
        temperature: float | jax.Array,
        softmax_share: float | jax.Array,
        mlp_size: int | None,
        mlp_gate: float | jax.Array,
        norm: bool,
        norm_gate: float | jax.Array,
        init_scale: float | jax.Array,
    ):
        attention_key, mlp_key = jax.random.split(key)
        self.attention = Attention(
            token_size,
            attention_key,
            heads=heads,
            key_size=key_size,
            kind=kind,
            temperature=temperature,
            softmax_share=softmax_share,
            init_scale=init_scale,
        )
        rngs = nnx.Rngs(mlp_key)
        self.mlp_gate = Fixed(jnp.asarray(mlp_gate, float))
        self.norm_gate = Fixed(jnp.asarray(norm_gate, float))
        self.attention_norm = layer_norm(token_size, rngs) if norm else None
        self.mlp = None if mlp_size is None else MLP(token_size, mlp_size, init_scale, rngs)
        self.mlp_norm = layer_norm(token_size, rngs) if norm and mlp_size else None

    def attend(self, tokens: Tokens, context: Tokens) -> Tokens:
        """The attention update of tokens that read the context."""
        norm = self.attention_norm
        return self.attention(self._normalise(norm, tokens), self._normalise(norm, context))

    def think(self, tokens: Tokens) -> Tokens:
        """Tokens after the MLP."""
        if self.mlp is None:
            return tokens
        update = self.mlp(merge(self._normalise(self.mlp_norm, tokens)))
        return add(tokens, split(self.mlp_gate[...] * update, block_sizes(tokens)))

    def _normalise(self, norm: nnx.LayerNorm | None, tokens: Tokens) -> Tokens:
        """Tokens on their way to LayerNorm, as far as the gate is open."""
        if norm is None:
            return tokens
        rows, gate = merge(tokens), self.norm_gate[...]
        return split((1 - gate) * rows + gate * norm(rows), block_sizes(tokens))


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


def layer_norm(size: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm of rows (..., size), with a gain and a shift that are learned."""
    return nnx.LayerNorm(size, param_dtype=jnp.result_type(float), rngs=rngs)
