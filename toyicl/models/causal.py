"""A causal transformer over BOS x_1 y_1 ... x_N y_N x_q, and all that is seen inside it.

Pre-LN blocks with the project's attention weights, MLPs and LayerNorm, learned positions, and logits at
every token. `Seen` holds what finetuning and in-context learning are compared by: attention outputs
after W_O and before the residual, and scores before the softmax.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import (
    require,
    require_choice,
    require_not_negative,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.models.attention import Attention, Fixed
from toyicl.models.layers import MLP, layer_norm
from toyicl.tasks.linear import Task

CausalKind = Literal["softmax", "linear"]
MemoryKind = Literal["momentum", "previous"]


class Activations(NamedTuple):
    """What a model computes on a sequence of T tokens, or, after `last`, on its last token."""

    logits: jax.Array
    """Answers, (T, m)."""
    early_logits: jax.Array
    """What the unembedding reads after each layer, (depth, T, m); the last are the answers."""
    attended: jax.Array
    """Attention outputs after W_O, before the residual, (depth, T, width)."""
    scores: jax.Array
    """Scores before the softmax, (depth, heads, T, T), those of later tokens among them."""
    queries: jax.Array
    """Query vectors, (depth, heads, T, key size)."""

    def last(self) -> "Activations":
        """What is seen at the last token, without the token axis."""
        return Activations(
            self.logits[-1],
            self.early_logits[:, -1],
            self.attended[:, -1],
            self.scores[:, :, -1],
            self.queries[:, :, -1],
        )


@settings
class CausalArchitecture:
    """Settings of a causal transformer; called with a task and a key, it builds one.

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    attention: CausalKind = static(default="softmax")
    """Softmax attention, or linear attention, which is not divided by the number of tokens."""
    depth: int = static(default=2)
    """Number of layers; one layer cannot bind an input to the label that follows it."""
    width: int = static(default=32)
    """Width of the residual stream."""
    heads: int = static(default=4)
    """Attention heads in each layer, each of width / heads."""
    mlp_size: int = static(default=64)
    """Hidden width of the MLPs."""
    input_tokens: int = static(default=1)
    """How many tokens an input is told in, each with as many of its entries as the others; with one,
    a query has one token of its own."""
    memory: MemoryKind | None = static(default=None)
    """What each head adds to what it reads: sum_{i<t} eta^(t-i) v_i (momentum attention), its first
    term alone (the previous token, a control), or nothing."""
    eta: float = 0.0
    """Decay of the momentum, or factor on the previous token's value."""
    init_scale: float = 1.0
    """Variance of the initial weights, times fan-in."""

    def __post_init__(self) -> None:
        require_choice("attention", self.attention, get_args(CausalKind))
        for name in ("depth", "width", "heads", "mlp_size", "input_tokens"):
            require_size(name, getattr(self, name))
        whole = self.width % self.heads == 0
        require(whole, "heads", f"a divisor of width ({self.width})", self.heads)
        if self.memory is not None:
            require_choice("memory", self.memory, get_args(MemoryKind))
        require_not_negative("eta", self.eta)
        require_positive("init_scale", self.init_scale)

    def __call__(self, task: Task, key: jax.Array) -> "CausalTransformer":
        """Build a transformer with fresh weights for prompts of a task, as long as its own at most."""
        return CausalTransformer(self, task.dim, task.outputs, task.context_size, key)


