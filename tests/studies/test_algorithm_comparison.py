"""Rivals beside every seed of a model: seeds that are known to be different algorithms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.ridge import Ridge
from toyicl.analysis.confidence_set import confidence_set, tuned
from toyicl.models.construction import as_transformer
from toyicl.plots import figures
from toyicl.studies import algorithm_comparison
from toyicl.tasks.linear import LinearRegression

pytestmark = pytest.mark.usefixtures("plain_compiler")

TASK = LinearRegression(dim=3, context_size=6, input_range=2.0)
RATES = (0.9, 0.5)
"""Two seeds' models, each one step of gradient descent."""
RIVALS = {
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
    return TASK.sample(jax.random.key(0), 600)


@pytest.fixture(scope="module")
def found(models, episodes):
    return algorithm_comparison.beside(models, RIVALS, episodes)


def test_each_seed_has_its_own_answer(found):
    """The first seed is the rival as it is; the second one only once the rate is tuned to it."""
    assert dict(found.rival_r_squared.sizes) == {"seed": 2, "tuning": 2, "rival": 4}
    own = found.rival_r_squared.sel(tuning="own", rival="GD").values
    assert abs(own[0] - 1) < 1e-10
    np.testing.assert_allclose(own[1], 1 - (1 - RATES[0] / RATES[1]) ** 2, atol=1e-6)
    tuned = found.rival_r_squared.sel(tuning="tuned", rival="GD").values
    np.testing.assert_allclose(tuned, 1, atol=1e-6)
    kept = found.rival_in_set.sel(tuning="own")
    assert list(kept.rival.values[kept.isel(seed=0).values]) == ["GD"]


def test_it_agrees_with_confidence_set_on_the_second_half(found, models, episodes):
    second = jax.tree.map(lambda leaf: leaf[..., 300:], episodes)
    model = jax.tree.map(lambda leaf: leaf[1], models)
    alone = confidence_set(model, RIVALS, second)
    for name, answer in alone.items():
        here = found.sel(tuning="own", rival=name).isel(seed=1)
        assert float(here.rival_r_squared) == answer.r_squared
        assert tuple(here.rival_r_squared_range.values) == answer.r_squared_range
        assert float(here.rival_norm_ratio) == answer.norm_ratio
        assert bool(here.rival_in_set) == answer.in_set


def test_rivals_are_tuned_on_other_episodes(models, episodes, found):
    """Other answers in the second half leave tuned rivals where they were."""
    first = jax.tree.map(lambda leaf: leaf[..., :300], episodes)
    model = jax.tree.map(lambda leaf: leaf[1], models)
    ridge = tuned(algorithm_comparison.given_as_many(RIVALS)["ridge"], model, first)
    second = jax.tree.map(lambda leaf: leaf[..., 300:], episodes)
    alone = confidence_set(model, {"ridge": ridge}, second)["ridge"]
    here = found.sel(tuning="tuned", rival="ridge").isel(seed=1)
    np.testing.assert_allclose(float(here.rival_r_squared), alone.r_squared, rtol=1e-12)


def test_all_get_as_many_free_numbers_as_the_freest():
    free = algorithm_comparison.given_as_many(RIVALS)
    assert list(free) == list(RIVALS)
    assert free["GD++"] is RIVALS["GD++"]
    for one in free.values():
        assert len(jax.tree.leaves(nnx.state(one, nnx.Param))) == 2


def test_the_nearest_number_of_steps(models, episodes):
    family = {steps: GradientDescent(RATES[0], steps) for steps in (1, 2, 3)}
    assert algorithm_comparison.nearest_steps(models, family, episodes).tolist() == [1, 1]


def test_residuals_are_laid_over_the_same_eigenvalues(models, episodes):
    x = episodes.x[..., :5]
    found = algorithm_comparison.residuals(
        models, {"GD": RIVALS["GD"], "ridge": RIVALS["ridge"]}, x
    )
    s = found.eigenvalue.values
    for seed, rate in enumerate(RATES):
        np.testing.assert_allclose(found.residual.values[seed], 1 - rate * s / 6, atol=1e-9)
    np.testing.assert_allclose(found.rival_residual.sel(drawn="ridge"), 0.5 / (s + 0.5), atol=1e-9)


def test_panels_show_every_seed_and_what_is_in_the_set(found, models, episodes):
    drawn = algorithm_comparison.residuals(models, {"GD": RIVALS["GD"]}, episodes.x[..., :5])
    results = found.merge(drawn).assign(on_plateau=("seed", [False, True]))
    results = results.assign_coords(seed=[0, 1])
    figure = figures.panels(1, 2)
    left, right = figure.axes
    algorithm_comparison.left_panel("own")(left, results)
    algorithm_comparison.residual_panel(right, results)
    filled = [line for line in left.lines if line.get_markerfacecolor() != "none"]
    kept = found.rival_in_set.sel(tuning="own").sum("rival").values.tolist()
    assert [len(line.get_xdata()) for line in filled] == kept
    assert [text.get_text() for text in left.get_yticklabels()] == list(RIVALS)
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["GD", "trained"]
    figure.canvas.draw()


def test_a_seed_that_diverged_is_explained_by_none_and_the_others_are(models, episodes, found):
    lost = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), models)
    again = algorithm_comparison.beside(lost, RIVALS, episodes)
    assert np.isnan(again.rival_r_squared.isel(seed=0)).all()
    assert not again.rival_in_set.isel(seed=0).any()
    np.testing.assert_array_equal(again.rival_r_squared[1], found.rival_r_squared[1])
    steps = algorithm_comparison.nearest_steps(lost, {1: RIVALS["GD"]}, episodes)
    np.testing.assert_array_equal(steps, [np.nan, 1])


def test_a_rival_without_finite_answers_explains_nothing_and_the_others_do(models, episodes, found):
    again = algorithm_comparison.beside(
        models, {**RIVALS, "lost": GradientDescent(float("nan"))}, episodes
    )
    assert np.isnan(again.rival_r_squared.sel(rival="lost")).all()
    own = again.rival_r_squared.sel(tuning="own", rival="GD")
    np.testing.assert_array_equal(own, found.rival_r_squared.sel(tuning="own", rival="GD"))
