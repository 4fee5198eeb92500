"""The parts of a transformer apart from attention: MLP, embedding, LayerNorm, and a whole layer."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import (
    require_fraction,
    require_not_negative,
    require_size,
    settings,
    static,
)
from toyicl.core.products import contract
from toyicl.core.variables import Fixed
from toyicl.models.attention import Attention, AttentionSettings

LAYER_NUMBERS = 1_000_000
"""Memory that tracing one layer takes, in numbers of four bytes; measured, and rounded down."""


class LayerNorm(nnx.LayerNorm):
    """LayerNorm of rows (..., size), with a learned gain and shift, accurate for large means.

    flax computes the variance as E[x^2] - E[x]^2 by default, which in float32 is wrong by orders of
    magnitude where the mean is large compared with the deviation. Here it is E[(x - E[x])^2], of rows
    from which their first entry is subtracted: in exact arithmetic that changes nothing, and it keeps
    the rounding error of the mean small. Rows whose variance overflows give NaN.
    """

    scale: nnx.Param
    bias: nnx.Param

    def __init__(self, size: int, rngs: nnx.Rngs):
        dtype = jnp.result_type(float)
        super().__init__(size, param_dtype=dtype, rngs=rngs)

    def __call__(self, rows: jax.Array) -> jax.Array:  # type: ignore[override]
        """Normalise rows (..., size) over their last axis."""
        shifted = rows - rows[..., :1]
        centred = shifted - jnp.mean(shifted, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        # 1 / sqrt(inf) would be 0, and a run that has diverged would look finite.
        factor = jnp.where(jnp.isfinite(variance), jax.lax.rsqrt(variance + self.epsilon), jnp.nan)
        shape = (1,) * (rows.ndim - 1) + (-1,)
        gain, shift = (values[...].reshape(shape) for values in (self.scale, self.bias))
        return centred * factor * gain + shift


class MLP(nnx.Module):
    """Two linear layers with a GELU between them, on the last axis."""

    def __init__(self, size: int, hidden: int, init_scale: float | jax.Array, rngs: nnx.Rngs):
        draw = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")

        def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return jnp.sqrt(init_scale) * draw(key, shape, dtype)

        linear = partial(nnx.Linear, kernel_init=init, param_dtype=jnp.result_type(float))
        self.up_proj = linear(size, hidden, rngs=rngs)
        self.down_proj = linear(hidden, size, rngs=rngs)

    def __call__(self, rows: jax.Array) -> jax.Array:
        """Map rows (rows, size), or one row (size,), to rows of the same shape."""
        return _linear(self.down_proj, jax.nn.gelu(_linear(self.up_proj, rows)))


def _linear(layer: nnx.Linear, rows: jax.Array) -> jax.Array:
    """What a linear layer makes of rows (rows, inputs), or of one row (inputs,).

    The bias is the weight of a further input, 1: `jax.vmap` of a sum with the bias would move an axis
    of episodes to the front, and later products would have to move it back.
    """
    bias: Any = layer.bias  # None is allowed by its type, but not used here
    weights = jnp.concatenate([layer.kernel[...], bias[...][None]])
    padding = [(0, 0)] * (rows.ndim - 1) + [(0, 1)]
    return contract(jnp.pad(rows, padding, constant_values=1), weights)


class Embedding(nnx.Module):
    """A linear map of tokens to another width, without bias, and an MLP if there is one."""

    def __init__(self, size: int, width: int, hidden: int | None, key: jax.Array):
        linear_key, mlp_key = jax.random.split(key)
        draw = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.linear = nnx.Param(draw(linear_key, (size, width)))
        self.mlp = None if hidden is None else MLP(width, hidden, 1.0, nnx.Rngs(mlp_key))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens (rows, size), or one token (size,), embedded in the last axis."""
        rows = contract(tokens, self.linear[...])
        return rows if self.mlp is None else rows + self.mlp(rows)


@settings
class LayerSettings:
    """Settings of one layer: its attention, its MLP and how both normalise the tokens they read.

    `Architecture` and `CausalArchitecture` build them. Raises BadSetting, at construction, for a
    setting out of its bounds.
    """

    attention: AttentionSettings = AttentionSettings()
    """The attention; its `init_scale` is the MLP's too."""
    mlp_size: int | None = static(default=None)
    """Hidden width of a residual GELU MLP; None leaves it out."""
    mlp_gate: float = 1.0
    """Factor on the MLP's update."""
    layer_norm: bool = static(default=False)
    """Whether attention and MLP read tokens through a LayerNorm."""
    norm_gate: float = 1.0
    """Interpolation from the tokens as they are, 0, to normalised tokens, 1."""

    def __post_init__(self) -> None:
        if self.mlp_size is not None:
            require_size("mlp_size", self.mlp_size)
        require_not_negative("mlp_gate", self.mlp_gate)
        require_fraction("norm_gate", self.norm_gate)


class Block(nnx.Module):
    """One layer: attention, and an MLP if it has one, each as a residual update."""

    def __init__(self, token_size: int, key: jax.Array, settings: LayerSettings):
        attention_key, mlp_key = jax.random.split(key)
        self.attention = Attention(token_size, attention_key, settings.attention)
        rngs, hidden, norm = nnx.Rngs(mlp_key), settings.mlp_size, settings.layer_norm
        scale = settings.attention.init_scale
        self.mlp_gate = Fixed(jnp.asarray(settings.mlp_gate, float))
        self.norm_gate = Fixed(jnp.asarray(settings.norm_gate, float))
        self.attention_norm = LayerNorm(token_size, rngs) if norm else None
        self.mlp = None if hidden is None else MLP(token_size, hidden, scale, rngs)
        self.mlp_norm = LayerNorm(token_size, rngs) if norm and hidden is not None else None

    def attend(self, tokens: jax.Array, context: jax.Array) -> jax.Array:
        """The attention update of tokens that read the context."""
        norm = self.attention_norm
        return self.attention(self._normalise(norm, tokens), self._normalise(norm, context))

    def apply_mlp(self, tokens: jax.Array) -> jax.Array:
        """Tokens plus the MLP's update; the tokens themselves if there is no MLP."""
        if self.mlp is None:
            return tokens
        return tokens + self.mlp_gate[...] * self.mlp(self.read_by_mlp(tokens))

    def read_by_mlp(self, tokens: jax.Array) -> jax.Array:
        """Tokens as the MLP reads them, normalised if the layer has a LayerNorm."""
        return self._normalise(self.mlp_norm, tokens)

    def _normalise(self, norm: LayerNorm | None, tokens: jax.Array) -> jax.Array:
        """Tokens interpolated towards their LayerNorm by the gate."""
        if norm is None:
            return tokens
        gate = self.norm_gate[...]
        return (1 - gate) * tokens + gate * norm(tokens)
