"""Losses and comparisons, for learners whose predictions are known and for every kind of episode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import answer, drawn, loss, predict

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.algorithms.ridge import LeastSquares, Ridge
from toyicl.analysis import metrics
from toyicl.core import episode
from toyicl.core.episode import Episode, squared_error
from toyicl.core.errors import BadInput
from toyicl.models.causal import CausalArchitecture
from toyicl.models.transformer import Architecture
from toyicl.tasks.dynamics import Dynamics
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.prompts import Classification, Prompt, SequenceRegression
from toyicl.tasks.recall import Recall
from toyicl.tasks.sine import SineRegression

TASK = LinearRegression(dim=3, outputs=2, context_size=4, input_range=2.0)
EPISODES = drawn(TASK, 0, 6)
SOFTMAX = Architecture(attention="softmax", init_scale=5.0)(TASK, jax.random.key(1))
compare, observe = jax.jit(metrics.compare), jax.jit(metrics.observe)
jacobian = jax.jit(lambda learner, *one: jax.jacobian(learner, argnums=2)(*one))


def one(index):
    return Episode(*(np.asarray(field[..., index]) for field in EPISODES))


@jax.tree_util.Partial
def zero(x, y, x_query):
    return jnp.zeros(y.shape[1])


def test_loss_is_half_the_squared_error_summed_over_outputs(close):
    learner, total = Ridge(0.5), 0.0
    for index in range(6):
        x, y, x_query, y_query = one(index)
        for error in np.asarray(answer(learner, x, y, x_query)) - y_query:
            total += 0.5 * error**2
    close(loss(learner, EPISODES), total / 6)


def test_the_correct_answer_has_loss_0_and_zero_has_the_power_of_the_labels(close):
    assert loss(LeastSquares(), EPISODES) < 1e-12
    close(loss(zero, EPISODES), np.sum(np.asarray(EPISODES.y_query) ** 2) / 2 / 6)


def test_predictions_keep_episodes_last(close):
    predictions = predict(Ridge(0.5), EPISODES)
    assert predictions.shape == (2, 6)
    for index in range(6):
        close(predictions[:, index], answer(Ridge(0.5), *one(index)[:3]))


def test_sensitivity_agrees_with_finite_differences(close):
    """For a learner that is not linear in its query."""
    sensitivities = jax.jit(metrics.sensitivity)(SOFTMAX, EPISODES)
    assert sensitivities.shape == (2, 3, 6)
    x, y, x_query, y_query = (np.asarray(field) for field in EPISODES)
    for axis in range(3):
        shift = 1e-5 * np.eye(3)[:, [axis]]
        above, below = (
            predict(SOFTMAX, Episode(x, y, x_query + sign * shift, y_query)) for sign in (1, -1)
        )
        close(sensitivities[:, axis], (above - below) / 2e-5, 1e-6)


def test_a_learner_compared_with_itself_shows_no_difference(close):
    comparison = compare(SOFTMAX, SOFTMAX, EPISODES)
    close(comparison.model_cosine, 1.0)
    close(comparison.norm_ratio, 1.0)
    assert comparison.prediction_difference == comparison.model_difference == 0
    close(comparison.loss, loss(SOFTMAX, EPISODES))


def test_twice_the_step_size_changes_everything_except_the_cosine(close):
    comparison = compare(GradientDescent(0.6), GradientDescent(0.3), EPISODES)
    reference = observe(GradientDescent(0.3), EPISODES)
    close(comparison.model_cosine, 1.0)
    close(comparison.norm_ratio, 2.0)
    lengths = np.linalg.norm(reference.predictions, axis=0)
    close(comparison.prediction_difference, lengths.mean())
    close(comparison.loss, loss(GradientDescent(0.6), EPISODES))


def test_the_opposite_step_has_cosine_minus_1(close):
    comparison = compare(GradientDescent(-0.3), GradientDescent(0.3), EPISODES)
    close(comparison.model_cosine, -1.0)
    close(comparison.norm_ratio, 1.0)


def test_a_comparison_is_a_mean_over_episodes(close):
    """Compared with a loop over episodes, with norms of whole (m, d) matrices."""
    learner, reference = Ridge(0.2), GradientDescent(0.3, 2)
    rows, norms = [], []
    for index in range(6):
        x, y, x_query, _ = one(index)
        own, other = (jacobian(model, x, y, x_query) for model in (learner, reference))
        own, other = np.asarray(own), np.asarray(other)
        gap = np.asarray(answer(learner, x, y, x_query) - answer(reference, x, y, x_query))
        lengths = np.sqrt((own**2).sum()), np.sqrt((other**2).sum())
        norms.append(lengths)
        rows.append(
            (
                np.sqrt((gap**2).sum()),
                np.sqrt(((own - other) ** 2).sum()),
                (own * other).sum() / lengths[0] / lengths[1],
            )
        )
    comparison = compare(learner, reference, EPISODES)
    prediction_difference, model_difference, cosine = np.mean(rows, axis=0)
    close(comparison.prediction_difference, prediction_difference, 1e-10)
    close(comparison.model_difference, model_difference, 1e-10)
    close(comparison.model_cosine, cosine, 1e-10)
    own_norm, other_norm = np.mean(norms, axis=0)
    close(comparison.norm_ratio, own_norm / other_norm, 1e-10)


def test_a_learner_that_ignores_its_query_has_cosine_0(close):
    comparison = compare(zero, GradientDescent(0.3), EPISODES)
    assert comparison.model_cosine == comparison.norm_ratio == 0
    assert all(np.isfinite(value) for value in comparison)
    lengths = np.linalg.norm(predict(GradientDescent(0.3), EPISODES), axis=0)
    close(comparison.prediction_difference, lengths.mean())


def test_over_snapshots_is_a_loop_over_seeds_and_snapshots(close):
    rates = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    learners = jax.vmap(jax.vmap(GradientDescent))(rates)
    reference = GradientDescent(0.3)
    compared = metrics.over_snapshots(
        lambda learner: compare(learner, reference, EPISODES), learners
    )
    for values in compared:
        assert isinstance(values, np.ndarray)
        assert values.shape == (2, 3)
    for seed in range(2):
        for snapshot in range(3):
            alone = compare(GradientDescent(rates[seed, snapshot]), reference, EPISODES)
            for together, value in zip(compared, alone, strict=True):
                assert abs(together[seed, snapshot] - value) < 1e-12


def test_over_snapshots_compiles_a_measure_once():
    one = GradientDescent(0.5)
    stack = [jax.tree.map(lambda leaf, s=s: np.full((2, 3), s * leaf), one) for s in (1.0, 2.0)]
    metrics.over_snapshots(metrics.loss, stack[0], EPISODES)
    before = metrics._over_learners._cache_size()
    metrics.over_snapshots(metrics.loss, stack[1], jax.tree.map(lambda x: 2 * x, EPISODES))
    assert metrics._over_learners._cache_size() == before


def test_over_snapshots_keeps_the_axes_of_a_measure():
    learners = jax.vmap(jax.vmap(GradientDescent))(np.ones((2, 3)))
    predictions = metrics.over_snapshots(lambda learner: predict(learner, EPISODES), learners)
    assert predictions.shape == (2, 3, 2, 6)


def test_by_default_a_plateau_is_above_the_midpoint_of_the_two_losses():
    losses = np.array([0.40, 0.31, 0.29, 0.20, 0.10])
    assert metrics.on_plateau(losses, 0.2, 0.4).tolist() == [True, True, False, False, False]
    own_references = np.array([0.2, 0.3])
    assert metrics.on_plateau(np.array([0.33, 0.33]), own_references, 0.4).tolist() == [True, False]


def test_a_seed_is_on_the_plateau_of_the_nearest_saddle():
    """At every level; above the first, and below the last, these are the nearest."""
    levels = [1.875, 1.13937, 0.82564, 0.70443, 0.66276]
    losses = np.array([2.5, 1.8, 1.2, 1.1, 0.85, 0.71, 0.69, 0.68, 0.6])
    nearest = metrics.nearest_saddle(losses, levels[-1], levels[0], levels)
    assert nearest.tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4]
    stuck = metrics.on_plateau(losses, levels[-1], levels[0], levels)
    assert stuck.tolist() == (nearest < 4).tolist()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (3.0, 0.7)])
def test_levels_move_with_the_losses_measured_on_the_episodes(scale, shift):
    levels = theory.saddle_losses(LinearRegression(dim=5))
    moved = scale * levels + shift
    nearest = metrics.nearest_saddle(moved, moved[-1], float(moved[0]), levels)
    assert nearest.tolist() == list(range(6))


def test_saddles_close_to_the_optimum_count_as_the_optimum():
    """A loss 1.5% of the way to predicting 0: with 50 directions the nearest level is the 49th."""
    for dim, nearest in ((10, 10), (50, 50)):
        levels = np.linspace(1, 0, dim + 1)
        assert metrics.nearest_saddle(np.array([0.015]), 0.0, 1.0, levels) == nearest
    assert metrics.nearest_saddle(np.array([0.04]), 0.0, 1.0, np.linspace(1, 0, 51)) == 48


def test_a_loss_that_is_not_finite_is_on_no_plateau():
    losses = np.array([np.nan, np.inf, 0.4])
    assert np.isnan(metrics.nearest_saddle(losses, 0.2, 0.4, [0.4, 0.3, 0.2])).tolist() == [
        True,
        True,
        False,
    ]
    assert metrics.on_plateau(losses, 0.2, 0.4).tolist() == [False, False, True]


def test_where_nothing_can_be_learned_there_is_no_plateau():
    assert not metrics.on_plateau(np.array([0.4]), 0.4, 0.4, np.full(4, 0.4)).any()


@pytest.mark.parametrize(("wide", "dtype"), [(True, "float64"), (False, "float32")])
def test_dtypes(wide, dtype):
    def values():
        episodes = TASK.sample(jax.random.key(0), 3)
        return metrics.compare(GradientDescent(0.2), GradientDescent(0.1), episodes)

    with jax.enable_x64(wide):
        shapes = jax.eval_shape(values)
    assert {(value.shape, value.dtype.name) for value in shapes} == {((), dtype)}


def test_trimmed_loss_leaves_out_the_largest_errors():
    predictions = np.zeros((1, 1000))
    labels = np.full((1, 1000), 2.0)
    labels[0, 17] = 1e6
    episodes = Episode(np.zeros((1, 1, 1000)), np.zeros((1, 1, 1000)), np.zeros((1, 1000)), labels)
    answer_zero = jax.tree_util.Partial(lambda x, y, x_query: jnp.zeros(1))
    assert squared_error(predictions, episodes) > 1e8
    assert metrics.trimmed_loss(answer_zero, episodes, 1e-3) == 2.0


def test_losses_of_stacked_learners_are_those_of_each_learner(close):
    stacked = jax.vmap(Ridge)(jnp.array([0.1, 1.0]))
    expected = [loss(Ridge(penalty), EPISODES) for penalty in (0.1, 1.0)]
    close(metrics.losses(stacked, EPISODES), expected)


def test_the_best_multiple_is_a_least_squares_fit(close):
    learner = GradientDescent(0.3)
    answers, labels = (
        np.asarray(v).ravel() for v in (predict(learner, EPISODES), EPISODES.y_query)
    )
    factor = np.linalg.lstsq(answers[:, None], labels)[0]
    expected = 0.5 * np.sum((factor * answers - labels) ** 2) / 6
    close(metrics.best_multiple_loss(learner, EPISODES), expected)
    close(metrics.best_multiple_loss(GradientDescent(0.9), EPISODES), expected)


@jax.tree_util.Partial
def first_label(x, y, x_query):
    """Predicts the first label of the context, so that it depends on the order."""
    return y[0]


def test_permutation_sensitivity_is_a_loop_over_orders(close):
    """For a learner that depends on the order."""
    key = jax.random.key(3)
    orders = np.argsort(jax.random.uniform(key, (2, 4, 6)), axis=1)
    changes, answers = [], []
    for index in range(6):
        x, y, x_query, _ = one(index)
        answers.append(y[0])
        for order in orders[:, :, index]:
            changed = np.asarray(first_label(x[order], y[order], x_query))
            changes.append(np.linalg.norm(changed - y[0]))
    spread = np.sqrt(np.mean(np.sum((np.array(answers) - np.mean(answers, axis=0)) ** 2, axis=1)))
    found = metrics.permutation_sensitivity(first_label, EPISODES, key, 2)
    close(found, np.mean(changes) / spread)
    assert found > 0.3


@pytest.mark.parametrize("learner", [SOFTMAX, GradientDescent(0.3, 2), Ridge(0.5)])
def test_learners_that_do_not_depend_on_the_order_have_permutation_sensitivity_0(learner):
    assert metrics.permutation_sensitivity(learner, EPISODES, jax.random.key(0)) < 1e-12


def test_permutation_sensitivity_does_not_depend_on_scale(close):
    def tenfold(x, y, x_query):
        return 10 * first_label(x, y, x_query) + 1

    key = jax.random.key(0)
    expected = metrics.permutation_sensitivity(first_label, EPISODES, key)
    close(metrics.permutation_sensitivity(tenfold, EPISODES, key), expected)


def test_equal_predictions_have_permutation_sensitivity_0_or_infinity():
    key, alone = jax.random.key(0), Episode(*(field[..., :1] for field in EPISODES))
    assert metrics.permutation_sensitivity(zero, EPISODES, key) == 0
    assert metrics.permutation_sensitivity(first_label, alone, key) == np.inf


def test_a_context_of_one_point_has_permutation_sensitivity_0():
    episodes = drawn(LinearRegression(dim=2, context_size=1), 0, 5)
    assert metrics.permutation_sensitivity(first_label, episodes, jax.random.key(0)) == 0


@pytest.mark.parametrize("permutations", [0, 1.5])
def test_a_bad_number_of_permutations_is_named(permutations):
    with pytest.raises(
        ValueError, match=r"^permutations must be a whole number of at least 1, got"
    ):
        metrics.permutation_sensitivity(zero, EPISODES, jax.random.key(0), permutations)


CAUSAL = CausalArchitecture(width=8, heads=2, mlp_size=6)
SEQUENCE = SequenceRegression(base=LinearRegression(dim=2, context_size=3))
KINDS = {
    "linear regression": (TASK, Architecture(depth=2, attention="softmax")),
    "sine": (SineRegression(), Architecture(embedding_size=4)),
    "recall": (Recall(base=LinearRegression(dim=2, context_size=3)), Architecture()),
    "dynamics": (Dynamics(dim=2, context_size=3, reflections=1), Architecture()),
    "classification": (Classification(dim=2, outputs=3, context_size=4), CAUSAL),
    "sequence regression": (SEQUENCE, CAUSAL),
}


@pytest.fixture(params=KINDS)
def pair(request):
    """Two different learners of a task, and episodes of it."""
    task, build = KINDS[request.param]
    learner, reference = (build(task, jax.random.key(seed)) for seed in (1, 2))
    return learner, reference, drawn(task, 0, 20)


def written_out(learner, episodes):
    """The loss of each episode, computed with NumPy from the learner's predictions."""
    found, several = [], isinstance(episodes, Prompt)
    here = jax.jit(lambda *one: learner.answers(*one) if several else learner(*one)[None])
    for index in range(episodes.x.shape[-1]):
        x, y, x_query, y_query = (np.asarray(field[..., index]) for field in episodes)
        answers = here(x, y, x_query)
        labels = np.concatenate([y, y_query[None]]) if several else y_query[None]
        answers = np.asarray(answers)
        if type(episodes) is Prompt:
            logs = answers - np.log(np.exp(answers).sum(axis=1, keepdims=True))
            found.append(-np.mean(np.sum(labels * logs, axis=1)))
        else:
            found.append(0.5 * np.mean(np.sum((answers - labels) ** 2, axis=1)))
    return np.array(found)


