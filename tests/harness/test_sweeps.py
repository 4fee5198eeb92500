"""Sweeps: measured as if alone, trained together, labelled by what was swept."""

import contextlib
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from programs import SMALL, here, toyicl

from toyicl.core.errors import BadInput
from toyicl.harness import checkpoints, runner, sweeps
from toyicl.harness.checkpoints import Checkpoint, CheckpointManager
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Job, Plan, fit_all, kind
from toyicl.training.placement import AcrossRuns
from toyicl.training.step import Training, advance

SHORT = Training(steps=20, batch_size=16, snapshot_every=10)
TASK = LinearRegression(dim=2, context_size=3)


def asking(*labels):
    """A measurement that asks for trainings and returns what it was answered."""
    return lambda fit: [fit(None, None, None, label=label) for label in labels]


def test_equal_labels_are_answered_together():
    asked = []

    def train(requests):
        asked.append([request.label for request in requests])
        return [[f"{request.label}{index}"] for index, request in enumerate(requests)]

    found = sweeps.measure_together([asking("a", "b"), asking("a"), asking("a", "b")], train)
    assert asked == [["a", "a", "a"], ["b", "b"]]
    assert found == [["a0", "b0"], ["a1"], ["a2", "b1"]]


def test_jobs_are_answered_together_in_their_order():
    asked = []

    def train(requests):
        asked.append([[job.name for job in request.jobs] for request in requests])
        return [[f"{index}{job.name}" for job in r.jobs] for index, r in enumerate(requests)]

    def measure(fit):
        return fit.together([Job(None, None, None, name) for name in "ab"], label="both")

    assert sweeps.measure_together([measure, measure], train) == [["0a", "0b"], ["1a", "1b"]]
    assert asked == [[["a", "b"], ["a", "b"]]]
    with pytest.raises(BadInput, match="jobs must be one or more, got 0"):
        sweeps.measure_together([lambda fit: fit.together([], label="none")], train)


def test_measurements_may_ask_for_different_trainings():
    asked = []

    def train(requests):
        asked.append([request.label for request in requests])
        return [[None]] * len(requests)

    sweeps.measure_together([asking("a", "c"), asking("b", "c")], train)
    assert asked == [["a"], ["b", "c"], ["c"]] or asked == [["a"], ["c"], ["b"], ["c"]]


def test_a_label_is_used_once_in_a_measurement():
    """Or the second training would be answered with what was kept of the first."""
    asked = []

    def train(requests):
        asked.append([request.label for request in requests])
        return [[None]] * len(requests)

    before = threading.active_count()
    with pytest.raises(BadInput, match=r"label must be used once in a measurement, .*, got 'a'"):
        sweeps.measure_together([asking("a", "b", "a")], train)
    assert asked == [["a"], ["b"]]
    assert threading.active_count() == before


class Silent:
    """A screen that nobody looks at."""

    def progress(self, label, steps):
        return contextlib.nullcontext(lambda done, losses: None)


def test_a_second_group_of_a_label_is_kept_apart_and_carries_on_to_the_same_bits(tmp_path):
    """Points that ask for one label at different times, the first run anew and then from its end."""

    def measure(labels, rate):
        training = replace(SHORT, batch_size=8, learning_rate=rate)

        def ask(fit):
            return [fit(Architecture(), TASK, training, label=label).learners for label in labels]

        return ask

    def run(fits):
        keeper = CheckpointManager(
            tmp_path,
            Checkpoint({}, [], fits),
            every=1e9,
            stop=lambda: False,
            warn=lambda sentence: None,
        )
        train = partial(
            runner._train,
            places=["", ""],
            seeds=1,
            spread=AcrossRuns(),
            keeper=keeper,
            screen=Silent(),
            diverged=[],
        )
        measures = [measure("ac", 1e-3), measure("bc", 3e-3)]
        found = sweeps.measure_together(measures, train)
        keeper.save()
        return found

    whole = run({})
    kept = checkpoints.load(tmp_path, print).fits
    assert sorted(kept) == ["a", "b", "c", "c (2)"]
    first, second = (jax.tree.leaves(found[1]) for found in whole)
    assert not all(map(np.array_equal, first, second))
    assert jax.tree.all(jax.tree.map(np.array_equal, run(kept), whole))


