"""Confidence sets of candidate algorithms, for a model that is known to be one of them."""

import jax
import numpy as np
import pytest
from compiled import drawn

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.iterative import IterativeNewton
from toyicl.algorithms.kernel import AveragedLabels
from toyicl.algorithms.ridge import Ridge
from toyicl.analysis.confidence_set import Scaled, best_steps, confidence_set, tuned
from toyicl.analysis.metrics import compare
from toyicl.core.episode import Episode, predict
from toyicl.core.errors import BadInput
from toyicl.models.construction import as_transformer, gradient_descent_transformer
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(dim=3, outputs=2, context_size=6, input_range=2.0)
ETA = 0.9
answer = jax.jit(predict)
MODEL = as_transformer(GradientDescent(ETA), 6, 3, 2)
CANDIDATES = {
    "ridge": Ridge(0.5),
    "GD": GradientDescent(ETA),
    "GD, 2 steps": GradientDescent(ETA, 2),
    "GD++": GradientDescentPlusPlus(ETA, 0.03, 2),
    "Newton": IterativeNewton(ETA / 6, 2),
    "GD again": GradientDescent(ETA),
}


@pytest.fixture(scope="module")
def episodes():
    return drawn(TASK, 5, 200)


@pytest.fixture(scope="module")
def found(episodes):
    return confidence_set(MODEL, CANDIDATES, episodes)


def test_the_set_holds_the_models_own_algorithm_and_no_other(found):
    """Two copies of one candidate are both in the set."""
    assert {name for name, one in found.items() if one.in_set} == {"GD", "GD again"}
    for name in ("GD", "GD again"):
        assert abs(found[name].r_squared - 1) < 1e-6
        assert abs(found[name].model_cosine - 1) < 1e-6
        assert abs(found[name].norm_ratio - 1) < 1e-6
        assert found[name].deficit < 1e-6
    assert max(found[name].r_squared for name in ("Newton", "ridge", "GD++")) < 0.99


def test_the_best_candidates_come_first(found):
    values = [one.r_squared for one in found.values()]
    assert values == sorted(values, reverse=True)
    assert set(found) == set(CANDIDATES)
    assert next(iter(found)) in ("GD", "GD again")


def test_values_agree_with_numpy(close, found, episodes):
    own = np.asarray(answer(MODEL, episodes))
    for name in ("ridge", "Newton"):
        other = np.asarray(answer(CANDIDATES[name], episodes))
        close(found[name].r_squared, 1 - ((own - other) ** 2).sum() / (own**2).sum(), 1e-10)
        close(found[name].deficit, 1 - found[name].r_squared, 1e-10)
    compared = jax.jit(compare)(MODEL, CANDIDATES["ridge"], episodes)
    close(found["ridge"].model_cosine, compared.model_cosine, 1e-10)
    close(found["ridge"].norm_ratio, compared.norm_ratio, 1e-10)


INTERVALS = ("r_squared", "model_cosine", "norm_ratio", "deficit")


def test_intervals_contain_their_values(found):
    for name in ("ridge", "GD, 2 steps", "GD++", "Newton"):
        for field in INTERVALS:
            low, high = getattr(found[name], f"{field}_range")
            assert low < getattr(found[name], field) < high, (name, field)


def test_intervals_shrink_with_more_episodes_and_less_confidence(found, episodes):
    """By about the square root of the number of episodes: 25 instead of 200."""
    few = Episode(*(field[..., :25] for field in episodes))
    wide = confidence_set(MODEL, {"ridge": CANDIDATES["ridge"]}, few)["ridge"]
    narrow = confidence_set(MODEL, {"ridge": CANDIDATES["ridge"]}, episodes, confidence=0.5)[
        "ridge"
    ]
    for field in INTERVALS[:-1]:
        widths = [
            np.diff(getattr(one, f"{field}_range"))[0] for one in (wide, found["ridge"], narrow)
        ]
        assert 1.5 < widths[0] / widths[1] < 6, field
        assert 2 < widths[1] / widths[2] < 4, "normal quantiles: 1.96 / .674 = 2.9"


