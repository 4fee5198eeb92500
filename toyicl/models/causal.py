"""A causal transformer over the sequence BOS x_1 y_1 ... x_N y_N x_q, with all its activations.

It has pre-LN blocks made of this package's attention, MLP and LayerNorm, learned positions, and
logits at every token. `Activations` holds what in-context learning and finetuning are compared by:
attention outputs after W_O and before the residual, and scores before the softmax.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import (
    require,
    require_choice,
    require_memory,
    require_not_negative,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.core.variables import Fixed
from toyicl.models.attention import (
    Attention,
    AttentionSettings,
    linear_weights,
    scores_of,
    softmax_weights,
    weighted_sum,
)
from toyicl.models.layers import LAYER_NUMBERS, MLP, LayerNorm
from toyicl.tasks.linear import Task

CausalKind = Literal["softmax", "linear"]
MemoryKind = Literal["momentum", "previous"]


class Activations(NamedTuple):
    """Activations of a model on a sequence of T tokens, or, after `last`, on its last token."""

    logits: jax.Array
    """Answers, (T, m)."""
    early_logits: jax.Array
    """The unembedding of the residual stream after each layer, (depth, T, m); the last equals
    `logits`."""
    attended: jax.Array
    """Attention outputs after W_O, before the residual, (depth, T, width)."""
    scores: jax.Array
    """Scores before mask and softmax, (depth, heads, T, T); those of later tokens are included."""
    queries: jax.Array
    """Query vectors, (depth, heads, T, key size)."""

    def last(self) -> "Activations":
        """The activations at the last token, without the token axis."""
        return Activations(
            self.logits[-1],
            self.early_logits[:, -1],
            self.attended[:, -1],
            self.scores[:, :, -1],
            self.queries[:, :, -1],
        )


@settings
class CausalArchitecture:
    """Settings of a causal transformer; calling them with a task and a key builds one.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    attention: CausalKind = static(default="softmax")
    """Softmax attention, or linear attention, which is not divided by the number of tokens."""
    depth: int = static(default=2)
    """Number of layers; a single layer cannot bind an input to the label that follows it."""
    width: int = static(default=32)
    """Width of the residual stream."""
    heads: int = static(default=4)
    """Attention heads in each layer, each of width / heads."""
    mlp_size: int = static(default=64)
    """Hidden width of the MLPs."""
    input_tokens: int = static(default=1)
    """Tokens per input, each with the same number of its entries; with one, a query has one token of
    its own."""
    memory: MemoryKind | None = static(default=None)
    """What each head adds to its attention output: the sum over earlier tokens, sum_{i<t} eta^(t-i) v_i
    (momentum attention); the first term of that sum (the previous token, a control); or nothing."""
    eta: float = 0.0
    """Decay of the momentum, or factor on the previous token's value."""
    init_scale: float = 1.0
    """Variance of the initial weights, times fan-in."""

    def __post_init__(self) -> None:
        require_choice("attention", self.attention, get_args(CausalKind))
        for name in ("depth", "width", "heads", "mlp_size", "input_tokens"):
            require_size(name, getattr(self, name))
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)
        whole = self.width % self.heads == 0
        require(whole, "heads", f"a divisor of width ({self.width})", self.heads)
        if self.memory is not None:
            require_choice("memory", self.memory, get_args(MemoryKind))
        require_not_negative("eta", self.eta)
        require_positive("init_scale", self.init_scale)

    def attention_settings(self) -> AttentionSettings:
        """Settings of the attention of every layer."""
        return AttentionSettings(
            kind=self.attention,
            heads=self.heads,
            key_size=self.width // self.heads,
            init_scale=self.init_scale,
        )

    def __call__(self, task: Task, key: jax.Array) -> "CausalTransformer":
        """Build a transformer with fresh weights for prompts of at most the task's context size."""
        return CausalTransformer(self, task.dim, task.outputs, task.context_size, key)


