"""Which algorithms explain a model: a model that is known to be one of them."""

import jax
import numpy as np
import pytest

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.iterative import IterativeNewton
from toyicl.algorithms.kernel import AveragedLabels
from toyicl.algorithms.ridge import Ridge
from toyicl.analysis import confidence_set
from toyicl.analysis.confidence_set import Scaled, best_steps, explain
from toyicl.analysis.metrics import compare
from toyicl.core.episode import Episode, predict
from toyicl.core.errors import BadInput
from toyicl.models.construction import as_transformer, gradient_descent_transformer
from toyicl.tasks.linear import LinearRegression

pytestmark = pytest.mark.usefixtures("plain_compiler")

TASK = LinearRegression(dim=3, outputs=2, context_size=6, input_range=2.0)
ETA = 0.9
answer = jax.jit(predict)
MODEL = as_transformer(GradientDescent(ETA), 6, 3, 2)
RIVALS = {
    "ridge": Ridge(0.5),
    "GD": GradientDescent(ETA),
    "GD, 2 steps": GradientDescent(ETA, 2),
    "GD++": GradientDescentPlusPlus(ETA, 0.03, 2),
    "Newton": IterativeNewton(ETA / 6, 2),
    "GD again": GradientDescent(ETA),
}


@pytest.fixture(scope="module")
def episodes():
    return TASK.sample(jax.random.key(5), 200)


@pytest.fixture(scope="module")
def found(episodes):
    return explain(MODEL, RIVALS, episodes)


def test_the_set_is_what_the_model_is_and_nothing_else(found):
    """Two copies of one rival are both in it: a winner would be drawn by chance."""
    assert {name for name, one in found.items() if one.in_set} == {"GD", "GD again"}
    for name in ("GD", "GD again"):
        assert abs(found[name].r_squared - 1) < 1e-6
        assert abs(found[name].model_cosine - 1) < 1e-6
        assert abs(found[name].norm_ratio - 1) < 1e-6
        assert found[name].behind < 1e-6
    assert max(found[name].r_squared for name in ("Newton", "ridge", "GD++")) < 0.99


def test_the_best_come_first(found):
    values = [one.r_squared for one in found.values()]
    assert values == sorted(values, reverse=True)
    assert set(found) == set(RIVALS)
    assert next(iter(found)) in ("GD", "GD again")


def test_values_are_those_of_numpy(close, found, episodes):
    own = np.asarray(answer(MODEL, episodes))
    for name in ("ridge", "Newton"):
        other = np.asarray(answer(RIVALS[name], episodes))
        close(found[name].r_squared, 1 - ((own - other) ** 2).sum() / (own**2).sum(), 1e-10)
        close(found[name].behind, 1 - found[name].r_squared, 1e-10)
    compared = jax.jit(compare)(MODEL, RIVALS["ridge"], episodes)
    close(found["ridge"].model_cosine, compared.model_cosine, 1e-10)
    close(found["ridge"].norm_ratio, compared.norm_ratio, 1e-10)


INTERVALS = ("r_squared", "model_cosine", "norm_ratio", "behind")


def test_intervals_hold_their_values(found):
    for name in ("ridge", "GD, 2 steps", "GD++", "Newton"):
        for field in INTERVALS:
            low, high = getattr(found[name], f"{field}_range")
            assert low < getattr(found[name], field) < high, (name, field)


def test_intervals_shrink_with_more_episodes_and_less_confidence(found, episodes):
    """By about the root of their number: 25 episodes of 200."""
    few = Episode(*(field[..., :25] for field in episodes))
    wide = explain(MODEL, {"ridge": RIVALS["ridge"]}, few)["ridge"]
    unsure = explain(MODEL, {"ridge": RIVALS["ridge"]}, episodes, confidence=0.5)["ridge"]
    for field in INTERVALS[:-1]:
        widths = [
            np.diff(getattr(one, f"{field}_range"))[0] for one in (wide, found["ridge"], unsure)
        ]
        assert 1.5 < widths[0] / widths[1] < 6, field
        assert 2 < widths[1] / widths[2] < 4, "normal quantiles: 1.96 / .674 = 2.9"