def test_intervals_cover_the_value_on_many_episodes():
    """One step compared with two: most of 40 intervals of 80% contain the value on 20,000 episodes."""
    many = drawn(TASK, 6, 20_000)
    model, candidates = GradientDescent(ETA), {"two steps": GradientDescent(ETA, 2)}
    own, other = (np.asarray(answer(one, many)) for one in (model, candidates["two steps"]))
    truth = 1 - ((own - other) ** 2).sum() / (own**2).sum()
    covered = 0
    for group in range(40):
        few = jax.tree.map(lambda leaf, start=50 * group: leaf[..., start : start + 50], many)
        options = {"confidence": 0.8, "resamples": 300, "seed": group}
        found = confidence_set(model, candidates, few, **options)["two steps"]
        covered += found.r_squared_range[0] < truth < found.r_squared_range[1]
    assert 24 <= covered <= 39


def test_candidates_within_the_margin_of_the_best_are_in_the_set(found, episodes):
    close_by = {"GD": CANDIDATES["GD"], "nearly": GradientDescent(ETA * 1.01)}
    deficit = 1e-4  # in R^2, of a rate that is wrong by 1%
    for margin, expected in ((1e-3, True), (deficit / 2, False)):
        nearly = confidence_set(MODEL, close_by, episodes, margin=margin)["nearly"]
        assert nearly.deficit == pytest.approx(deficit)
        assert nearly.in_set == expected


def test_the_same_seed_gives_the_same_intervals(found, episodes):
    candidates = {"GD": CANDIDATES["GD"], "Newton": CANDIDATES["Newton"]}
    one, same, other = (
        confidence_set(MODEL, candidates, episodes, seed=seed)["Newton"] for seed in (0, 0, 1)
    )
    assert one == same == found["Newton"]
    assert one.r_squared_range != other.r_squared_range


def test_tuning_finds_a_rate_from_twice_its_value(episodes):
    fitted = tuned(GradientDescent(2 * ETA), MODEL, episodes)
    assert isinstance(fitted, GradientDescent)
    assert abs(float(fitted.learning_rate[...]) / ETA - 1) < 1e-3


def test_a_plain_function_can_be_the_model_and_a_candidate(episodes):
    def model(x, y, x_query):
        return ETA / len(x) * y.T @ x @ x_query

    fitted = tuned(GradientDescent(2 * ETA), model, episodes)
    assert abs(float(fitted.learning_rate[...]) / ETA - 1) < 1e-3
    found = confidence_set(model, {"GD": fitted, "ridge": Ridge(0.5)}, episodes)
    assert [name for name, one in found.items() if one.in_set] == ["GD"]
    assert confidence_set(fitted, {"function": model}, episodes)["function"].r_squared > 0.999
    assert best_steps(model, {k: GradientDescent(ETA, k) for k in (1, 2)}, episodes)[0] == 1


def test_tuning_changes_all_parameters_of_a_copy(episodes):
    candidate = GradientDescentPlusPlus(1.3 * ETA, 0.0, 2)
    model = as_transformer(GradientDescentPlusPlus(ETA, 0.02, 2), 6, 3, 2)
    fitted = tuned(candidate, model, episodes)
    assert (float(candidate.learning_rate[...]), float(candidate.curvature[...])) == (
        1.3 * ETA,
        0.0,
    )
    assert abs(float(fitted.learning_rate[...]) / ETA - 1) < 1e-2
    assert abs(float(fitted.curvature[...]) / 0.02 - 1) < 0.1


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
        ({"candidates": {}}, "^candidates must be at least one, got 0$"),
        ({"confidence": 1.0}, r"^confidence must be between 0 and 1, got 1\.0$"),
        ({"confidence": 0.0}, r"^confidence must be between 0 and 1, got 0\.0$"),
        ({"margin": -0.1}, r"^margin must be at least 0, got -0\.1$"),
        ({"resamples": 1}, "^resamples must be a whole number of at least 2, got 1$"),
    ],
)
def test_bad_input_is_named(changes, message, episodes):
    given = {"model": MODEL, "candidates": CANDIDATES, "episodes": episodes} | changes
    with pytest.raises(ValueError, match=message):
        confidence_set(**given)


