"""A Llama-like decoder with all its activations: RMSNorm, rotary positions, grouped heads, gated MLP.

The model of SmolLM2, Llama 2 and 3, and others. Its attention has the weights of this package's
`models.attention.Attention`, with a leading axis for layers, and the same convention: the scores of a
head are (W_K e_i) . (W_Q e_t) / sqrt(k), and its update is P W_V times the weighted sum of e_i. Several
heads may share keys and values.

The context of many queries is read once: `Decoder.read` returns its keys and values, `Past`, which
later calls continue.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from toyicl.core.config import require, require_positive, require_size, settings, static


@settings
class DecoderArchitecture:
    """Sizes and constants of a decoder; calling them with a key builds one with random weights.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    layers: int = static(default=2)
    """Number of layers, L."""
    width: int = static(default=16)
    """Width of the residual stream, n."""
    heads: int = static(default=4)
    """Number of attention heads in each layer, H."""
    key_value_heads: int = static(default=2)
    """Number of heads with keys and values of their own, G; H / G query heads share each."""
    key_size: int = static(default=4)
    """Width of queries, keys and values in each head, k."""
    mlp_size: int = static(default=32)
    """Hidden width of the MLPs."""
    vocabulary: int = static(default=32)
    """Number of tokens."""
    epsilon: float = static(default=1e-5)
    """Added to the mean square in RMSNorm."""
    rotary_base: float = static(default=10_000.0)
    """Base of the wave lengths of the rotary positions."""
    tied: bool = static(default=True)
    """Whether the logits are computed with the embedding, instead of with weights of their own."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "key_value_heads", "key_size", "mlp_size"):
            require_size(name, getattr(self, name))
        require_size("vocabulary", self.vocabulary)
        rule = f"a divisor of heads ({self.heads})"
        require(
            self.heads % self.key_value_heads == 0, "key_value_heads", rule, self.key_value_heads
        )
        require(self.key_size % 2 == 0, "key_size", "even, for rotary positions", self.key_size)
        for name in ("epsilon", "rotary_base"):
            require_positive(name, getattr(self, name))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of weights, by its name in `Decoder`; the fan-in is the last axis."""
        depth, width, size = self.layers, self.width, self.key_size
        keys = (depth, self.key_value_heads, size, width)
        unembedding = {} if self.tied else {"unembedding": (self.vocabulary, width)}
        return {
            "embedding": (self.vocabulary, width),
            "attention_norm": (depth, width),
            "query": (depth, self.heads, size, width),
            "key": keys,
            "value": keys,
            "output": (depth, self.heads, width, size),
            "mlp_norm": (depth, width),
            "gate": (depth, self.mlp_size, width),
            "up": (depth, self.mlp_size, width),
            "down": (depth, width, self.mlp_size),
            "norm": (width,),
            **unembedding,
        }

    def __call__(self, key: jax.Array) -> "Decoder":
        """Build a decoder with gains of 1 and other weights from N(0, 1 / fan-in)."""
        shapes = self.shapes()
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))

        def draw(name: str, shape: tuple[int, ...]) -> jax.Array:
            if name.endswith("norm"):
                return jnp.ones(shape)
            return jax.random.normal(keys[name], shape) / jnp.sqrt(float(shape[-1]))

        return Decoder(self, {name: draw(name, shape) for name, shape in shapes.items()})


class Past(NamedTuple):
    """Keys and values of the tokens that were read, with rotary positions applied to the keys."""

    keys: jax.Array
    """(L, G, tokens, k)."""
    values: jax.Array
    """(L, G, tokens, k)."""


class Reading(NamedTuple):
    """Activations at T tokens that follow S earlier ones, or, after `last`, at the last of them."""

    hidden: jax.Array
    """The residual stream after the last layer and its norm, (T, n); `Decoder.logits` reads it."""
    early: jax.Array
    """The residual stream after each layer and the last norm, (L, T, n), for early logits."""
    attended: jax.Array
    """Attention outputs after W_O, before the residual, (L, T, n)."""
    scores: jax.Array
    """Scores before mask and softmax, (L, H, T, S + T)."""
    queries: jax.Array
    """Query vectors before the rotary positions, (L, H, T, k)."""

    def last(self) -> "Reading":
        """The activations at the last token, without the token axis."""
        return Reading(
            self.hidden[-1],
            self.early[:, -1],
            self.attended[:, -1],
            self.scores[:, :, -1],
            self.queries[:, :, -1],
        )


