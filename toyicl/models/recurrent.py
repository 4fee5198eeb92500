"""Recurrent networks as learners: an LSTM, and a gated linear recurrence.

They read the context token by token, then the query. Unlike attention, they keep a state of fixed
size, and the order of the context matters.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import (
    is_number,
    require,
    require_choice,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.models.tokens import concatenate_last, joint_tokens, query_token
from toyicl.tasks.linear import Task

CellKind = Literal["lstm", "linear"]
FORGET_BIAS = 1.0
"""Initial bias of the LSTM's forget gate, with which its state outlasts a few tokens."""


@settings
class RecurrentArchitecture:
    """Settings of a recurrent network; calling them with a task and a key builds one.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    cell: CellKind = static(default="lstm")
    """An LSTM, or a gated linear recurrence."""
    width: int = static(default=16)
    """Size of the state: of the LSTM's hidden state, or number of channels of the linear recurrence."""
    decay: float = 0.95
    """Initial decay of the linear recurrence; its channels keep so much of their state in each step."""
    init_scale: float = 1.0
    """Variance of the initial weights, times fan-in."""

    def __post_init__(self) -> None:
        require_choice("cell", self.cell, get_args(CellKind))
        require_size("width", self.width)
        rule = "above 0 and below 1"
        if is_number("decay", rule, self.decay):
            require(bool(0 < self.decay < 1), "decay", rule, self.decay)
        require_positive("init_scale", self.init_scale)

    def __call__(self, task: Task, key: jax.Array) -> "LSTM | GatedLinearRecurrence":
        """Build a network with fresh weights for the episodes of a task."""
        made = LSTM if self.cell == "lstm" else GatedLinearRecurrence
        return made(self, task.dim, task.outputs, key)

    def parameters(self, task: Task) -> int:
        """Number of parameters of a network for a task."""
        d, m, width = task.dim, task.outputs, self.width
        if self.cell == "lstm":
            return 4 * width * (d + m + 1 + width + 1) + (width + 1) * m
        return width * (2 * (d + m) + d + m + 1)


def of_size(cell: CellKind, task: Task, parameters: int) -> RecurrentArchitecture:
    """The network of a kind whose number of parameters on a task is nearest to a given one.

    Raises BadInput unless `parameters` is a size.
    """
    require_size("parameters", parameters)
    widest = math.isqrt(parameters) + 1 if cell == "lstm" else parameters + 1

    def distance(width: int) -> int:
        own = RecurrentArchitecture(cell=cell, width=width).parameters(task)
        return abs(own - parameters)

    return RecurrentArchitecture(cell=cell, width=min(range(1, widest + 1), key=distance))


