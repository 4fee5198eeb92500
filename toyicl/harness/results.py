"""A run on disk: its results with all that is needed to know where they come from."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from toyicl.core.errors import BadInput
from toyicl.harness import atomic_files, checkpoints
from toyicl.harness.checkpoints import require_format

RESULTS = "results.nc"
CLAIMS = "claims.json"
FIGURE = "figure"


def save_results(results: xr.Dataset, folder: Path) -> Path:
    """Write a run's results, replacing earlier ones only once the file is complete.

    The file is made in memory: if a disk is full, HDF5 ends the program instead of raising.
    """
    path = folder / RESULTS
    content = results.to_netcdf(engine="h5netcdf")
    atomic_files.save_sealed(path, lambda draft: draft.write_bytes(content))
    return path


def require_results(folder: Path) -> Path:
    """Where a run's results are; raises BadInput if there are none."""
    path = folder / RESULTS
    if not path.exists():
        raise BadInput(f"out must be a folder with results, got {folder}, which has no {RESULTS}")
    return path


def load_results(folder: Path) -> xr.Dataset:
    """Read a run's results into memory.

    Raises BadInput where there are none, or none that this version can read, and Damaged if the file
    is not what was written.
    """
    path = require_results(folder)
    if not atomic_files.has_seal(path):
        _require_unsealed_format(path)
    atomic_files.require_sealed(path)
    results = xr.load_dataset(path, engine="h5netcdf")
    require_format(results.attrs.get("format"), path)
    return results


def _require_unsealed_format(path: Path) -> None:
    """Raises BadInput for whole results of a version that did not seal them; damaged ones pass."""
    try:
        with xr.open_dataset(path, engine="h5netcdf") as results:
            number = results.attrs.get("format")
    except (OSError, ValueError, KeyError, RuntimeError):
        return
    require_format(number, path)


def describe(folder: Path) -> list[str]:
    """Where a run comes from and how far it is, as lines of text; nothing if there is no run."""
    lines: list[str] = []
    for describe_part in (_describe_results, _describe_checkpoint):
        try:
            lines += describe_part(folder)
        except Exception as error:  # whatever is wrong with one run, the others are listed
            lines.append(f"{'':<8} {error or type(error).__name__}")
    return [f"{folder.name:<8} {folder}", *lines] if lines else []


def _describe_checkpoint(folder: Path) -> list[str]:
    lines: list[str] = []
    kept = checkpoints.load(folder, warn=lambda sentence: lines.append(f"{'':<8} {sentence}"))
    if kept is not None:
        lines += [
            f"{'':<8} training: {_how_far(name, arrays)}" for name, arrays in kept.states.items()
        ]
    return lines


def _describe_results(folder: Path) -> list[str]:
    if not (folder / RESULTS).exists():
        return []
    attributes = load_results(folder).attrs
    seeds, sweep = json.loads(attributes["seeds"]), json.loads(attributes["sweep"])
    over = f", over {', '.join(sweep)}" if sweep else ""
    versions = json.loads(attributes["versions"])
    return [
        f"{'':<8} results of {attributes['finished']}, {attributes['level']} settings, "
        f"{len(seeds)} seeds{over}, {attributes['precision']}",
        f"{'':<8} revision {attributes['revision']} ({attributes['tree']}), on "
        f"{attributes['device']}, toyicl {versions['toyicl']}, jax {versions['jax']}",
    ]


def _how_far(name: str, arrays: dict[str, np.ndarray]) -> str:
    losses = arrays["training_loss"]  # zeros where no chunk has been trained yet
    runs = f"{len(losses)} run" + "s" * (len(losses) != 1)
    return f"{name}, {runs}, {int((losses != 0).sum())} of {losses.size} chunks"
