"""Runs that are divided by seed and joined again, compared with one run of all seeds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from programs import SMALL, here

from toyicl.harness import checkpoints, gathering
from toyicl.harness.environment import environment

SHORT = ["--settings.training.steps=40", "--settings.second"]
SWEEP = ["--quick", "--sweep=task.input_range=0.5,1", "--sweep=task.dim=2,3"]

UNTRAINED = '''"""Numbers without a training.

Cost: none.
"""

from dataclasses import dataclass

import xarray as xr

from toyicl.plots import figures


@dataclass(frozen=True)
class Settings:
    count: int = 3


FULL = QUICK = Settings()
CLAIMS = ()


def measure(settings, histories):
    return xr.Dataset({"number": ("index", list(range(settings.count)))})


def draw(results):
    return figures.panels(1, 1)
'''


def run(*words):
    answer = here("run", *words)
    assert answer.returncode == 0, answer.stderr
    return answer


def results(out, name="small"):
    return xr.load_dataset(out / name / "results.nc", engine="h5netcdf")


def same(one, other):
    """Whether two results are bit-identical, with the same settings, seeds and command."""
    assert set(one.variables) == set(other.variables)
    for attribute in ("settings", "seeds", "sweep", "numerics", "command", "level", "cut"):
        assert one.attrs[attribute] == other.attrs[attribute], attribute
    return all(one[name].values.tobytes() == other[name].values.tobytes() for name in one.variables)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Three parts of a run of four seeds, of which the second training has the first alone."""
    out = tmp_path_factory.mktemp("parts")
    for name, seeds in (("a", "0:1"), ("b", "1:3"), ("c", "3:4")):
        run(SMALL, *SHORT, "--seeds", seeds, "--out", out / name)
    return out


def test_parts_joined_are_bit_identical_to_one_run(parts, tmp_path):
    run(SMALL, *SHORT, "--seeds", 4, "--out", tmp_path / "whole")
    answer = here("gather", parts / "c", parts / "a", parts / "b", "--out", tmp_path / "joined")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "small: joined the seeds 0 to 3" in answer.stdout
    assert "S-1" in answer.stdout
    joined = results(tmp_path / "joined")
    assert same(joined, results(tmp_path / "whole"))
    assert joined.seed.values.tolist() == [0, 1, 2, 3]
    claims = [tmp_path / out / "small" / "claims.json" for out in ("joined", "whole")]
    assert claims[0].read_text() == claims[1].read_text()
    kept, whole = (
        checkpoints.load(tmp_path / out / "small", print).states for out in ("joined", "whole")
    )
    assert {name: len(arrays["step"]) for name, arrays in kept.items()} == {"first": 4, "second": 1}
    for name, arrays in whole.items():
        assert all(np.array_equal(kept[name][key], array) for key, array in arrays.items())


def test_origins_of_all_parts_are_kept(parts, tmp_path):
    assert here("gather", parts / "a", parts / "b", "--out", tmp_path).returncode == 0
    origins = json.loads(results(tmp_path).attrs["origins"])
    begun = [
        origin
        for name in "ab"
        for origin in checkpoints.load(parts / name / "small", print).origins
    ]
    assert origins[:-1] == begun


def test_a_part_is_measured_only_if_every_training_has_a_seed(parts):
    assert results(parts / "a").seed.values.tolist() == [0]
    assert not (parts / "b" / "small" / "results.nc").exists()
    answer = run(SMALL, *SHORT, "--seeds", "1:3", "--out", parts / "b")
    assert "small is not measured, because second has none of the seeds 1 to 2" in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_joined_run_can_be_joined_again_and_extended(parts, tmp_path):
    words = ["gather", parts / "a", parts / "b", "--out", tmp_path]
    assert here(*words).returncode == 0
    before = results(tmp_path)
    assert here(*words).returncode == 0
    assert same(results(tmp_path), before)
    assert here("gather", tmp_path, parts / "c", "--out", tmp_path / "more").returncode == 0
    assert results(tmp_path / "more").sizes["seed"] == 4
    run(SMALL, *SHORT, "--seeds", 4, "--out", tmp_path)
    assert same(results(tmp_path), results(tmp_path / "more"))


