"""Constructed weights with which attention takes steps of gradient descent, and their interpolation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.token_descent import TokenDescent
from toyicl.core.config import require, require_size
from toyicl.core.episode import Learner
from toyicl.core.errors import BadInput
from toyicl.core.variables import require_no_state
from toyicl.models.attention import Attention
from toyicl.models.transformer import Architecture, Transformer


def gradient_descent_circuits(
    learning_rate: float | jax.Array,
    context_size: int,
    dim: int,
    outputs: int = 1,
    *,
    initial_weights: jax.Array | None = None,
    curvature: float | jax.Array = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Circuits (W_K^T W_Q, P W_V) of one head that takes one step of GD or GD++ on joint tokens.

        W_K^T W_Q = [[I, 0], [0, 0]]        P W_V = [[-gamma I, 0], [(eta / N) W_0, -(eta / N) I]]

    Both have shape (d + m, d + m); von Oswald et al. (2022), Proposition 1 and, for the curvature
    gamma, appendix A.10. `learning_rate` is eta, `initial_weights` is W_0, (m, d), zero by default.
    The same circuits in each of K layers take K steps. For GD all steps are exact. With a curvature
    and W_0 != 0 only the first step is exact, because later layers have changed inputs.
    """
    weights = jnp.zeros((outputs, dim)) if initial_weights is None else jnp.asarray(initial_weights)
    step = jnp.asarray(learning_rate, weights.dtype) / context_size
    eye, zeros = jnp.eye(dim, dtype=weights.dtype), jnp.zeros_like(weights)
    square = jnp.zeros((outputs, outputs), weights.dtype)
    labels = jnp.eye(outputs, dtype=weights.dtype)
    key_query = jnp.block([[eye, zeros.T], [zeros, square]])
    value_output = jnp.block([[-curvature * eye, zeros.T], [step * weights, -step * labels]])
    return key_query, value_output


def with_circuits(
    circuits: list[tuple[jax.Array, jax.Array]],
    dim: int,
    outputs: int = 1,
    *,
    depth: int | None = None,
    initial_weights: jax.Array | None = None,
    token_clip: float | jax.Array | None = None,
) -> Transformer:
    """A linear one-head transformer whose layers have the given circuits.

    `circuits` holds (W_K^T W_Q, P W_V) of each layer; all `depth` layers share a single pair.
    `initial_weights` is W_0, (m, d), in the query's token (x_q, -W_0 x_q). `token_clip` bounds token
    entries after each layer. Raises BadInput if the number of pairs is neither 1 nor `depth`.
    """
    count = len(circuits)
    depth = count if depth is None else depth
    require(count in (1, depth), "circuits", f"one pair, or one for each of {depth} layers", count)
    clip: Any = token_clip  # may be traced
    architecture = Architecture(depth=depth, shared=count == 1, token_clip=clip)
    start = None if initial_weights is None else jnp.asarray(initial_weights)
    model = Transformer(architecture, dim, outputs, jax.random.key(0), initial_weights=start)
    for block, (key_query, value_output) in zip(model.blocks, circuits, strict=True):
        _set_circuits(block.attention, key_query[None], value_output[None])
    return model


def gradient_descent_transformer(
    learning_rate: float | jax.Array,
    context_size: int,
    dim: int,
    outputs: int = 1,
    *,
    depth: int = 1,
    initial_weights: jax.Array | None = None,
    curvature: float | jax.Array = 0.0,
) -> Transformer:
    """A transformer of `depth` equal layers, each of which takes the same step of GD or GD++.

    See `gradient_descent_circuits` for the arguments.
    """
    circuits = gradient_descent_circuits(
        learning_rate,
        context_size,
        dim,
        outputs,
        initial_weights=initial_weights,
        curvature=curvature,
    )
    return with_circuits([circuits], dim, outputs, depth=depth, initial_weights=initial_weights)


def softmax_heads(
    logit_scales: Sequence[float] | jax.Array,
    gains: Sequence[float] | jax.Array,
    dim: int,
    outputs: int = 1,
    *,
    depth: int = 1,
) -> Transformer:
    """Equal layers of softmax attention that average labels, with a scale of scores for each head.

        y_j <- y_j - sum_h g_h sum_i softmax_i(b_h x_i . x_j) y_i

    `logit_scales` are the b_h and `gains` the g_h, both (heads,), and both may be traced. One layer
    with one head of gain 1 is the Nadaraya-Watson estimator with an exponential kernel. Raises BadInput
    unless there are as many gains as scales.
    """
    scales, factors = jnp.asarray(logit_scales, float), jnp.asarray(gains, float)
    rule = "a number for each head, as many as logit_scales"
    require(scales.ndim == 1 and factors.shape == scales.shape, "gains", rule, factors.shape)
    architecture = Architecture(
        attention="softmax", heads=len(scales), depth=depth, shared=depth > 1
    )
    model = Transformer(architecture, dim, outputs, jax.random.key(0))
    size = dim + outputs
    inputs = jnp.diag(jnp.arange(size) < dim).astype(float)
    scores = jnp.sqrt(float(size)) * scales[:, None, None] * inputs[None]
    values = -factors[:, None, None] * (jnp.eye(size) - inputs)[None]
    _set_circuits(model.blocks[0].attention, scores, values)
    return model


def subtracted_heads(logit_scale: float | jax.Array, dim: int, outputs: int = 1) -> Transformer:
    """One layer of softmax attention with two heads of opposite logits, whose outputs are subtracted.

        [softmax(e z) - softmax(-e z)] y / 2 e,   z_i = x_i . x_q

    As `logit_scale`, e, tends to 0, this tends to the covariance of z and y over the context, which is
    a step of gradient descent on the centred scatter matrix; cf. von Oswald et al. (2022), appendix
    A.9.
    """
    signs = jnp.array([1.0, -1.0])
    return softmax_heads(logit_scale * signs, signs / (2 * logit_scale), dim, outputs)


