"""Runs that are interrupted, killed, extended, or meet a full disk, through the command line."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from programs import SMALL, begin, here, toyicl

from toyicl.harness import atomic_files, checkpoints, provenance

WHOLE = ["--seeds=3", "--settings.training.steps=3000"]
LONG = [*WHOLE, "--checkpoint-every=0.1"]
"""A run that saves checkpoints so often that it can be ended after some of them."""


def results(out):
    return xr.load_dataset(out / "small" / "results.nc", engine="h5netcdf")


def same(one, other):
    """Whether two results are bit-identical; their provenance may differ."""
    assert set(one.variables) == set(other.variables)
    return all(one[name].values.tobytes() == other[name].values.tobytes() for name in one.variables)


def wait_for_checkpoint(out, process, number=1):
    """Wait until a run has saved a generation."""
    place = out / "small" / "checkpoint"
    while process.poll() is None:
        if any(path.name.isdecimal() and int(path.name) >= number for path in place.glob("*")):
            return
        time.sleep(0.01)
    pytest.fail(f"the run ended before its checkpoint {number}: {process.communicate()}")


def steps_kept(out):
    """Number of steps that the next start resumes from."""
    kept = checkpoints.load(out / "small", warn=print)
    return 0 if kept is None else sum(int(one["step"].sum()) for one in kept.states.values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of a run that is not interrupted."""
    out = tmp_path_factory.mktemp("whole")
    answer = toyicl("run", SMALL, "--out", out, *WHOLE)
    assert answer.returncode == 0, answer.stderr
    return results(out)


def test_a_killed_run_resumes_bit_identically(whole, tmp_path):
    process = begin("run", SMALL, "--out", tmp_path, *LONG)
    wait_for_checkpoint(tmp_path, process, number=3)
    process.kill()
    process.communicate()
    listed = here("list", "--runs", "--out", tmp_path).stdout
    assert "training: first, 3 runs" in listed
    assert "results" not in listed
    answer = toyicl("run", SMALL, "--out", tmp_path, *LONG)
    assert answer.returncode == 0, answer.stderr
    assert same(results(tmp_path), whole)
    assert not list((tmp_path / "small").rglob(".draft-*"))
    listed = here("list", "--runs", "--out", tmp_path).stdout
    assert "full settings, 3 seeds, float32" in listed
    assert "450 of 450 chunks" in listed


@pytest.mark.slow
def test_a_run_killed_at_25_random_moments_resumes_bit_identically(tmp_path):
    """From the start of Python, through compiling and training, to the saving of results.

    A run that finishes before it has been killed 25 times is started again in an empty folder. Some
    of the starts must have resumed from steps of an earlier one.
    """
    words = ["--seeds=3", "--settings.training.steps=200000", "--checkpoint-every=0.1"]
    words.append("--settings.training.snapshot-every=500")
    assert toyicl("run", SMALL, "--out", tmp_path / "whole", *words).returncode == 0
    whole, broken = results(tmp_path / "whole"), tmp_path / "broken"
    draw, killed, finished, resumed = random.Random(2022), 0, 0, 0
    while killed < 25 or not finished:
        before = steps_kept(broken)
        process = begin("run", SMALL, "--out", broken, *words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=draw.uniform(0.3, 10) if killed < 25 else 600)
        if process.poll() is None:
            process.kill()
            killed += 1
        _, errors = process.communicate()
        assert "Traceback" not in errors
        if process.returncode == 0:
            finished += 1
            assert same(results(broken), whole)
            resumed += before > 0
            shutil.rmtree(broken)
        else:
            resumed += 0 < before < steps_kept(broken)
    assert resumed > 0


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_is_reported_and_resumes_bit_identically(whole, tmp_path, number):
    process = begin("run", SMALL, "--out", tmp_path, *LONG)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopping after this chunk of steps" in errors
    assert "interrupted while training 'first', after" in errors
    assert "rerun the same command to resume" in errors
    assert "Traceback" not in errors
    assert toyicl("run", SMALL, "--out", tmp_path, *WHOLE).returncode == 0
    assert same(results(tmp_path), whole)


def test_a_program_that_has_just_started_is_interrupted_at_once():
    process = begin("floors", "--steps=500")
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors == "toyicl: interrupted\n"


