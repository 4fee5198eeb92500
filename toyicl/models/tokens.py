"""Tokens of an episode, one row each, and predictions from tokens."""

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.core.products import contract


def joint_tokens(x: jax.Array, y: jax.Array) -> jax.Array:
    """Tokens e_j = (x_j, y_j), one row for each labelled point: (N, d), (N, m) -> (N, d + m)."""
    return concatenate_last(x, y)


def query_token(x_query: jax.Array, outputs: int, weights: jax.Array | None = None) -> jax.Array:
    """The query's token (x_q, -W_0 x_q), with W_0 = 0 unless `weights` (m, d) is given: (d + m,)."""
    if weights is None:
        return jnp.pad(x_query, (0, outputs))
    return concatenate_last(x_query, -contract(x_query, weights, (1, 1)))


def separate_tokens(
    x: jax.Array, y: jax.Array, x_query: jax.Array, position_size: int
) -> tuple[jax.Array, jax.Array]:
    """Tokens x_1, y_1, ..., x_N, y_N of the context, and the query's: content (d), then position.

    Labels are padded with zeros to the width of the inputs. The context has shape
    (2N, d + position_size). The query's token, (d + position_size,), has the last position.
    """
    count, dim = x.shape
    labels = jnp.pad(y, ((0, 0), (0, dim - y.shape[1])))
    content = jnp.stack([x, labels], axis=1).reshape(2 * count, dim)
    places = sinusoids(2 * count + 1, position_size, x.dtype)
    return concatenate_last(content, places[:-1]), concatenate_last(x_query, places[-1])


def concatenate_last(left: jax.Array, right: jax.Array) -> jax.Array:
    """Two arrays concatenated along their last axis.

    They are padded and added, since `jax.vmap` of `jnp.concatenate` would move an axis of episodes to
    the front, and later products would have to move it back.
    """
    before = [(0, 0)] * (left.ndim - 1)
    padded = jnp.pad(left, [*before, (0, right.shape[-1])])
    return padded + jnp.pad(right, [*before, (left.shape[-1], 0)])


def sinusoids(count: int, size: int, dtype: jnp.dtype) -> jax.Array:
    """Sinusoidal encodings of positions 0, 1, ..., (count, size), for an even size.

    Vaswani et al. (2017), section 3.5.
    """
    rates = 10_000.0 ** (-np.arange(0, size, 2) / size)
    angles = np.arange(count)[:, None] * rates
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return jnp.asarray(waves.reshape(count, size), dtype)


def read_label(tokens: jax.Array, outputs: int) -> jax.Array:
    """The prediction: minus the last `outputs` entries of each token (von Oswald et al., section 2)."""
    return -tokens[..., -outputs:]
