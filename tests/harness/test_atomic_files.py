"""Files: whole or not there, and every change to what was written is noticed."""

import errno
import fcntl
import hashlib
import os
import re
import subprocess
import sys

import pytest

from toyicl.core.errors import BadInput
from toyicl.harness import atomic_files


def save(path, content=b"some content"):
    atomic_files.save_with_digest(content, path)


def fill(folder):
    (folder / "inner").mkdir()
    (folder / "inner" / "one").write_bytes(b"1" * 100)
    (folder / "two").write_bytes(b"2")


def test_a_file_is_written_with_a_digest_that_sha256sum_can_check(tmp_path):
    path = tmp_path / "file"
    save(path)
    assert path.read_bytes() == b"some content"
    assert atomic_files.has_digest(path)
    digest = hashlib.sha256(b"some content").hexdigest()
    assert (tmp_path / "file.sha256").read_text() == f"{digest}  file\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "file.sha256"]


@pytest.mark.parametrize("content", [b"", b"x", b"x" * (1 << 20), b"x" * ((1 << 20) + 1)])
def test_content_of_any_size_has_a_digest(tmp_path, content):
    save(tmp_path / "file", content)
    assert atomic_files.has_digest(tmp_path / "file")


def test_every_flipped_byte_and_every_length_is_noticed(tmp_path):
    path = tmp_path / "file"
    save(path)
    whole = path.read_bytes()
    for index in range(len(whole)):
        for broken in (
            whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :],
            whole[:index],
        ):
            path.write_bytes(broken)
            assert not atomic_files.has_digest(path)
    path.write_bytes(whole + b"x")
    assert not atomic_files.has_digest(path)


def test_a_file_without_a_digest_has_none(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert not atomic_files.has_digest(tmp_path / "file")


def test_every_change_in_a_folder_is_noticed(tmp_path):
    folder = tmp_path / "folder"
    atomic_files.save_folder(folder, fill)
    atomic_files.require_whole(folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for index in range(len(whole)):
            path.write_bytes(whole[:index] + bytes([whole[index] ^ 4]) + whole[index + 1 :])
            with pytest.raises(atomic_files.Damaged, match="is damaged"):
                atomic_files.require_whole(folder)
            path.write_bytes(whole[:index])
            with pytest.raises(atomic_files.Damaged, match="is damaged"):
                atomic_files.require_whole(folder)
        path.unlink()
        with pytest.raises(atomic_files.Damaged):
            atomic_files.require_whole(folder)
        path.write_bytes(whole)
    atomic_files.require_whole(folder)


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail(draft):
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        atomic_files.save_folder(tmp_path / "file", fail)
    assert not list(tmp_path.iterdir())


def test_a_locked_folder_is_refused_to_another_process_and_named(tmp_path):
    code = f"""
from pathlib import Path
from toyicl.core.errors import BadInput
from toyicl.harness import atomic_files
try:
    with atomic_files.locked(Path({str(tmp_path)!r}), print):
        print("held")
except BadInput as error:
    print(error)
"""

    def other():
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with atomic_files.locked(tmp_path, print):
        assert f"no other process is using, got {tmp_path} (process {os.getpid()})" in other()
    assert other() == "held\n"


def refusing(monkeypatch, number):
    """A file system whose locks fail with an error."""

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPERM])
def test_a_folder_that_cannot_be_locked_is_refused(tmp_path, monkeypatch, number):
    refusing(monkeypatch, number)
    expected = f"out must be a folder that can be locked, got {tmp_path} ({os.strerror(number)})"
    with (
        pytest.raises(BadInput, match=re.escape(expected)),
        atomic_files.locked(tmp_path, print),
    ):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, number):
    refusing(monkeypatch, number)
    warnings = []
    with atomic_files.locked(tmp_path, warnings.append):
        pass
    (warning,) = warnings
    assert "without a lock" in warning
    assert os.strerror(number) in warning


def test_a_folder_is_used_without_a_lock_on_request(tmp_path, monkeypatch):
    refusing(monkeypatch, errno.EPERM)
    warnings = []
    with atomic_files.locked(tmp_path, warnings.append, lock=False):
        assert not list(tmp_path.iterdir())
    assert warnings == []


def test_a_folder_is_locked_where_its_holder_cannot_be_noted(tmp_path):
    (tmp_path / ".lock-holder").mkdir()
    with (
        atomic_files.locked(tmp_path, print),
        pytest.raises(BadInput, match="no other process is using"),
        atomic_files.locked(tmp_path, print),
    ):
        pass
    with atomic_files.locked(tmp_path, print):
        pass


def test_what_is_raised_in_a_locked_folder_is_raised_as_it_is(tmp_path):
    with pytest.raises(OSError, match="mine"), atomic_files.locked(tmp_path, print):
        raise OSError("mine")


def test_drafts_of_a_killed_process_are_cleared(tmp_path):
    (tmp_path / "inner" / f"{atomic_files.DRAFT}1").mkdir(parents=True)
    with atomic_files.locked(tmp_path, print):
        assert not list((tmp_path / "inner").iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="out must be a folder that can be written"):
        atomic_files.prepare_folder(blocked / "runs")
