"""The persistent cache of compiled programs, and their release within a process."""

import contextlib
import gc
import hashlib
import os
import platform
import re
import time
import warnings
from pathlib import Path
from typing import Any

import jax

CACHE_BYTES = 2**30
"""Size to which the folder of compiled programs is reduced at each start, least recently used first."""
PROGRAM, ACCESS_TIME = "-cache", "-atime"
"""Ends of the names of the two files of an entry; JAX writes the second only if it limits the size."""


def keep_compiled() -> None:
    """Keep compiled programs in the user's cache folder, so that a second start need not compile.

    Each kind of CPU has its own folder, since programs of one may not run on another that shares the
    home folder. Must be called before JAX's first compilation. JAX_COMPILATION_CACHE_DIR takes
    precedence; if JAX_COMPILATION_CACHE_MAX_SIZE is set, JAX limits the size of the folder.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "toyicl" / kind_of_cpu()
    if jax.config.values["jax_compilation_cache_max_size"] == -1:
        # JAX's own limit reads the whole folder for each program that it adds. With thousands of
        # programs this takes several times as long as compiling, so it is done once at each start.
        remove_oldest(folder, CACHE_BYTES)
    else:
        add_access_times(folder)
    _repair_on_warnings(folder)
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


def _repair_on_warnings(folder: Path) -> None:
    """From now on, repair the cache when JAX warns that it cannot use it, and drop the warning.

    A killed process or a full disk leaves half a program, which JAX would neither read nor replace. It
    is removed, so that the program is compiled and kept again.
    """
    shown = warnings.showwarning

    def show(message: Warning | str, *more: Any, **options: Any) -> None:
        pattern = r"Error (reading|writing) persistent compilation cache entry for '(\w+)'"
        found = re.match(pattern, str(message))
        if found is None:
            shown(message, *more, **options)
        elif found[1] == "reading":
            _remove(list(folder.glob(f"{found[2]}-*")))
        elif jax.config.values["jax_compilation_cache_max_size"] != -1:
            add_access_times(folder)

    warnings.showwarning = show


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