def test_an_interval_covers_what_many_episodes_say():
    """One step beside two, on 20,000 episodes: most 80% intervals of 40 groups of 50 hold that."""
    x, y, x_query, _ = (np.asarray(f) for f in TASK.sample(jax.random.key(6), 20_000))
    weights = ETA / 6 * np.einsum("nme,nde->mde", y, x)
    left = y - np.einsum("mde,nde->nme", weights, x)
    further = weights + ETA / 6 * np.einsum("nme,nde->mde", left, x)
    own, other = (np.einsum("mde,de->me", each, x_query) for each in (weights, further))
    apart, size = ((own - other) ** 2).sum(axis=0), (own**2).sum(axis=0)
    truth = 1 - apart.sum() / size.sum()
    draw, covered = np.random.default_rng(0), 0
    for group in range(40):
        part = slice(50 * group, 50 * group + 50)
        sums = np.stack([apart, size, size, size, size], axis=-1)[part]
        picks = draw.multinomial(50, np.full(50, 1 / 50), size=300).astype(float)
        low, high = np.quantile(confidence_set._statistics(picks, sums)[:, 0], [0.1, 0.9])
        covered += low < truth < high
    assert 24 <= covered <= 39


def test_a_margin_lets_in_what_is_as_good_as_the_best(found, episodes):
    close_by = {"GD": RIVALS["GD"], "nearly": GradientDescent(ETA * 1.01)}
    behind = 1e-4  # of R^2: a rate 1% off
    for margin, expected in ((1e-3, True), (behind / 2, False)):
        nearly = explain(MODEL, close_by, episodes, margin=margin)["nearly"]
        assert nearly.behind == pytest.approx(behind)
        assert nearly.in_set == expected


def test_the_same_seed_gives_the_same_intervals(found, episodes):
    rivals = {"GD": RIVALS["GD"], "Newton": RIVALS["Newton"]}
    one, same, other = (explain(MODEL, rivals, episodes, seed=seed)["Newton"] for seed in (0, 0, 1))
    assert one == same == found["Newton"]
    assert one.r_squared_range != other.r_squared_range


def test_tuning_finds_the_rate_from_far_away(episodes):
    tuned = confidence_set.tuned(GradientDescent(2 * ETA), MODEL, episodes)
    assert isinstance(tuned, GradientDescent)
    assert abs(float(tuned.learning_rate[...]) / ETA - 1) < 1e-3


def test_tuning_moves_each_parameter_and_leaves_the_rival_as_it_was(episodes):
    rival = GradientDescentPlusPlus(1.3 * ETA, 0.0, 2)
    model = as_transformer(GradientDescentPlusPlus(ETA, 0.02, 2), 6, 3, 2)
    tuned = confidence_set.tuned(rival, model, episodes)
    assert (float(rival.learning_rate[...]), float(rival.curvature[...])) == (1.3 * ETA, 0.0)
    assert abs(float(tuned.learning_rate[...]) / ETA - 1) < 1e-2
    assert abs(float(tuned.curvature[...]) / 0.02 - 1) < 0.1


def test_the_number_of_steps_is_found(close, episodes):
    model = gradient_descent_transformer(ETA, 6, 3, 2, depth=2)
    family = {steps: GradientDescent(ETA, steps) for steps in (1, 2, 3)}
    best, values = best_steps(model, family, episodes)
    assert best == 2
    assert abs(values[2] - 1) < 1e-10
    own, other = (np.asarray(answer(one, episodes)) for one in (model, family[1]))
    close(values[1], 1 - ((own - other) ** 2).sum() / (own**2).sum(), 1e-10)
    assert list(values) == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rivals": {}}, "^rivals must be at least one, got 0$"),
        ({"confidence": 1.0}, r"^confidence must be between 0 and 1, got 1\.0$"),
        ({"confidence": 0.0}, r"^confidence must be between 0 and 1, got 0\.0$"),
        ({"margin": -0.1}, r"^margin must be at least 0, got -0\.1$"),
        ({"resamples": 1}, "^resamples must be a whole number of at least 2, got 1$"),
    ],
)
def test_bad_input_is_named(changes, message, episodes):
    given = {"model": MODEL, "rivals": RIVALS, "episodes": episodes} | changes
    with pytest.raises(ValueError, match=message):
        explain(**given)


