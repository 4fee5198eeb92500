"""A run on disk: its results with all that is needed to know where they come from."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toyicl import checkpoints, files
from toyicl.checkpoints import FORMAT, require_format
from toyicl.core.errors import BadInput

RESULTS = "results.nc"
CLAIMS = "claims.json"
FIGURE = "figure"
FULL_SEEDS = 5
PACKAGES = ("toyicl", "jax", "jaxlib", "flax", "optax", "numpy", "xarray", "orbax-checkpoint")


def identity(name: str, settings: Any, seeds: int, sweep: dict[str, list[str]]) -> dict[str, Any]:
    """What makes two runs the same: their results are equal to the bit on the same machine."""
    entries = {
        "experiment": name,
        "settings": as_plain(settings),
        "seeds": list(range(seeds)),
        "sweep": sweep,
        "precision": jnp.result_type(float).name,
    }
    return json.loads(json.dumps(entries))  # as it will be read back


def differences(there: Any, here: Any, path: str = "") -> list[str]:
    """Where two identities differ: the path of each field with both its values."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = [*there, *(name for name in here if name not in there)]
        return [
            line
            for name in names
            for line in differences(there.get(name), here.get(name), f"{path}.{name}".lstrip("."))
        ]
    return [] if there == here else [f"{path} ({there} there, {here} here)"]


def origin(experiment_digest: str) -> dict[str, Any]:
    """Program and machine: source revision, experiment file, versions, devices, and when."""
    revision, tree = _source_revision()
    device = jax.devices()[0]
    return {
        "revision": revision,
        "tree": tree,
        "source": source_digest(),
        "experiment_file": experiment_digest,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "device": f"{jax.device_count()} x {device.device_kind}",
        "processes": jax.process_count(),
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def changed_since(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What has changed since an origin, in words; nothing if its program is that of another.

    Origins from before the digest of the experiment file was noted are taken to have the same file.
    """
    if then["source"] != now["source"]:
        return f"another revision ({then['revision']})"
    same = then.get("experiment_file", now["experiment_file"]) == now["experiment_file"]
    return "" if same else "another version of the experiment file"


def provenance(
    identity: dict[str, Any], origins: list[dict[str, Any]], quick: bool, command: str
) -> dict[str, Any]:
    """Where results come from, as attributes: identity, the last origin, and all of them."""
    last = origins[-1]
    return {
        "format": FORMAT,
        "experiment": identity["experiment"],
        "settings": json.dumps(identity["settings"], sort_keys=True),
        "seeds": json.dumps(identity["seeds"]),
        "sweep": json.dumps(identity["sweep"]),
        "precision": identity["precision"],
        "level": "quick" if quick else "full",
        "command": command,
        "versions": json.dumps(last["versions"]),
        "device": last["device"],
        "revision": last["revision"],
        "tree": last["tree"],
        "origins": json.dumps(origins),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cut_sentence(full: Any, settings: Any, seeds: int) -> str:
    """What a run does otherwise than at full settings with five seeds, for its caption; or nothing."""
    changed = _changes(as_plain(full), as_plain(settings))
    if seeds < FULL_SEEDS:
        changed.append(f"{seeds} of {FULL_SEEDS} seeds")
    return f"Not the full settings: {', '.join(changed)}." if changed else ""


def _changes(full: Any, own: Any, path: str = "") -> list[str]:
    if isinstance(full, dict) and isinstance(own, dict):
        return [
            line
            for name in full
            for line in _changes(full[name], own.get(name), f"{path}.{name}".lstrip("."))
        ]
    return [] if full == own else [f"{path} {own} instead of {full}"]


def identity_of(results: xr.Dataset) -> dict[str, Any]:
    """The identity that results were saved with."""
    attributes = results.attrs
    plain = {name: json.loads(attributes[name]) for name in ("settings", "seeds", "sweep")}
    return {"experiment": attributes["experiment"], "precision": attributes["precision"], **plain}


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
    """Write a run's results, replacing earlier ones only once the file is complete.

    The file is made in memory: if a disk is full, HDF5 ends the program instead of raising.
    """
    path = folder / RESULTS
    content = results.to_netcdf(engine="h5netcdf")
    files.save_sealed(path, lambda draft: draft.write_bytes(content))
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
    if not files.has_seal(path):
        _require_unsealed_format(path)
    files.require_sealed(path)
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
            f"{'':<8} training: {_how_far(label, arrays, kept.ends.get(label))}"
            for label, arrays in kept.fits.items()
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


def _how_far(label: str, arrays: dict[str, np.ndarray], ends: list[int] | None) -> str:
    losses = arrays["training_loss"]  # of all runs until the end of the longest, zeros beyond
    runs = f"{len(losses)} run" + "s" * (len(losses) != 1)
    end = losses.size if ends is None else sum(ends)
    return f"{label}, {runs}, {int((losses != 0).sum())} of {end} chunks"


def source_digest() -> str:
    """Digest of this package's source, whether or not it lies in a repository."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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
        # Results and figures that are kept beside the source are no part of it.
        changes = git("status", "--porcelain", "--", ".", "../experiments")
        return git("rev-parse", "HEAD"), "changed" if changes else "clean"
    except (OSError, subprocess.CalledProcessError):
        return "unknown", "not a source tree"
