"""Candidates compared with every seed of a model, where each seed is a known algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn
from flax import nnx

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.ridge import Ridge
from toyicl.analysis.confidence_set import confidence_set, tuned
from toyicl.models.construction import as_transformer
from toyicl.plots import comparison_panels, figures
from toyicl.studies import algorithm_comparison
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(dim=3, context_size=6, input_range=2.0)
RATES = (0.9, 0.5)
"""Two seeds' models, each one step of gradient descent."""
CANDIDATES = {
    "GD": GradientDescent(RATES[0]),
    "GD, twice": GradientDescent(RATES[0], 2),
    "GD++": GradientDescentPlusPlus(0.9, 0.03, 2),
    "ridge": Ridge(0.5),
}


@pytest.fixture(scope="module")
def models():
    own = [as_transformer(GradientDescent(rate), 6, 3) for rate in RATES]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)


@pytest.fixture(scope="module")
def episodes():
    return drawn(TASK, 0, 600)


@pytest.fixture(scope="module")
def found(models, episodes):
    return algorithm_comparison.compare(models, CANDIDATES, episodes)


def test_each_seed_is_compared_separately(found):
    """The first seed is a candidate unchanged; the second only after the rate is fitted to it."""
    assert dict(found.candidate_r_squared.sizes) == {"seed": 2, "tuning": 2, "candidate": 4}
    own = found.candidate_r_squared.sel(tuning="task", candidate="GD").values
    assert abs(own[0] - 1) < 1e-10
    np.testing.assert_allclose(own[1], 1 - (1 - RATES[0] / RATES[1]) ** 2, atol=1e-6)
    tuned = found.candidate_r_squared.sel(tuning="model", candidate="GD").values
    np.testing.assert_allclose(tuned, 1, atol=1e-6)
    kept = found.candidate_in_set.sel(tuning="task")
    assert list(kept.candidate.values[kept.isel(seed=0).values]) == ["GD"]


def test_it_agrees_with_confidence_set_on_the_second_half(found, models, episodes):
    second = jax.tree.map(lambda leaf: leaf[..., 300:], episodes)
    model = jax.tree.map(lambda leaf: leaf[1], models)
    expected = confidence_set(model, CANDIDATES, second)
    for name, fit in expected.items():
        here = found.sel(tuning="task", candidate=name).isel(seed=1)
        assert float(here.candidate_r_squared) == fit.r_squared
        assert tuple(here.candidate_r_squared_range.values) == fit.r_squared_range
        assert float(here.candidate_norm_ratio) == fit.norm_ratio
        assert bool(here.candidate_in_set) == fit.in_set


def test_candidates_are_fitted_on_the_first_half(models, episodes, found):
    first = jax.tree.map(lambda leaf: leaf[..., :300], episodes)
    model = jax.tree.map(lambda leaf: leaf[1], models)
    ridge = tuned(algorithm_comparison.with_equal_parameters(CANDIDATES)["ridge"], model, first)
    second = jax.tree.map(lambda leaf: leaf[..., 300:], episodes)
    expected = confidence_set(model, {"ridge": ridge}, second)["ridge"]
    here = found.sel(tuning="model", candidate="ridge").isel(seed=1)
    np.testing.assert_allclose(float(here.candidate_r_squared), expected.r_squared, rtol=1e-12)


def test_candidates_get_equal_numbers_of_parameters():
    adjustable = algorithm_comparison.with_equal_parameters(CANDIDATES)
    assert list(adjustable) == list(CANDIDATES)
    assert adjustable["GD++"] is CANDIDATES["GD++"]
    for one in adjustable.values():
        assert len(jax.tree.leaves(nnx.state(one, nnx.Param))) == 2


def test_nearest_number_of_steps(models, episodes):
    family = {steps: GradientDescent(RATES[0], steps) for steps in (1, 2, 3)}
    assert algorithm_comparison.nearest_steps(models, family, episodes).tolist() == [1, 1]


def test_residuals_of_models_and_candidates_share_eigenvalues(models, episodes):
    x = episodes.x[..., :5]
    found = algorithm_comparison.residuals(
        models, {"GD": CANDIDATES["GD"], "ridge": CANDIDATES["ridge"]}, x
    )
    s = found.eigenvalue.values
    for seed, rate in enumerate(RATES):
        np.testing.assert_allclose(found.residual.values[seed], 1 - rate * s / 6, atol=1e-9)
    np.testing.assert_allclose(
        found.candidate_residual.sel(drawn="ridge"), 0.5 / (s + 0.5), atol=1e-9
    )


def test_panels_show_every_seed_and_fill_those_in_the_set(found, models, episodes):
    drawn = algorithm_comparison.residuals(models, {"GD": CANDIDATES["GD"]}, episodes.x[..., :5])
    results = found.merge(drawn).assign(on_plateau=("seed", [False, True]))
    results = results.assign_coords(seed=[0, 1])
    figure = figures.panels(1, 2)
    left, right = figure.axes
    comparison_panels.unexplained_panel("task")(left, results)
    comparison_panels.residual_panel(right, results)
    filled = [line for line in left.lines if line.get_markerfacecolor() != "none"]
    kept = found.candidate_in_set.sel(tuning="task").sum("candidate").values.tolist()
    assert [len(line.get_xdata()) for line in filled] == kept
    assert [text.get_text() for text in left.get_yticklabels()] == list(CANDIDATES)
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["GD", "trained"]
    figure.canvas.draw()


def test_a_diverged_seed_is_nan_and_changes_no_other_seed(models, episodes, found):
    lost = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), models)
    again = algorithm_comparison.compare(lost, CANDIDATES, episodes)
    assert np.isnan(again.candidate_r_squared.isel(seed=0)).all()
    assert not again.candidate_in_set.isel(seed=0).any()
    np.testing.assert_array_equal(again.candidate_r_squared[1], found.candidate_r_squared[1])
    steps = algorithm_comparison.nearest_steps(lost, {1: CANDIDATES["GD"]}, episodes)
    np.testing.assert_array_equal(steps, [np.nan, 1])


def test_a_diverged_candidate_is_nan_and_changes_no_other_candidate(models, episodes, found):
    again = algorithm_comparison.compare(
        models, {**CANDIDATES, "lost": GradientDescent(float("nan"))}, episodes
    )
    assert np.isnan(again.candidate_r_squared.sel(candidate="lost")).all()
    own = again.candidate_r_squared.sel(tuning="task", candidate="GD")
    np.testing.assert_array_equal(own, found.candidate_r_squared.sel(tuning="task", candidate="GD"))