def test_an_interrupt_between_trainings_states_how_to_resume():
    code = """
import os, signal
from toyicl.cli.console import InterruptHandler, TerminalConsole
with TerminalConsole(InterruptHandler()).progress("first", 1):
    pass
os.kill(os.getpid(), signal.SIGINT)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert answer.stderr.endswith("toyicl: interrupted; rerun the same command to resume\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_is_still_importing_is_interrupted_at_once(tmp_path, number):
    """By a signal that comes with the first slow import, and only once."""
    (tmp_path / "tyro.py").write_text(f"import os; os.kill(os.getpid(), {int(number)})")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    answer = toyicl("list", PYTHONPATH=path)
    assert answer.returncode == 1
    assert answer.stderr == "toyicl: interrupted\n"


@pytest.mark.slow
def test_a_run_extended_by_seeds_is_bit_identical_to_one_with_all_seeds(tmp_path):
    """One of the two trainings has at most one seed, which is not trained again."""
    short = ["run", SMALL, "--settings.training.steps=40", "--settings.second"]
    assert here(*short, "--seeds=2", "--out", tmp_path / "grown").returncode == 0
    answer = here(*short, "--seeds=3", "--out", tmp_path / "grown")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert here(*short, "--seeds=3", "--out", tmp_path / "at_once").returncode == 0
    grown = results(tmp_path / "grown")
    assert same(grown, results(tmp_path / "at_once"))
    assert grown.sizes["seed"] == 3
    assert grown.attrs["seeds"] == "[0, 1, 2]"
    kept = checkpoints.load(tmp_path / "grown" / "small", print).states
    assert {name: len(arrays["step"]) for name, arrays in kept.items()} == {"first": 3, "second": 1}
    fewer = here(*short, "--seeds=2", "--out", tmp_path / "grown")
    assert fewer.returncode == 2
    assert "seeds ([0, 1, 2] there, [0, 1] here)" in fewer.stderr
    other = here(*short, "--seeds=4", "--settings.task.dim=2", "--out", tmp_path / "grown")
    assert other.returncode == 2
    assert "settings.task.dim (3 there, 2 here)" in other.stderr


FINISHED = ["--settings.training.steps=40", "--seeds=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a short finished run."""
    out = tmp_path_factory.mktemp("finished")
    assert here("run", SMALL, *FINISHED, "--out", out).returncode == 0
    return out / "small"


def test_other_settings_are_refused_unless_fresh(tmp_path):
    short = ["--settings.training.steps=40", "--seeds=2", "--out", tmp_path]
    assert here("run", SMALL, *short).returncode == 0
    before = results(tmp_path)
    other = [*short, "--settings.task.input-range=2", "--seeds=1"]
    answer = here("run", SMALL, *other)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "settings.task.input_range (1.0 there, 2.0 here)" in answer.stderr
    assert "seeds ([0, 1] there, [0] here)" in answer.stderr
    assert "--fresh starts over" in answer.stderr
    assert same(results(tmp_path), before)
    assert here("run", SMALL, *other, "--fresh").returncode == 0
    assert results(tmp_path).sizes["seed"] == 1


def test_a_full_run_replaces_a_finished_quick_run_but_a_quick_run_replaces_nothing(tmp_path):
    short = ["--settings.training.steps=40", "--seeds=1", "--out", tmp_path]
    assert here("run", SMALL, *short, "--quick", "--settings.task.input-range=2").returncode == 0
    answer = here("run", SMALL, *short)
    assert answer.returncode == 0, answer.stderr
    assert f"replacing the finished --quick run in {tmp_path / 'small'}" in answer.stderr
    assert results(tmp_path).attrs["level"] == "full"
    answer = here("run", SMALL, *short, "--quick", "--settings.task.input-range=2")
    assert answer.returncode == 2
    assert results(tmp_path).attrs["level"] == "full"


REUSED = "are reused, and measured with other settings: settings."


@pytest.mark.slow
def test_trainings_are_reused_if_only_what_is_measured_differs(tmp_path):
    short = ["run", SMALL, "--settings.training.steps=40", "--seeds=2"]
    other = [*short, "--settings.evaluation-episodes=50"]
    assert here(*short, "--out", tmp_path / "reused").returncode == 0
    before = checkpoints.load(tmp_path / "reused" / "small", print)
    planned = here(*other, "--out", tmp_path / "reused", "--dry-run")
    assert "80 of 80 steps are done already" in planned.stdout
    answer = here(*other, "--seeds=3", "--out", tmp_path / "reused")
    assert answer.returncode == 0
    assert f"{REUSED}evaluation_episodes (100 there, 50 here)" in answer.stderr
    assert here(*other, "--seeds=3", "--out", tmp_path / "new").returncode == 0
    assert same(results(tmp_path / "reused"), results(tmp_path / "new"))
    after = checkpoints.load(tmp_path / "reused" / "small", print)
    assert after.identity["settings"]["evaluation_episodes"] == 50
    for name, array in before.states["first"].items():
        assert np.array_equal(after.states["first"][name][:2], array)
    assert here(*other, "--seeds=3", "--out", tmp_path / "reused").stderr == ""


