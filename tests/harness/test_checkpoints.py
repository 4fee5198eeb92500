"""Checkpoints: what is kept comes back to the bit, or is known not to; the last good one is found."""

import json
import pickle
import shutil

import jax
import numpy as np
import pytest
import xarray as xr

from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import atomic_files, checkpoints
from toyicl.harness.checkpoints import Checkpoint, CheckpointManager
from toyicl.harness.results import load_results, save_results
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training import distributed
from toyicl.training.loop import Plan, fit_all
from toyicl.training.state import TrainingState, named_arrays, with_arrays
from toyicl.training.step import Training

ARRAYS = {
    "step": np.array([3, 4], np.int32),
    "learners.w": np.random.default_rng(0).normal(size=(2, 5, 3)),
    "single": np.float32(0.1) * np.ones((2, 1), np.float32),
    "not finite": np.array([np.nan, np.inf, -0.0, 5e-324]),
}
PLAN = Plan(
    Architecture(),
    LinearRegression(dim=2, context_size=3),
    Training(steps=30, batch_size=8, snapshot_every=10),
    range(3),
)


def checkpoint(number=0, fits=None):
    return Checkpoint({"number": number}, [{"revision": "a"}], fits or {"a / b": ARRAYS})


def never(sentence):
    raise AssertionError(sentence)


def keeper(folder, fits=(), every=0.0, stop=lambda: False, warn=never, damaged=()):
    begun = Checkpoint({}, [], dict(fits), damaged=damaged)
    return CheckpointManager(folder, begun, every=every, stop=stop, warn=warn)


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    checkpoints.save(tmp_path, checkpoint(fits={"a / b": ARRAYS, "": {"x": np.arange(2)}}))
    found = checkpoints.load(tmp_path, never)
    assert found.identity == {"number": 0}
    assert found.origins == [{"revision": "a"}]
    assert list(found.fits) == ["a / b", ""]
    for name, array in ARRAYS.items():
        own = found.fits["a / b"][name]
        assert own.dtype == array.dtype
        assert own.tobytes() == array.tobytes()


def test_without_checkpoints_there_is_none(tmp_path):
    assert checkpoints.load(tmp_path, never) is None


def test_the_newest_of_two_generations_counts(tmp_path):
    for number in range(4):
        checkpoints.save(tmp_path, checkpoint(number))
    assert checkpoints.load(tmp_path, never).identity == {"number": 3}
    names = sorted(path.name for path in (tmp_path / checkpoints.FOLDER).iterdir())
    assert names == ["00000003", "00000004"]


def test_a_damaged_generation_is_told_and_the_one_before_it_is_used(tmp_path):
    checkpoints.save(tmp_path, checkpoint(1))
    checkpoints.save(tmp_path, checkpoint(2))
    (tmp_path / checkpoints.FOLDER / "00000002" / checkpoints.ABOUT).write_text("{")
    told = []
    assert checkpoints.load(tmp_path, told.append).identity == {"number": 1}
    assert "00000002/about.json is damaged" in told[0]


def test_if_no_good_generation_is_left_it_is_said(tmp_path):
    checkpoints.save(tmp_path, checkpoint())
    (tmp_path / checkpoints.FOLDER / "00000001" / atomic_files.SUMS).unlink()
    with pytest.raises(
        atomic_files.Damaged, match=r"no good checkpoint is left in .*--fresh starts over"
    ):
        checkpoints.load(tmp_path, lambda sentence: None)


def test_damaged_generations_are_not_among_those_kept(tmp_path):
    for number in range(2):
        checkpoints.save(tmp_path, checkpoint(number))
    (tmp_path / checkpoints.FOLDER / "00000002" / checkpoints.ABOUT).write_text("{")
    found = checkpoints.load(tmp_path, lambda sentence: None)
    assert found.damaged == ["00000002"]
    keeper(tmp_path, damaged=found.damaged).save()
    names = sorted(path.name for path in (tmp_path / checkpoints.FOLDER).iterdir())
    assert names == ["00000001", "00000003"]