@pytest.mark.slow
def test_a_joined_run_replaces_an_unfinished_one_of_the_same_seeds(parts, tmp_path):
    folder = tmp_path / "small"
    run(SMALL, *SHORT, "--seeds", 3, "--out", tmp_path)
    before = results(tmp_path)
    kept = checkpoints.load(folder, print)
    # As if it had been interrupted: the state of step 20 would be trained further, to other numbers.
    kept.states["first"]["step"][1] = 20
    for states in (kept.states, {"first": kept.states["first"]}, {}):
        checkpoints.save(folder, kept._replace(states=states))
        (folder / "results.nc").unlink()
        assert here("gather", parts / "a", parts / "b", "--out", tmp_path).returncode == 0
        assert same(results(tmp_path), before)


@pytest.mark.slow
def test_sweeps_are_joined(tmp_path):
    for out, seeds in (("whole", "3"), ("a", "0:2"), ("b", "2:3")):
        run(SMALL, *SWEEP, "--seeds", seeds, "--out", tmp_path / out)
    assert here("gather", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c").returncode == 0
    joined = results(tmp_path / "c")
    assert same(joined, results(tmp_path / "whole"))
    assert joined.sizes["task.dim"] == joined.sizes["task.input_range"] == 2


@pytest.mark.slow
def test_experiments_without_a_training_are_joined_next_to_others(tmp_path):
    path = tmp_path / "untrained.py"
    path.write_text(UNTRAINED)
    for out, seeds in (("whole", "2"), ("a", "0:1"), ("b", "1:2")):
        run(path, SMALL, "--quick", "--seeds", seeds, "--out", tmp_path / out)
    assert here("gather", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c").returncode == 0
    for name in ("small", "untrained"):
        assert same(results(tmp_path / "c", name), results(tmp_path / "whole", name))


def copied(parts, tmp_path, *names):
    for name in names:
        shutil.copytree(parts / name, tmp_path / name)
    return [tmp_path / name for name in names]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ac", "all seeds from 0 to 3, got none with seeds 1, 2"),
        ("bc", "got none with seed 0"),
        ("aa", "different seeds, got seed 0 in"),
    ],
)
def test_seeds_that_are_missing_or_repeated_are_named(parts, tmp_path, names, message):
    answer = here("gather", *(parts / name for name in names), "--out", tmp_path / "out")
    assert answer.returncode == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_every_refused_run_is_reported_and_the_others_are_joined(parts, tmp_path):
    for name in "ab":
        for run_name in ("bad", "small", "worse"):
            own = "c" if name == "b" and run_name != "small" else name
            shutil.copytree(parts / own / "small", tmp_path / name / run_name)
    answer = here("gather", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    lines = answer.stderr.splitlines()
    assert (answer.returncode, len(lines)) == (2, 2), answer.stderr
    for line, name in zip(lines, ("bad", "worse"), strict=True):
        assert line.startswith(f"toyicl: {name}: parts must have all seeds from 0 to 3, got none")
    assert results(tmp_path / "out").seed.values.tolist() == [0, 1, 2]


def test_origins_of_all_parts_are_compared():
    def part(name, *sources):
        here = {**environment(), "experiment_file": "e"}
        origins = [here | {"source": source, "revision": source} for source in sources]
        return gathering.Part(Path(name), checkpoints.Checkpoint({}, origins, {}))

    warned = []
    gathering._compare_origins([part("a", "new"), part("b", "new", "new")], warned.append)
    assert warned == []
    gathering._compare_origins([part("a", "new"), part("b", "old", "new")], warned.append)
    gathering._compare_origins([part("a", "old", "new"), part("b", "new")], warned.append)
    assert warned == ["a and b were trained by different programs"] * 2


def test_parts_with_other_settings_are_refused(parts, tmp_path):
    run(SMALL, *SHORT, "--settings.task.dim=2", "--seeds", "1:2", "--out", tmp_path / "other")
    answer = here("gather", parts / "a", tmp_path / "other", "--out", tmp_path / "out")
    assert answer.returncode == 2
    assert "other settings.task.dim (3 there, 2 here)" in answer.stderr
    assert not (tmp_path / "out").exists()


def test_another_run_in_the_folder_is_kept_unless_fresh(parts, tmp_path):
    run(SMALL, *SHORT, "--settings.task.dim=2", "--seeds", 1, "--out", tmp_path)
    words = ["gather", parts / "a", parts / "b", "--out", tmp_path]
    answer = here(*words)
    assert answer.returncode == 2
    assert "settings.task.dim (2 there, 3 here)" in answer.stderr
    assert results(tmp_path).sizes["seed"] == 1
    assert here(*words, "--fresh").returncode == 0
    assert results(tmp_path).sizes["seed"] == 3


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_of_a_part_is_not_overwritten(parts, tmp_path, link):
    a, b = copied(parts, tmp_path, "a", "b")
    out = tmp_path / "link" if link else a
    if link:
        out.symlink_to(a, target_is_directory=True)
    before = {path: path.read_bytes() for path in a.rglob("*") if path.is_file()}
    for words in ((a, b), (a / "small", b / "small"), (b, a, "--fresh")):
        answer = here("gather", *words, "--out", out)
        assert answer.returncode == 2
        assert "out must be another folder than those of the parts, got" in answer.stderr
        assert answer.stderr.count("\n") == 1
    assert before == {path: path.read_bytes() for path in a.rglob("*") if path.is_file()}


def test_unfinished_and_damaged_parts_are_refused(parts, tmp_path):
    a, b = copied(parts, tmp_path, "a", "b")
    kept = checkpoints.load(b / "small", print)
    kept.states["first"]["step"][1] = 20  # as if it had been interrupted
    checkpoints.save(b / "small", kept)
    words = ["gather", a, b, "--out", tmp_path / "out"]
    answer = here(*words)
    assert answer.returncode == 1
    assert f"{b / 'small'} is not finished: first, seed 2, has done 20 of 40 steps" in answer.stderr
    for path in (b / "small" / "checkpoint").glob("*/about.json"):
        path.write_bytes(path.read_bytes()[:-9])
    answer = here(*words)
    assert answer.returncode == 1
    assert "no undamaged checkpoint is left" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "out").exists()