class LSTM(nnx.Module):
    """A long short-term memory over the tokens of an episode, as a learner on one episode.

    Tokens are (x_i, y_i, 0), then (x_q, 0, 1), whose last entry marks the query. The prediction is an
    affine function of the hidden state after the query. The cell is that of Flax.
    """

    def __init__(self, architecture: RecurrentArchitecture, dim: int, outputs: int, key: jax.Array):
        width, dtype = architecture.width, jnp.result_type(float)
        rngs, kernel = nnx.Rngs(key), _kernel(architecture.init_scale)
        self.cell = nnx.OptimizedLSTMCell(
            dim + outputs + 1,
            width,
            kernel_init=kernel,
            bias_init=_forget_bias,
            param_dtype=dtype,
            keep_rngs=False,
            rngs=rngs,
        )
        self.readout = nnx.Linear(width, outputs, kernel_init=kernel, param_dtype=dtype, rngs=rngs)
        self.width = width

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        tokens = jnp.pad(joint_tokens(x, y), ((0, 0), (0, 1)))
        query = concatenate_last(query_token(x_query, y.shape[1]), jnp.ones(1, x.dtype))
        start = jnp.zeros(self.width, jnp.result_type(x, y))

        def read(
            carry: tuple[jax.Array, jax.Array], token: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            return self.cell(carry, token)[0], None

        state, _ = jax.lax.scan(read, (start, start), tokens)
        _, hidden = self.cell(state, query)
        return self.readout(hidden)


class GatedLinearRecurrence(nnx.Module):
    """A recurrence that is linear in its state, with multiplicative gates, as a learner.

        h_t = lambda * h_{t-1} + (A e_t) * (B e_t),   prediction = C ((Q x_q) * h_N)

    Products * are elementwise, tokens are e_t = (x_t, y_t), and each channel has its own decay lambda
    in (0, 1), the sigmoid of a parameter. With lambda = 1 and a channel for each pair of an input and
    an output the recurrence can perform one step of gradient descent (`descending_recurrence`), as
    the gated recurrences of Zucchet et al. (2023) can perform linear attention.
    """

    def __init__(self, architecture: RecurrentArchitecture, dim: int, outputs: int, key: jax.Array):
        width, size = architecture.width, dim + outputs
        keys = jax.random.split(key, 4)
        draw = _kernel(architecture.init_scale)
        decay = jnp.asarray(architecture.decay, float)
        self.decay = nnx.Param(jnp.broadcast_to(jnp.log(decay) - jnp.log1p(-decay), (width,)))
        self.gate = nnx.Param(draw(keys[0], (size, width), jnp.result_type(float)))
        self.value = nnx.Param(draw(keys[1], (size, width), jnp.result_type(float)))
        self.query = nnx.Param(draw(keys[2], (dim, width), jnp.result_type(float)))
        self.output = nnx.Param(draw(keys[3], (width, outputs), jnp.result_type(float)))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        gate, value, kept = self.gate[...], self.value[...], jax.nn.sigmoid(self.decay[...])

        def read(state: jax.Array, token: jax.Array) -> tuple[jax.Array, None]:
            return kept * state + (token @ gate) * (token @ value), None

        start = jnp.zeros(kept.shape, jnp.result_type(x, y))
        state, _ = jax.lax.scan(read, start, joint_tokens(x, y))
        return ((x_query @ self.query[...]) * state) @ self.output[...]


def descending_recurrence(
    learning_rate: float, context_size: int, dim: int, outputs: int = 1
) -> GatedLinearRecurrence:
    """The gated linear recurrence that performs one step of gradient descent from W_0 = 0.

    Channel (a, b) accumulates sum_i x_ia y_ib, and its decay is 1 up to rounding. Raises BadInput
    unless the sizes are sizes.
    """
    for name, size in (("context_size", context_size), ("dim", dim), ("outputs", outputs)):
        require_size(name, size)
    settings = RecurrentArchitecture(cell="linear", width=dim * outputs)
    model = GatedLinearRecurrence(settings, dim, outputs, jax.random.key(0))
    from_inputs = jnp.repeat(jnp.eye(dim), outputs, axis=1)
    from_labels = jnp.tile(jnp.eye(outputs), (1, dim))
    model.decay[...] = jnp.full(dim * outputs, 50.0)
    model.gate[...] = jnp.pad(from_inputs, ((0, outputs), (0, 0)))
    model.value[...] = jnp.pad(from_labels, ((dim, 0), (0, 0)))
    model.query[...] = from_inputs * (learning_rate / context_size)
    model.output[...] = from_labels.T
    return model


def _kernel(init_scale: float | jax.Array) -> nnx.initializers.Initializer:
    """Truncated normal weights (inputs, outputs) of variance init_scale / inputs."""
    draw = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jnp.sqrt(init_scale) * draw(key, shape, dtype)

    return init


def _forget_bias(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """The biases of the gates i, f, g and o: 0, and `FORGET_BIAS` for f."""
    return jnp.repeat(jnp.array([0.0, FORGET_BIAS, 0.0, 0.0], dtype), shape[0] // 4)
