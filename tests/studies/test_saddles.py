"""Which models have known saddle points, and what alignment and figures make of them."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import xarray as xr

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.core.datasets import dataset, side_by_side
from toyicl.models.construction import gradient_descent_transformer, with_circuits
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels, reference_panels
from toyicl.studies.alignment import Study, alignment, where_losses_change
from toyicl.studies.saddles import known_saddles, stays_near
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.sine import SineRegression
from toyicl.training.loop import History

TASK = LinearRegression(dim=3, context_size=4)
STUDY = Study(task=TASK, evaluation_episodes=500)


def resting(ranks, task=TASK):
    """A history of layers whose step matrix is the best one of each of these ranks, from weights 0."""
    step, size = theory.optimal_scale(task), task.dim + 1
    label = np.diag(np.arange(size) == task.dim).astype(float)
    rows = []
    for rank in ranks:
        kept = np.diag(np.arange(size) < rank).astype(float)
        weights = [(factor * step * kept, -label) for factor in (0.0, 1.0)]
        layers = [with_circuits([circuits], task.dim) for circuits in weights]
        rows.append(jax.tree.map(lambda *leaves: np.stack(leaves), *layers))
    learners = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    count = len(ranks)
    return History(
        learners, np.arange(2), np.arange(count), np.zeros((count, 1)), np.full(count, -1)
    )


def aligned(ranks, task=TASK):
    references = {"gd": GradientDescent.shared(task)}
    return dataset(alignment(replace(STUDY, task=task), resting(ranks, task), references))


def test_a_layer_rests_on_the_saddle_of_the_rank_of_its_matrix():
    results = aligned([0, 1, 2, 3])
    np.testing.assert_allclose(results.saddle_loss, theory.saddle_losses(TASK))
    assert results.saddle.values.tolist() == [0, 1, 2, 3]
    assert results.nearest_saddle.values.tolist() == [0, 1, 2, 3]
    assert results.on_plateau.values.tolist() == [True, True, True, False]


@pytest.mark.parametrize("heads", [1, 2])
def test_saddles_of_one_linear_layer_are_known(heads):
    model = Architecture(heads=heads)(TASK, jax.random.key(0))
    np.testing.assert_array_equal(known_saddles(model, TASK), theory.saddle_losses(TASK))


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "softmax"},
        {"attention": "mixed"},
        {"depth": 2},
        {"depth": 2, "shared": True},
        {"mlp_size": 4},
        {"layer_norm": True},
        {"token_clip": 10.0},
        {"embedding_size": 6},
        {"tokens": "separate"},
        {"key_size": 2},
    ],
)
def test_saddles_of_other_models_are_not_known(changes):
    model = Architecture(**changes)(TASK, jax.random.key(0))
    assert known_saddles(model, TASK) is None


def test_heads_are_wide_enough_together():
    model = Architecture(heads=2, key_size=2)(TASK, jax.random.key(0))
    assert known_saddles(model, TASK) is not None


@pytest.mark.parametrize(
    "task",
    [
        replace(TASK, outputs=2),
        replace(TASK, input_distribution="exponential"),
        replace(TASK, covariance=(1.0, 2.0, 3.0)),
        SineRegression(),
    ],
)
def test_saddles_on_other_tasks_are_not_known(task):
    model = Architecture()(task, jax.random.key(0))
    assert known_saddles(model, task) is None


def test_a_learner_that_is_no_transformer_has_no_known_saddles():
    assert known_saddles(GradientDescent(0.5), TASK) is None


def test_a_deeper_model_above_its_reference_is_on_no_plateau():
    """Two steps that are too short lose more than the best two, and rest on no saddle point."""
    rate = float(GradientDescent.shared(TASK, 2).learning_rate[...])
    model = gradient_descent_transformer(0.5 * rate, 4, dim=3, depth=2)
    learners = jax.tree.map(lambda leaf: np.asarray(leaf)[None, None], model)
    history = History(learners, np.arange(1), np.arange(1), np.zeros((1, 0)), np.array([-1]))
    found = dataset(alignment(STUDY, history, {"gd": GradientDescent.shared(TASK, 2)}))
    assert float(found.loss[0, 0]) > 1.05 * float(found.reference_loss[0])
    assert not found.on_plateau.any()
    assert "nearest_saddle" not in found
    assert "saddle_loss" not in found


def caption(results):
    return panels.figure(results, {"loss": reference_panels.training_panel}, "").get_supxlabel()


def test_figures_name_the_loss_of_the_saddle_of_each_stuck_seed():
    results = aligned([3, 1, 2])
    first, second = (f"{loss:.4f}" for loss in theory.saddle_losses(TASK)[1:3])
    text = " ".join(caption(results).split())
    assert f"seed 1 (saddle point of loss {first}), 2 (saddle point of loss {second})." in text
    unknown = results.drop_vars(["nearest_saddle", "saddle_loss"])
    assert "seed 1, 2." in " ".join(caption(unknown).split())
    assert "plateau" not in caption(aligned([3, 3]))


def test_figures_name_saddles_of_several_models():
    """Models without known saddle points are named without a loss."""
    known, other = aligned([3, 1]), aligned([1, 3]).drop_vars(["nearest_saddle", "saddle_loss"])
    both = side_by_side({1: known, 2: other.drop_vars("saddle")}, "layers")
    sentences = figures.common_sentences(both)
    loss = theory.saddle_losses(TASK)[1]
    expected = f"layers 1: 1 (saddle point of loss {loss:.4f}); layers 2: 0."
    assert any(sentence.endswith(expected) for sentence in sentences)


def heights(results):
    """Losses of the horizontal lines of the saddle points, and their label."""
    figure = panels.figure(results, {"loss": reference_panels.training_panel}, "")
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts() if "saddle" in str(text)]
    return [float(line.get_ydata()[0]) for line in axes.lines], labels


def test_training_curves_have_a_line_for_each_saddle_between_the_ends():
    losses = theory.saddle_losses(TASK)
    drawn, labels = heights(aligned([3, 1]))
    assert {losses[1], losses[2]} <= set(drawn)
    assert losses[0] not in drawn
    assert labels == [f"saddle points: {losses[1]:.4f}, {losses[2]:.4f}"]


def test_of_many_saddles_the_first_is_drawn():
    task = LinearRegression(dim=8, context_size=8)
    losses = theory.saddle_losses(task)
    drawn, labels = heights(aligned([1], task))
    assert losses[1] in drawn
    assert not set(losses[2:-1]) & set(drawn)
    assert labels == [f"first saddle point: {losses[1]:.4f}"]


def test_one_input_has_no_saddle_between_the_ends():
    _, labels = heights(aligned([1], LinearRegression(dim=1, context_size=4)))
    assert labels == []


def test_padding_of_other_models_draws_nothing():
    other = aligned([3]).drop_vars(["nearest_saddle", "saddle_loss", "saddle"])
    both: xr.Dataset = side_by_side({1: aligned([3]), 2: other}, "layers")
    figure = panels.figure(
        both,
        panels.grid({1: "one", 2: "two"}, "layers", {"loss": reference_panels.training_panel}),
        "",
    )
    saddles = [
        sum("saddle" in text.get_text() for text in axes.get_legend().get_texts())
        for axes in figure.axes
    ]
    assert saddles == [1, 0]


def losses_of(rows, steps):
    return xr.DataArray(rows, dims=("seed", "step"), coords={"step": steps})


def test_a_loss_that_stays_near_a_level_is_marked_and_one_that_passes_is_not():
    rows = [[4.0, 3.01, 2.99, 3.0, 1.0], [4.0, 3.0, 2.0, 1.0, 3.0], [9.0, 9.0, 9.0, 9.0, 9.0]]
    found = stays_near(losses_of(rows, [0, 100, 200, 300, 400]), 3.0, distance=0.02, steps=150)
    expected = [[0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(found.values, np.array(expected, bool))
    longer = stays_near(losses_of(rows, [0, 100, 200, 300, 400]), 3.0, distance=0.02, steps=250)
    assert not longer.any()


def history_of(losses):
    seeds, snapshots = np.shape(losses)
    learners = {"loss": np.asarray(losses, float)}
    steps = np.arange(snapshots) * 10
    return History(learners, steps, np.arange(seeds), np.zeros((seeds, 1)), np.full(seeds, -1))


def test_kept_snapshots_are_dense_where_losses_change():
    losses = np.ones((2, 101))
    losses[:, 10:21] = np.linspace(1, 0, 11)
    losses[:, 21:] = 0
    kept = where_losses_change(history_of(losses), losses, 21)
    assert kept.steps[0] == 0
    assert kept.steps[-1] == 1000
    assert len(kept.steps) <= 21
    inside = (kept.steps >= 100) & (kept.steps <= 200)
    assert inside.sum() >= 9  # half of the distance is in a tenth of the steps
    np.testing.assert_array_equal(kept.learners["loss"], losses[:, kept.steps // 10])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_seed_does_not_change_which_snapshots_span_the_training(bad):
    losses = np.vstack([np.linspace(1, 0, 101), np.full(101, bad)])
    kept = where_losses_change(history_of(losses), losses, 11)
    assert kept.steps[0] == 0
    assert kept.steps[-1] == 1000
    assert len(kept.steps) == 11
