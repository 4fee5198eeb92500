"""A run on disk: its results with all that is needed to know where they come from."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from toyicl.errors import BadInput

RESULTS = "results.nc"
CLAIMS = "claims.json"
FIGURE = "figure"
PACKAGES = ("toyicl", "jax", "jaxlib", "flax", "optax", "numpy", "xarray")


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


def provenance(settings: Any, seeds: int, quick: bool) -> dict[str, str]:
    """Where results come from: settings, seeds, package versions, device and source revision."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = jax.devices()[0]
    revision, clean = _source_revision()
    return {
        "settings": json.dumps(as_plain(settings), sort_keys=True),
        "seeds": json.dumps(list(range(seeds))),
        "level": "quick" if quick else "full",
        "versions": json.dumps({"python": platform.python_version(), **versions}),
        "device": f"{jax.device_count()} x {device.device_kind}",
        "revision": revision,
        "tree": clean,
    }


def as_plain(settings: Any) -> Any:
    """Settings as nested dictionaries, lists, numbers and strings, for JSON."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        fields = dataclasses.fields(settings)
        return {field.name: as_plain(getattr(settings, field.name)) for field in fields}
    if isinstance(settings, tuple | list):
        return [as_plain(entry) for entry in settings]
    if isinstance(settings, np.ndarray | np.generic | jax.Array):
        return np.asarray(settings).tolist()
    return settings


def save_results(results: xr.Dataset, folder: Path) -> Path:
    """Write a run's results, replacing earlier ones only once the file is complete."""
    path = folder / RESULTS
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        draft = Path(temporary) / RESULTS
        results.to_netcdf(draft, engine="h5netcdf")
        os.replace(draft, path)
    return path


def load_results(folder: Path) -> xr.Dataset:
    """Read a run's results into memory.

    Raises BadInput where there are none.
    """
    path = folder / RESULTS
    if not path.exists():
        raise BadInput(f"out must be a folder with results, got {folder}, which has no {RESULTS}")
    return xr.load_dataset(path, engine="h5netcdf")


def save_text(text: str, path: Path) -> Path:
    """Write a text file, replacing an earlier one only once it is complete."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return path


def _source_revision() -> tuple[str, str]:
    """The revision of the source tree this package runs from, and whether it was clean."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository: that is not its source.
        if not git("ls-files", Path(__file__).name):
            return "unknown", "installed package"
        return git("rev-parse", "HEAD"), "changed" if git("status", "--porcelain") else "clean"
    except (OSError, subprocess.CalledProcessError):
        return "unknown", "not a source tree"
