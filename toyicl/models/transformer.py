"""The transformer: layers of attention and MLPs over tokens, read at the query's label entry."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import (
    require,
    require_choice,
    require_fraction,
    require_memory,
    require_not_negative,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.core.variables import Fixed
from toyicl.models.attention import AttentionKind, AttentionSettings
from toyicl.models.layers import LAYER_NUMBERS, Block, Embedding, LayerSettings
from toyicl.models.tokens import (
    concatenate_last,
    joint_tokens,
    query_token,
    read_label,
    separate_tokens,
)
from toyicl.tasks.linear import Task

TokenKind = Literal["joint", "separate"]
InitialGuess = Literal["zero", "trained"]
State = tuple[jax.Array, jax.Array]
"""The context's tokens and the query's, between two layers."""
UNROLLED = 16
"""Depth up to which layers are compiled one by one. Those of deeper models are a loop. It takes longer
to run, since it moves the axis of episodes, but its compile time does not grow with the depth."""


@settings
class Architecture:
    """Settings of a transformer; calling them with a task and a key builds one.

    The defaults are those of the released code of von Oswald et al. (2022), with one layer. It differs
    from the paper's text in three ways: keys have width token_size (d + m) in each head, linear
    attention is not divided by N, and the initial weights have variance init_scale / (depth * fan-in),
    that is, a standard deviation of .0135.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    tokens: TokenKind = static(default="joint")
    """Joint tokens (x_j, y_j), or separate tokens x_j and y_j, each concatenated with its position."""
    position_size: int = static(default=10)
    """Width of the sinusoidal positions of separate tokens; joint tokens have no positions."""
    attention: AttentionKind = static(default="linear")
    """Linear attention, softmax attention, or a mixture of both; softmax scores are divided by
    sqrt(key size)."""
    softmax_fraction: float = 0.0
    """In mixed attention, the weight of what softmax attention reads, from 0 to 1."""
    temperature: float = 1.0
    """Softmax temperature, in addition to 1/sqrt(key size)."""
    first_attention: AttentionKind | None = static(default=None)
    """Attention of the first layer; None means that of the other layers."""
    depth: int = static(default=1)
    """Number of layers, K."""
    shared: bool = static(default=False)
    """Whether all layers share their weights ("recurrent" in the paper)."""
    heads: int = static(default=1)
    """Attention heads in each layer."""
    key_size: int | None = static(default=None)
    """Width of keys, queries and values in each head; None means the token size."""
    embedding_size: int | None = static(default=None)
    """Width of a learned linear embedding of the tokens; None means no embedding."""
    embedding_mlp_size: int | None = static(default=None)
    """Hidden width of a residual GELU MLP at the end of the embedding; None leaves it out."""
    mlp_size: int | None = static(default=None)
    """Hidden width of a residual GELU MLP after each attention layer; None leaves it out."""
    mlp_gate: float = 1.0
    """Factor on the update of the MLP after each attention layer."""
    layer_norm: bool = static(default=False)
    """Whether attention and MLP read tokens through a LayerNorm."""
    norm_first_layer: bool = static(default=True)
    """Whether `layer_norm` applies to the first layer too."""
    norm_gate: float = 1.0
    """Interpolation from the tokens as they are, 0, to normalised tokens, 1."""
    initial_guess: InitialGuess = static(default="zero")
    """Initial weights W_0 in the query's token (x_q, -W_0 x_q): 0, or trained, starting at 0."""
    update_inputs: bool = static(default=True)
    """Whether layers update whole tokens, or their label entries only."""
    damping: float = 1.0
    """Factor on each attention update."""
    token_clip: float | None = None
    """Bound on every token entry after each layer; None means no bound. The released code takes 10 for
    more than two layers."""
    init_scale: float = 0.002
    """Variance of the initial weights, times depth and fan-in."""

    def __post_init__(self) -> None:
        require_choice("tokens", self.tokens, get_args(TokenKind))
        require_choice("attention", self.attention, get_args(AttentionKind))
        require_size("position_size", self.position_size, least=2)
        even = self.position_size % 2 == 0
        require(even, "position_size", "even, for sines and cosines", self.position_size)
        if self.first_attention is not None:
            require_choice("first_attention", self.first_attention, get_args(AttentionKind))
            rule = "None where layers share their weights"
            require(not self.shared, "first_attention", rule, self.first_attention)
        require_size("depth", self.depth)
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)
        require_size("heads", self.heads)
        for name in ("key_size", "embedding_size", "embedding_mlp_size", "mlp_size"):
            if getattr(self, name) is not None:
                require_size(name, getattr(self, name))
        plain = self.embedding_size is None and self.tokens == "joint"
        rule = "True except for joint tokens without an embedding"
        require(self.update_inputs or plain, "update_inputs", rule, self.update_inputs)
        embedded = self.embedding_mlp_size is None or self.embedding_size is not None
        rule = "None without embedding_size"
        require(embedded, "embedding_mlp_size", rule, self.embedding_mlp_size)
        rule = "None with separate tokens"
        joint = self.tokens == "joint" or self.embedding_size is None
        require(joint, "embedding_size", rule, self.embedding_size)
        require_choice("initial_guess", self.initial_guess, get_args(InitialGuess))
        zero = self.initial_guess == "zero" or self.tokens == "joint"
        require(zero, "initial_guess", "zero with separate tokens", self.initial_guess)
        require_fraction("softmax_fraction", self.softmax_fraction)
        require_positive("temperature", self.temperature)
        require_not_negative("mlp_gate", self.mlp_gate)
        require_fraction("norm_gate", self.norm_gate)
        require_positive("damping", self.damping)
        if self.token_clip is not None:
            require_positive("token_clip", self.token_clip)
        require_positive("init_scale", self.init_scale)

    def __call__(self, task: Task, key: jax.Array) -> "Transformer":
        """Build a transformer with fresh weights for the episodes of a task."""
        guess = None
        if self.initial_guess == "trained":
            guess = nnx.Param(jnp.zeros((task.outputs, task.dim)))
        return Transformer(self, task.dim, task.outputs, key, initial_weights=guess)

    def layer(self, *, first: bool) -> LayerSettings:
        """Settings of one layer, the first or another one."""
        return LayerSettings(
            attention=AttentionSettings(
                kind=(self.first_attention if first else None) or self.attention,
                heads=self.heads,
                key_size=self.key_size,
                temperature=self.temperature,
                softmax_fraction=self.softmax_fraction,
                init_scale=self.init_scale / self.depth,
            ),
            mlp_size=self.mlp_size,
            mlp_gate=self.mlp_gate,
            layer_norm=self.layer_norm and (self.norm_first_layer or not first),
            norm_gate=self.norm_gate,
        )


