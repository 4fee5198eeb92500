"""The persistent cache of compiled programs, and their release within a process."""

import contextlib
import gc
import hashlib
import os
import platform
import re
import warnings
from pathlib import Path
from typing import Any

import jax

CACHE_BYTES = 2**30
"""Size of the folder of compiled programs at each start; what was used longest ago goes first."""


def keep_compiled() -> None:
    """Keep compiled programs in the user's cache folder, so that a second start need not compile.

    Programs are kept apart by the kind of CPU, since those of one may not run on another that shares
    the folder. To be called before JAX's first compilation; JAX_COMPILATION_CACHE_DIR goes first.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "toyicl" / _kind_of_cpu()
        # JAX's own limit reads the whole folder for each program that it adds: of thousands, that takes
        # several times as long as compiling. Once a start is enough.
        remove_oldest(folder, CACHE_BYTES)
        _remove_broken(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def remove_oldest(folder: Path, most_bytes: int) -> None:
    """Remove the files of a folder that were used longest ago, until the others fit `most_bytes`.

    A folder that cannot be read, and files that cannot be removed, or that another process removes
    meanwhile, are left as they are: a cache is worth no error.
    """
    files = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.is_file():
                    used = max(status.st_atime, status.st_mtime)
                    files.append((used, status.st_size, path))
    surplus = sum(size for _, size, _ in files) - most_bytes
    for _, size, path in sorted(files):
        if surplus <= 0:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            surplus -= size


def _remove_broken(folder: Path) -> None:
    """From now on, remove kept programs that JAX warns that it cannot read, and pass the warning over.

    A kill or a full disk leaves half a file, which JAX would neither read nor write again. It names the
    program; what is left of it is compiled and kept anew.
    """
    shown = warnings.showwarning

    def show(message: Warning | str, *more: Any, **options: Any) -> None:
        broken = re.match(
            r"Error reading persistent compilation cache entry for '(\w+)'", str(message)
        )
        if broken is None:
            shown(message, *more, **options)
            return
        for path in folder.glob(f"{broken[1]}-*"):
            with contextlib.suppress(OSError):
                path.unlink()

    warnings.showwarning = show


def _kind_of_cpu() -> str:
    """A short name for what the machine's CPU can do."""
    words = platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        words += "".join(sorted({line for line in text.splitlines() if line.startswith("flags")}))
    return f"{platform.machine()}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def forget_programs() -> None:
    """Let go of all compiled programs of this process; those kept on disk are loaded again if needed.

    Each maps memory of its own, and a process may have only so many maps (65,530 on Linux, unless it is
    told otherwise): some thirty experiments' programs are more, and the compiler then crashes.
    """
    jax.clear_caches()
    gc.collect()
