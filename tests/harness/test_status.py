"""Several experiments as one job: what is finished, what is left, and how long it takes."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from programs import SMALL, here

from toyicl.cli import main
from toyicl.core.errors import BadInput
from toyicl.harness import checkpoints, experiment, runner
from toyicl.harness.results import load_results, save_results
from toyicl.harness.status import FINISHED, Status, lines, status

LOADED = experiment.load(experiment.find(str(SMALL)))


def status_of(folder, settings=LOADED.quick, seeds=2, *, loaded=LOADED, records=(), **options):
    grid = runner.Grid(settings, {}, [settings])
    arguments = {"quick": True, "fresh": False, "warn": print} | options
    return status(loaded, grid, folder, seeds=seeds, records=records, **arguments)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Folder of a finished quick run of two seeds."""
    out = tmp_path_factory.mktemp("ran")
    answer = here("run", SMALL, "--quick", "--seeds=2", "--out", out)
    assert answer.returncode == 0, answer.stderr
    return out / "small"


@pytest.fixture
def folder(ran, tmp_path):
    """A copy of it, which a test may change."""
    shutil.copytree(ran, tmp_path / "small")
    return tmp_path / "small"


def with_times(folder, training, measuring):
    """Change the times that results state."""
    results = load_results(folder)
    times = json.dumps({"training": training, "measuring": measuring})
    save_results(results.assign_attrs(seconds=times), folder)


def test_results_record_the_time_of_training_and_of_measuring(ran):
    times = json.loads(load_results(ran).attrs["seconds"])
    assert times["training"] > 0
    assert times["measuring"] > 0
    assert checkpoints.load(ran, print).seconds == times["training"]


def test_results_of_the_same_settings_seeds_and_program_are_finished(ran):
    assert status_of(ran).state == FINISHED
    assert status_of(ran, seeds=1).state == FINISHED  # the results have a second seed, too
    assert status_of(ran, fresh=True).state == "not begun"
    assert status_of(ran, seeds=3).state == "80 of 120 steps trained"
    assert status_of(ran, seeds=range(2)).seconds == 0


def test_results_of_another_program_are_not_finished(ran, monkeypatch):
    other = replace(LOADED, digest="0")
    assert status_of(ran, loaded=other).state == "finished by another revision"
    monkeypatch.setattr("toyicl.harness.provenance.source_digest", lambda: "0")
    assert status_of(ran).state == "finished by another revision"


def test_other_settings_are_refused(ran):
    other = replace(LOADED.quick, task=replace(LOADED.quick.task, dim=2))
    with pytest.raises(BadInput, match=r"settings\.task\.dim \(3 there, 2 here\)"):
        status_of(ran, other)


def test_quick_results_are_not_those_of_a_full_run_with_the_same_settings(folder):
    assert status_of(folder, quick=False).state == "80 of 80 steps trained"
    save_results(load_results(folder).assign_attrs(level="full"), folder)
    assert status_of(folder, quick=False).state == FINISHED
    assert status_of(folder, quick=True).state == FINISHED


@pytest.mark.slow
def test_a_full_job_after_a_quick_one_with_the_same_settings_makes_full_results(tmp_path):
    names = ["one", "other"]
    for name in names:
        text = SMALL.read_text().replace("QUICK = ", "FULL = QUICK = ")
        (tmp_path / f"{name}.py").write_text(text)
    words = ["run", *(tmp_path / f"{name}.py" for name in names), "--seeds=1", "--out", tmp_path]
    for extra, level in ((["--quick"], "quick"), ([], "full"), (["--quick"], "full")):
        assert here(*words, *extra).returncode == 0
        for name in names:
            attributes = load_results(tmp_path / name).attrs
            assert attributes["level"] == level
            assert ("--quick" in attributes["command"]) == (level == "quick")


def test_damaged_results_are_not_finished(folder):
    path = folder / "results.nc"
    path.write_bytes(path.read_bytes()[:-9])
    assert status_of(folder).state == "80 of 80 steps trained"


def test_a_recorded_time_is_scaled_by_the_seeds_and_by_what_is_left(folder, tmp_path):
    with_times(folder, training=100.0, measuring=10.0)
    # A third of the steps of three seeds are left: 150 s of training and 15 s of measuring in all.
    more = status_of(folder, seeds=3)
    assert more.recorded
    assert more.seconds == pytest.approx(150 / 3 + 15)
    elsewhere = status_of(tmp_path / "none", seeds=4, records=[folder])
    assert (elsewhere.state, elsewhere.recorded) == ("not begun", True)
    assert elsewhere.seconds == pytest.approx(220)
    changed = status_of(folder, loaded=replace(LOADED, digest="0"))
    assert changed.seconds == pytest.approx(10)  # it is only measured again


def test_times_of_other_settings_and_times_that_are_unknown_are_not_used(folder, tmp_path):
    place = tmp_path / "none"
    longer = replace(LOADED.quick, training=replace(LOADED.quick.training, steps=80))
    assert not status_of(place, longer, records=[folder]).recorded
    with_times(folder, training=None, measuring=10.0)
    found = status_of(place, records=[folder])
    assert not found.recorded
    assert found.seconds > 0


