"""The cache of compiled programs: used again, repaired where it is damaged, and limited in size."""

import os
import subprocess
import sys

import jax
import pytest
from programs import SMALL, environment

from toyicl.training import compilation_cache


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


@pytest.mark.slow
def test_a_cache_of_limited_size_is_written_if_access_times_are_missing(tmp_path):
    """Also if the folder was filled before its size was limited."""
    code = """
import jax, sys
from toyicl.training import compilation_cache
compilation_cache.keep_compiled()
jax.jit(lambda x: x + float(sys.argv[1]))(1.0)
"""

    def compile_program(number, **limit):
        answer = subprocess.run(
            [sys.executable, "-c", code, str(number)],
            capture_output=True,
            text=True,
            check=True,
            env=environment(XDG_CACHE_HOME=tmp_path, **limit),
        )
        assert answer.stderr == ""
        return {path.name for path in tmp_path.rglob("*-cache")}

    limit = {"JAX_COMPILATION_CACHE_MAX_SIZE": 10**8}
    first = compile_program(1)
    second = compile_program(2, **limit)
    next(tmp_path.rglob("*-atime")).unlink()
    third = compile_program(3, **limit)
    assert first < second < third


def test_compiled_programs_can_be_released():
    program = jax.jit(lambda x: x + 1)
    program(1.0)
    assert program._cache_size() == 1
    compilation_cache.forget_programs()
    assert program._cache_size() == 0
