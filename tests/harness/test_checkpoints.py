"""Checkpoints: they are read back bit-identically or found damaged, and the last good one is used."""

import contextlib
import errno
import fcntl
import json
import os
import pickle
import tempfile

import jax
import numpy as np
import pytest
import xarray as xr

from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import atomic_files, checkpoint_manager, checkpoints
from toyicl.harness.checkpoint_manager import CheckpointManager
from toyicl.harness.checkpoints import Checkpoint
from toyicl.harness.experiment import CHECKPOINT
from toyicl.harness.results import load_results, save_results
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training import distributed
from toyicl.training.loop import Job, fit_all
from toyicl.training.state import TrainingState, named_arrays, with_rows
from toyicl.training.step import Training

ARRAYS = {
    "step": np.array([3, 4], np.int32),
    "learners.w": np.random.default_rng(0).normal(size=(2, 5, 3)),
    "single": np.float32(0.1) * np.ones((2, 1), np.float32),
    "not finite": np.array([np.nan, np.inf, -0.0, 5e-324]),
}
JOB = Job(
    Architecture(),
    LinearRegression(dim=2, context_size=3),
    Training(steps=30, batch_size=8, snapshot_every=10),
)


def checkpoint(number=0, states=None):
    return Checkpoint({"number": number}, [{"revision": "a"}], states or {"a / b": ARRAYS})


def never(sentence):
    raise AssertionError(sentence)


def manager_of(folder, states=(), every=0.0, stop=lambda: False, warn=never, damaged=()):
    begun = Checkpoint({}, [], dict(states), damaged=damaged)
    return CheckpointManager(folder, begun, every=every, stop=stop, warn=warn)


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    checkpoints.save(tmp_path, checkpoint(states={"a / b": ARRAYS, "": {"x": np.arange(2)}}))
    found = checkpoints.load(tmp_path, never)
    assert found.identity == {"number": 0}
    assert found.origins == [{"revision": "a"}]
    assert list(found.states) == ["a / b", ""]
    for name, array in ARRAYS.items():
        own = found.states["a / b"][name]
        assert own.dtype == array.dtype
        assert own.tobytes() == array.tobytes()


def test_arrays_are_saved_elsewhere_and_copied_where_files_cannot_be_locked(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    state = {"step": np.arange(3), "loss": np.array([0.5, np.nan])}
    checkpoints.save(tmp_path, Checkpoint({"seeds": [0]}, [], {"a": state}))
    kept = checkpoints.load(tmp_path, pytest.fail)
    for name, array in state.items():
        np.testing.assert_array_equal(kept.states["a"][name], array)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        checkpoints.save(tmp_path, Checkpoint({"seeds": [0]}, [], {"a": state}))


def test_without_checkpoints_there_is_none(tmp_path):
    assert checkpoints.load(tmp_path, never) is None


def test_the_newest_of_two_generations_counts(tmp_path):
    for number in range(4):
        checkpoints.save(tmp_path, checkpoint(number))
    assert checkpoints.load(tmp_path, never).identity == {"number": 3}
    names = sorted(path.name for path in (tmp_path / CHECKPOINT).iterdir())
    assert names == ["00000003", "00000004"]


def test_a_damaged_generation_is_reported_and_the_one_before_it_is_used(tmp_path):
    checkpoints.save(tmp_path, checkpoint(1))
    checkpoints.save(tmp_path, checkpoint(2))
    (tmp_path / CHECKPOINT / "00000002" / checkpoints.ABOUT).write_text("{")
    warnings = []
    assert checkpoints.load(tmp_path, warnings.append).identity == {"number": 1}
    assert "00000002/about.json is damaged" in warnings[0]


def test_checkpoints_that_are_all_damaged_are_refused(tmp_path):
    checkpoints.save(tmp_path, checkpoint())
    (tmp_path / CHECKPOINT / "00000001" / atomic_files.SUMS).unlink()
    with pytest.raises(
        atomic_files.Damaged, match=r"no undamaged checkpoint is left in .*--fresh starts over"
    ):
        checkpoints.load(tmp_path, lambda sentence: None)


def test_damaged_generations_are_not_among_those_kept(tmp_path):
    for number in range(2):
        checkpoints.save(tmp_path, checkpoint(number))
    (tmp_path / CHECKPOINT / "00000002" / checkpoints.ABOUT).write_text("{")
    found = checkpoints.load(tmp_path, lambda sentence: None)
    assert found.damaged == ["00000002"]
    manager_of(tmp_path, damaged=found.damaged).save()
    names = sorted(path.name for path in (tmp_path / CHECKPOINT).iterdir())
    assert names == ["00000001", "00000003"]


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 99)
    checkpoints.save(tmp_path, checkpoint())
    monkeypatch.undo()
    with pytest.raises(BadInput, match="must have been written in format 2, got 99"):
        checkpoints.load(tmp_path, never)


