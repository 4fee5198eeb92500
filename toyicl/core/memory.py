"""The memory of this machine, and amounts of memory as text."""

import contextlib
import math
import os
from functools import cache
from pathlib import Path

import jax.numpy as jnp

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the limit of a container, of the second and the first version of control groups."""
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


@cache
def available() -> float:
    """Bytes of memory of this machine, or of the container; infinite if it is not known."""
    limits = [math.inf]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on every system
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or it has "max"
            limits.append(int(Path(path).read_text(encoding="ascii")))
    return min(limits)


def number_size() -> int:
    """Bytes of a floating-point number of JAX's default type."""
    return jnp.result_type(float).itemsize


def amount(size: float) -> str:
    """A number of bytes as text with three digits, such as 23.5 GB."""
    unit = 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    digits = f"{size:.3g}" if size < 999.5 else f"{size:.3e}"
    return f"{digits} {UNITS[unit]}"
