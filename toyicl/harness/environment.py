"""Where results are computed: devices, processor, versions and settings of the compiler.

All of these change how sums are rounded. The settings that change random numbers or the precision of
products are part of a run's identity instead; see `provenance.NUMERICS`.
"""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("toyicl", "jax", "jaxlib", "flax", "optax", "numpy", "xarray", "orbax-checkpoint")
COMPUTING = ("jax", "jaxlib", "flax", "optax")
"""Packages whose versions change what a training computes."""
COMPILER_SETTINGS = (
    "jax_disable_most_optimizations",
    "jax_optimization_level",
    "jax_exec_time_optimization_effort",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
)
"""Settings of JAX that change which program is compiled."""
COMPILER_VARIABLES = ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")
"""Environment variables that do."""
WITHOUT_EFFECT = ("--xla_dump", "--xla_force_host_platform_device_count")
"""Beginnings of flags that change no program, or that the number of devices shows."""


def environment(shard: str = "run") -> dict[str, Any]:
    """The environment of this process, for JSON.

    `shard` is what devices divide among them, "run" or "batch".
    """
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "shard": shard,
        "processor": _processor(),
        "compiler": {
            **{name: _setting(name) for name in COMPILER_SETTINGS},
            **{name: _flags(name) for name in COMPILER_VARIABLES},
        },
    }


def moved_since(then: dict[str, Any], now: dict[str, Any]) -> str:
    """How one environment differs from an earlier one, as text; empty if results have the same bits.

    What earlier versions did not record is not compared.
    """
    there, here = _compared(then), _compared(now)
    return "; ".join(
        f"{name}{there[name]} there, {here[name]} here"
        for name in here
        if name in there and there[name] != here[name]
    )


def moved_since_any(earlier: Sequence[dict[str, Any]], now: dict[str, Any]) -> str:
    """How an environment differs from each of the earlier ones of a run, each difference once."""
    found = (moved_since(then, now) for then in earlier)
    return "; ".join(dict.fromkeys(difference for difference in found if difference))


def _compared(environment: dict[str, Any]) -> dict[str, str]:
    """All that is compared as text, by what precedes it in messages."""
    versions = environment.get("versions", {})
    compared = {"": _devices(environment)}
    if "processor" in environment:
        compared["processor "] = environment["processor"]
    compared |= {f"{name} ": versions[name] for name in COMPUTING if name in versions}
    compiler = environment.get("compiler", {})
    return compared | {f"{name} ": str(value) or "unset" for name, value in compiler.items()}


def _devices(environment: dict[str, Any]) -> str:
    """Devices as text; environments that do not state what was divided divided runs."""
    count = environment["processes"]
    processes = f" in {count} processes" if count > 1 else ""
    return f"{environment['device']}{processes}, --shard {environment.get('shard', 'run')}"


def _processor() -> str:
    """Model of the CPU, for whose instructions XLA compiles."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _setting(name: str) -> str:
    """A setting of JAX as text; empty where this version of JAX does not have it."""
    value = jax.config.values.get(name, "")
    return str(getattr(value, "name", value))


def _flags(name: str) -> str:
    """The flags in an environment variable in alphabetical order, without those of no effect."""
    words = os.environ.get(name, "").split()
    return " ".join(sorted(word for word in words if not word.startswith(WITHOUT_EFFECT)))
