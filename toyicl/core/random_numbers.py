"""The random number generator of training: Threefry-2x32, with both words of each evaluation used.

An evaluation turns a counter into two random words. For a number of 32 bits `jax.random` combines the
two into one, so that it takes twice the evaluations, and on a CPU it stores intermediate words after
every fourth round. Here both words are used, and an evaluation is one expression that XLA compiles into
one loop. Keys of `efficient_key` have this generator; the functions of `jax.random` accept them, except
`jax.random.poisson`, which needs a key of Threefry itself. Numbers of 64 bits are the same as those of
`jax.random` with its default settings.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

from toyicl.core.config import require
from toyicl.core.fusion import not_fused

GENERATOR = "threefry2x32_both_words_1"
"""Name and version of the generator: the same name means the same numbers from the same key."""
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
"""Bits by which words are rotated in four rounds, and in the next four."""
PARITY = np.uint32(0x1BD11BDA)
"""The constant of Threefry's key schedule."""


def efficient_key(key: jax.Array) -> jax.Array:
    """The key from which numbers are drawn with both words of each evaluation.

    `key` is a key of `jax.random.key`, or an array of them. Numbers of 32 bits or less differ from
    those of `key`. A key of another generator than Threefry, which JAX may be configured to have, is
    returned unchanged.
    """
    if str(jax.random.key_impl(key)) not in ("threefry2x32", GENERATOR):
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPLEMENTATION)


def threefry_2x32(key: jax.Array, counters: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both random words for each counter (0, c): 20 rounds of Threefry-2x32.

    Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3". `key` has two
    32-bit words, (2,); `counters` are 32-bit words of any shape.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    first, second = jnp.broadcast_to(schedule[0], counters.shape), counters + schedule[1]
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            first = first + second
            rotated = (second << np.uint32(bits)) | (second >> np.uint32(32 - bits))
            second = first ^ rotated
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return first, second


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    """Random bits as unsigned integers of 8, 16, 32 or 64 bits; those of 64 bits are JAX's own."""
    draw = partial(_wide_bits if bit_width == 64 else _bits, shape=shape)
    # Where bits are fused with what is made of them, they are drawn again for each.
    bits = jax.lax.platform_dependent(key, cpu=partial(not_fused, draw), default=draw)
    return (
        bits
        if bit_width >= 32
        else (bits >> np.uint32(32 - bit_width)).astype(f"u{bit_width // 8}")
    )


def _wide_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Integers of 64 bits: both words of an evaluation."""
    high, low = threefry_2x32(key, _counters(shape))
    return (high.astype(jnp.uint64) << np.uint64(32)) | low.astype(jnp.uint64)


def _bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Integers of 32 bits: the first words of all evaluations, then the second words.

    The two words of an evaluation belong to different halves of the rows. The last of several axes,
    that of the episodes, may then be divided among devices, each of which draws its own part.
    """
    *rows, columns = shape if len(shape) > 1 else (*shape, 1)
    count = int(np.prod(rows))
    words = threefry_2x32(key, _counters((-(-count // 2), columns)))
    return jnp.concatenate(words)[:count].reshape(shape)


def _counters(shape: tuple[int, ...]) -> jax.Array:
    """The numbers 0, 1, ... as 32-bit words, in order of an array of a shape."""
    size = int(np.prod(shape))
    require(size <= 2**32, "shape", "of at most 2^32 pairs of random words", shape)
    counters = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(np.prod(shape[axis + 1 :], dtype=np.uint64))
        counters = counters + stride * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return counters


def _plain(key: jax.Array) -> jax.Array:
    """A key of `jax.random` from its two words."""
    return jax.random.wrap_key_data(key, impl="threefry2x32")


_IMPLEMENTATION = define_prng_impl(
    key_shape=(2,),
    seed=lambda seed: jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
    split=lambda key, shape: jax.random.key_data(jax.random.split(_plain(key), shape)),
    random_bits=_random_bits,
    fold_in=lambda key, data: jax.random.key_data(jax.random.fold_in(_plain(key), data)),
    name=GENERATOR,
    tag="threefry_both_words",
)
