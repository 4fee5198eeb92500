"""Fixed sets of episodes: batches are the whole set or drawn from it, and bad sizes are refused."""

import jax
import numpy as np
import pytest

from toyicl.tasks.fixed_set import FixedSet
from toyicl.tasks.linear import LinearRegression

SET = FixedSet(base=LinearRegression(dim=2, context_size=3), count=16)


def columns(episodes):
    """Each episode as one row of numbers."""
    flat = [np.asarray(field).reshape(-1, field.shape[-1]) for field in episodes]
    return np.concatenate(flat).T


def test_a_batch_as_large_as_the_set_is_the_set_for_any_key():
    first, other = (columns(SET.sample(jax.random.key(seed), 16)) for seed in (1, 2))
    np.testing.assert_array_equal(first, other)
    drawn = SET.base.sample(jax.random.key(0), 16)
    np.testing.assert_array_equal(first, columns(drawn))


def test_smaller_batches_are_drawn_from_the_set_and_differ():
    whole = {row.tobytes() for row in columns(SET.sample(jax.random.key(0), 16))}
    batches = [columns(SET.sample(jax.random.key(seed), 8)) for seed in range(20)]
    drawn = [row.tobytes() for batch in batches for row in batch]
    assert set(drawn) == whole, "160 draws include all 16 episodes and no others"
    assert not np.array_equal(batches[0], batches[1])


def test_another_seed_gives_another_set():
    other = FixedSet(base=SET.base, count=16, set_seed=1)
    key = jax.random.key(0)
    assert not np.array_equal(columns(SET.sample(key, 16)), columns(other.sample(key, 16)))


def test_sizes_are_those_of_the_base_task_and_bad_settings_are_named():
    assert (SET.dim, SET.outputs, SET.context_size) == (2, 1, 3)
    with pytest.raises(
        ValueError, match=r"^episodes must be at most .*task\.count \(16\), got 17$"
    ):
        SET.sample(jax.random.key(0), 17)
    with pytest.raises(
        ValueError, match=r"^FixedSet\.count must be a whole number of at least 1, got 0$"
    ):
        FixedSet(count=0)


def test_the_seed_of_the_set_may_be_traced():
    seeds = jax.numpy.arange(2)
    draw = jax.vmap(lambda seed: FixedSet(base=SET.base, count=4, set_seed=seed).sample(None, 4).y)
    alone = [FixedSet(base=SET.base, count=4, set_seed=seed).sample(None, 4).y for seed in (0, 1)]
    np.testing.assert_allclose(draw(seeds), alone, rtol=1e-12)