class CausalBlock(nnx.Module):
    """One layer: causal attention, then an MLP, each as an update of normalised tokens."""

    def __init__(self, architecture: CausalArchitecture, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        size, scale = architecture.width, architecture.init_scale
        self.attention = Attention(
            size,
            attention_key,
            heads=architecture.heads,
            key_size=size // architecture.heads,
            kind=architecture.attention,
            init_scale=scale,
        )
        rngs = nnx.Rngs(mlp_key)
        self.mlp = MLP(size, architecture.mlp_size, scale, rngs)
        self.attention_norm, self.mlp_norm = layer_norm(size, rngs), layer_norm(size, rngs)


class CausalTransformer(nnx.Module):
    """A causal transformer of prompts, as a learner on one of them."""

    def __init__(
        self,
        architecture: CausalArchitecture,
        dim: int,
        outputs: int,
        context_size: int,
        key: jax.Array,
    ):
        embedding_key, *layer_keys = jax.random.split(key, architecture.depth + 1)
        keys, width = jax.random.split(embedding_key, 5), architecture.width
        self.input_tokens, self.context_size = architecture.input_tokens, context_size
        whole = dim % self.input_tokens == 0
        rule = f"a divisor of the number of inputs ({dim})"
        require(whole, "input_tokens", rule, self.input_tokens, owner=CausalArchitecture)
        tokens = 1 + context_size * (self.input_tokens + 1) + self.input_tokens

        def weights(key: jax.Array, rows: int, columns: int) -> nnx.Param:
            scale = jnp.sqrt(architecture.init_scale / rows)
            return nnx.Param(scale * jax.random.normal(key, (rows, columns)))

        self.beginning = nnx.Param(jax.random.normal(keys[0], (width,)) / jnp.sqrt(float(width)))
        self.inputs = weights(keys[1], dim // self.input_tokens, width)
        self.labels = weights(keys[2], outputs, width)
        self.positions = weights(keys[3], tokens, width)
        self.blocks = nnx.List([CausalBlock(architecture, key) for key in layer_keys])
        self.norm = layer_norm(width, nnx.Rngs(0))
        self.unembedding = weights(keys[4], width, outputs)
        self.memory = architecture.memory
        self.eta = Fixed(jnp.asarray(architecture.eta, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Logits at the query: (N, d), (N, m), (d,) -> (m,)."""
        return self.answers(x, y, x_query)[-1]

    def answers(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Logits at every input, the query last, each from what stands before: (N + 1, m)."""
        return self.see(self.arrange(x, y, x_query)).logits[
            self.input_tokens :: self.input_tokens + 1
        ]

    def in_context(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> Activations:
        """What is seen at the query behind N demonstrations."""
        return self.see(self.arrange(x, y, x_query)).last()

    def zero_shot(self, x_query: jax.Array) -> Activations:
        """What is seen at the query behind BOS alone: (d,)."""
        return self.see(self.alone(x_query)).last()

    def alone(self, x_query: jax.Array) -> jax.Array:
        """The tokens BOS x_q of a query without demonstrations, (1 + input tokens, width)."""
        nothing = x_query[None][:0]
        outputs = self.labels[...].shape[0]
        return self.arrange(nothing, jnp.zeros((0, outputs), x_query.dtype), x_query)

    def arrange(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """The tokens BOS x_1 y_1 ... x_N y_N x_q with their positions, (T, width).

        Raises BadInput if there are more demonstrations than positions.
        """
        most, count = self.context_size, x.shape[0]
        pieces, width = self.input_tokens, self.inputs[...].shape[1]
        require(count <= most, "demonstrations", f"at most {most}, for the context", count)
        inputs = x.reshape(count, pieces, x.shape[1] // pieces)
        told = [inputs @ self.inputs[...], (y @ self.labels[...])[:, None]]
        rows = jnp.concatenate(told, axis=1).reshape(count * (pieces + 1), width)
        query = x_query.reshape(pieces, -1) @ self.inputs[...]
        tokens = jnp.concatenate([self.beginning[...][None], rows, query])
        return tokens + self.positions[...][: tokens.shape[0]]

    def see(
        self,
        tokens: jax.Array,
        between: Callable[[jax.Array], jax.Array] = lambda tokens: tokens,
    ) -> Activations:
        """All that is seen on tokens (T, width); `between` is done to what each layer reads."""
        found = []
        extra = self._memory(tokens.shape[0])
        for block in self.blocks:
            tokens = between(tokens)
            rows = block.attention_norm(tokens)
            attended, scores, queries = attend_causally(block.attention, rows, extra)
            tokens = tokens + attended
            tokens = tokens + block.mlp(block.mlp_norm(tokens))
            found.append((self.norm(tokens) @ self.unembedding[...], attended, scores, queries))
        early, attended, scores, queries = (jnp.stack(part) for part in zip(*found, strict=True))
        return Activations(early[-1], early, attended, scores, queries)

    def _memory(self, count: int) -> jax.Array | None:
        """What weighs earlier values besides attention, (T, T)."""
        if self.memory is None:
            return None
        back = jnp.arange(count)[:, None] - jnp.arange(count)[None]
        eta = self.eta[...]
        decays = eta ** jnp.maximum(back, 1).astype(eta.dtype)
        reached = back > 0 if self.memory == "momentum" else back == 1
        return jnp.where(reached, decays, 0)


def attend_causally(
    attention: Attention, rows: jax.Array, extra: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The update of rows (T, width) that attend to themselves and those before; scores; queries.

    `extra`, (T, T), weighs values besides, in every head alike. Scores, (heads, T, T), are divided by
    the root of the key size.
    """
    queries, keys, values = (
        jnp.einsum("tw,hkw->htk", rows, weights[...])
        for weights in (attention.query, attention.key, attention.value)
    )
    scores = queries @ jnp.swapaxes(keys, -1, -2) / jnp.sqrt(float(keys.shape[-1]))
    earlier = jnp.tri(rows.shape[0], dtype=bool)[None]
    if attention.kind == "linear":
        weights = jnp.where(earlier, scores, 0)
    else:
        weights = jax.nn.softmax(jnp.where(earlier, scores, -jnp.inf), axis=-1)
    read = weights @ values
    if extra is not None:
        read = read + extra[None] @ values
    return jnp.einsum("htk,hwk->tw", read, attention.output[...]), scores, queries