def test_states_with_other_arrays_are_refused(parts, tmp_path):
    """As another version of the program could have saved them."""
    a, b = copied(parts, tmp_path, "a", "b")
    kept = checkpoints.load(b / "small", print)
    arrays = kept.states["first"]
    name = next(name for name, array in arrays.items() if array.ndim > 1)
    wide = np.concatenate([arrays[name]] * 2, axis=-1)
    without = {other: array for other, array in arrays.items() if other != name}
    changes = (
        (arrays | {name: wide}, "were made by different programs"),
        (arrays | {"new": arrays["step"]}, "new has rows None and"),
        (without, f"{name} has rows"),
        (arrays | {name: arrays[name][:1]}, f"{name} must have a row for each of 2 runs"),
        ({name: arrays[name]}, "has done 0 of 40 steps"),
    )
    for changed, message in changes:
        checkpoints.save(b / "small", kept._replace(states={"first": changed}))
        answer = here("gather", a, b, "--out", tmp_path / "out")
        assert answer.returncode == 1, message
        assert message in answer.stderr
        assert str(b / "small") in answer.stderr
        assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ValueError("RESOURCE_EXHAUSTED: No space left on device [more]\nline"),
            "no space left on",
        ),
        (OSError(5, "Input/output error"), "Input/output error"),
        (RuntimeError("first line\nsecond line"), "(first line)"),
    ],
)
def test_a_checkpoint_that_cannot_be_saved_is_reported(
    parts, tmp_path, monkeypatch, error, message
):
    """Orbax and TensorStore raise errors of several types."""

    def fail(folder, checkpoint):
        raise error

    monkeypatch.setattr(checkpoints, "save", fail)
    answer = here("gather", parts / "a", parts / "b", "--out", tmp_path)
    assert answer.returncode == 1
    assert f"no checkpoint could be saved in {tmp_path / 'small'}" in answer.stderr
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_folders_that_are_no_parts_are_refused(parts, tmp_path):
    for folder, message in ((tmp_path, "runs with checkpoints"), (tmp_path / "x", "not exist")):
        answer = here("gather", parts / "a", folder, "--out", tmp_path / "out")
        assert answer.returncode == 2
        assert message in answer.stderr


def test_a_folder_without_a_run_that_another_has_is_refused(parts, tmp_path):
    a, b = copied(parts, tmp_path, "a", "b")
    shutil.copytree(a / "small", a / "more")
    for folders in ((a, b), (b, a)):
        answer = here("gather", *folders, "--out", tmp_path / "out")
        assert answer.returncode == 2
        assert f"the same runs, got {b} without more;" in answer.stderr
        assert f"another part of more is {a / 'more'}" in answer.stderr
        assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seeds", ["0", "-1", "3:3", "3:1", "-1:2", "two", "1:", ":2", "1:2:3"])
def test_seeds_that_are_none_are_refused(tmp_path, seeds):
    answer = here("run", SMALL, f"--seeds={seeds}", "--out", tmp_path)
    assert answer.returncode == 2
    assert f"FIRST:END with 0 <= FIRST < END for the seeds FIRST to END - 1, got '{seeds}'" in (
        answer.stderr
    )