def test_bad_tuning_and_an_empty_family_are_named(episodes):
    with pytest.raises(ValueError, match=r"^steps must be a whole number of at least 1, got 0$"):
        tuned(CANDIDATES["GD"], MODEL, episodes, steps=0)
    with pytest.raises(ValueError, match=r"^learning_rate must be a finite number above 0"):
        tuned(CANDIDATES["GD"], MODEL, episodes, learning_rate=0.0)
    with pytest.raises(ValueError, match=r"^family must be at least one number of steps, got 0$"):
        best_steps(MODEL, {}, episodes)


def test_a_model_that_predicts_only_0_is_refused():
    task = LinearRegression(dim=2, context_size=3)
    episodes = drawn(task, 0, 5)
    with pytest.raises(BadInput, match="model must be a learner whose predictions are not all 0"):
        confidence_set(GradientDescent(0.0), {"GD": GradientDescent(1.0)}, episodes)


def test_a_learner_whose_predictions_are_not_finite_is_named(episodes):
    lost = GradientDescent(float("nan"))
    rule = "a learner whose [0-9]+ predictions are finite, got 'GradientDescent with [0-9]+ that"
    with pytest.raises(BadInput, match=f"^model must be {rule}"):
        confidence_set(lost, CANDIDATES, episodes)
    with pytest.raises(BadInput, match=f"^candidate 'lost' must be {rule}"):
        confidence_set(MODEL, {**CANDIDATES, "lost": lost}, episodes)


def test_a_candidate_that_is_a_class_is_named(episodes):
    with pytest.raises(
        BadInput, match=r"^candidate 'GD' must be a learner with its parameters, such"
    ):
        confidence_set(MODEL, {"GD": GradientDescent}, episodes)


def test_candidates_that_ignore_the_query_or_explain_nothing_are_not_in_the_set(episodes):
    """The norm ratio of the former is infinite; a candidate with R^2 < 0 is never in the set."""
    found = confidence_set(
        MODEL, {"mean": AveragedLabels(), "far": GradientDescent(-ETA)}, episodes
    )
    assert found["mean"].norm_ratio == np.inf
    assert found["mean"].norm_ratio_range == (np.inf, np.inf)
    assert found["far"].r_squared < 0
    assert not any(answer.in_set for answer in found.values() if answer.r_squared <= 0)
    assert not found["far"].in_set


def test_best_steps_refuses_models_and_candidates_without_predictions(episodes):
    family = {1: GradientDescent(ETA), 2: GradientDescent(ETA, 2)}
    with pytest.raises(BadInput, match="predictions are finite"):
        best_steps(GradientDescent(float("nan")), family, episodes)
    with pytest.raises(BadInput, match="predictions are not all 0"):
        best_steps(GradientDescent(0.0), family, episodes)
    with pytest.raises(
        BadInput, match=r"^candidate of 1 steps must be a learner with its parameters"
    ):
        best_steps(MODEL, {1: GradientDescent}, episodes)


def test_a_factor_is_tuned_like_any_other_parameter(episodes, close):
    scaled = tuned(Scaled(GradientDescent(ETA)), half_of_the_model(), episodes)
    close(scaled.factor[...] * scaled.learner.learning_rate[...], ETA / 2, 1e-4)


def half_of_the_model():
    """A model whose predictions are half of those of the constructed one."""
    return Scaled(MODEL, 0.5)
