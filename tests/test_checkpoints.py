"""Checkpoints: what is kept comes back to the bit, or is known not to; the last good one is found."""

import json

import jax
import numpy as np
import pytest

from toyicl import checkpoints, files
from toyicl.checkpoints import Checkpoint, Keeper
from toyicl.errors import BadInput, Unfinished
from toyicl.fitting import Plan, fit_all
from toyicl.tasks import LinearRegression
from toyicl.trails import Trails, named_arrays, with_arrays
from toyicl.training import Training
from toyicl.transformer import Architecture

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


def keeper(folder, fits=(), every=0.0, stop=lambda: False, warn=never):
    return Keeper(folder, {}, [], dict(fits), every=every, stop=stop, warn=warn)


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
    (tmp_path / checkpoints.FOLDER / "00000001" / files.SUMS).unlink()
    with pytest.raises(files.Damaged, match=r"no good checkpoint is left in .*--fresh starts over"):
        checkpoints.load(tmp_path, lambda sentence: None)


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
    trails = Trails(
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
    own = keeper(tmp_path)
    (history,) = fit_all([PLAN], keeper=own.of("a"))
    own.save()
    steps = []
    again = keeper(tmp_path, checkpoints.load(tmp_path, never).fits)
    (kept,) = fit_all([PLAN], keeper=again.of("a"), progress=lambda done, _: steps.append(done))
    assert steps == []
    assert jax.tree.all(jax.tree.map(np.array_equal, kept, history))


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
    assert saved[0] == ["00000001"]  # the first is at once, so that the folder knows whose it is
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


def test_nothing_is_pickled(tmp_path):
    checkpoints.save(tmp_path, checkpoint())
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith(b"\x80"), path
    about = json.loads((tmp_path / "checkpoint" / "00000001" / "about.json").read_text())
    assert about["format"] == checkpoints.FORMAT