def test_the_table_has_a_line_for_each_experiment_and_their_sum():
    statuses = [
        Status("a", FINISHED, 0.0, recorded=False),
        Status("longer", "5 of 10 steps trained", 7200.0, recorded=True),
        Status("b", "not begun", 3600.0, recorded=False),
        Status("c", "not begun", 0.0, recorded=False),
    ]
    assert lines(statuses) == [
        "experiment  state                  estimated time left",
        "a           finished",
        "longer      5 of 10 steps trained  about 2 hours *",
        "b           not begun              about 60 minutes",
        "c           not begun              measurement only",
        "4 experiments, 1 finished, about 3 hours left",
        "Estimates without a * leave out compilation and measurement, and may be wrong by a factor of "
        "five.",
        "* from the time that an earlier run took",
    ]


def test_finished_experiments_of_several_are_not_run_again(ran, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(SMALL.read_text())
    words = ["run", SMALL, other, "--quick", "--seeds=2", "--out", ran.parent]
    table = here(*words, "--dry-run").stdout
    assert "small       finished\n" in table
    assert "other       not begun" in table
    before = (ran / "results.nc").read_bytes()
    answer = here(*words)
    assert answer.returncode == 0
    first, second = answer.stderr.splitlines()
    assert first == "toyicl: small is finished, and not run again"
    assert second.startswith("toyicl: other: experiment 2 of 2, 1 finished, ")
    assert (ran / "results.nc").read_bytes() == before
    assert (ran.parent / "other" / "results.nc").exists()
    assert here(*words).stderr.count("is finished, and not run again") == 2
    other.write_text(SMALL.read_text() + "\n")  # another version of the experiment file
    assert "other: experiment 2 of 2, 1 finished" in here(*words).stderr


@pytest.fixture
def refused(ran, tmp_path):
    """Words of a job of three experiments, of which the second one's folder has other settings."""
    shutil.copytree(ran, tmp_path / "runs" / "small")
    for name in ("first", "last"):
        (tmp_path / f"{name}.py").write_text(SMALL.read_text())
    paths = [tmp_path / "first.py", SMALL, tmp_path / "last.py"]
    return ["run", *paths, "--quick", "--seeds=1", "--sweep=task.dim=2", "--out", tmp_path / "runs"]


def test_one_experiment_that_cannot_be_run_does_not_keep_the_others_from_it(refused, tmp_path):
    before = (tmp_path / "runs" / "small" / "results.nc").read_bytes()
    table = here(*refused, "--dry-run")
    assert table.returncode == 2
    assert "small       cannot be run\n" in table.stdout
    assert "3 experiments, 0 finished, " in table.stdout
    assert table.stderr.startswith("toyicl: small: settings must be those of the run in")
    assert table.stderr.count("\n") == 1
    for finished in (0, 2):
        answer = here(*refused)
        assert answer.returncode == 2
        lines = answer.stderr.splitlines()
        assert "1 of 3 experiments failed: small" in lines[-1]
        assert sum("small: settings must be those of the run in" in line for line in lines) == 2
        assert sum("finished, and not run again" in line for line in lines) == finished
        for name in ("first", "last"):
            assert load_results(tmp_path / "runs" / name).attrs["seeds"] == "[0]"
    assert (tmp_path / "runs" / "small" / "results.nc").read_bytes() == before


@pytest.mark.slow
def test_fewer_seeds_of_another_program_do_not_keep_others_from_being_run(refused, tmp_path):
    other = tmp_path / "first.py"
    words = [other, SMALL, "--quick", "--out", tmp_path / "out"]
    assert here("run", *words, "--seeds=2").returncode == 0
    other.write_text(SMALL.read_text() + "\n")
    shutil.rmtree(tmp_path / "out" / "small")
    answer = here("run", *words, "--seeds=1")
    assert answer.returncode == 2
    assert "first: settings must be those of the run in" in answer.stderr
    assert (tmp_path / "out" / "small" / "results.nc").exists()


def test_the_exit_status_is_1_if_an_experiment_is_damaged_and_the_others_are_run(ran, tmp_path):
    shutil.copytree(ran, tmp_path / "runs" / "small")
    for path in (tmp_path / "runs" / "small" / "checkpoint").glob("*/about.json"):
        path.write_bytes(path.read_bytes()[:-9])
    other = tmp_path / "other.py"
    other.write_text(SMALL.read_text())
    answer = here("run", SMALL, other, "--quick", "--seeds=3", "--out", tmp_path / "runs")
    assert answer.returncode == 1
    assert "small: no undamaged checkpoint is left" in answer.stderr
    assert (tmp_path / "runs" / "other" / "results.nc").exists()


def test_an_interrupt_ends_a_job(refused, tmp_path, capsys):
    """The exit status is 1, for which a cluster starts it again, whatever failed before."""
    first, small, last = refused[1:4]
    words = [refused[0], small, first, last, *refused[4:]]
    interrupted = SimpleNamespace(requested=True, training=False, begun=False)
    with pytest.raises(SystemExit) as left:
        main.main([*map(str, words)], interrupted)
    assert left.value.code == 1
    errors = capsys.readouterr().err
    assert "small: settings must be" in errors
    assert errors.splitlines()[-1].startswith("toyicl: interrupted while training 'first")
    assert not (tmp_path / "runs" / "last").exists()
