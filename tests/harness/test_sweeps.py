"""Sweeps: results equal those of each point alone, and are labelled by the swept settings."""

import contextlib
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from programs import SMALL, here, toyicl

from toyicl.core.errors import BadInput
from toyicl.harness import checkpoints, sweeps, trainings
from toyicl.harness.checkpoint_manager import CheckpointManager
from toyicl.harness.checkpoints import Checkpoint
from toyicl.harness.claims import Claim, Finding
from toyicl.harness.experiment import Experiment
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Job, fit_all, kind
from toyicl.training.placement import AcrossRuns
from toyicl.training.step import Training, advance

SHORT = Training(steps=20, batch_size=16, snapshot_every=10)
TASK = LinearRegression(dim=2, context_size=3)


def experiment_of(trainings):
    """An experiment that trains and measures nothing but what `trainings` returns."""
    return Experiment(
        name="own",
        full=None,
        quick=None,
        trainings=trainings,
        measure=lambda settings, histories: None,
        draw=lambda results: None,
        claims=(),
        digest="",
    )


def job(rate=1e-3, depth=1, max_seeds=None, min_seeds=0):
    training = Training(steps=20, batch_size=8, snapshot_every=10, learning_rate=rate)
    return Job(Architecture(depth=depth), TASK, training, max_seeds, min_seeds=min_seeds)


def test_trainings_of_one_kind_are_grouped_across_names_and_points():
    own = experiment_of(lambda rate: {"one": job(rate), "two": job(2 * rate), "deep": job(depth=2)})
    declared = trainings.declared(own, [1e-3, 3e-3], {"rate": [1e-3, 3e-3]})
    assert [one.full_name for one in declared] == [
        f"rate = {rate}: {name}" for rate in (0.001, 0.003) for name in ("one", "two", "deep")
    ]
    groups = trainings.grouped(declared)
    assert [[one.name for one in group] for group in groups] == [
        ["one", "two", "one", "two"],
        ["deep", "deep"],
    ]
    assert [trainings.label(group) for group in groups] == ["one, two", "deep"]


def test_points_may_declare_different_trainings():
    own = experiment_of(lambda name: {name: job(), "both": job()})
    declared = trainings.declared(own, ["a", "b"], {"name": ["a", "b"]})
    assert [(one.point, one.name) for one in declared] == [
        (0, "a"),
        (0, "both"),
        (1, "b"),
        (1, "both"),
    ]
    (group,) = trainings.grouped(declared)
    assert trainings.label(group) == "a, both, b"
    assert trainings.label([one._replace(name=str(i)) for i, one in enumerate(group)]) == (
        "0, 1, 2 and 1 more"
    )


def test_the_largest_group_limits_the_number_of_processes():
    """Each process must have a run of some group to train."""
    own = experiment_of(
        lambda _: {"one": job(), "two": job(3e-3, max_seeds=2), "deep": job(depth=2)}
    )
    groups = trainings.grouped(trainings.declared(own, [None], {}))
    assert trainings.most_runs(groups, 5) == 7
    assert trainings.most_runs(groups, 1) == 2
    more = experiment_of(lambda _: {"one": job(), "more": job(min_seeds=4)})
    groups = trainings.grouped(trainings.declared(more, [None], {}))
    assert [trainings.most_runs(groups, seeds) for seeds in (1, 5)] == [5, 10]


@pytest.mark.parametrize("wrong", [None, [], {"": job()}, {"one": None}, {1: job()}])
def test_trainings_must_be_jobs_by_name(wrong):
    with pytest.raises(BadInput, match="trainings of own must return a dictionary of Job by name"):
        trainings.declared(experiment_of(lambda _: wrong), [None], {})
    with pytest.raises(BadInput, match="max_seeds of 'one' must be None or at least 1, got 0"):
        trainings.declared(experiment_of(lambda _: {"one": job(max_seeds=0)}), [None], {})
    for least, most in ((-1, None), (3, 2)):
        own = experiment_of(lambda _, most=most, least=least: {"one": job(1e-3, 1, most, least)})
        with pytest.raises(
            BadInput, match=f"min_seeds of 'one' must be 0 to max_seeds, got {least}"
        ):
            trainings.declared(own, [None], {})