def test_the_ends_of_runs_are_kept_and_older_checkpoints_do_without(tmp_path):
    own = keeper(tmp_path, {"b": ARRAYS})
    fit_all([PLAN], keeper=own.of("a", [3, 3, 3]))
    assert checkpoints.load(tmp_path, never).ends == {"a": [3, 3, 3]}
    (tmp_path / "older").mkdir()
    newest = max((tmp_path / checkpoints.FOLDER).iterdir())

    def write_without_ends(folder):
        shutil.copytree(newest, folder, dirs_exist_ok=True)
        (folder / atomic_files.SUMS).unlink()
        about = json.loads((folder / checkpoints.ABOUT).read_text())
        assert about.pop("ends")
        (folder / checkpoints.ABOUT).write_text(json.dumps(about))

    (tmp_path / "older" / checkpoints.FOLDER).mkdir()
    atomic_files.save_folder(
        tmp_path / "older" / checkpoints.FOLDER / "00000001", write_without_ends
    )
    older = checkpoints.load(tmp_path / "older", never)
    assert older.ends == {}
    assert set(older.fits) == {"a", "b"}


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 99)
    checkpoints.save(tmp_path, checkpoint())
    monkeypatch.undo()
    with pytest.raises(BadInput, match="must have been written in format 1, got 99"):
        checkpoints.load(tmp_path, never)


def test_no_changed_byte_gives_a_wrong_checkpoint(tmp_path):
    """Every file of a generation, flipped or cut at places all over it: the earlier one comes back."""
    checkpoints.save(tmp_path, checkpoint(1))
    checkpoints.save(tmp_path, checkpoint(2))
    newest = tmp_path / checkpoints.FOLDER / "00000002"
    paths = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]
    cases = 0
    for path in paths:
        whole = path.read_bytes()
        for place in np.unique(np.linspace(0, len(whole) - 1, 20).astype(int)):
            flipped = whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]
            for broken in (flipped, whole[:place]):
                path.write_bytes(broken)
                told = []
                assert checkpoints.load(tmp_path, told.append).identity == {"number": 1}
                assert "is damaged" in told[0]
                cases += 1
        path.write_bytes(whole)
    assert cases >= 200
    assert checkpoints.load(tmp_path, never).identity == {"number": 2}


def test_trails_and_named_arrays_are_the_same_thing():
    trails = TrainingState(
        step=np.array([1]),
        optimiser={"m": np.array([[2.0]])},
        learners=[np.array([[3.0]])],
        training_loss=np.array([[4.0]]),
        diverged_at=np.array([-1]),
    )
    arrays = named_arrays(trails)
    assert set(arrays) == {"step", "optimiser.m", "learners.0", "training_loss", "diverged_at"}
    other = with_arrays(jax.tree.map(np.zeros_like, trails), arrays)
    assert jax.tree.all(jax.tree.map(np.array_equal, other, trails))
    for wrong in (
        {name: arrays[name] for name in ("step",)},
        arrays | {"more": np.zeros(1)},
        arrays | {"step": np.array([1.0])},
        arrays | {"step": np.array([1, 2])},
    ):
        with pytest.raises(ValueError, match=r"there, and .* here"):
            with_arrays(trails, wrong)


def test_a_fit_carries_on_to_the_same_bits(tmp_path):
    (whole,) = fit_all([PLAN])
    rounds = iter(range(100))
    first = keeper(tmp_path, stop=lambda: next(rounds) == 2)
    with pytest.raises(Unfinished, match=r"stopped in 'a' after steps .*; the same command"):
        fit_all([PLAN], keeper=first.of("a"))
    kept = checkpoints.load(tmp_path, never)
    assert 0 < kept.fits["a"]["step"].sum() < 90
    (resumed,) = fit_all([PLAN], keeper=keeper(tmp_path, kept.fits).of("a"))
    assert jax.tree.all(jax.tree.map(np.array_equal, resumed, whole))