def test_no_changed_byte_gives_a_wrong_checkpoint(tmp_path):
    """Every file of a generation, flipped or cut at places all over it: the earlier one comes back."""
    checkpoints.save(tmp_path, checkpoint(1))
    checkpoints.save(tmp_path, checkpoint(2))
    newest = tmp_path / CHECKPOINT / "00000002"
    paths = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]
    cases = 0
    for path in paths:
        whole = path.read_bytes()
        for place in np.unique(np.linspace(0, len(whole) - 1, 20).astype(int)):
            flipped = whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]
            for broken in (flipped, whole[:place]):
                path.write_bytes(broken)
                warnings = []
                assert checkpoints.load(tmp_path, warnings.append).identity == {"number": 1}
                assert "is damaged" in warnings[0]
                cases += 1
        path.write_bytes(whole)
    assert cases >= 200
    assert checkpoints.load(tmp_path, never).identity == {"number": 2}


def state(rows, value=0.0):
    return TrainingState(
        step=np.full(rows, int(value)),
        optimiser={"m": np.full((rows, 1), value)},
        learners=[np.full((rows, 2), value)],
        training_loss=np.full((rows, 1), value),
        diverged_at=np.full(rows, -1),
    )


def test_a_state_comes_back_from_its_named_arrays():
    arrays = named_arrays(state(1, 4.0))
    assert set(arrays) == {"step", "optimiser.m", "learners.0", "training_loss", "diverged_at"}
    assert jax.tree.all(jax.tree.map(np.array_equal, with_rows(state(1), arrays), state(1, 4.0)))


def test_a_state_takes_the_rows_of_fewer_seeds():
    found = with_rows(state(3, 1.0), named_arrays(state(2, 4.0)))
    for own, kept, new in zip(
        *map(jax.tree.leaves, (found, state(2, 4.0), state(1, 1.0))), strict=True
    ):
        np.testing.assert_array_equal(own[:2], kept)
        np.testing.assert_array_equal(own[2:], new)


def test_a_state_of_another_program_is_refused():
    arrays = named_arrays(state(1, 4.0))
    for wrong in (
        {name: arrays[name] for name in ("step",)},
        arrays | {"more": np.zeros(1)},
        arrays | {"step": np.array([1.0])},
        arrays | {"learners.0": np.zeros((1, 3))},
    ):
        with pytest.raises(ValueError, match=r"in the checkpoint, and .* in this program"):
            with_rows(state(1), wrong)
    for wrong in (arrays | {"step": np.array([1, 2])}, named_arrays(state(2))):
        with pytest.raises(ValueError, match=r"it has \[.*\] runs, and this program 1"):
            with_rows(state(1), wrong)


def train(manager=None, job=JOB, seeds=3, **options):
    """The history of the job, kept by a manager if there is one."""
    checkpointer = None if manager is None else manager.of(["a"])
    (history,) = fit_all([job], seeds, checkpointer=checkpointer, **options)
    return history


def equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path):
    rounds = iter(range(100))
    first = manager_of(tmp_path, stop=lambda: next(rounds) == 2)
    with pytest.raises(
        Unfinished, match=r"interrupted while training 'a', after 20, 20, 20 steps; rerun"
    ):
        train(first)
    kept = checkpoints.load(tmp_path, never)
    assert 0 < kept.states["a"]["step"].sum() < 90
    assert equal(train(manager_of(tmp_path, kept.states)), train())


