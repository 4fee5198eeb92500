"""Files: whole or not there, and every change to what was written is noticed."""

import errno
import os
import re
import subprocess
import sys

import pytest

from toyicl.core.errors import BadInput
from toyicl.harness import atomic_files


def seal(path, content=b"some content"):
    atomic_files.save_sealed(path, lambda draft: draft.write_bytes(content))


def fill(folder):
    (folder / "inner").mkdir()
    (folder / "inner" / "one").write_bytes(b"1" * 100)
    (folder / "two").write_bytes(b"2")


def test_a_sealed_file_begins_with_its_content(tmp_path):
    path = tmp_path / "file"
    seal(path)
    assert path.read_bytes().startswith(b"some content")
    atomic_files.require_sealed(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"x", b"x" * (1 << 20), b"x" * ((1 << 20) + 1)])
def test_content_of_any_size_is_sealed(tmp_path, content):
    seal(tmp_path / "file", content)
    atomic_files.require_sealed(tmp_path / "file")


def test_every_flipped_byte_and_every_length_is_noticed(tmp_path):
    path = tmp_path / "file"
    seal(path)
    whole = path.read_bytes()
    for index in range(len(whole)):
        for broken in (
            whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :],
            whole[:index],
        ):
            path.write_bytes(broken)
            with pytest.raises(atomic_files.Damaged, match="is damaged"):
                atomic_files.require_sealed(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(atomic_files.Damaged):
        atomic_files.require_sealed(path)


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


@pytest.mark.parametrize("save", [atomic_files.save_sealed, atomic_files.save_folder])
def test_a_write_that_fails_leaves_nothing(tmp_path, save):
    def fail(draft):
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        save(tmp_path / "file", fail)
    assert not list(tmp_path.iterdir())


def test_a_locked_folder_is_refused_to_another_process_and_named(tmp_path):
    code = f"""
from pathlib import Path
from toyicl import files
from toyicl.errors import BadInput
try:
    with files.locked(Path({str(tmp_path)!r})):
        print("held")
except BadInput as error:
    print(error)
"""

    def other():
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with atomic_files.locked(tmp_path):
        assert f"no other process is using, got {tmp_path} (process {os.getpid()})" in other()
    assert other() == "held\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOLCK, errno.EPERM])
def test_a_folder_that_cannot_be_locked_is_refused(tmp_path, monkeypatch, number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic_files.fcntl, "flock", fail)
    expected = f"out must be a folder that can be locked, got {tmp_path} ({os.strerror(number)})"
    with pytest.raises(BadInput, match=re.escape(expected)), atomic_files.locked(tmp_path):
        pass


def test_what_is_raised_in_a_locked_folder_is_raised_as_it_is(tmp_path):
    with pytest.raises(OSError, match="mine"), atomic_files.locked(tmp_path):
        raise OSError("mine")


def test_drafts_of_a_killed_process_are_cleared(tmp_path):
    (tmp_path / "inner" / f"{atomic_files.DRAFT}1").mkdir(parents=True)
    with atomic_files.locked(tmp_path):
        assert not list((tmp_path / "inner").iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="out must be a folder that can be written"):
        atomic_files.prepare_folder(blocked / "runs")
