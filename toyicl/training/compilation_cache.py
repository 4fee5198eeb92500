"""The persistent cache of compiled programs, and their release within a process."""

import builtins
import contextlib
import gc
import hashlib
import os
import platform
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

CACHE_BYTES = 2**30
"""Size to which the folder of compiled programs is reduced at each start, least recently used first."""
PROGRAM, ACCESS_TIME = "-cache", "-atime"
"""Ends of the names of the two files of an entry; JAX writes the second only if it limits the size."""
PROBLEM = "Error (reading|writing) persistent compilation cache entry"
"""How JAX's warnings about its cache begin, as a regular expression."""


def keep_compiled() -> None:
    """Keep compiled programs in the user's cache folder, so that a second start need not compile.

    Each kind of CPU has its own folder, since programs of one may not run on another that shares the
    home folder. Must be called before JAX's first compilation. JAX_COMPILATION_CACHE_DIR takes
    precedence; if JAX_COMPILATION_CACHE_MAX_SIZE is set, JAX limits the size of the folder. Several
    processes may use a folder at the same time; see `CacheRepair`.
    """
    given = jax.config.values["jax_compilation_cache_dir"]
    if given is not None:
        if "://" not in given:  # the folder is not on another machine
            _repair_when_needed(Path(given))
        return
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "toyicl" / kind_of_cpu()
    if not _is_limited():
        # JAX's own limit reads the whole folder for each program that it adds. With thousands of
        # programs this takes several times as long as compiling, so it is done once at each start.
        remove_oldest(folder, CACHE_BYTES)
    _repair_when_needed(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def remove_oldest(folder: Path, most_bytes: int) -> None:
    """Remove the least recently used entries of a cache folder until the others fit `most_bytes`.

    The files of an entry are removed together. A folder that cannot be read, and files that cannot be
    removed or that another process removes meanwhile, raise no error.
    """
    entries: dict[str, list[tuple[float, int, Path]]] = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.is_file() and not path.name.startswith("."):
                    used = max(status.st_atime, status.st_mtime)
                    entries.setdefault(_key(path), []).append((used, status.st_size, path))
    surplus = sum(size for files in entries.values() for _, size, _ in files) - most_bytes
    for files in sorted(entries.values(), key=lambda files: max(used for used, _, _ in files)):
        if surplus <= 0:
            break
        _remove([path for _, _, path in files])
        surplus -= sum(size for _, size, _ in files)


def add_access_times(folder: Path) -> None:
    """Add the access times that are missing in a cache folder.

    If JAX limits the size of the folder, a program without its access time makes every later write
    fail. Such programs are left by a process that does not limit the size, or that was killed.
    """
    with contextlib.suppress(OSError):
        for program in folder.glob(f"*{PROGRAM}"):
            access_time = program.with_name(_key(program) + ACCESS_TIME)
            with contextlib.suppress(OSError):
                if not access_time.exists():
                    access_time.write_bytes(time.time_ns().to_bytes(8, "little"))


def _key(path: Path) -> str:
    """What the names of the files of an entry have in common."""
    return path.name.removesuffix(PROGRAM).removesuffix(ACCESS_TIME)


def _remove(paths: list[Path]) -> None:
    """Remove the files of an entry, the program before its access time."""
    for path in sorted(paths, key=lambda path: path.name.endswith(ACCESS_TIME)):
        with contextlib.suppress(OSError):
            path.unlink()


@dataclass(frozen=True)
class CacheRepair:
    """A `warnings.showwarning` that repairs a cache where JAX warns that it cannot use it.

    JAX writes a program in its place, where a process that was killed, or a full disk, leaves a part of
    it. JAX would neither read that part nor replace it. It is removed, so that the program is compiled
    and kept again. Another process may read the part while the program is being written; it then
    compiles the program itself, which is all that a conflict of processes costs. A missing access time,
    with which JAX could write nothing more, is added. Such warnings are not shown, all others are.
    """

    folder: Path
    shown: Callable[..., None]
    """The function that shows other warnings."""

    def __call__(self, message: Warning | str, *more: Any, **options: Any) -> None:
        """Repair the cache, or show the warning if it is about something else."""
        found = re.match(rf"{PROBLEM} for '([\w-]+)': (\w+)", str(message))
        if found is None:
            self.shown(message, *more, **options)
        elif found[1] == "reading" and not _is_of_file_system(found[3]):
            _remove(list(self.folder.glob(f"{found[2]}-*")))
        elif found[1] == "writing" and _is_limited():
            add_access_times(self.folder)


def _is_of_file_system(error: str) -> bool:
    """Whether an error, by the name of its type, says nothing about what an entry contains."""
    kind = getattr(builtins, error, None)
    return error == "Timeout" or (isinstance(kind, type) and issubclass(kind, OSError))


def _is_limited() -> bool:
    """Whether JAX limits the size of the cache."""
    return jax.config.values["jax_compilation_cache_max_size"] != -1


def _repair_when_needed(folder: Path) -> None:
    """Repair a cache now, and from now on whenever JAX warns that it cannot use it.

    Each such warning is handled, also if warnings are errors otherwise.
    """
    if _is_limited():
        add_access_times(folder)
    warnings.filterwarnings("always", message=PROBLEM)
    own = warnings.showwarning
    if not (isinstance(own, CacheRepair) and own.folder == folder):
        warnings.showwarning = CacheRepair(folder, own)


def kind_of_cpu() -> str:
    """A short name for the instructions of the machine's CPU."""
    words = platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        words += "".join(sorted({line for line in text.splitlines() if line.startswith("flags")}))
    return f"{platform.machine()}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def forget_programs() -> None:
    """Release all compiled programs of this process; those kept on disk are loaded again if needed.

    Each program maps memory, and the number of maps of a process is limited (65,530 on Linux by
    default). The programs of some thirty experiments exceed it, and the compiler then crashes.
    """
    jax.clear_caches()
    gc.collect()
