"""Fixed pools: the same episodes again and again, all at once or some of them."""

import jax
import numpy as np
import pytest

from toyicl.tasks.fixed_set import FixedSet
from toyicl.tasks.linear import LinearRegression

pytestmark = pytest.mark.usefixtures("plain_compiler")

POOL = FixedSet(law=LinearRegression(dim=2, context_size=3), count=16)


def columns(episodes):
    """Each episode as one row of numbers."""
    flat = [np.asarray(field).reshape(-1, field.shape[-1]) for field in episodes]
    return np.concatenate(flat).T


def test_a_batch_as_large_as_the_pool_is_the_pool_whatever_the_key():
    first, other = (columns(POOL.sample(jax.random.key(seed), 16)) for seed in (1, 2))
    np.testing.assert_array_equal(first, other)
    law = POOL.law.sample(jax.random.key(0), 16)
    np.testing.assert_array_equal(first, columns(law))


def test_smaller_batches_are_drawn_from_the_pool_and_differ():
    whole = {row.tobytes() for row in columns(POOL.sample(jax.random.key(0), 16))}
    batches = [columns(POOL.sample(jax.random.key(seed), 8)) for seed in range(20)]
    drawn = [row.tobytes() for batch in batches for row in batch]
    assert set(drawn) == whole, "160 draws meet all 16 episodes, and no other"
    assert not np.array_equal(batches[0], batches[1])


def test_another_set_seed_is_another_pool():
    other = FixedSet(law=POOL.law, count=16, set_seed=1)
    key = jax.random.key(0)
    assert not np.array_equal(columns(POOL.sample(key, 16)), columns(other.sample(key, 16)))


def test_sizes_are_those_of_the_law_and_bad_ones_are_named():
    assert (POOL.dim, POOL.outputs, POOL.context_size) == (2, 1, 3)
    with pytest.raises(ValueError, match=r"^episodes must be at most task\.count \(16\), got 17$"):
        POOL.sample(jax.random.key(0), 17)
    with pytest.raises(
        ValueError, match=r"^FixedSet\.count must be a whole number of at least 1, got 0$"
    ):
        FixedSet(count=0)
