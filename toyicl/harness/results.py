"""Results of a run on disk: saved with digests, loaded only if they are what the run saved."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from toyicl.core import strict_json
from toyicl.core.errors import BadInput
from toyicl.harness import atomic_files, checkpoints
from toyicl.harness.checkpoints import require_format
from toyicl.harness.experiment import CHECKPOINT, RESULTS
from toyicl.plots.figures import SUFFIXES

CLAIMS = "claims.json"
FIGURE = "figure"
READ_SECONDS = 60.0
"""Time in which a file that was saved again must be read."""
CONTENTS = "contents_sha256"
"""Attribute with the digest of what the run saved."""
COVERED, VARIABLES = "contents_attributes", "contents_variables"
"""Attributes with the names of the attributes and of the variables that this digest covers. Results of
earlier versions do not have the second one: all their variables are covered."""
MARKS = (CONTENTS, COVERED, VARIABLES)


def save_results(results: xr.Dataset, folder: Path) -> Path:
    """Write a run's results, replacing earlier ones only once the file is complete.

    The file is made in memory: if a disk is full, HDF5 ends the program instead of raising.
    """
    path = folder / RESULTS
    results = _without_marks(results)
    attributes, variables = sorted(map(str, results.attrs)), sorted(map(str, results.variables))
    marks = {
        COVERED: strict_json.text(attributes),
        VARIABLES: strict_json.text(variables),
        CONTENTS: _contents(results, attributes, variables),
    }
    content = bytes(results.assign_attrs(marks).to_netcdf(engine="h5netcdf"))
    atomic_files.save_with_digest(content, path)
    return path


def require_places(folder: Path) -> None:
    """Check that a run can put its files into a folder: that none of them is a folder there.

    Raises BadInput, which names the file; nothing is written.
    """
    results = (RESULTS, atomic_files.digest_path(folder / RESULTS).name)
    pictures = [f"{FIGURE}{suffix}" for suffix in SUFFIXES]
    atomic_files.require_kinds(folder, [*results, CLAIMS, *pictures], [CHECKPOINT])


def require_results(folder: Path) -> Path:
    """Path of a run's results.

    Raises BadInput if there are none, or something else than a file in their place.
    """
    path = folder / RESULTS
    if path.is_dir():
        raise BadInput(f"{path} must be a file, got a folder")
    if not path.exists():
        raise BadInput(f"out must be a folder with results, got {folder}, which has no {RESULTS}")
    return path


def load_results(folder: Path, note: Callable[[str], None] = lambda sentence: None) -> xr.Dataset:
    """Read a run's results into memory.

    A file that another program has saved again since is accepted, and reported to `note`, if it
    holds the variables and attributes that the run saved, also with further ones. Raises BadInput where
    there are no results, or none that this version can read, and Damaged if the file does not hold
    what the run saved.
    """
    path = require_results(folder)
    unchanged = atomic_files.has_digest(path)
    if not unchanged:
        _require_readable(path)
    try:
        # From memory, because HDF5 locks a file that it opens, which some file systems refuse.
        results = xr.load_dataset(io.BytesIO(path.read_bytes()), engine="h5netcdf")
    except Exception as error:  # h5netcdf and HDF5 raise many types for damaged files
        raise atomic_files.Damaged(f"{path} is damaged: it cannot be read ({error})") from error
    if not unchanged and CONTENTS not in results.attrs:
        require_format(results.attrs.get("format"), path)
    if not unchanged:
        _require_contents(results, path)
        note(f"{path} was saved again after its run; what the run saved in it is unchanged")
    require_format(results.attrs.get("format"), path)
    return _without_marks(results)


def _without_marks(results: xr.Dataset) -> xr.Dataset:
    """Results without the attributes that describe the digest of their contents."""
    return results.drop_attrs(deep=False).assign_attrs(
        {name: value for name, value in results.attrs.items() if name not in MARKS}
    )


def _require_readable(path: Path) -> None:
    """Check in a process of its own that a file can be read.

    HDF5 can hang, or end the process, on a file with damaged bytes. Raises Damaged if it cannot be read
    within some time.
    """
    program = (
        "import io, pathlib, sys, xarray; content = pathlib.Path(sys.argv[1]).read_bytes(); "
        "xarray.load_dataset(io.BytesIO(content), engine='h5netcdf')"
    )
    try:
        command = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(command, capture_output=True, timeout=READ_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise atomic_files.Damaged(f"{path} is damaged: reading it does not end") from error
    if done.returncode:
        raise atomic_files.Damaged(f"{path} is damaged: it cannot be read")


def _require_contents(results: xr.Dataset, path: Path) -> None:
    """Check that results hold the variables and attributes that their run saved.

    Raises Damaged if they do not.
    """
    try:
        attributes = json.loads(results.attrs[COVERED])
        named = results.attrs.get(VARIABLES)
        variables = sorted(map(str, results.variables)) if named is None else json.loads(named)
        same = results.attrs[CONTENTS] == _contents(results, attributes, variables)
    except (KeyError, ValueError, TypeError):
        same = False
    if not same:
        raise atomic_files.Damaged(f"{path} is damaged: it does not hold what its run saved")


def _contents(results: xr.Dataset, attributes: Sequence[str], variables: Sequence[str]) -> str:
    """Digest of some attributes and variables, however they are stored."""
    digest = hashlib.sha256()
    for name in attributes:
        digest.update(f"{name}={np.asarray(results.attrs[name]).tolist()!r}\n".encode())
    for name in variables:
        variable = results.variables[name]
        digest.update(f"{name} {variable.dims} {variable.shape}\n".encode())
        if variable.dtype.kind in "OUS":
            digest.update("\0".join(map(str, variable.values.ravel())).encode())
        else:
            digest.update(np.ascontiguousarray(variable.values).tobytes())
    return digest.hexdigest()


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
