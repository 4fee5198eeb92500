"""Departure sweeps: trained models compared with the best gradient descent, saved and drawn."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from compiled import drawn

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.core.episode import predict
from toyicl.core.errors import BadInput
from toyicl.plots import sweep_panels
from toyicl.studies import departure_sweep, departures
from toyicl.tasks.dynamics import Dynamics
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.nonlinear import TeacherRegression
from toyicl.tasks.prompts import Classification
from toyicl.training.loop import History, fit
from toyicl.training.step import Training

TASK = LinearRegression(dim=2, context_size=4, input_range=2.0)
TINY = departure_sweep.DepartureSweep(
    task=TASK,
    training=Training(
        steps=100, batch_size=32, snapshot_every=50, learning_rate=0.02, clip_norm=None
    ),
    factor="attention.softmax",
    values=(0.0, 0.5, 1.0),
    evaluation_episodes=300,
)


@pytest.fixture(scope="module", autouse=True)
def few_to_tune_on():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(departure_sweep, "TUNING_EPISODES", 3000)
        yield


@pytest.fixture(scope="module")
def line():
    histories = {
        name: fit(job.build, job.task, job.training, seeds=2)
        for name, job in departure_sweep.trainings(TINY).items()
    }
    return departure_sweep.measure(TINY, histories), histories


def values_of(found):
    """The values of measured variables without their dimensions."""
    return {name: values for name, (_, values) in found.items()}


def test_results_have_a_value_for_each_point_and_seed(line):
    results, histories = line
    assert list(histories) == [f"attention.softmax = {value}" for value in (0.0, 0.5, 1.0)]
    assert results["factor"].values.tolist() == ["attention.softmax"]
    assert results["value"].values.tolist() == [0.0, 0.5, 1.0]
    assert results["seed"].values.tolist() == [0, 1]
    for name in departure_sweep.CONTROLLED:
        assert results[name].dims == ("factor", "value", "stage", "seed")
        assert np.isfinite(results[name]).all()
    assert results["stage"].values.tolist() == ["untrained", "trained"]
    assert results.on_plateau.dtype == bool
    assert results.reference_loss.dims == results.zero_loss.dims == ("factor", "value")
    assert (results.attrs["second_factor"], results.attrs["steps"]) == ("", 100)


def test_measures_are_those_of_one_model_compared_with_descent(line, close):
    results, histories = line
    trained = list(histories.values())
    episodes = drawn(TASK, 2022, 300)
    reference = GradientDescent.shared(TASK)
    for value, seed, snapshot, stage in (
        (2, 1, -1, "trained"),
        (0, 0, -1, "trained"),
        (1, 1, 0, "untrained"),
    ):
        learners = trained[value].learners
        model = jax.tree.map(lambda leaf, at=(seed, snapshot): leaf[at], learners)
        found = {
            name: results[name].sel(stage=stage)[0, value, seed]
            for name in departure_sweep.CONTROLLED
        }
        compared = jax.jit(metrics.compare)(model, reference, episodes)
        for name in ("loss", "model_cosine", "norm_ratio", "prediction_difference"):
            close(found[name], getattr(compared, name), 1e-9)
        own, other = (np.asarray(jax.jit(predict)(one, episodes)) for one in (model, reference))
        close(found["unexplained"], ((own - other) ** 2).sum() / (own**2).sum(), 1e-9)
        target = np.asarray(episodes.y_query)
        gd, none = ((target - other) ** 2).mean() / 2, (target**2).mean() / 2
        close(results.reference_loss[0, value], gd, 1e-9)
        close(results.zero_loss[0, value], none, 1e-9)
        exact_gd, exact_none = theory.gd_shared(TASK, 1).loss, theory.predict_zero_loss(TASK)
        close(found["excess"], (compared.loss - gd) / (exact_none - exact_gd), 1e-9)
        close(results.exact_reference_loss[0, value], exact_gd, 1e-9)


def test_untrained_models_have_excess_1_and_trained_ones_less(line):
    results, _ = line
    gain = (
        results.zero_loss - results.reference_loss
    )  # on as few episodes as here, not yet the exact one
    exact = results.exact_zero_loss - results.exact_reference_loss
    untrained = results.excess.sel(stage="untrained")
    expected = (gain / exact).broadcast_like(untrained)
    np.testing.assert_allclose(untrained, expected, atol=0.02)
    assert float(results.excess.sel(value=0.0, stage="trained").max()) < 0.6


def test_the_best_gradient_descent_has_no_excess(close):
    """One model starts at half the best rate and ends at the best; the other does the reverse."""
    best = float(GradientDescent.shared(TASK).learning_rate[...])
    rates = jnp.array([[best / 2, best], [best, best / 2]])
    learners = jax.tree.map(lambda _: rates, GradientDescent(1.0))
    history = History(learners, np.arange(2), np.arange(2), np.zeros((2, 1)), np.full(2, -1))
    found = values_of(departure_sweep.compare_with_descent(history, TASK, 1, 300))
    for stage, factors in enumerate((np.array([0.5, 1]), np.array([1, 0.5]))):
        close(found["model_cosine"][stage], np.ones(2))
        close(found["norm_ratio"][stage], factors)
        close(found["unexplained"][stage], (1 / factors - 1) ** 2)
        assert (np.abs(found["excess"][stage]) < 1e-12).tolist() == (factors == 1).tolist()
    assert not found["on_plateau"].any()


@pytest.mark.parametrize(
    "task", [TASK, replace(TASK, label_noise=2.0), TeacherRegression(base=TASK)]
)
def test_models_close_to_predicting_0_are_on_their_plateau(task):
    """Also on tasks where the best gradient descent is only slightly better than predicting 0."""
    best = departure_sweep.best_descent(task, 1).learning_rate[...]
    rates = jnp.stack([0.0001 * best, 0.1 * best, 0.3 * best, best])[:, None]
    learners = jax.tree.map(lambda _: rates, GradientDescent(1.0))
    history = History(learners, np.arange(4), np.arange(1), np.zeros((4, 1)), np.full(4, -1))
    found = values_of(departure_sweep.compare_with_descent(history, task, 1, 20_000))
    assert found["on_plateau"].tolist() == [True, True, False, False]


def test_the_exact_loss_is_unknown_for_a_teacher():
    task = TeacherRegression(base=TASK)
    assert np.isnan(departure_sweep.exact_losses(task, 1)).all()
    shared = GradientDescent.shared(TASK).learning_rate[...]
    learners = jax.tree.map(lambda _: jnp.full((1, 1), shared / 2), GradientDescent(1.0))
    history = History(learners, np.arange(1), np.arange(1), np.zeros((1, 1)), np.full(1, -1))
    found = values_of(departure_sweep.compare_with_descent(history, task, 1, 300))
    gain = found["zero_loss"] - found["reference_loss"]
    np.testing.assert_allclose(found["excess"], (found["loss"] - found["reference_loss"]) / gain)
    assert np.isnan(found["exact_reference_loss"])


TEACHER = TeacherRegression(base=TASK, gain=3.0)


@pytest.mark.parametrize("noise", [None, 0.5])
def test_best_descent_is_the_closed_form_where_there_is_one(noise, close):
    task = replace(TASK, label_noise=noise)
    expected = GradientDescent.shared(task, 1)
    found = departure_sweep.best_descent(task, 1)
    assert found.steps == 1
    close(found.learning_rate[...], expected.learning_rate[...])


@pytest.mark.parametrize(
    "task",
    [TEACHER, replace(TASK, covariance=(3.0, 0.5)), replace(TASK, input_range=1e4, distractors=1)],
)
@pytest.mark.parametrize("steps", [1, 3])
def test_best_descent_is_the_best_of_a_grid_elsewhere(task, steps):
    """On the episodes that the rate is tuned on, by NumPy; also where rates are tiny."""
    found = departure_sweep.best_descent(task, steps)
    assert found.steps == steps
    rate = float(found.learning_rate[...])
    x, y, x_query, y_query = (
        np.asarray(field) for field in drawn(task, 2021, departure_sweep.TUNING_EPISODES)
    )

    def loss(rate):
        weights = np.zeros((1, *x_query.shape))
        for _ in range(steps):
            left = y - np.einsum("mde,nde->nme", weights, x)
            weights = weights + rate / len(x) * np.einsum("nme,nde->mde", left, x)
        return ((np.einsum("mde,de->me", weights, x_query) - y_query) ** 2).sum(axis=0).mean() / 2

    grid = [loss(factor * rate) for factor in np.linspace(0.2, 3, 29)]
    assert loss(rate) < min(grid) * (1 + 1e-3)
    assert loss(rate) < 0.9 * loss(0.0)


def test_the_best_rate_may_be_negative():
    """The labels of queries have the opposite sign."""

    class Opposite:
        def sample(self, key, episodes):
            drawn = TASK.sample(key, episodes)
            return drawn._replace(y_query=-drawn.y_query)

    assert -1 < float(departure_sweep.best_descent(Opposite(), 2).learning_rate[...]) < 0


def test_the_best_descent_needs_steps_and_the_squared_error():
    with pytest.raises(BadInput, match=r"^steps must be a whole number of at least 1, got 0$"):
        departure_sweep.best_descent(Dynamics(dim=2, context_size=3), 0)
    message = r"^episodes of the task must be scored by the squared error of .*, got 'Prompt'$"
    with pytest.raises(BadInput, match=message):
        departure_sweep.best_descent(Classification(dim=2, outputs=2, context_size=3), 1)


def test_the_loss_of_predicting_0_is_half_the_mean_square(close):
    episodes = drawn(LinearRegression(dim=2, outputs=3), 0, 50)
    close(metrics.zero_loss(episodes), (np.asarray(episodes.y_query) ** 2).sum() / 100)


def text(figure):
    return figure.get_supxlabel().replace("\n", " ")


def test_a_curve_is_drawn_for_every_seed_and_its_control(line):
    results, _ = line
    results = results.assign(on_plateau=results.on_plateau & False)
    figure = sweep_panels.draw(results)
    figure.canvas.draw()
    assert len(figure.axes) == 5
    curves = [curve for curve in figure.axes[1].lines if len(curve.get_xdata()) == 3]
    assert len(curves) == 4, "two seeds, trained and untrained"
    cosines = results.model_cosine.isel(factor=0)
    np.testing.assert_array_equal(curves[1].get_ydata(), cosines.sel(stage="trained")[:, 1])
    np.testing.assert_array_equal(curves[2].get_ydata(), cosines.sel(stage="untrained")[:, 0])
    assert "100 training steps at every value." in text(figure)


def test_seeds_on_their_plateau_are_rings_outside_the_curve(line):
    results, _ = line
    stuck = results.assign(on_plateau=results.on_plateau.copy(data=[[[0, 0], [0, 1], [0, 0]]]) > 0)
    lines = sweep_panels.draw(stuck).axes[1].lines
    one, ring = lines[1].get_ydata(), lines[-1]
    assert np.isnan(one).tolist() == [False, True, False]
    assert ring.get_markerfacecolor() == "none"
    whole = results.model_cosine.sel(stage="trained")[0, 1, 1]
    np.testing.assert_array_equal(ring.get_ydata(), [np.nan, whole, np.nan])


def test_seeds_on_their_plateau_are_named_with_their_value(line):
    results, _ = line
    stuck = results.assign(on_plateau=results.on_plateau.copy(data=[[[0, 0], [0, 1], [1, 1]]]) > 0)
    sentence = "factor attention.softmax, value 0.5: 1; factor attention.softmax, value 1.0: 0, 1."
    assert sentence in text(sweep_panels.draw(stuck))


def test_factors_with_different_values_are_drawn_in_rows(line):
    """Values of other factors leave no gap in a curve, and each factor has its own scale."""
    results, _ = line
    other = results.assign_coords(factor=["task.anisotropy"], value=[1.0, 5.0, 30.0])
    filling = {"on_plateau": False}
    joined = xr.concat(
        [results, other], "factor", join="outer", combine_attrs="override", fill_value=filling
    )
    figure = sweep_panels.draw_factors(joined, {name: name for name in joined["factor"].values})
    figure.canvas.draw()
    assert len(figure.axes) == 10
    for canvas, values in ((figure.axes[0], [0.0, 0.5, 1.0]), (figure.axes[5], [1.0, 5.0, 30.0])):
        assert canvas.lines[0].get_xdata().tolist() == values
    assert [figure.axes[panel].get_xscale() for panel in (0, 5)] == ["linear", "log"]


def untrained(job):
    """A history of two seeds whose models are at the end what they were at the start."""
    steps, seeds = np.arange(2), np.arange(2)
    models = build(job.build, jax.random.split(jax.random.key(0)))
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf], 1), models)
    return History(twice, steps, seeds, np.zeros((2, 1)), np.full(2, -1))


build = jax.jit(lambda architecture, keys: jax.vmap(architecture, (None, 0))(TASK, keys))


@pytest.fixture(scope="module")
def plane():
    tiny = replace(
        TINY, values=(0.0, 1.0), second_factor="task.sine", second_values=(0.0, 0.5, 1.0)
    )
    histories = {name: untrained(job) for name, job in departure_sweep.trainings(tiny).items()}
    return tiny, departure_sweep.measure(tiny, histories), histories


def of_trained(values, data):
    """Other values of trained models."""
    return values.sel(stage="trained", drop=True).copy(data=data)


def both(values):
    """The same values for trained and untrained models."""
    return values.expand_dims(stage=list(departure_sweep.STAGES))


def test_a_second_factor_makes_a_map(plane, close):
    tiny, results, histories = plane
    assert dict(results.sizes) == {
        "factor": 1,
        "value": 2,
        "second_value": 3,
        "stage": 2,
        "seed": 2,
    }
    assert list(histories) == [
        f"attention.softmax = {softmax}, task.sine = {sine}"
        for softmax in (0.0, 1.0)
        for sine in (0.0, 0.5, 1.0)
    ]
    assert results.attrs["second_factor"] == "task.sine"
    assert results.excess.dims == ("factor", "value", "second_value", "stage", "seed")
    task, _ = tiny.setup((1.0, 0.5))
    episodes = drawn(task, 2022, 300)
    expected = jax.jit(metrics.losses)(list(histories.values())[4].final, episodes)
    close(results.loss.sel(value=1.0, second_value=0.5, stage="trained")[0], expected, 1e-9)


def test_a_map_is_drawn_over_both_factors(plane):
    """Medians exclude seeds on their plateau, and are hatched where all seeds are on it."""
    _, results, _ = plane
    left = of_trained(results.unexplained, np.linspace(0, 0.2, 12).reshape(1, 2, 3, 2))
    stuck = np.zeros((1, 2, 3, 2), bool)
    stuck[0, 0, 1, 0] = stuck[0, 1, 2] = True
    results = results.assign(unexplained=both(left), on_plateau=results.on_plateau.copy(data=stuck))
    figure = sweep_panels.draw(results)
    figure.canvas.draw()
    mesh, contour = figure.axes[4].collections
    medians = left.values[0].mean(axis=-1)
    medians[0, 1] = left.values[0, 0, 1, 1]
    medians[1, 2] = np.nan
    drawn = np.ma.filled(np.ma.ravel(mesh.get_array()), np.nan)
    np.testing.assert_allclose(drawn, medians.T.ravel())
    assert figure.axes[4].patch.get_hatch()
    assert contour.levels.tolist() == [0.05]
    assert "(3 of 12 trainings did not); hatched: no seed did" in text(figure)
    assert "each drawn" not in text(figure)
    assert "White: 5% of the variance is unexplained by gradient descent." in text(figure)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == (
        "attention.softmax",
        "task.sine",
    )


def test_a_map_of_one_value_can_be_drawn(plane):
    _, results, _ = plane
    left = of_trained(results.unexplained, np.linspace(0, 0.2, 12).reshape(1, 2, 3, 2))
    figure = sweep_panels.draw(results.assign(unexplained=both(left)).isel(value=[0]))
    figure.canvas.draw()
    (mesh,) = figure.axes[4].collections  # without a contour, which needs two values or more
    expected = left.values[0, :1].mean(axis=-1).ravel()
    np.testing.assert_allclose(np.ma.ravel(mesh.get_array()), expected)


def test_default_values_are_those_of_the_factors():
    sweep = departure_sweep.DepartureSweep(factor="task.noise", second_factor="attention.heads")
    assert sweep.along() == (departures.find("task.noise").values, (1, 2, 4))
    assert sweep.points()[:2] == [(0.0, 1), (0.0, 2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor": "nonsense"}, r"factor must be one of .*, got 'nonsense'$"),
        ({"second_factor": "nonsense"}, r"factor must be one of .*, got 'nonsense'$"),
        (
            {"second_factor": "attention.softmax"},
            r"second_factor must be different from factor, got 'att",
        ),
        ({"second_values": (1.0,)}, r"second_values must be empty without second_factor, got"),
        (
            {"values": (0.5, 0.5)},
            r"values must be in increasing order, each once, got \(0\.5, 0\.5",
        ),
        (
            {"values": (1.0, 0.0)},
            r"values must be in increasing order, each once, got \(1\.0, 0\.0",
        ),
        (
            {"values": (0.5, 2.0)},
            r"^attention\.softmax cannot be 2 here: Architecture\.softmax_fraction",
        ),
        ({"factor": "attention.heads", "values": (1.5,)}, r"values must be whole numbers for"),
        ({"tolerance": 0.0}, r"tolerance must be a finite number above 0, got 0\.0$"),
        ({"evaluation_episodes": 0}, r"evaluation_episodes must be a whole number"),
        (
            {"factor": "task.sine", "second_factor": "task.network"},
            r"second_factor must be a factor that keeps the values of task\.sine, got 'task\.network'$",
        ),
        (
            {"factor": "model.depth", "second_factor": "model.recurrent_depth"},
            r"second_factor must be a factor that keeps the values of model\.depth",
        ),
        ({"factor": "task.noise", "second_factor": "task.sine"}, r"task\.sine cannot be 0 here: "),
    ],
)
def test_bad_settings_are_named_before_anything_is_trained(changes, message):
    with pytest.raises(BadInput, match=message):
        departure_sweep.DepartureSweep(**changes)