def test_bad_tuning_and_an_empty_family_are_named(episodes):
    with pytest.raises(ValueError, match=r"^steps must be a whole number of at least 1, got 0$"):
        confidence_set.tuned(RIVALS["GD"], MODEL, episodes, steps=0)
    with pytest.raises(ValueError, match=r"^learning_rate must be a finite number above 0"):
        confidence_set.tuned(RIVALS["GD"], MODEL, episodes, learning_rate=0.0)
    with pytest.raises(ValueError, match=r"^family must be at least one number of steps, got 0$"):
        best_steps(MODEL, {}, episodes)


def test_a_model_that_only_predicts_0_has_nothing_to_explain():
    task = LinearRegression(dim=2, context_size=3)
    episodes = task.sample(jax.random.key(0), 5)
    with pytest.raises(BadInput, match="model must be a learner whose predictions are not all 0"):
        explain(GradientDescent(0.0), {"GD": GradientDescent(1.0)}, episodes)


def test_answers_that_are_not_finite_are_refused_with_whose_they_are(episodes):
    lost = GradientDescent(float("nan"))
    rule = "a learner whose [0-9]+ predictions are finite, got 'GradientDescent with [0-9]+ that"
    with pytest.raises(BadInput, match=f"^model must be {rule}"):
        explain(lost, RIVALS, episodes)
    with pytest.raises(BadInput, match=f"^rival 'lost' must be {rule}"):
        explain(MODEL, {**RIVALS, "lost": lost}, episodes)


def test_a_rival_whose_parameters_were_not_chosen_is_named(episodes):
    with pytest.raises(BadInput, match=r"^rival 'GD' must be a learner with its parameters, such"):
        explain(MODEL, {"GD": GradientDescent}, episodes)


def test_rivals_that_ignore_the_query_or_explain_nothing_are_not_in_the_set(episodes):
    """Their norm ratio is infinite, and the best of several that explain nothing is no explanation."""
    found = explain(MODEL, {"mean": AveragedLabels(), "far": GradientDescent(-ETA)}, episodes)
    assert found["mean"].norm_ratio == np.inf
    assert found["mean"].norm_ratio_range == (np.inf, np.inf)
    assert found["far"].r_squared < 0
    assert not any(answer.in_set for answer in found.values() if answer.r_squared <= 0)
    assert not found["far"].in_set


def test_the_number_of_steps_of_a_model_without_answers_is_refused(episodes):
    family = {1: GradientDescent(ETA), 2: GradientDescent(ETA, 2)}
    with pytest.raises(BadInput, match="predictions are finite"):
        best_steps(GradientDescent(float("nan")), family, episodes)
    with pytest.raises(BadInput, match="predictions are not all 0"):
        best_steps(GradientDescent(0.0), family, episodes)
    with pytest.raises(BadInput, match=r"^rival of 1 steps must be a learner with its parameters"):
        best_steps(MODEL, {1: GradientDescent}, episodes)


def test_a_factor_is_tuned_as_any_other_parameter(episodes, close):
    scaled = confidence_set.tuned(Scaled(GradientDescent(ETA)), as_transformer_of_half(), episodes)
    close(scaled.factor[...] * scaled.learner.learning_rate[...], ETA / 2, 1e-4)


def as_transformer_of_half():
    """A model whose answers are half of those of the constructed one."""
    return Scaled(MODEL, 0.5)