def manager_of(folder, states):
    return CheckpointManager(
        folder,
        Checkpoint({}, [], states),
        every=1e9,
        stop=lambda: False,
        warn=lambda sentence: None,
    )


def show(label, steps):
    """Shows nothing."""
    return contextlib.nullcontext(lambda done, losses: None)


def test_each_training_is_kept_by_its_own_name_and_resumes_to_the_same_bits(tmp_path):
    def declared():  # the second training has at least two seeds, also if the run has fewer
        own = experiment_of(
            lambda depth: {"one": job(depth=depth), "two": job(3e-3, depth, min_seeds=2)}
        )
        return trainings.declared(own, [1, 2], {"depth": [1, 2]})

    def run(states, seeds):
        manager = manager_of(tmp_path, states)
        groups = trainings.grouped(declared())
        found = trainings.train(
            groups, seeds=seeds, spread=AcrossRuns(), manager=manager, show=show
        )
        manager.save()
        return found

    two = run({}, 2)
    names = [f"depth = {depth}: {name}" for depth in (1, 2) for name in ("one", "two")]
    assert list(two) == names
    kept = checkpoints.load(tmp_path, print).states
    assert list(kept) == names
    first, second = (jax.tree.leaves(two[name].learners) for name in names[:2])
    assert not all(map(np.array_equal, first, second))
    assert jax.tree.all(jax.tree.map(np.array_equal, run(kept, 2), two))
    assert jax.tree.all(jax.tree.map(np.array_equal, run(kept, 3), run({}, 3)))
    one = run({}, 1)
    assert [len(one[name].seeds) for name in names] == [1, 2, 1, 2]
    kept = checkpoints.load(tmp_path, print).states
    assert jax.tree.all(jax.tree.map(np.array_equal, run(kept, 3), run({}, 3)))


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
    """Points are recovered unchanged, also from a file."""
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


def test_the_figure_of_a_sweep_without_claims_is_a_caption():
    results = sweeps.labelled([point(1.0), point(2.0)], {"a": [1, 2]})
    figure = sweeps.draw((), results, {"a": [1, 2]})
    assert figure.axes == []
    assert "no claim" in figure.get_supxlabel()


def test_results_of_one_point_are_unchanged():
    only = point(1.0)
    assert sweeps.labelled([only], {}) is only


def test_a_grid_of_traced_settings_compiles_once_and_equals_its_points_alone():
    jobs = [
        Job(
            Architecture(),
            LinearRegression(dim=2, context_size=3, input_range=width),
            Training(steps=20, batch_size=16, snapshot_every=10, learning_rate=rate),
        )
        for width in (0.5, 1.0)
        for rate in (1e-3, 3e-3)
    ]
    before = advance._cache_size()
    together = fit_all(jobs, 2)
    assert advance._cache_size() == before + 1
    for one, history in zip(jobs, together, strict=True):
        (alone,) = fit_all([one], 2)
        assert jax.tree.all(jax.tree.map(np.array_equal, alone, history))
    assert advance._cache_size() == before + 1


def test_jobs_of_different_lengths_are_trained_together():
    jobs = [
        Job(Architecture(), TASK, Training(steps=steps, batch_size=16, snapshot_every=10))
        for steps in (10, 30)
    ]
    short, long = fit_all(jobs)
    assert short.steps.tolist() == [0, 10]
    assert long.steps.tolist() == [0, 10, 20, 30]
    assert short.training_loss.shape == (1, 1)
    np.testing.assert_array_equal(short.training_loss, long.training_loss[:, :1])


def test_static_settings_make_another_kind():
    one = Job(Architecture(), TASK, SHORT)
    wider = LinearRegression(dim=2, context_size=3, input_range=2.0)
    assert kind(one) == kind(one._replace(task=wider, max_seeds=1))
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


def test_verdicts_of_a_sweep_name_their_points_and_figures_can_be_redrawn(swept):
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
    assert "training.learning_rate = 1e+300: first: seed 0 diverged" in answer.stderr


