"""Tokens of an episode, and predictions from tokens.

A token matrix is kept as a tuple of its column blocks, which are not concatenated: the joint tokens
e_j = (x_j, y_j) of von Oswald et al. (2022) are the pair of blocks (x, y). A product with a matrix is
then a sum over blocks. XLA would repeat a concatenation, slowly, in every operation that uses it;
with blocks the first layer reads the data in place.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Tokens = tuple[jax.Array, ...]
"""Blocks of shape (..., block size), whose sizes add up to the token size."""


def joint_tokens(x: jax.Array, y: jax.Array) -> Tokens:
    """Tokens e_j = (x_j, y_j), one row for each labelled point, as blocks (N, d) and (N, m)."""
    return (x, y)


def query_token(x_query: jax.Array, outputs: int, weights: jax.Array | None = None) -> Tokens:
    """The query's token (x_q, -W_0 x_q), with W_0 = 0 unless `weights` (m, d) is given."""
    label = jnp.zeros((outputs,), x_query.dtype) if weights is None else -weights @ x_query
    return (x_query, label)


def separate_tokens(
    x: jax.Array, y: jax.Array, x_query: jax.Array, position_size: int
) -> tuple[Tokens, Tokens]:
    """Tokens x_1, y_1, ..., x_N, y_N of the context, and the query's: content (d) and position.

    Labels are padded with zeros to the width of the inputs. The context has blocks (2N, d) and
    (2N, position_size). The query's token comes last and has blocks (d,) and (position_size,).
    """
    count, dim = x.shape
    labels = jnp.pad(y, ((0, 0), (0, dim - y.shape[1])))
    content = jnp.stack([x, labels], axis=1).reshape(2 * count, dim)
    places = sinusoids(2 * count + 1, position_size, x.dtype)
    return (content, places[:-1]), (x_query, places[-1])


def sinusoids(count: int, size: int, dtype: jnp.dtype) -> jax.Array:
    """Sinusoidal encodings of positions 0, 1, ..., (count, size), for an even size.

    Vaswani et al. (2017), section 3.5.
    """
    rates = 10_000.0 ** (-np.arange(0, size, 2) / size)
    angles = np.arange(count)[:, None] * rates
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return jnp.asarray(waves.reshape(count, size), dtype)


def read_label(tokens: Tokens, outputs: int) -> jax.Array:
    """The prediction: minus the last `outputs` entries of each token (von Oswald et al., section 2)."""
    return -tokens[-1][..., -outputs:]


def block_sizes(tokens: Tokens) -> tuple[int, ...]:
    """The size of each block."""
    return tuple(block.shape[-1] for block in tokens)


def split(rows: jax.Array, sizes: Sequence[int]) -> Tokens:
    """Split rows (..., token size) into blocks of the given sizes."""
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return tuple(rows[..., start : start + size] for start, size in zip(starts, sizes, strict=True))


def merge(tokens: Tokens) -> jax.Array:
    """Concatenate blocks to rows (..., token size)."""
    return tokens[0] if len(tokens) == 1 else jnp.concatenate(tokens, axis=-1)


def project(tokens: Tokens, matrix: jax.Array) -> jax.Array:
    """Rows times a matrix, (..., token size) @ (token size, p) -> (..., p), block by block."""
    rows = split(matrix.T, block_sizes(tokens))
    return sum_of([block @ part.T for block, part in zip(tokens, rows, strict=True)])


def add(tokens: Tokens, update: Tokens) -> Tokens:
    """Tokens plus an update of the same blocks."""
    return tuple(block + change for block, change in zip(tokens, update, strict=True))


def sum_of(terms: Sequence[jax.Array]) -> jax.Array:
    """Sum of at least one array, without adding the 0 that Python's `sum` starts from."""
    first, *rest = terms
    for term in rest:
        first = first + term
    return first