class CausalBlock(nnx.Module):
    """One layer: causal attention, then an MLP, each as an update of normalised tokens."""

    def __init__(self, architecture: CausalArchitecture, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        size, rngs = architecture.width, nnx.Rngs(mlp_key)
        self.attention = Attention(size, attention_key, architecture.attention_settings())
        self.mlp = MLP(size, architecture.mlp_size, architecture.init_scale, rngs)
        self.attention_norm, self.mlp_norm = LayerNorm(size, rngs), LayerNorm(size, rngs)


class CausalTransformer(nnx.Module):
    """A causal transformer over prompts, as a learner on one of them."""

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
        self.norm = LayerNorm(width, nnx.Rngs(0))
        self.unembedding = weights(keys[4], width, outputs)
        self.memory = architecture.memory
        self.eta = Fixed(jnp.asarray(architecture.eta, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Logits at the query: (N, d), (N, m), (d,) -> (m,)."""
        return self.answers(x, y, x_query)[-1]

    def answers(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Logits at every input, the query last, each computed from earlier tokens: (N + 1, m)."""
        return self.activations(self.arrange(x, y, x_query)).logits[
            self.input_tokens :: self.input_tokens + 1
        ]

    def in_context(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> Activations:
        """Activations at the query after N demonstrations: (N, d), (N, m), (d,)."""
        return self.activations(self.arrange(x, y, x_query)).last()

    def zero_shot(self, x_query: jax.Array) -> Activations:
        """Activations at the query after BOS, without demonstrations: (d,)."""
        return self.activations(self.query_tokens(x_query)).last()

    def query_tokens(self, x_query: jax.Array) -> jax.Array:
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
        embedded = [inputs @ self.inputs[...], (y @ self.labels[...])[:, None]]
        rows = jnp.concatenate(embedded, axis=1).reshape(count * (pieces + 1), width)
        query = x_query.reshape(pieces, -1) @ self.inputs[...]
        tokens = jnp.concatenate([self.beginning[...][None], rows, query])
        return tokens + self.positions[...][: tokens.shape[0]]

    def activations(
        self,
        tokens: jax.Array,
        between: Callable[[jax.Array], jax.Array] = lambda tokens: tokens,
    ) -> Activations:
        """Activations on tokens (T, width); `between` is applied to the input of each layer."""
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
        """The weights of earlier values that `memory` adds to attention, (T, T)."""
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
    """Causal self-attention: the update of rows (T, width), the scores, and the queries.

        update_t = sum_h P_h sum_{i <= t} w_ti W_V,h e_i,   s_ti = (W_K,h e_i) . (W_Q,h e_t) / sqrt(k)

    for keys of size k. Each token attends to itself and to all earlier tokens. In softmax attention
    the weights w_t are the softmax of s_t1, ..., s_tt. In linear attention w_ti = s_ti: the sum is
    not normalised, by the number of tokens or otherwise, so that token t reads what unmasked linear
    attention reads from the prefix e_1, ..., e_t.

    `extra`, (T, T), holds further weights of values, the same in every head. Returns the update
    (T, width), the scores s (heads, T, T) of all pairs, and the queries (heads, T, k). A temperature
    and mixed attention are not supported: `CausalArchitecture` has neither.
    """
    queries, keys, values = (
        jnp.einsum("tw,hkw->htk", rows, weights[...])
        for weights in (attention.query, attention.key, attention.value)
    )
    scores = jax.vmap(scores_of)(queries, keys) / jnp.sqrt(float(keys.shape[-1]))
    earlier = jnp.tri(rows.shape[0], dtype=bool)[None]
    weigh = linear_weights if attention.kind == "linear" else softmax_weights
    read = jax.vmap(weighted_sum)(weigh(scores, earlier), values)
    if extra is not None:
        read = read + extra[None] @ values
    return jnp.einsum("htk,hwk->tw", read, attention.output[...]), scores, queries
