"""The cache of compiled programs: used again, repaired where it is damaged, and limited in size."""

import os
import subprocess
import sys

import jax
import pytest
from programs import SMALL, environment

from toyicl.training import compilation_cache
from toyicl.training.compilation_cache import CacheRepair


def test_a_second_start_compiles_only_damaged_programs(tmp_path):
    code = f"""
import contextlib, jax
missed = []
jax.monitoring.register_event_listener(
    lambda event, **_: missed.append(event) if event.endswith("cache_misses") else None)
from toyicl.cli.main import main
with contextlib.suppress(SystemExit):
    main(["run", {str(SMALL)!r}, "--fresh", "--seeds=1", "--out", {str(tmp_path / "out")!r}])
print(len(missed))
"""
    missed = []
    for start in range(3):
        answer = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment(XDG_CACHE_HOME=tmp_path / "cache"),
        )
        missed.append(int(answer.stdout.splitlines()[-1]))
        assert answer.stderr == ""
        if start == 0:  # as a kill or a full disk may leave them
            for path in list((tmp_path / "cache").rglob("jit_advance*")):
                path.write_bytes(path.read_bytes()[:-9])
    assert missed[0] > 10
    assert 0 < missed[1] < 5
    assert missed[2] == 0


def test_the_least_recently_used_programs_are_removed_first(tmp_path):
    for age, name in enumerate(["newest", "newer", "older", "oldest"]):
        path = tmp_path / name
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "older", (2e9, 1e9))  # written long ago, but read since
    compilation_cache.remove_oldest(tmp_path, 400)
    assert len(list(tmp_path.iterdir())) == 4
    compilation_cache.remove_oldest(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "older"}
    (tmp_path / "folder").mkdir()
    compilation_cache.remove_oldest(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    compilation_cache.remove_oldest(tmp_path / "nothing", 0)


def test_the_files_of_an_entry_are_removed_together(tmp_path):
    for age, name in enumerate(["new", "old"]):
        for end in ("-cache", "-atime"):
            path = tmp_path / f"{name}{end}"
            path.write_bytes(bytes(100))
            os.utime(path, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "new-atime", (1e9 - 9, 1e9 - 9))
    compilation_cache.remove_oldest(tmp_path, 399)
    assert {path.name for path in tmp_path.iterdir()} == {"new-cache", "new-atime"}


PROGRAMS = """
import jax, jax.numpy as jnp, sys
from pathlib import Path
from toyicl.training import compilation_cache
from toyicl.training.compilation_cache import CacheRepair

compilation_cache.keep_compiled()
missed = []
jax.monitoring.register_event_listener(
    lambda event, **_: missed.append(event) if event.endswith("cache_misses") else None)


def compile_program(number):
    def function(x):
        return x @ x.T + number
    function.__name__ = f"program{number}"
    return jax.jit(function)(jnp.ones((2, 2))).tolist()


def kept():
    return {path.name.split("-")[0] for path in Path(sys.argv[1]).rglob("jit_program*-cache")}


"""


def start(code, folder, **changes):
    """A process with a cache in a folder, which ends with an error at the first warning."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAMS + code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(XDG_CACHE_HOME=folder, **changes),
    )


def answer(process):
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return output


COMPILE_ALL = "print([compile_program(number) for number in range(8)]); print(len(missed))"


def test_processes_that_fill_an_empty_cache_at_the_same_time_do_not_disturb_each_other(tmp_path):
    together = [start(COMPILE_ALL, tmp_path) for _ in range(3)]
    values, _ = zip(*(answer(process).splitlines() for process in together), strict=True)
    assert set(values) == {str([[[2.0 + number] * 2] * 2 for number in range(8)])}
    (half,) = tmp_path.rglob("jit_program0-*-cache")
    half.write_bytes(half.read_bytes()[:-9])  # as another process may read it while it is written
    after, missed = answer(start(COMPILE_ALL, tmp_path)).splitlines()
    assert (after, missed) == (values[0], "1")  # the entries of all other programs are whole


@pytest.mark.parametrize("chosen", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_missing_access_time_costs_one_write_of_a_cache_of_limited_size(tmp_path, chosen):
    """Also in a folder that the user has chosen."""
    options = {"JAX_COMPILATION_CACHE_MAX_SIZE": 10**8}
    if chosen:
        options["JAX_COMPILATION_CACHE_DIR"] = tmp_path
        options["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = 0
    code = """
compile_program(1)
def forget():
    next(Path(sys.argv[1]).rglob("jit_program1-*-atime")).unlink()
forget()
compile_program(2)  # the write that fails
compile_program(3)
assert kept() == {"jit_program1", "jit_program3"}
compile_program(2)
assert kept() == {"jit_program1", "jit_program2", "jit_program3"}
forget()
compilation_cache.keep_compiled()
compile_program(4)
assert len(kept()) == 4
"""
    answer(start(code, tmp_path, **options))


@pytest.fixture
def repair(tmp_path):
    """The repair of a folder with three entries, and the other warnings that it shows."""
    for name in ("jit_a-1", "jit_a-2", "jit_ab-1"):
        for end in ("-cache", "-atime"):
            (tmp_path / f"{name}{end}").touch()
    others = []
    return CacheRepair(tmp_path, lambda message, *more: others.append(str(message))), others


def entries(folder):
    return {path.name.removesuffix("-cache") for path in folder.glob("*-cache")}


@pytest.mark.parametrize(
    ("problem", "left"),
    [
        ("'jit_a': error: Error -5 while decompressing data", {"jit_ab-1"}),
        ("'jit_a': EOFError: truncated", {"jit_ab-1"}),
        ("'jit_a-2': ValueError: a key", {"jit_a-1", "jit_ab-1"}),
        ("'jit_a': PermissionError: of the folder", {"jit_a-1", "jit_a-2", "jit_ab-1"}),
        ("'jit_a': OSError: no locks available", {"jit_a-1", "jit_a-2", "jit_ab-1"}),
        ("'jit_a': Timeout: of the lock", {"jit_a-1", "jit_a-2", "jit_ab-1"}),
    ],
)
def test_entries_are_removed_only_for_what_they_contain(tmp_path, repair, problem, left):
    show, others = repair
    show(UserWarning(f"Error reading persistent compilation cache entry for {problem}"))
    assert entries(tmp_path) == left
    assert others == []
    show(UserWarning("something else"))
    assert others == ["something else"]


def test_access_times_are_added_if_the_size_is_limited(tmp_path, repair):
    show, others = repair
    missing = tmp_path / "jit_a-1-atime"
    missing.unlink()
    problem = UserWarning(
        "Error writing persistent compilation cache entry for 'jit_c': FileNotFoundError: jit_a"
    )
    show(problem)
    assert not missing.exists()
    jax.config.update("jax_compilation_cache_max_size", 10**8)
    try:
        show(problem)
    finally:
        jax.config.update("jax_compilation_cache_max_size", -1)
    assert len(missing.read_bytes()) == 8
    assert others == []


def test_compiled_programs_can_be_released():
    program = jax.jit(lambda x: x + 1)
    program(1.0)
    assert program._cache_size() == 1
    compilation_cache.forget_programs()
    assert program._cache_size() == 0
