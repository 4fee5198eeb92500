"""Files that are whole or not there: written beside their place and renamed, with their SHA-256."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from toyicl.core.errors import BadInput, Unfinished

SUMS = "SHA256SUMS"
DRAFT = ".draft-"
MARK = b"\nsha256 of all before: "
"""Before the digest at the end of a sealed file."""
TRAILER = len(MARK) + 64


class Damaged(Unfinished):
    """A file is not what was written; the message names it."""


def prepare_folder(folder: Path) -> None:
    """Make sure a folder exists and can be written, before anything is computed.

    Raises BadInput where it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(
            f"out must be a folder that can be written, got {folder} ({reason})"
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone; the lock ends with the process, however that ends.

    Raises BadInput if another process holds it, or if it cannot be locked.
    """
    with contextlib.ExitStack() as held:
        try:
            # Without a buffer, or what a full disk refuses would be written once more at the end.
            file = held.enter_context((folder / ".lock").open("ab+", buffering=0))
            _lock(file, folder)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadInput(
                f"out must be a folder that can be locked, got {folder} ({reason})"
            ) from error
        for draft in folder.rglob(f"{DRAFT}*"):  # what a killed process left
            shutil.rmtree(draft, ignore_errors=True)
        yield


def _lock(file: BinaryIO, folder: Path) -> None:
    """Lock an open file, and write into it who holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().decode(errors="replace").strip() or "unknown"
        raise BadInput(
            f"out must be a folder that no other process is using, got {folder} (process {holder})"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()).encode())


def save_sealed(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file, append its digest, and put it in place of an earlier one.

    Readers of formats that know their own length, HDF5 among them, do not see the digest.
    """
    with _draft(path.parent) as folder:
        draft = folder / path.name
        write(draft)
        digest = _sha256(draft)
        with draft.open("ab") as file:
            file.write(MARK + digest.encode())
        os.replace(draft, path)


def has_seal(path: Path) -> bool:
    """Whether a file ends with a digest, be it the right one or not."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TRAILER, 0))
        return file.read().startswith(MARK)


def require_sealed(path: Path) -> None:
    """Raises Damaged unless a file ends with the digest of all before it."""
    with path.open("rb") as file:
        length = max(path.stat().st_size - TRAILER, 0)
        file.seek(length)
        trailer = file.read()
    if trailer != MARK + _sha256(path, length).encode():
        raise Damaged(f"{path} is damaged: it is not the file that was written")


def save_text(text: str, path: Path) -> Path:
    """Write a text file, replacing an earlier one only once it is complete."""
    with _draft(path.parent) as folder:
        draft = folder / path.name
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    return path


def save_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new folder, add the digests of its files, and put it in its place."""
    with _draft(path.parent) as folder:
        draft = folder / path.name
        draft.mkdir()
        write(draft)
        sums = "".join(f"{_sha256(file)}  {file.relative_to(draft)}\n" for file in _files(draft))
        (draft / SUMS).write_text(sums + _sum_of_sums(sums))
        os.replace(draft, path)


def require_whole(path: Path) -> None:
    """Raises Damaged unless a folder's files are those that were written."""
    try:
        *lines, own = (path / SUMS).read_bytes().decode("ascii").splitlines(keepends=True) or [""]
        if own != _sum_of_sums("".join(lines)):
            raise Damaged(f"{path / SUMS} is damaged")
        for line in lines:
            digest, _, name = line.rstrip("\n").partition("  ")
            if digest != _sha256(path / name):
                raise Damaged(f"{path / name} is damaged: it is not the file that was written")
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} is damaged: {error}") from error


@contextlib.contextmanager
def _draft(parent: Path) -> Iterator[Path]:
    """A folder for what is not complete yet; gone afterwards, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=DRAFT, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path, length: int | None = None) -> str:
    """Digest of a file, or of its first so many bytes."""
    left = path.stat().st_size if length is None else length
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _sum_of_sums(sums: str) -> str:
    """The last line of a folder's digests."""
    return hashlib.sha256(sums.encode()).hexdigest() + "\n"
