"""Gradient descent on learned features compared with its definition and with a plain step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.models.feature_descent import FeatureDescent, MetaLearner
from toyicl.tasks.sine import SineRegression
from toyicl.training.loop import fit
from toyicl.training.step import Training

DRAW = np.random.default_rng(0)
X, Y, QUERY = DRAW.normal(size=(6, 2)), DRAW.normal(size=(6, 3)), DRAW.normal(size=2)


class Twice:
    """Features that are twice the inputs."""

    def __call__(self, tokens):
        return 2 * tokens


def test_it_is_gradient_descent_on_the_features(close):
    start = DRAW.normal(size=(3, 2))
    learner = FeatureDescent(Twice(), jnp.asarray(start), 0.3)
    plain = GradientDescent(0.3, initial_weights=start)
    close(learner(X, Y, QUERY), plain(2 * X, Y, 2 * QUERY))
    close(learner.before(X, Y, QUERY), start @ (2 * QUERY))


def test_the_step_follows_the_negative_gradient_of_the_context_loss(close):
    learner = MetaLearner(width=5, hidden=7, learning_rate=0.2)(SineRegression(), jax.random.key(0))
    x, y, query = X[:, :1], Y[:, :1], QUERY[:1]
    start = DRAW.normal(size=(1, 5))
    learner.initial_weights[...] = jnp.asarray(start)
    features, of_query = learner.features(x), learner.features(query)

    def loss(weights):
        return 0.5 * jnp.mean(jnp.sum((features @ weights.T - y) ** 2, axis=1))

    expected = (start - 0.2 * jax.grad(loss)(jnp.asarray(start))) @ of_query
    close(learner(x, y, query), expected)


def test_training_changes_features_and_initial_weights_but_not_the_step_size():
    training = Training(steps=20, batch_size=16, snapshot_every=20, clip_norm=None)
    history = fit(MetaLearner(width=4, hidden=4), SineRegression(), training)
    learners = history.learners
    assert np.any(learners.initial_weights[0, 1] != learners.initial_weights[0, 0])
    linear = learners.features.linear
    assert np.any(linear[0, 1] != linear[0, 0])
    np.testing.assert_array_equal(learners.learning_rate[0], [1.0, 1.0])


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"^MetaLearner\.width must be a whole number"):
        MetaLearner(width=0)
    with pytest.raises(
        ValueError, match=r"^MetaLearner\.learning_rate must be a finite number above 0"
    ):
        MetaLearner(learning_rate=0.0)