def test_what_a_measurement_raises_is_raised_and_no_thread_stays():
    def broken(fit):
        fit(None, None, None, label="a")
        raise KeyError("mine")

    before = threading.active_count()
    with pytest.raises(KeyError, match="mine"):
        sweeps.measure_together(
            [asking("a", "b"), broken, asking("a")], lambda asked: [[one] for one in asked]
        )
    assert threading.active_count() == before


def test_what_training_raises_is_raised_and_no_thread_stays():
    def train(requests):
        raise RuntimeError("stopped")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="stopped"):
        sweeps.measure_together([asking("a"), asking("a")], train)
    assert threading.active_count() == before


def test_a_grid_counts_the_last_setting_fastest():
    assert sweeps.grid({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert sweeps.grid({}) == [{}]


def point(value, steps=(0, 10)):
    return xr.Dataset(
        {
            "loss": (("seed", "step"), np.full((2, len(steps)), value)),
            "stuck": ("seed", [True, False]),
        },
        coords={"seed": [0, 1], "step": list(steps)},
    )


def test_results_are_labelled_by_the_swept_settings():
    sweep = {"task.a": [3, 1], "b": [0.5, 1.5, 2.5]}
    joined = sweeps.labelled([point(float(value)) for value in range(6)], sweep)
    assert joined.loss.dims == ("task.a", "b", "seed", "step")
    assert joined.stuck.dtype == bool
    for where, value in zip(sweeps.grid(sweep), range(6), strict=True):
        assert (joined.loss.sel(where) == value).all()
    back = sweeps.points_of(joined, sweep)
    assert [float(each.loss[0, 0]) for each in back] == list(range(6))


def test_points_of_different_lengths_come_back_without_padding():
    lengths = [(0, 10), (0, 10, 20)]
    joined = sweeps.labelled([point(1.0, steps) for steps in lengths], {"a": [1, 2]})
    for steps, each in zip(lengths, sweeps.points_of(joined, {"a": [1, 2]}), strict=True):
        assert each.step.values.tolist() == list(steps)
        assert (each.loss == 1.0).all()


def uneven(size, *, coords):
    return xr.Dataset(
        {
            "loss": (("seed", "x"), np.full((2, size), float(size))),
            "stuck": (("seed", "x"), np.ones((2, size), bool)),
            "parameters": ("parameter", np.zeros(4)),
        },
        coords={"seed": [0, 1]} | ({"x": np.arange(size)} if coords else {}),
    )


@pytest.mark.parametrize("coords", [False, True])
def test_dimensions_without_coordinates_and_booleans_can_be_padded(tmp_path, coords):
    """Points come back as they were, also through a file."""
    sweep, sizes = {"a": [1, 2], "b": [0, 1]}, [2, 3, 1, 3]
    points = [uneven(size, coords=coords) for size in sizes]
    joined = sweeps.labelled(points, sweep)
    assert joined.stuck.dtype == bool
    assert joined.stuck.sum() == 2 * sum(sizes)
    assert "parameter" not in joined.coords  # of one length, so left as it is
    assert set(joined.data_vars) == {"loss", "stuck", "parameters"}
    joined.to_netcdf(tmp_path / "joined.nc", engine="h5netcdf")
    for results in (joined, xr.load_dataset(tmp_path / "joined.nc", engine="h5netcdf")):
        for own, expected in zip(sweeps.points_of(results, sweep), points, strict=True):
            assert own.stuck.dtype == bool
            for name in expected.data_vars:
                np.testing.assert_array_equal(own[name], expected[name])


def test_a_sweep_without_claims_is_drawn_as_a_caption():
    results = sweeps.labelled([point(1.0), point(2.0)], {"a": [1, 2]})
    figure = sweeps.draw((), results, {"a": [1, 2]})
    assert figure.axes == []
    assert "no claim" in figure._supxlabel.get_text()


def test_one_point_is_itself():
    only = point(1.0)
    assert sweeps.labelled([only], {}) is only


def test_a_grid_of_traced_settings_compiles_once_and_equals_its_points_alone():
    plans = [
        Plan(Architecture(), LinearRegression(dim=2, context_size=3, input_range=width),
             Training(steps=20, batch_size=16, snapshot_every=10, learning_rate=rate), range(2))
        for width in (0.5, 1.0)
        for rate in (1e-3, 3e-3)
    ]  # fmt: skip
    before = advance._cache_size()
    together = fit_all(plans)
    assert advance._cache_size() == before + 1
    for plan, history in zip(plans, together, strict=True):
        (alone,) = fit_all([plan])
        assert jax.tree.all(jax.tree.map(np.array_equal, alone, history))
    assert advance._cache_size() == before + 1


def test_plans_of_different_lengths_go_together():
    plans = [Plan(Architecture(), TASK, Training(steps=steps, batch_size=16, snapshot_every=10), [0])
             for steps in (10, 30)]  # fmt: skip
    short, long = fit_all(plans)
    assert short.steps.tolist() == [0, 10]
    assert long.steps.tolist() == [0, 10, 20, 30]
    assert short.training_loss.shape == (1, 1)
    np.testing.assert_array_equal(short.training_loss, long.training_loss[:, :1])


def test_kinds_are_told_apart_by_what_is_static():
    one = Plan(Architecture(), TASK, SHORT, [0])
    assert kind(one) == kind(
        one._replace(task=LinearRegression(dim=2, context_size=3, input_range=2.0))
    )
    assert kind(one) != kind(one._replace(task=LinearRegression(dim=3, context_size=3)))
    assert kind(one) != kind(one._replace(build=Architecture(depth=2)))
    assert kind(one) != kind(
        one._replace(training=Training(steps=20, batch_size=8, snapshot_every=10))
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of a traced and a static setting, with two trainings, through the program."""
    out = tmp_path_factory.mktemp("swept")
    words = ["--sweep=task.input_range=0.5,2", "--sweep=task.context_size=4,5", "--seeds=2"]
    short = ["--settings.training.steps=40", "--settings.second"]
    return out, toyicl("run", SMALL, "--out", out, *words, *short), short


def test_a_sweep_through_the_program_equals_its_points_alone(swept, tmp_path):
    out, answer, short = swept
    assert answer.returncode == 0, answer.stderr
    results = xr.load_dataset(out / "small" / "results.nc", engine="h5netcdf")
    assert results.loss.dims == ("task.input_range", "task.context_size", "seed", "step")
    alone = toyicl(
        "run", SMALL, "--out", tmp_path, "--seeds=2", *short,
        "--settings.task.input-range=2", "--settings.task.context-size=5",
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    expected = xr.load_dataset(tmp_path / "small" / "results.nc", engine="h5netcdf")
    own = results.sel({"task.input_range": 2, "task.context_size": 5})
    for name in expected.data_vars:
        np.testing.assert_array_equal(own[name], expected[name], err_msg=name)


def test_a_sweep_s_verdicts_name_their_points_and_can_be_drawn_again(swept):
    out, answer, _ = swept
    assert "task.input_range = 0.5, task.context_size = 4" in answer.stdout
    verdicts = here("verify", SMALL, "--out", out)
    assert answer.stdout.startswith(verdicts.stdout)
    figure = out / "small" / "figure.png"
    before = figure.read_bytes()
    assert here("draw", SMALL, "--out", out).returncode == 0
    assert figure.read_bytes() == before
    assert "over task.input_range, task.context_size" in here("list", "--runs", "--out", out).stdout


def test_a_diverged_seed_is_named_with_the_point_of_the_grid(tmp_path):
    answer = here(
        "run", SMALL, "--out", tmp_path, "--seeds=1", "--sweep=training.learning_rate=1e-3,1e300",
        "--settings.training.steps=20", "--settings.training.clip-norm=None",
    )  # fmt: skip
    assert answer.returncode == 1
    assert "first: training.learning_rate = 1e+300, seed 0 diverged" in answer.stderr


def test_a_bad_sweep_leaves_nothing(tmp_path):
    for word in ("task.dim=0,1", "task.input_range=nan", "task=1"):
        answer = here("run", SMALL, "--out", tmp_path / "out", f"--sweep={word}")
        assert answer.returncode == 2
        assert answer.stderr.count("\n") == 1
    assert not list(Path(tmp_path).iterdir())