def test_all_losses_are_in_the_episodes_own_error(close, pair):
    learner, reference, episodes = pair
    expected = written_out(learner, episodes)
    close(loss(learner, episodes), expected.mean(), 1e-10)
    close(jax.jit(metrics.errors)(learner, episodes), expected, 1e-10)
    assert compare(learner, reference, episodes).loss == loss(learner, episodes)
    kept = np.sort(expected)[:-2]
    close(metrics.trimmed_loss(learner, episodes, 0.1), kept.mean(), 1e-10)
    assert kept.mean() < 0.99 * expected.mean()
    close(metrics.zero_loss(episodes), written_out(metrics.ZeroLearner(), episodes).mean(), 1e-10)


def test_zero_logits_have_the_entropy_of_the_uniform_distribution(close):
    task, _ = KINDS["classification"]
    close(metrics.zero_loss(drawn(task, 0, 5)), np.log(3))


class Weighted(Episode):
    """Episodes that override their loss, here by four times the squared error."""

    __slots__ = ()

    def loss(self, learner):
        return 4 * squared_error(episode.predict(learner, self), self)


def test_episodes_of_a_users_own_kind_define_all_losses(close):
    learner, episodes = Ridge(0.5), Weighted(*EPISODES)
    for measure in (metrics.loss, metrics.errors, metrics.trimmed_loss):
        close(measure(learner, episodes), 4 * measure(learner, EPISODES))
    close(metrics.zero_loss(episodes), 4 * metrics.zero_loss(EPISODES))
    close(compare(learner, zero, episodes).loss, 4 * compare(learner, zero, EPISODES).loss)


def test_the_best_multiple_is_refused_for_another_error():
    task, build = KINDS["classification"]
    model, episodes = build(task, jax.random.key(1)), drawn(task, 0, 5)
    with pytest.raises(
        BadInput, match=r"^episodes must be scored by the squared error .* 'Prompt'"
    ):
        metrics.best_multiple_loss(model, episodes)
