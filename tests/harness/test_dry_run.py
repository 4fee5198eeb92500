"""Dry runs: they list what would be trained, count what is done already, and write nothing."""

from dataclasses import replace

import jax
import pytest
from flax import nnx
from programs import SMALL, here

from toyicl.core.errors import BadInput
from toyicl.harness import dry_run, experiment, runner
from toyicl.training import loop
from toyicl.training.loop import Job

LOADED = experiment.load(experiment.find(str(SMALL)))
SETTINGS = replace(LOADED.quick, second=True)  # 40 steps, and 80 steps of at most one seed


def plan(folder, settings=SETTINGS, seeds=2, **options):
    grid = runner.Grid(settings, {}, [settings])
    arguments = {"quick": True, "warn": print} | options
    return runner.plan(LOADED, grid, folder, seeds=seeds, **arguments)


def test_every_training_is_listed_and_nothing_is_written(tmp_path):
    found = plan(tmp_path / "out")
    assert [(one.name, one.runs, one.steps, one.steps_done) for one in found.trainings] == [
        ("first", 2, 40, 0),
        ("second", 1, 80, 0),
    ]
    assert len(found.groups) == 1  # they differ in the number of steps alone
    model = SETTINGS.model(SETTINGS.task, jax.random.key(0))
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    for one in found.trainings:
        assert one.parameters == sum(sizes)
        assert one.batch_size == 32
        assert one.operations > 2 * 32 * sum(sizes)  # each parameter meets each episode
    assert not list(tmp_path.iterdir())


def test_each_point_of_a_sweep_is_planned(tmp_path):
    points = [replace(SETTINGS, task=replace(SETTINGS.task, dim=dim)) for dim in (2, 3)]
    grid = runner.Grid(SETTINGS, {"task.dim": [2, 3]}, points)
    found = runner.plan(LOADED, grid, tmp_path, seeds=3, quick=True, warn=print)
    assert [len(group) for group in found.groups] == [2, 2]
    assert found.trainings[0].name == "task.dim = 2: first"
    assert found.trainings[0].parameters < found.trainings[2].parameters


def test_steps_that_are_kept_are_counted_and_other_settings_are_refused(tmp_path):
    words = ["run", SMALL, "--quick", "--settings.second", "--out", tmp_path]
    assert here(*words, "--seeds=2").returncode == 0
    folder = tmp_path / "small"
    finished = plan(folder)
    assert [one.steps_done for one in finished.trainings] == [80, 80]
    assert finished.seconds == 0
    more = plan(folder, seeds=3)
    assert [one.runs * one.steps - one.steps_done for one in more.trainings] == [40, 0]
    assert [one.steps_done for one in plan(folder, fresh=True).trainings] == [0, 0]
    other = replace(SETTINGS, task=replace(SETTINGS.task, dim=2))
    with pytest.raises(BadInput, match=r"settings\.task\.dim \(3 there, 2 here\)"):
        plan(folder, other)
    assert [one.steps_done for one in plan(folder, other, quick=False).trainings] == [0, 0]
    assert (folder / "results.nc").exists()


def test_operations_grow_with_the_batch(tmp_path):
    larger = replace(SETTINGS, training=replace(SETTINGS.training, batch_size=64))
    few, many = (plan(tmp_path, one).trainings[0].operations for one in (SETTINGS, larger))
    assert 1.8 < many / few < 2.1


def test_the_estimate_is_the_operations_left_over_the_speed_of_the_devices_in_use():
    training = dry_run.PlannedTraining("a", 3, 100, 50, 32, 18, 1e6)
    assert training.operations_left == 2.5e8
    own = dry_run.Plan("mine", ((training,), (replace(training, runs=1, steps_done=0),)), 2, 1e8)
    assert own.seconds == pytest.approx(2.5e8 / 2e8 + 1e8 / 1e8)


def test_a_plan_is_text_that_is_called_an_estimate():
    training = dry_run.PlannedTraining("model", 5, 5000, 1200, 2048, 1210, 1.5e7)
    one = replace(training, name="N = 5", runs=1, steps=1, steps_done=0, parameters=1)
    text = dry_run.lines(dry_run.Plan("fig", ((training,), (one,)), 2, 5e9))
    assert text == [
        "fig: 2 trainings, 6 runs, 2 compiled programs",
        "  model  5 runs of 5,000 steps, batch size 2,048, 1,210 parameters, "
        "1.5e+07 operations per step",
        "  N = 5  1 run of 1 steps, batch size 2,048, 1 parameter, 1.5e+07 operations per step",
        "  1,200 of 25,001 steps are done already",
        "  estimate: 3.6e+11 floating-point operations, about 36 seconds on 2 devices at 5.0e+09 "
        "operations per second each, the speed of small matrix products here",
        "  The estimate leaves out compilation and measurement, and may be wrong by a factor of five.",
    ]
    assert dry_run.lines(dry_run.Plan("fig", (), 2, 1.0)) == [
        "fig: nothing is trained; the run only measures"
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "less than a second"),
        (89, "about 89 seconds"),
        (91, "about 2 minutes"),
        (5399, "about 90 minutes"),
        (7200, "about 2 hours"),
        (2e5, "about 2 days"),
    ],
)
def test_durations_are_rounded_to_a_unit(seconds, text):
    assert dry_run.duration(seconds) == text


def test_one_step_is_what_a_run_does():
    """So its operations are those of training."""
    job = Job(SETTINGS.model, SETTINGS.task, replace(SETTINGS.training, snapshot_every=1, steps=1))
    (history,) = loop.fit_all([job])
    run, value = jax.jit(dry_run.one_step)(loop.begin(job, 0))
    assert float(value) == pytest.approx(history.training_loss[0, 0], rel=1e-12)
    for own, expected in zip(
        jax.tree.leaves(run.learner), jax.tree.leaves(history.final), strict=True
    ):
        assert own == pytest.approx(expected[0], rel=1e-9)