class Decoder(nnx.Module):
    """A decoder, from its architecture and its weights by name; see `DecoderArchitecture.shapes`.

    Raises BadInput if a weight is missing, or has another shape.
    """

    embedding: nnx.Param
    attention_norm: nnx.Param
    query: nnx.Param
    key: nnx.Param
    value: nnx.Param
    output: nnx.Param
    mlp_norm: nnx.Param
    gate: nnx.Param
    up: nnx.Param
    down: nnx.Param
    norm: nnx.Param
    unembedding: nnx.Param

    def __init__(self, architecture: DecoderArchitecture, weights: Mapping[str, ArrayLike]):
        self.architecture = architecture
        for name, shape in architecture.shapes().items():
            require(name in weights, "weights", f"given for {name}", sorted(weights))
            values = jnp.asarray(weights[name])
            require(values.shape == shape, f"weights of {name}", f"of shape {shape}", values.shape)
            setattr(self, name, nnx.Param(values))

    def empty(self) -> Past:
        """The past before the first token."""
        sizes = self.architecture
        shape = (sizes.layers, sizes.key_value_heads, 0, sizes.key_size)
        nothing = jnp.zeros(shape, self.embedding[...].dtype)
        return Past(nothing, nothing)

    def read(
        self,
        tokens: jax.Array,
        past: Past | None = None,
        between: Callable[[jax.Array], jax.Array] = lambda stream: stream,
    ) -> tuple[Reading, Past]:
        """Activations at tokens (T,), whose past is given, and the past of the tokens after them.

        `between` is applied to the input of each layer, (T, n).
        """
        past = self.empty() if past is None else past
        epsilon = self.architecture.epsilon
        layers = (
            self.attention_norm[...],
            (self.query[...], self.key[...], self.value[...], self.output[...]),
            self.mlp_norm[...],
            (self.gate[...], self.up[...], self.down[...]),
            past,
        )

        def layer(stream: jax.Array, weights: tuple) -> tuple[jax.Array, tuple]:
            attention_gain, attention, mlp_gain, (gate, up, down), own = weights
            stream = between(stream)
            rows = rms_norm(stream, attention_gain, epsilon)
            attended, scores, queries, kept = self._attend(rows, attention, own)
            stream = stream + attended
            rows = rms_norm(stream, mlp_gain, epsilon)
            inner = jax.nn.silu(_product(rows, gate)) * _product(rows, up)
            stream = stream + _product(inner, down)
            return stream, (stream, attended, scores, queries, kept)

        _, found = jax.lax.scan(layer, self.embedding[...][tokens], layers)
        streams, attended, scores, queries, kept = found
        early = rms_norm(streams, self.norm[...], epsilon)
        return Reading(early[-1], early, attended, scores, queries), kept

    def _attend(
        self, rows: jax.Array, weights: tuple, past: Past
    ) -> tuple[jax.Array, jax.Array, jax.Array, Past]:
        """The update of rows (T, n) by one layer's attention, scores, queries, and keys and values."""
        sizes, before = self.architecture, past.keys.shape[-2]
        query, key, value, output = weights
        queries, keys, values = (
            jnp.einsum("tw,hkw->htk", rows, each) for each in (query, key, value)
        )
        positions = before + jnp.arange(rows.shape[0])
        keys = jnp.concatenate([past.keys, rotate(keys, positions, sizes.rotary_base)], axis=1)
        values = jnp.concatenate([past.values, values], axis=1)
        grouped = rotate(queries, positions, sizes.rotary_base).reshape(
            sizes.key_value_heads, sizes.heads // sizes.key_value_heads, *queries.shape[1:]
        )
        scores = jnp.einsum("gjtk,gsk->gjts", grouped, keys) / jnp.sqrt(float(sizes.key_size))
        seen = jnp.arange(keys.shape[1])[None] <= positions[:, None]
        attention = jax.nn.softmax(jnp.where(seen[None, None], scores, -jnp.inf), axis=-1)
        read = jnp.einsum("gjts,gsk->gjtk", attention, values).reshape(queries.shape)
        attended = jnp.einsum("htk,hwk->tw", read, output)
        return attended, scores.reshape(sizes.heads, *scores.shape[2:]), queries, Past(keys, values)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits of the next token, (..., vocabulary), from `Reading.hidden` (..., n)."""
        weights = self.embedding if self.architecture.tied else self.unembedding
        return _product(hidden, weights[...])

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits after each of the tokens: (T,) -> (T, vocabulary)."""
        return self.logits(self.read(tokens)[0].hidden)


def _product(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """Rows (..., n) times weights (m, n), of which no transposed copy is kept for gradients."""
    return jnp.einsum("...n,mn->...m", rows, weights)


def rms_norm(rows: jax.Array, gain: jax.Array, epsilon: float) -> jax.Array:
    """Rows (..., n) divided by their root mean square, times a gain (n,)."""
    factor = jax.lax.rsqrt(jnp.mean(rows**2, axis=-1, keepdims=True) + epsilon)
    return rows * factor * gain.reshape((1,) * (rows.ndim - 1) + gain.shape)


def rotate(rows: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotary positions: rotate the pair (2j, 2j + 1) of rows (..., T, k) by position * base^(-2j / k).

    This is the layout of GGUF files; other files have the pairs (j, j + k / 2), and their rows are
    reordered when they are loaded.
    """
    size = rows.shape[-1]
    rates = base ** (-jnp.arange(0, size, 2) / size)
    angles = positions[:, None] * rates[None]
    angles = angles.reshape((1,) * (rows.ndim - 2) + angles.shape)
    cosine, sine = (turn(angles).astype(rows.dtype) for turn in (jnp.cos, jnp.sin))
    even, odd = rows[..., 0::2], rows[..., 1::2]
    turned = jnp.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1)
    return turned.reshape(rows.shape)
