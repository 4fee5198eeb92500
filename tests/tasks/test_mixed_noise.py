"""Regression with noise of a scale of its own in each episode: moments, and the episodes without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn

from toyicl.core.errors import BadInput
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.mixed_noise import MixedNoise

BASE = LinearRegression(dim=3, outputs=2, context_size=5, input_distribution="normal")
EPISODES = 20_000


def test_the_noise_has_one_uniform_scale_in_each_episode():
    key = jax.random.key(0)
    episodes, scale = MixedNoise(base=BASE, largest_noise=2.0).sample_with_noise(key, EPISODES)
    clean = BASE.sample(jax.random.split(key, 3)[0], EPISODES)
    for noisy, same in ((episodes.x, clean.x), (episodes.y_query, clean.y_query)):
        np.testing.assert_array_equal(noisy, same)
    noise = np.asarray(episodes.y - clean.y).reshape(-1, EPISODES)
    scale = np.asarray(scale)
    assert scale.min() >= 0
    assert scale.max() <= 2
    np.testing.assert_allclose(np.mean(scale), 1, rtol=0.02)
    np.testing.assert_allclose(np.mean(noise**2), 4 / 3, rtol=0.03)
    standard = noise / scale
    np.testing.assert_allclose(np.std(standard, axis=1), 1, rtol=0.03)
    np.testing.assert_allclose(np.corrcoef(standard), np.eye(len(standard)), atol=0.03)


def test_without_noise_the_episodes_are_those_of_the_base(close):
    key = jax.random.key(1)
    episodes = MixedNoise(base=BASE, largest_noise=0.0).sample(key, 4)
    for found, expected in zip(episodes, BASE.sample(jax.random.split(key, 3)[0], 4), strict=True):
        close(found, expected)


def test_the_largest_noise_may_be_traced():
    def mean_square(largest):
        episodes = drawn(MixedNoise(base=BASE, largest_noise=largest), 0, 50)
        return jnp.mean(episodes.y**2)

    values = jax.jit(jax.vmap(mean_square))(jnp.array([0.0, 5.0]))
    assert float(values[1]) > float(values[0])


def test_noise_of_the_base_and_negative_noise_are_refused():
    noisy = LinearRegression(label_noise=0.1)
    with pytest.raises(BadInput, match=r"base\.label_noise must be None"):
        MixedNoise(base=noisy)
    with pytest.raises(BadInput, match="largest_noise must be a finite number of at least 0"):
        MixedNoise(largest_noise=-1.0)
