"""Alignment with references, compared with the same measures of one model at a time."""

import jax
import numpy as np
import pytest
from compiled import loss

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.ridge import Ridge
from toyicl.analysis import metrics
from toyicl.core.datasets import dataset
from toyicl.harness import claim_values, claims
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, released_loss, thinned
from toyicl.studies.shifts import shifts
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import fit
from toyicl.training.step import Training

SETTINGS = Study(
    task=LinearRegression(dim=2, context_size=3),
    model=Architecture(depth=2, shared=True),
    training=Training(
        steps=30, batch_size=16, snapshot_every=10, learning_rate=0.1, clip_norm=None
    ),
    evaluation_episodes=20,
    scales=(0.5, 2.0),
    factors=(1.0, 3.0),
)
compare = jax.jit(metrics.compare)
REFERENCES = {"gd": GradientDescent(0.7, 2), "gdpp": GradientDescentPlusPlus(0.7, 0.1, 2)}


@pytest.fixture(scope="module")
def history():
    return fit(SETTINGS.model, SETTINGS.task, SETTINGS.training, seeds=2)


def one(history, seed, snapshot):
    return jax.tree.map(lambda leaf: leaf[seed, snapshot], history.learners)


def test_alignment_is_the_comparison_at_each_snapshot(close, history):
    results = dataset(alignment(SETTINGS, history, REFERENCES))
    episodes = SETTINGS.episodes()
    for seed, snapshot in ((0, 0), (1, 2), (1, 3)):
        for name in ("gd", "gdpp"):
            expected = compare(one(history, seed, snapshot), REFERENCES[name], episodes)
            for variable, value in expected._asdict().items():
                own = results[variable]
                own = own if variable == "loss" else own.sel(reference=name)
                close(own[seed, snapshot].values, value, 1e-10)
    gdpp = results.reference_loss.sel(reference="gdpp")
    close(gdpp.values, loss(REFERENCES["gdpp"], episodes))
    assert results.on_plateau.dims == ("seed",)


def test_thinned_histories_keep_both_ends_and_even_distances(history):
    long = history._replace(steps=np.arange(301), learners=np.arange(301)[None])
    thin = thinned(long)
    assert (len(thin.steps), thin.steps[0], thin.steps[-1]) == (101, 0, 300)
    assert set(np.diff(thin.steps)) == {3}
    np.testing.assert_array_equal(thin.learners[0], thin.steps)
    np.testing.assert_array_equal(thinned(history).steps, history.steps)


def test_a_third_reference_is_measured_drawn_and_judged_without_a_new_variable(history):
    references = {**REFERENCES, "mine": Ridge(0.1)}
    both, three = (
        dataset(alignment(SETTINGS, history, some), shifts(SETTINGS, history.final, some))
        for some in (REFERENCES, references)
    )
    assert set(both.variables) == set(three.variables)
    assert three.reference.values.tolist() == ["gd", "gdpp", "mine"]
    own = loss(Ridge(0.1), SETTINGS.episodes())
    values = claim_values.loss_over("mine")(three)
    np.testing.assert_allclose(values, three.loss.isel(step=-1) / own)
    value = claim_values.final("model_cosine", "mine")
    finding = claims.Finding("A", "a", value, (-1, 1), source="s")
    assert finding.judge(three)["verdict"] == "holds"
    drawn = {
        "loss": reference_panels.training_panel,
        "mine": reference_panels.alignment_panel("mine"),
        **reference_panels.SHIFTS,
    }
    figure = panels.figure(three, drawn, "A third reference.", columns=3)
    labels = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert any(label.startswith("mine: ") for label in labels)
    assert labels.count("mine") == len(reference_panels.SHIFTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": ()}, r"^Study\.scales must be one value or more, each once, got \(\)$"),
        ({"factors": (1.0, 1.0)}, r"^Study\.factors must be one value or more, each once, got"),
        ({"scales": (0.0,)}, r"^Study\.scales must be a finite number above 0, got 0\.0$"),
        ({"evaluation_episodes": 0}, r"^Study\.evaluation_episodes must be a whole number"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Study(**changes)


def test_the_released_loss_has_coordinates_of_its_own(history):
    found = released_loss(SETTINGS, history)
    dims, values = found["released_loss"]
    assert dims == ("released_seed", "released_step")
    expected = loss(one(history, 1, 2), SETTINGS.episodes())
    assert values.shape == (2, 4)
    np.testing.assert_allclose(values[1, 2], expected, rtol=1e-5)
    np.testing.assert_array_equal(found["released_step"], [0, 10, 20, 30])
    assert found["released_seed"][2] == {"role": "seed"}
