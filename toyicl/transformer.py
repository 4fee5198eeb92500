"""The transformer: tokens in, layers of attention (and MLPs), the query's label entry out."""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.attention import Attention, AttentionKind
from toyicl.settings import (
    require,
    require_choice,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.tasks import LinearRegression
from toyicl.tokens import (
    Tokens,
    add,
    block_sizes,
    joint_tokens,
    merge,
    project,
    query_token,
    read_label,
    split,
)

State = tuple[Tokens, Tokens]
"""The tokens of the context and the query's, between two layers."""


@settings
class Architecture:
    """Settings of a transformer; called with a task and a key, it builds one.

    The defaults are the released code of von Oswald et al. (2022), one layer. Where their text says
    something else: keys are token_size (d + m) wide for each head, linear attention is not divided by
    N, and weights start at variance init_scale / (depth * fan-in), a standard deviation of .0135.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    attention: AttentionKind = static(default="linear")
    """Linear or softmax attention; softmax scores are divided by the root of the key size."""
    depth: int = static(default=1)
    """Number of layers, K."""
    shared: bool = static(default=False)
    """Whether all layers have the same weights ("recurrent" in the paper)."""
    heads: int = static(default=1)
    """Attention heads in each layer."""
    key_size: int | None = static(default=None)
    """Width of keys, queries and values in each head; None takes the token size."""
    embedding_size: int | None = static(default=None)
    """Width of a learned linear embedding of the tokens; None leaves tokens as they are."""
    mlp_size: int | None = static(default=None)
    """Hidden width of a residual GELU MLP after each attention layer; None leaves it out."""
    layer_norm: bool = static(default=False)
    """Whether attention and MLP read tokens through a LayerNorm."""
    update_inputs: bool = static(default=True)
    """Whether layers update whole tokens, or their label entries alone."""
    damping: float = 1.0
    """Factor on each attention update."""
    token_clip: float | None = None
    """Bound on every token entry after each layer; the released code takes 10 above two layers."""
    init_scale: float = 0.002
    """Variance of the initial weights, times depth and fan-in."""

    def __post_init__(self) -> None:
        require_choice("model.attention", self.attention, get_args(AttentionKind))
        require_size("model.depth", self.depth)
        require_size("model.heads", self.heads)
        for name in ("key_size", "embedding_size", "mlp_size"):
            if getattr(self, name) is not None:
                require_size(f"model.{name}", getattr(self, name))
        together = self.update_inputs or self.embedding_size is None
        require(together, "model.update_inputs", "True with an embedding", self.update_inputs)
        require_positive("model.damping", self.damping)
        require_positive("model.token_clip", self.token_clip)
        require_positive("model.init_scale", self.init_scale)

    def __call__(self, task: LinearRegression, key: jax.Array) -> "Transformer":
        """Build a transformer with fresh weights for the episodes of a task."""
        return Transformer(self, task.dim, task.outputs, key)


class Fixed(nnx.Variable):
    """A number of the model that training leaves as it is; it may be traced."""


class Block(nnx.Module):
    """One layer: attention, and an MLP if the architecture has one, each as a residual update."""

    def __init__(self, architecture: Architecture, token_size: int, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        scale = architecture.init_scale / architecture.depth
        self.attention = Attention(
            token_size,
            attention_key,
            heads=architecture.heads,
            key_size=architecture.key_size,
            kind=architecture.attention,
            init_scale=scale,
        )
        rngs = nnx.Rngs(mlp_key)
        norm, hidden = architecture.layer_norm, architecture.mlp_size
        self.attention_norm = _layer_norm(token_size, rngs) if norm else None
        self.mlp = None if hidden is None else MLP(token_size, hidden, scale, rngs)
        self.mlp_norm = _layer_norm(token_size, rngs) if norm and hidden else None

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


class Transformer(nnx.Module):
    """A transformer over joint tokens (x_j, y_j), as a learner on one episode.

    Keys and values come from the context alone; the query reads and is not read. The prediction is
    minus the query's label entry after the last layer, which is the only row that layer computes.
    `initial_weights` is the W_0 of the query's token (x_q, -W_0 x_q), (m, d); zero unless given.
    """

    def __init__(
        self,
        architecture: Architecture,
        dim: int,
        outputs: int,
        key: jax.Array,
        *,
        initial_weights: jax.Array | None = None,
    ):
        embedding_key, *layer_keys = jax.random.split(key, architecture.depth + 1)
        token_size, width = dim + outputs, architecture.embedding_size
        draw = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.embedding = (
            None if width is None else nnx.Param(draw(embedding_key, (token_size, width)))
        )
        token_size = width or token_size
        distinct = layer_keys[:1] if architecture.shared else layer_keys
        self.blocks = nnx.List([Block(architecture, token_size, key) for key in distinct])
        self.damping = Fixed(jnp.asarray(architecture.damping, float))
        clip = architecture.token_clip
        self.token_clip = None if clip is None else Fixed(jnp.asarray(clip, float))
        self.initial_weights = None if initial_weights is None else Fixed(initial_weights)
        self.depth = architecture.depth
        self.outputs = outputs
        self.update_inputs = architecture.update_inputs

    def layer(self, index: int) -> Block:
        """The block that serves as layer `index`: all layers have the same one if shared."""
        return self.blocks[index % len(self.blocks)]

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return self.layerwise(x, y, x_query)[-1]

    def layerwise(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predictions read after each layer, (depth, m)."""
        context = self._embed(joint_tokens(x, y))
        start = None if self.initial_weights is None else self.initial_weights[...]
        query = self._embed(query_token(x_query, self.outputs, start))

        def layer(block: Block, tokens: State) -> tuple[State, jax.Array]:
            context, query = (self._advance(block, rows, tokens[0]) for rows in tokens)
            return (context, query), read_label(query, self.outputs)

        tokens, predictions = (context, query), []
        if len(self.blocks) < self.depth - 1:
            # Layers that share a block are a loop, so that depth costs no compilation; a loop of
            # one turn would store what it carries, which makes two layers slower.
            step = partial(layer, self.blocks[0])
            tokens, reads = jax.lax.scan(lambda now, _: step(now), tokens, length=self.depth - 1)
            predictions.append(reads)
        else:
            for block in self.blocks[: self.depth - 1]:
                tokens, read = layer(block, tokens)
                predictions.append(read[None])
        context, query = tokens
        last = self._advance(self.layer(self.depth - 1), query, context)
        return jnp.concatenate([*predictions, read_label(last, self.outputs)[None]])

    def _embed(self, tokens: Tokens) -> Tokens:
        return tokens if self.embedding is None else (project(tokens, self.embedding[...]),)

    def _advance(self, block: Block, tokens: Tokens, context: Tokens) -> Tokens:
        """Tokens after one layer in which they read the context."""
        update = tuple(self.damping[...] * change for change in block.attend(tokens, context))
        labels_alone = (*tokens[:-1], tokens[-1] + update[-1])
        moved = block.think(add(tokens, update) if self.update_inputs else labels_alone)
        moved = moved if self.update_inputs else (*tokens[:-1], moved[-1])
        if self.token_clip is None:
            return moved
        bound = self.token_clip[...]
        return tuple(jnp.clip(entry, -bound, bound) for entry in moved)


def _layer_norm(size: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(size, param_dtype=jnp.result_type(float), rngs=rngs)


def _normalise(norm: nnx.LayerNorm | None, tokens: Tokens) -> Tokens:
    return tokens if norm is None else split(norm(merge(tokens)), block_sizes(tokens))
