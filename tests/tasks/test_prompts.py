"""Tasks for sequence models: sampled labels, the loss of a prompt, and false labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from toyicl.analysis import metrics
from toyicl.core.errors import BadInput
from toyicl.tasks import prompts
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.prompts import Classification, Prompt, SequenceRegression, with_false_labels

TASK = Classification(dim=3, outputs=4, context_size=5)
COUNT = 4000


class Echo:
    """Predictions at every input that are functions of that input alone."""

    def answers(self, x, y, x_query):
        rows = jnp.concatenate([x, x_query[None]])
        return jnp.sin(rows @ jnp.arange(12.0).reshape(3, 4))

    def __call__(self, x, y, x_query):
        return self.answers(x, y, x_query)[-1]


def test_labels_are_the_classes_of_the_largest_score(close):
    """With prior 1 all episodes have the weights W_0, which the seed determines."""
    episodes = drawn(Classification(dim=3, context_size=5, prior=1.0), 1, COUNT)
    shared = np.asarray(jax.random.normal(jax.random.key(0), (4, 3)))
    for x, y in ((episodes.x[2], episodes.y[2]), (episodes.x_query, episodes.y_query)):
        classes = (shared @ np.asarray(x)).argmax(axis=0)
        close(y, np.eye(4)[classes].T)


def test_one_hot_labels_and_normal_inputs():
    episodes = drawn(TASK, 0, COUNT)
    assert isinstance(episodes, Prompt)
    assert np.array_equal(np.unique(episodes.y), [0, 1])
    np.testing.assert_array_equal(episodes.y.sum(axis=1), 1)
    assert abs(float(episodes.x.mean())) < 4 / np.sqrt(episodes.x.size)
    assert abs(float(episodes.x.var()) - 1) < 4 * np.sqrt(2 / episodes.x.size)


@pytest.mark.parametrize(("prior", "least", "most"), [(0.0, 0.2, 0.3), (0.6, 0.35, 0.7), (1, 1, 1)])
def test_shared_weights_predict_better_for_a_larger_prior(prior, least, most):
    """Accuracy of the shared weights alone: at chance, above chance, and perfect."""
    episodes = drawn(Classification(prior=prior), 3, COUNT)
    shared = jax.random.normal(jax.random.key(0), (4, 4))
    guessed = np.asarray(shared @ episodes.x_query).argmax(axis=0)
    assert least <= np.mean(guessed == np.asarray(episodes.y_query).argmax(axis=0)) <= most


def test_of_size_changes_the_context_size_only():
    assert TASK.of_size(9) == Classification(dim=3, outputs=4, context_size=9)
    task = SequenceRegression(base=LinearRegression(dim=3, context_size=5))
    assert drawn(task.of_size(7), 0, 2).x.shape == (7, 3, 2)


def test_the_loss_of_a_prompt_equals_a_loop_over_episodes_and_inputs(close):
    episodes = drawn(TASK, 0, 6)
    expected = []
    for index in range(6):
        x, y, x_query, y_query = (np.asarray(field[..., index]) for field in episodes)
        for row, label in zip([*x, x_query], [*y, y_query], strict=True):
            logits = np.sin(row @ np.arange(12.0).reshape(3, 4))
            expected.append(np.log(np.exp(logits).sum()) - logits[label.argmax()])
    close(episodes.loss(Echo()), np.mean(expected))
    close(metrics.loss(Echo(), episodes), np.mean(expected))


def test_the_loss_of_a_regression_prompt_is_half_the_squared_error(close):
    base = LinearRegression(dim=3, outputs=4, context_size=5)
    episodes = drawn(SequenceRegression(base=base), 0, 6)
    plain = drawn(base, 0, 6)
    assert all(np.array_equal(a, b) for a, b in zip(episodes, plain, strict=True))
    answers = jax.vmap(Echo().answers, -1, -1)(*episodes[:3])
    labels = np.concatenate([episodes.y, episodes.y_query[None]])
    close(episodes.loss(Echo()), 0.5 * np.mean(np.sum((answers - labels) ** 2, axis=1)))


def test_the_loss_of_a_plain_episode_is_the_squared_error_at_the_query():
    base = LinearRegression(dim=3, outputs=4, context_size=5)
    episodes = drawn(base, 0, 6)
    answers = jax.vmap(Echo(), -1, -1)(*episodes[:3])
    expected = 0.5 * jnp.mean(jnp.sum((answers - episodes.y_query) ** 2, axis=0))
    assert np.array_equal(episodes.loss(Echo()), expected)


def test_transformations_keep_the_class_of_a_prompt():
    episodes = drawn(TASK, 0, 2)
    assert type(jax.tree.map(lambda leaf: leaf, episodes)) is Prompt
    assert type(jax.jit(lambda batch: batch)(episodes)) is Prompt


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5), st.floats(0, 1), st.integers(1, 9), st.integers(2, 5))
def test_the_given_fraction_of_labels_is_false(seed, fraction, count, classes):
    y = np.eye(classes)[np.arange(count) % classes]
    false = np.asarray(with_false_labels(jax.random.key(seed), jnp.asarray(y), fraction))
    assert (false.argmax(axis=1) != y.argmax(axis=1)).sum() == round(fraction * count)
    np.testing.assert_array_equal(false.sum(axis=1), 1)


def test_a_larger_fraction_replaces_the_labels_of_a_smaller_one_and_more(close):
    y = jnp.eye(4)[jnp.arange(16) % 4]
    few, many = (with_false_labels(jax.random.key(3), y, fraction) for fraction in (0.25, 0.5))
    touched = np.asarray(few != y).any(axis=1)
    close(np.asarray(many)[touched], np.asarray(few)[touched])


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_outside_its_bounds_is_refused(fraction):
    with pytest.raises(BadInput, match="fraction of false labels must be between 0 and 1, got"):
        with_false_labels(jax.random.key(0), jnp.eye(3), fraction)


def test_a_single_class_is_refused():
    with pytest.raises(BadInput, match="classes must be at least 2, for a label to be false"):
        with_false_labels(jax.random.key(0), jnp.ones((3, 1)), 0.5)


def test_a_class_without_demonstrations_is_named():
    prompts.require_each_class("task.context_size", jnp.eye(3))
    rule = r"task.context_size must be large enough .* every class, also of \[0, 2\], got 2"
    with pytest.raises(BadInput, match=rule):
        prompts.require_each_class("task.context_size", jnp.eye(3)[jnp.array([1, 1])])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"outputs": 1}, "Classification.outputs must be a whole number of at least 2, got 1"),
        ({"prior": 1.5}, "Classification.prior must be between 0 and 1, got 1.5"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(BadInput, match=message):
        Classification(**bad)