def test_trainings_are_reused_by_a_run_with_further_ones_but_none_is_dropped(tmp_path):
    short = ["run", SMALL, "--settings.training.steps=40", "--seeds=2", "--out", tmp_path]
    assert here(*short).returncode == 0
    answer = here(*short, "--settings.second")
    assert answer.returncode == 0
    assert f"{REUSED}second (False there, True here)" in answer.stderr
    kept = checkpoints.load(tmp_path / "small", print).states
    assert {name: len(arrays["step"]) for name, arrays in kept.items()} == {"first": 2, "second": 1}
    answer = here(*short)
    assert answer.returncode == 2
    assert "got other settings.second (True there, False here)" in answer.stderr


def test_a_quick_run_reuses_trainings_but_replaces_no_full_results(tmp_path):
    words = ["run", SMALL, "--seeds=1", "--out", tmp_path]
    full = [*words, "--settings.training.steps=40"]  # the steps of the quick settings
    quick = [*words, "--quick", "--settings.evaluation-episodes=50"]
    assert here(*quick).returncode == 0
    assert REUSED in here(*full).stderr
    assert results(tmp_path).attrs["level"] == "full"
    answer = here(*quick)
    assert answer.returncode == 2
    assert "settings.evaluation_episodes (100 there, 50 here)" in answer.stderr
    assert results(tmp_path).attrs["level"] == "full"


def test_checkpoints_that_describe_no_trainings_are_resumed_with_the_same_settings_alone(tmp_path):
    """As earlier versions wrote them."""
    short = ["run", SMALL, "--settings.training.steps=40", "--out", tmp_path]
    assert here(*short, "--seeds=2").returncode == 0
    place = tmp_path / "small" / "checkpoint"
    newest = max(place.iterdir())

    def without_descriptions(folder):
        shutil.copytree(newest / "arrays", folder / "arrays")
        about = json.loads((newest / "about.json").read_text())
        del about["command"], about["seconds"], about["descriptions"]
        (folder / "about.json").write_text(json.dumps(about))

    atomic_files.save_folder(place / f"{int(newest.name) + 1:08d}", without_descriptions)
    answer = here(*short, "--seeds=2", "--settings.evaluation-episodes=50")
    assert answer.returncode == 2
    assert "settings.evaluation_episodes (100 there, 50 here)" in answer.stderr
    answer = here(*short, "--seeds=3")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(results(tmp_path).attrs["seconds"])["training"] is None
    answer = here(*short, "--seeds=3", "--settings.evaluation-episodes=50")
    assert answer.returncode == 0
    assert REUSED in answer.stderr


def test_an_unfinished_full_run_next_to_quick_results_is_not_replaced(tmp_path):
    short = ["--settings.training.steps=40", "--seeds=1"]
    quick, full = tmp_path / "quick", tmp_path / "full"
    assert here("run", SMALL, *short, "--quick", "--out", quick).returncode == 0
    assert here("run", SMALL, *short, "--settings.task.dim=2", "--out", full).returncode == 0
    shutil.rmtree(quick / "small" / "checkpoint")
    shutil.copytree(
        full / "small" / "checkpoint", quick / "small" / "checkpoint"
    )  # as if it had been interrupted
    answer = here("run", SMALL, *short, "--out", quick)
    assert answer.returncode == 2
    assert "settings.task.dim (2 there, 3 here)" in answer.stderr
    answer = here("run", SMALL, *short, "--settings.task.dim=2", "--out", quick)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert results(quick).attrs["level"] == "full"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_threefry_partitionable", False),
        ("jax_default_prng_impl", "rbg"),
        ("jax_random_seed_offset", 1),
        ("jax_high_dynamic_range_gumbel", True),
        ("jax_default_matmul_precision", "highest"),
    ],
)
def test_another_generator_or_precision_of_products_is_refused(tmp_path, finished, name, value):
    """It would draw other episodes, or compute other products, from then on."""
    shutil.copytree(finished, tmp_path / "small")
    before = jax.config.values[name]
    jax.config.update(name, value)
    try:
        answer = here("run", SMALL, *FINISHED, "--out", tmp_path)
    finally:
        jax.config.update(name, before)
    assert answer.returncode == 2
    assert f"numerics.{name} ({before} there, {value} here)" in answer.stderr


