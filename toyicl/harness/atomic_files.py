"""Atomic, checksummed file writes, and locks on folders."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import filelock

from toyicl.core.errors import BadInput, Unfinished

SUMS = "SHA256SUMS"
DRAFT = ".draft-"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of file systems that have no locks."""


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


def require_kinds(folder: Path, files: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Check that nothing in a folder has the name of a file and is a folder, or the reverse.

    The folder need not exist. Raises BadInput also where it is a file, or would be inside one.
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        raise BadInput(f"out must be a folder, got {folder}; {nearest} is a file")
    for path in (folder / name for name in files):
        if path.is_dir():
            raise BadInput(f"{path} must be a file, got a folder")
    for path in (folder / name for name in folders):
        if path.exists() and not path.is_dir():
            raise BadInput(f"{path} must be a folder, got a file")


@contextlib.contextmanager
def locked(folder: Path, warn: Callable[[str], None], *, lock: bool = True) -> Iterator[None]:
    """Hold a folder alone; the lock ends with the process, however that ends.

    Where the file system has no locks, `warn` is called and the folder is used without one; with
    `lock` False no lock is tried. Raises BadInput if another process holds the folder, or if a lock
    file cannot be written there.
    """
    with contextlib.ExitStack() as held:
        if lock:
            _lock(folder, held, warn)
        for draft in folder.rglob(f"{DRAFT}*"):  # left by a process that was killed
            shutil.rmtree(draft, ignore_errors=True)
        yield


def _lock(folder: Path, held: contextlib.ExitStack, warn: Callable[[str], None]) -> None:
    """Lock a folder until the stack is left, and note the process that holds it in a file."""
    holder = folder / ".lock-holder"
    try:
        held.enter_context(filelock.FileLock(folder / ".lock", timeout=0, fallback_to_soft=False))
    except filelock.Timeout:
        with contextlib.suppress(OSError):
            number = holder.read_text(encoding="utf-8").strip()
            raise BadInput(
                "out must be a folder that no other process is using, "
                f"got {folder} (process {number or 'unknown'})"
            ) from None
        raise BadInput(
            f"out must be a folder that no other process is using, got {folder}"
        ) from None
    except (NotImplementedError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise BadInput(
                f"out must be a folder that can be locked, got {folder} ({reason}); --no-lock uses "
                "it without a lock"
            ) from error
        warn(
            f"{folder} is used without a lock, which its file system does not have ({reason}); no "
            "other process should use it now"
        )
        return
    # The file tells other processes who holds the lock, which does not depend on it.
    with contextlib.suppress(OSError):
        holder.write_text(str(os.getpid()), encoding="utf-8")
        held.callback(holder.unlink, missing_ok=True)


def has_locks(folder: Path) -> bool:
    """Whether the file system of a folder that can be written has locks."""
    probe = folder / ".lock-probe"
    try:
        with filelock.FileLock(probe, timeout=0, fallback_to_soft=False):
            return True
    except (NotImplementedError, OSError):
        return False
    finally:
        probe.unlink(missing_ok=True)


def save_with_digest(content: bytes, path: Path) -> None:
    """Write a file and, next to it, its digest in a file with the suffix .sha256.

    The digest is that of `sha256sum`, which can check it. Each of the two files is replaced only once
    it is complete.
    """
    digest = hashlib.sha256(content).hexdigest()
    with _draft(path.parent) as folder:
        for own, data in (
            (path, content),
            (digest_path(path), f"{digest}  {path.name}\n".encode()),
        ):
            draft = folder / own.name
            draft.write_bytes(data)
            os.replace(draft, own)


def digest_path(path: Path) -> Path:
    """Where the digest of a file is."""
    return path.with_name(f"{path.name}.sha256")


def has_digest(path: Path) -> bool:
    """Whether a file has the digest that is next to it; False if there is none."""
    try:
        noted = digest_path(path).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return False
    return noted[:1] == [_sha256(path)]


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


def _sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_of_sums(sums: str) -> str:
    """The last line of a folder's digests."""
    return hashlib.sha256(sums.encode()).hexdigest() + "\n"