@pytest.mark.parametrize("rounds", [2, 100], ids=["interrupted", "finished"])
def test_more_seeds_than_kept_are_the_same_bits_as_all_at_once(tmp_path, rounds):
    calls = iter(range(1000))
    first = manager_of(tmp_path, stop=lambda: next(calls) >= rounds)
    with contextlib.suppress(Unfinished):
        train(first, seeds=2)
    kept, done = checkpoints.load(tmp_path, never).states, []
    extended = train(
        manager_of(tmp_path, kept), seeds=5, progress=lambda steps, _: done.append(steps)
    )
    assert done[0] > kept["a"]["step"].sum() > 0  # the steps kept were not trained again
    assert equal(extended, train(seeds=5))


def test_a_finished_training_is_not_trained_again(tmp_path):
    """It is kept although saving was not due, and not saved again."""
    history = train(manager_of(tmp_path, every=1e9))
    steps = []
    again = manager_of(tmp_path, checkpoints.load(tmp_path, never).states, every=1e9)
    for _ in range(2):
        assert equal(train(again, progress=lambda done, _: steps.append(done)), history)
    assert steps == []
    assert max(path.name for path in (tmp_path / CHECKPOINT).iterdir()) == "00000003"


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    own = manager_of(tmp_path)
    train(own)
    with pytest.raises(Unfinished, match=r"'a' was made by another program .*--fresh starts over"):
        train(own, JOB._replace(build=Architecture(depth=2)))
    with pytest.raises(Unfinished, match=r"it has \[3\] runs, and this program 2"):
        train(own, seeds=2)


def test_saving_waits_for_the_given_interval(tmp_path):
    saved = []
    for name, interval in (("seldom", 1e9), ("often", 0.0)):
        folder = tmp_path / name
        folder.mkdir()
        train(manager_of(folder, every=interval))
        saved.append(sorted(path.name for path in (folder / CHECKPOINT).iterdir()))
    # The first is saved at once, so that the folder has an identity; the last is that of the end.
    assert saved[0] == ["00000001", "00000002"]
    assert int(saved[1][-1]) > 4


def test_a_checkpoint_that_cannot_be_saved_is_reported_and_training_continues(
    tmp_path, monkeypatch
):
    warnings = []
    own = manager_of(tmp_path, warn=warnings.append)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    checkpoints.save(tmp_path, checkpoint(7))
    monkeypatch.setattr(checkpoint_manager, "save", full)
    history = train(own)
    assert "no checkpoint could be saved" in warnings[0]
    assert "No space left on device" in warnings[0]
    assert equal(history, train())
    assert checkpoints.load(tmp_path, never).identity == {"number": 7}


@pytest.mark.parametrize("error", [ValueError(), ValueError("\n"), OSError()])
def test_an_error_without_a_message_is_reported_by_its_type(tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    warnings = []
    monkeypatch.setattr(checkpoint_manager, "save", fail)
    manager_of(tmp_path, warn=warnings.append).save()
    assert f"({type(error).__name__})" in warnings[0]


def test_a_checkpoint_that_does_not_fit_ends_all_processes(tmp_path, monkeypatch):
    """The processes agree on the failure before it is raised."""
    exchanged = []
    monkeypatch.setattr(
        distributed, "any_process", lambda *flags: exchanged.append(flags) or list(flags)
    )
    with pytest.raises(Unfinished, match="made by another program"):
        train(manager_of(tmp_path, {"a": ARRAYS}))
    assert exchanged == [(True,)]
    monkeypatch.setattr(distributed, "any_process", lambda *flags: [True])
    with pytest.raises(Unfinished, match="process 0 could not continue"):
        train(manager_of(tmp_path))


@pytest.fixture
def no_unpickling(monkeypatch):
    """Whatever is unpickled is an error, by C's unpickler or by Python's."""

    def fail(*arguments, **options):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
        monkeypatch.setattr(pickle, name, fail)


@pytest.mark.usefixtures("no_unpickling")
def test_nothing_is_pickled(tmp_path):
    checkpoints.save(tmp_path, checkpoint())
    found = checkpoints.load(tmp_path, never)
    assert found.states["a / b"]["step"].tolist() == [3, 4]
    results = xr.Dataset({"a": ("x", np.arange(3.0))}, attrs={"format": checkpoints.FORMAT})
    save_results(results, tmp_path)
    assert load_results(tmp_path).identical(results)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith(b"\x80"), path
    about = json.loads((tmp_path / "checkpoint" / "00000001" / "about.json").read_text())
    assert about["format"] == checkpoints.FORMAT
