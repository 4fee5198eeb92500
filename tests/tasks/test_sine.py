"""Sine regression: exact labels, distributions, and the released code's variant."""

from functools import partial

import jax
import numpy as np
import pytest

from toyicl.tasks.sine import SineRegression

KEY = jax.random.key(3)
draw = jax.jit(SineRegression.sample, static_argnums=2)


def fitted(episodes):
    """Amplitude and phase of each episode, from its labels: a least-squares fit of sine and cosine."""
    x, y = np.asarray(episodes.x)[:, 0], np.asarray(episodes.y)[:, 0]
    found = []
    for inputs, labels in zip(x.T, y.T, strict=True):
        waves = np.stack([np.sin(inputs), np.cos(inputs)], axis=1)
        (sine, cosine), *_ = np.linalg.lstsq(waves, labels, rcond=None)
        found.append((np.hypot(sine, cosine), np.arctan2(cosine, sine)))
    return np.array(found).T


def test_all_labels_of_an_episode_are_on_one_sine_wave(close):
    episodes = draw(SineRegression(), KEY, 50)
    amplitude, phase = fitted(episodes)
    close(amplitude * np.sin(np.asarray(episodes.x)[:, 0] + phase), episodes.y[:, 0], 1e-9)
    close(amplitude * np.sin(np.asarray(episodes.x_query)[0] + phase), episodes.y_query[0], 1e-9)


def test_amplitudes_phases_and_inputs_are_uniform_in_their_ranges():
    episodes = draw(SineRegression(), KEY, 4000)
    amplitude, phase = fitted(episodes)
    for values, low, high in ((amplitude, 0.1, 0.5), (phase, 0, np.pi), (episodes.x, -5, 5)):
        values = np.ravel(values)
        assert low - 1e-9 <= values.min() <= values.max() <= high + 1e-9
        error = (high - low) / np.sqrt(12 * len(values))
        assert abs(values.mean() - (low + high) / 2) < 5 * error


@pytest.mark.parametrize(
    ("draws", "low", "high"), [("independent", -0.1, 0.1), ("single_key", 0.999, 1)]
)
def test_amplitude_and_phase_are_independent_or_proportional(draws, low, high):
    amplitude, phase = fitted(draw(SineRegression(draws=draws), KEY, 2000))
    assert low <= np.corrcoef(amplitude, phase)[0, 1] <= high + 1e-12


def test_scales_are_traced():
    scales = jax.numpy.array([1.0, 2.0])
    tasks = jax.vmap(lambda scale: SineRegression(input_range=scale))(scales)
    wide = jax.vmap(partial(SineRegression.sample, key=KEY, episodes=5))(tasks)
    np.testing.assert_allclose(2 * wide.x[0], wide.x[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input_range": 0.0},
            r"\.input_range must be a finite number above 0, got 0\.0$",
        ),
        (
            {"least_amplitude": 0.6},
            r"^SineRegression\.least_amplitude must be at most greatest_amplitude \(0\.5\), got 0\.6$",
        ),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        SineRegression(**changes)