def test_a_run_begun_with_other_random_numbers_is_refused(tmp_path, finished, monkeypatch):
    shutil.copytree(finished, tmp_path / "small")
    monkeypatch.setitem(provenance.UNRECORDED, "random_numbers", "another generator")
    answer = here("run", SMALL, *FINISHED, "--out", tmp_path)
    assert answer.returncode == 2
    assert "numerics.random_numbers (jax.random there, another generator here)" in answer.stderr


def test_resuming_with_other_parts_on_the_devices_is_reported_and_recorded(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "small")
    answer = here("run", SMALL, *FINISHED, "--out", tmp_path, "--shard=batch")
    assert answer.returncode == 0
    assert "(2 x cpu, --shard run there, 2 x cpu, --shard batch here)" in answer.stderr
    assert "may differ in the last digits" in answer.stderr
    assert [origin["shard"] for origin in json.loads(results(tmp_path).attrs["origins"])] == [
        "run",
        "batch",
    ]


def test_results_without_a_checkpoint_refuse_other_settings_too(tmp_path):
    short = ["--settings.training.steps=40", "--seeds=1", "--out", tmp_path]
    assert here("run", SMALL, *short).returncode == 0
    shutil.rmtree(tmp_path / "small" / "checkpoint")
    answer = here("run", SMALL, *short, "--settings.task.dim=2")
    assert answer.returncode == 2
    assert "settings.task.dim (3 there, 2 here)" in answer.stderr


def test_a_folder_in_use_is_refused(tmp_path):
    longer = ["--settings.training.steps=60000", "--checkpoint-every=0.1"]
    process = begin("run", SMALL, "--out", tmp_path, *longer)
    wait_for_checkpoint(tmp_path, process)
    try:
        answer = here("run", SMALL, "--out", tmp_path, *longer)
    finally:
        process.kill()
        process.communicate()
    assert answer.returncode == 2
    assert f"no other process is using, got {tmp_path / 'small'} (process {process.pid})" in (
        answer.stderr
    )


@pytest.mark.parametrize("name", ["results.nc", "checkpoint"])
def test_damaged_files_are_reported_in_one_line(tmp_path, name):
    short = ["--settings.training.steps=40", "--seeds=1", "--out", tmp_path]
    assert here("run", SMALL, *short).returncode == 0
    place = tmp_path / "small" / name
    for path in [place] if place.is_file() else place.glob("*/about.json"):
        path.write_bytes(path.read_bytes()[:-9])
    command = ["verify", SMALL, "--out", tmp_path] if place.is_file() else ["run", SMALL, *short]
    answer = here(*command)
    assert answer.returncode == 1
    assert "is damaged" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 800 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk takes root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk):
    """Fill a file system completely."""
    path = Path(disk) / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\1" * 4096)
    return path


@pytest.mark.slow
def test_results_that_do_not_fit_on_the_disk_raise_an_ordinary_error(small_disk):
    """In a separate process, which HDF5 would abort; and not only at the first block of the file."""
    code = f"""
import numpy as np, xarray as xr
from pathlib import Path
from toyicl.harness.results import save_results
results = xr.Dataset({{"a": ("x", np.arange(16_000.0))}}, attrs={{"format": 2}})
try:
    save_results(results, Path({str(small_disk)!r}))
except OSError as error:
    print(error.strerror)
"""
    for room in (0, 16, 60, 100):
        filler = fill(small_disk)
        os.truncate(filler, filler.stat().st_size - room * 1024)
        answer = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        found = (answer.returncode, answer.stdout, answer.stderr)
        assert found == (0, "No space left on device\n", ""), room


def test_a_full_disk_loses_nothing_that_was_saved(whole, small_disk):
    process = begin("run", SMALL, "--out", small_disk, *LONG)
    wait_for_checkpoint(small_disk, process, number=2)
    filler = fill(small_disk)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "no checkpoint could be saved" in errors
    assert "results could not be saved" in errors
    assert "o space left on device" in errors
    assert "Traceback" not in errors
    filler.unlink()
    kept = here("list", "--runs", "--out", small_disk).stdout
    assert "training: first, 3 runs" in kept
    answer = toyicl("run", SMALL, "--out", small_disk, *WHOLE)
    assert answer.returncode == 0, answer.stderr
    assert np.isfinite(results(small_disk).loss).all()
    assert same(results(small_disk), whole)