def test_a_sweep_that_is_refused_writes_nothing(tmp_path):
    for word in ("task.dim=0,1", "task.input_range=nan", "task=1"):
        answer = here("run", SMALL, "--out", tmp_path / "out", f"--sweep={word}")
        assert answer.returncode == 2
        assert answer.stderr.count("\n") == 1
    assert not list(Path(tmp_path).iterdir())


def shaded(axes):
    """The ends of the band that is shaded."""
    (band,) = axes.patches
    return band.get_y(), band.get_y() + band.get_height()


def test_a_point_without_what_a_claim_is_about_is_drawn_without_marks():
    """One layer is not compared with GD++, which two layers are compared with."""
    results = xr.Dataset(
        {
            "loss": (("depth", "seed"), [[1.0, 1.1], [0.5, 0.6]]),
            "reference_loss": (("depth", "reference"), [[1.0, np.nan], [0.7, 0.5]]),
        },
        coords={"depth": [1, 2], "seed": [0, 1], "reference": ["gd", "gdpp"]},
        attrs={"command": "toyicl run own"},
    )

    def ratio(point):
        return point.loss / point.reference_loss.sel(reference="gdpp")

    finding = Finding("A", "a", ratio, (0.9, 1.1), source="s")
    above = Claim("B", "a", ratio, relation="greater", reference=0.5, source="s", paper="p")
    axes, other = sweeps.draw([finding, above], results, {"depth": [1, 2]}).axes
    for drawn in (axes, other):
        marks = [line.get_ydata().tolist() for line in drawn.lines if line.get_marker() == "o"]
        assert marks == [[], [1.0, 1.2]]
    low, high = (shaded(drawn) for drawn in (axes, other))
    assert low == pytest.approx((0.9, 1.1))
    assert high == pytest.approx((0.5, other.get_ylim()[1]))


def test_a_setting_named_like_a_variable_of_earlier_results_is_refused():
    known = xr.Dataset({"depth": ("layer", [1.0])}, attrs={"sweep": '{"width": [1, 2]}'})
    known = known.assign_coords(width=3)
    for path in ("depth", "layer", "seed"):
        with pytest.raises(
            BadInput, match=rf"^sweep must not be over the setting '{path}', .* of own$"
        ):
            sweeps.require_free_names("own", {path: [1, 2]}, [known])
    sweeps.require_free_names("own", {"width": [1], "task.dim": [1]}, [known])
    sweeps.require_free_names("own", {"depth": [1]})


COLLIDING = SMALL.read_text().replace(
    '"parameters": (', '"evaluation_episodes": 1.0, "parameters": ('
)
RENAMED = COLLIDING.replace('"evaluation_episodes": 1.0', '"count": 1.0')


def test_a_setting_named_like_what_is_measured_keeps_the_training(tmp_path):
    path, out = tmp_path / "own.py", tmp_path / "out"
    words = ["run", path, "--quick", "--seeds", 1, "--out", out]
    swept = [*words, "--sweep=evaluation_episodes=5,6"]
    path.write_text(COLLIDING)
    answer = here(*swept)
    assert (answer.returncode, "Traceback" in answer.stderr) == (1, False)
    message = "cannot be labelled by the swept setting 'evaluation_episodes', since measure of own"
    assert message in answer.stderr.splitlines()[-1]
    kept = checkpoints.load(out / "own", print).states
    assert [arrays["step"].tolist() for arrays in kept.values()] == [[40], [40]]
    path.write_text(RENAMED)
    answer = here(*swept)
    assert answer.returncode == 0, answer.stderr
    results = xr.load_dataset(out / "own" / "results.nc", engine="h5netcdf")
    assert results.evaluation_episodes.values.tolist() == [5, 6]


def test_a_setting_named_like_what_was_measured_is_refused_before_training(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(COLLIDING)
    words = ["run", path, "--quick", "--seeds", 1, "--out", tmp_path / "out"]
    assert here(*words).returncode == 0
    before = checkpoints.load(tmp_path / "out" / "own", print).origins
    answer = here(*words, "--fresh", "--sweep=evaluation_episodes=5,6")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert "must not be over the setting 'evaluation_episodes'" in answer.stderr
    assert checkpoints.load(tmp_path / "out" / "own", print).origins == before