def test_a_finished_fit_is_not_trained_again(tmp_path):
    """Though nothing came after it, and saving was not due; nor is it saved again."""
    own = keeper(tmp_path, every=1e9)
    (history,) = fit_all([PLAN], keeper=own.of("a"))
    steps = []
    again = keeper(tmp_path, checkpoints.load(tmp_path, never).fits, every=1e9)
    for _ in range(2):
        (kept,) = fit_all([PLAN], keeper=again.of("a"), progress=lambda done, _: steps.append(done))
        assert jax.tree.all(jax.tree.map(np.array_equal, kept, history))
    assert steps == []
    assert max(path.name for path in (tmp_path / checkpoints.FOLDER).iterdir()) == "00000003"


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    own = keeper(tmp_path)
    fit_all([PLAN], keeper=own.of("a"))
    deeper = PLAN._replace(build=Architecture(depth=2))
    with pytest.raises(Unfinished, match=r"of another program .*--fresh starts over"):
        fit_all([deeper], keeper=own.of("a"))


def test_saving_waits_as_long_as_it_is_told(tmp_path):
    seldom, often = keeper(tmp_path / "a", every=1e9), keeper(tmp_path / "b", every=0.0)
    for own in (seldom, often):
        own._folder.mkdir()
        fit_all([PLAN], keeper=own.of("a"))
    saved = [
        sorted(p.name for p in (own._folder / "checkpoint").iterdir()) for own in (seldom, often)
    ]
    # The first is at once, so that the folder knows whose it is; the last has the finished fit.
    assert saved[0] == ["00000001", "00000002"]
    assert int(saved[1][-1]) > 4


def test_a_checkpoint_that_cannot_be_saved_is_told_and_training_goes_on(tmp_path, monkeypatch):
    told = []
    own = keeper(tmp_path, warn=told.append)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    checkpoints.save(tmp_path, checkpoint(7))
    monkeypatch.setattr(checkpoints, "save", full)
    (history,) = fit_all([PLAN], keeper=own.of("a"))
    assert "no checkpoint could be saved" in told[0]
    assert "No space left on device" in told[0]
    assert jax.tree.all(jax.tree.map(np.array_equal, history, fit_all([PLAN])[0]))
    assert checkpoints.load(tmp_path, never).identity == {"number": 7}


@pytest.mark.parametrize("error", [ValueError(), ValueError("\n"), OSError()])
def test_an_error_without_words_is_told_by_its_type(tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    told = []
    monkeypatch.setattr(checkpoints, "save", fail)
    keeper(tmp_path, warn=told.append).save()
    assert f"({type(error).__name__})" in told[0]


def test_a_checkpoint_that_does_not_fit_ends_all_processes(tmp_path, monkeypatch):
    """What the others would wait for is told to them before it is raised."""
    said = []
    monkeypatch.setattr(
        distributed, "any_process", lambda *flags: said.append(flags) or list(flags)
    )
    with pytest.raises(Unfinished, match="of another program"):
        fit_all([PLAN], keeper=keeper(tmp_path, {"a": ARRAYS}).of("a"))
    assert said == [(True,)]
    monkeypatch.setattr(distributed, "any_process", lambda *flags: [True])
    with pytest.raises(Unfinished, match="process 0 could not go on"):
        fit_all([PLAN], keeper=keeper(tmp_path).of("a"))


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
    assert found.fits["a / b"]["step"].tolist() == [3, 4]
    results = xr.Dataset({"a": ("x", np.arange(3.0))}, attrs={"format": checkpoints.FORMAT})
    save_results(results, tmp_path)
    assert load_results(tmp_path).identical(results)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith(b"\x80"), path
    about = json.loads((tmp_path / "checkpoint" / "00000001" / "about.json").read_text())
    assert about["format"] == checkpoints.FORMAT