class Transformer(nnx.Module):
    """A transformer over the tokens of an episode, as a learner on one episode.

    Keys and values come from the context only; no token attends to the query. The prediction is minus
    the last `outputs` entries of the query's token after the last layer, which computes no other row.
    In a joint token (x_q, -W_0 x_q) these entries are the label; W_0, (m, d), is `initial_weights`,
    zero by default: an array, which training leaves unchanged, or a variable, such as an `nnx.Param`,
    which is trained. In a separate token they are the last entries of its position, as in the released
    code, so they are not 0 before the first layer.
    """

    def __init__(
        self,
        architecture: Architecture,
        dim: int,
        outputs: int,
        key: jax.Array,
        *,
        initial_weights: jax.Array | nnx.Variable | None = None,
    ):
        embedding_key, *layer_keys = jax.random.split(key, architecture.depth + 1)
        self.tokens, self.position_size = architecture.tokens, architecture.position_size
        separate, width = self.tokens == "separate", architecture.embedding_size
        fits = not separate or (outputs <= dim and initial_weights is None)
        rule = "joint, if there are more outputs than inputs or initial weights"
        require(fits, "tokens", rule, self.tokens, owner=Architecture)
        token_size = dim + (self.position_size if separate else outputs)
        hidden = architecture.embedding_mlp_size
        self.embedding = (
            None if width is None else Embedding(token_size, width, hidden, embedding_key)
        )
        distinct = layer_keys[:1] if architecture.shared else layer_keys
        self.blocks = nnx.List(
            [
                Block(width or token_size, key, architecture.layer(first=index == 0))
                for index, key in enumerate(distinct)
            ]
        )
        self.damping = Fixed(jnp.asarray(architecture.damping, float))
        clip = architecture.token_clip
        self.token_clip = None if clip is None else Fixed(jnp.asarray(clip, float))
        given = initial_weights is None or isinstance(initial_weights, nnx.Variable)
        self.initial_weights = initial_weights if given else Fixed(initial_weights)
        self.depth = architecture.depth
        self.outputs = outputs
        self.update_inputs = architecture.update_inputs

    def layer(self, index: int) -> Block:
        """The block of layer `index`; shared layers all have the same block."""
        return self.blocks[index % len(self.blocks)]

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return self._predictions(x, y, x_query)[1]

    def layerwise(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predictions read after each layer, (depth, m)."""
        earlier, last = self._predictions(x, y, x_query)
        return jnp.concatenate([*earlier, last[None]])

    def _predictions(
        self, x: jax.Array, y: jax.Array, x_query: jax.Array
    ) -> tuple[list[jax.Array], jax.Array]:
        """Predictions read after the layers before the last, as stacks, and after the last, (m,)."""

        def layer(block: Block, tokens: State) -> tuple[State, jax.Array]:
            context, query = (self._advance(block, rows, tokens[0]) for rows in tokens)
            return (context, query), read_label(query, self.outputs)

        tokens, stacks = self.arrange(x, y, x_query), []
        # Before a loop, the first layer is by itself, since it may be of another kind than the others.
        alone = 1 if self.depth > UNROLLED else self.depth - 1
        for index in range(alone):
            tokens, read = layer(self.layer(index), tokens)
            stacks.append(read[None])
        if alone < self.depth - 1:
            structure, states = self._stacked(range(alone, self.depth - 1))
            tokens, reads = jax.lax.scan(
                lambda now, state: layer(nnx.merge(structure, state), now), tokens, states
            )
            stacks.append(reads)
        context, query = tokens
        last = self._advance(self.layer(self.depth - 1), query, context)
        return stacks, read_label(last, self.outputs)

    def _stacked(self, layers: range) -> tuple[Any, Any]:
        """The structure of layers that are equal but for their weights, and their stacked states."""
        structures, states = zip(*(nnx.split(self.layer(index)) for index in layers), strict=True)
        return structures[0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def arrange(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> State:
        """The context's tokens and the query's, as the first layer receives them."""
        if self.tokens == "separate":
            return separate_tokens(x, y, x_query, self.position_size)
        start = None if self.initial_weights is None else self.initial_weights[...]
        context, query = joint_tokens(x, y), query_token(x_query, self.outputs, start)
        if self.embedding is None:
            return context, query
        return self.embedding(context), self.embedding(query)

    def after_first_layer(self, context: jax.Array) -> jax.Array:
        """The context's tokens after one layer in which they attend to each other."""
        return self._advance(self.blocks[0], context, context)

    def _advance(self, block: Block, tokens: jax.Array, context: jax.Array) -> jax.Array:
        """Tokens after one layer in which they attend to the context."""
        updated = self._written(tokens, tokens + self.damping[...] * block.attend(tokens, context))
        updated = self._written(tokens, block.apply_mlp(updated))
        if self.token_clip is None:
            return updated
        bound = self.token_clip[...]
        return jnp.clip(updated, -bound, bound)

    def _written(self, tokens: jax.Array, updated: jax.Array) -> jax.Array:
        """The updated tokens, or tokens whose label entries alone are updated."""
        if self.update_inputs:
            return updated
        return concatenate_last(tokens[..., : -self.outputs], updated[..., -self.outputs :])