def as_transformer(
    reference: Learner, context_size: int, dim: int, outputs: int = 1
) -> Transformer:
    """The transformer that takes the same steps as gradient descent or GD++ from W_0 = 0.

    With clipped steps its tokens are clipped. Raises BadInput for any other learner.
    """
    if not isinstance(reference, GradientDescent | GradientDescentPlusPlus | TokenDescent):
        kind = type(reference).__name__
        raise BadInput(f"reference must be gradient descent or GD++, got {kind}")
    clip = None
    curvature: Any = 0.0
    if isinstance(reference, TokenDescent):
        rate = reference.step[...] * context_size
        clip = None if reference.token_clip is None else reference.token_clip[...]
    else:
        rate = reference.learning_rate[...]
    if not isinstance(reference, GradientDescent):
        curvature = reference.curvature[...]
    rates, curvatures = (jnp.broadcast_to(values, reference.steps) for values in (rate, curvature))
    circuits = [
        gradient_descent_circuits(rate, context_size, dim, outputs, curvature=curvature)
        for rate, curvature in zip(rates, curvatures, strict=True)
    ]
    return with_circuits(circuits, dim, outputs, token_clip=clip)


def repeated(model: Transformer, depth: int, damping: float | jax.Array = 1.0) -> Transformer:
    """A one-layer transformer whose layer is applied `depth` times, damped, to label entries only.

    The roll-outs of von Oswald et al. (2022), Figures 1 and 10. Raises BadInput for a model with more
    than one layer, or with state that is neither a parameter nor `Fixed`, and for a depth below 1.
    """
    require(model.depth == 1, "model.depth", "1 to be repeated", model.depth)
    require_size("depth", depth)
    require_no_state(model, "model")
    structure, *states = nnx.split(model, nnx.Param, ...)
    again = nnx.merge(structure, *states)
    again.depth, again.update_inputs = depth, False
    again.damping[...] = jnp.asarray(damping, again.damping[...].dtype)
    return again


def require_one_linear_layer(architecture: Architecture) -> None:
    """Check that a model is one layer with one head of linear attention on plain tokens.

    Only such a layer can be read and interpolated as one step of gradient descent. Raises BadInput
    that names the setting.
    """
    plain = Architecture()
    names = (
        "attention",
        "depth",
        "heads",
        "embedding_size",
        "mlp_size",
        "layer_norm",
        "token_clip",
    )
    for name in names:
        value, allowed = getattr(architecture, name), getattr(plain, name)
        rule = f"{allowed!r} for this experiment"
        require(value == allowed, name, rule, value, owner=Architecture)


def interpolate(model: Transformer, reference: Transformer, dim: int) -> Transformer:
    """The mean of the circuits of a trained linear one-head transformer and of a constructed one.

    Multiplying one circuit of a layer by c and the other by 1/c changes no prediction. The trained
    circuits are therefore scaled first, so that the input blocks of W_K^T W_Q have the same mean
    diagonal in both models: the scalar correction of von Oswald et al. (2022), section 3.

    Tokens are clipped as in `model`. Raises BadInput for softmax attention, different depths, several
    heads, and initial weights in only one of the models.
    """
    starts = [one.initial_weights for one in (model, reference) if one.initial_weights is not None]
    require(
        len(starts) != 1, "initial_weights", "in both models to interpolate, or in none", starts
    )
    for block in (*model.blocks, *reference.blocks):
        kind = block.attention.kind
        require(kind == "linear", "attention", "linear to interpolate weights", kind)
    require(model.depth == reference.depth, "depth", "that of the reference", model.depth)
    pairs = []
    for layer in range(max(len(model.blocks), len(reference.blocks))):
        key_query, value_output = layer_circuits(model, layer)
        their_key_query, their_value_output = layer_circuits(reference, layer)
        heads = max(len(key_query), len(their_key_query))
        require(heads == 1, "heads", "1 to interpolate weights", heads)
        scale = (mean_diagonal(their_key_query, dim) / mean_diagonal(key_query, dim))[0]
        pairs.append(
            (
                (scale * key_query[0] + their_key_query[0]) / 2,
                (value_output[0] / scale + their_value_output[0]) / 2,
            )
        )
    start = (starts[0][...] + starts[1][...]) / 2 if starts else None
    clip = None if model.token_clip is None else model.token_clip[...]
    return with_circuits(
        pairs, dim, model.outputs, depth=model.depth, initial_weights=start, token_clip=clip
    )


def layer_circuits(model: Transformer, layer: int) -> tuple[jax.Array, jax.Array]:
    """Circuits (W_K^T W_Q, P W_V) of a layer, each (heads, size, size); P W_V includes the damping."""
    attention = model.layer(layer).attention
    return attention.key_query, model.damping[...] * attention.value_output


def mean_diagonal(circuits: jax.Array, dim: int) -> jax.Array:
    """Mean diagonal of the input blocks of circuits (heads, size, size): (heads,)."""
    return jnp.trace(circuits[:, :dim, :dim], axis1=1, axis2=2) / dim


def _set_circuits(attention: Attention, key_query: jax.Array, value_output: jax.Array) -> None:
    """Set the circuits of an attention layer: W_K = W_V = I, and W_Q and P are the circuits."""
    eye = jnp.broadcast_to(jnp.eye(key_query.shape[-1], dtype=key_query.dtype), key_query.shape)
    attention.key[...], attention.query[...] = eye, key_query
    attention.value[...], attention.output[...] = eye, value_output
