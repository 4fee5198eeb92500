"""Where results come from: settings, seeds, source revision, versions and devices."""

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toyicl.core import strict_json
from toyicl.core.random_numbers import GENERATOR
from toyicl.harness.checkpoints import FORMAT
from toyicl.harness.environment import environment
from toyicl.training.loop import listed

PACKAGE = Path(__file__).parents[1]
FULL_SEEDS = 5
NUMERICS: dict[str, Any] = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_default_matmul_precision": None,
}
"""Settings of JAX that change random numbers or products, with their defaults."""
UNRECORDED: dict[str, Any] = {**NUMERICS, "random_numbers": "jax.random"}
"""Values assumed for runs that did not record them: JAX's defaults, and its own random numbers."""


def identity(
    name: str, settings: Any, seeds: int | Sequence[int], sweep: dict[str, list[str]]
) -> dict[str, Any]:
    """What makes two runs the same: their results are bit-identical in the same environment."""
    precision = jnp.result_type(float).name
    entries = {
        "experiment": name,
        "settings": as_plain(settings),
        "seeds": list(listed(seeds)),
        "sweep": {path: as_plain(values) for path, values in sweep.items()},
        "precision": precision,
        "numerics": {
            **{name: jax.config.values[name] for name in NUMERICS},
            # In double precision, those of JAX are drawn.
            "random_numbers": GENERATOR if precision == "float32" else UNRECORDED["random_numbers"],
        },
    }
    return json.loads(strict_json.text(entries))  # as it will be read back


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


def origin(experiment_digest: str, shard: str = "run") -> dict[str, Any]:
    """Program and machine: source revision, experiment file, environment, and when.

    `shard` is what devices divide among them, "run" or "batch".
    """
    revision, tree = _source_revision()
    return {
        "revision": revision,
        "tree": tree,
        "source": source_digest(),
        "experiment_file": experiment_digest,
        **environment(shard),
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def changed_since(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What has changed since an earlier origin, as text; empty if both are of the same program.

    An origin without a digest of the experiment file is assumed to have the same file.
    """
    if then["source"] != now["source"]:
        return f"another revision ({then['revision']})"
    same = then.get("experiment_file", now["experiment_file"]) == now["experiment_file"]
    return "" if same else "another version of the experiment file"


def changed_since_any(earlier: Sequence[dict[str, Any]], now: dict[str, Any]) -> str:
    """What has changed since the last of the earlier origins that is of another program, as text.

    Empty if all are of the same program, and without any.
    """
    found = (changed_since(then, now) for then in reversed(earlier))
    return next((change for change in found if change), "")


def attributes(
    identity: dict[str, Any], origins: list[dict[str, Any]], quick: bool, command: str
) -> dict[str, Any]:
    """Where results come from, as attributes: identity, the last origin, and all of them."""
    last = origins[-1]
    return {
        "format": FORMAT,
        "experiment": identity["experiment"],
        "settings": strict_json.text(identity["settings"], sort_keys=True),
        "seeds": strict_json.text(identity["seeds"]),
        "sweep": strict_json.text(identity["sweep"]),
        "precision": identity["precision"],
        "numerics": strict_json.text(identity["numerics"]),
        "level": "quick" if quick else "full",
        "command": command,
        "versions": strict_json.text(last["versions"]),
        "device": last["device"],
        "shard": last["shard"],
        "revision": last["revision"],
        "tree": last["tree"],
        "origins": strict_json.text(origins),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cut_sentence(full: Any, settings: Any, seeds: int) -> str:
    """What a run does otherwise than at full settings with five seeds, for its caption; or nothing."""
    found = changes(full, settings).items()
    changed = [f"{path} {own} instead of {before}" for path, (own, before) in found]
    if seeds < FULL_SEEDS:
        changed.append(f"{seeds} of {FULL_SEEDS} seeds")
    return f"Not the full settings: {', '.join(changed)}." if changed else ""


def changes(full: Any, settings: Any) -> dict[str, tuple[Any, Any]]:
    """The settings that differ from the full ones, by their paths: their value and the full value."""
    return dict(_changes(as_plain(full), as_plain(settings)))


def _changes(full: Any, own: Any, path: str = "") -> list[tuple[str, tuple[Any, Any]]]:
    if isinstance(full, dict) and isinstance(own, dict):
        return [
            entry
            for name in full
            for entry in _changes(full[name], own.get(name), f"{path}.{name}".lstrip("."))
        ]
    return [] if full == own else [(path, (own, full))]


def identity_of(results: xr.Dataset) -> dict[str, Any]:
    """The identity that results were saved with."""
    attributes = results.attrs
    plain = {name: json.loads(attributes[name]) for name in ("settings", "seeds", "sweep")}
    plain["numerics"] = json.loads(attributes.get("numerics", "{}"))
    names = {name: attributes[name] for name in ("experiment", "precision")}
    return completed({**names, **plain})


def completed(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity with the numerics that earlier versions did not record."""
    return identity | {"numerics": {**UNRECORDED, **identity.get("numerics", {})}}


def as_plain(settings: Any) -> Any:
    """Settings as nested dictionaries, lists, numbers and strings, for JSON.

    Numbers that are not finite are strings, such as "inf".
    """
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        fields = dataclasses.fields(settings)
        return {field.name: as_plain(getattr(settings, field.name)) for field in fields}
    if isinstance(settings, tuple | list):
        return [as_plain(entry) for entry in settings]
    if isinstance(settings, np.ndarray | np.generic | jax.Array):
        return as_plain(np.asarray(settings).tolist())
    return strict_json.number(settings) if isinstance(settings, float) else settings


def source_digest() -> str:
    """Digest of this package's source, whether or not it lies in a repository."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _source_revision() -> tuple[str, str]:
    """The revision of the source tree this package runs from, and whether it was clean."""
    here = PACKAGE

    def git(*words: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository: that is not its source.
        if not git("ls-files", "__init__.py"):
            return "unknown", "installed package"
        # Results and figures in the same repository are not part of the program.
        changes = git("status", "--porcelain", "--", ".", "../experiments")
        return git("rev-parse", "HEAD"), "changed" if changes else "clean"
    except (OSError, subprocess.CalledProcessError):
        return "unknown", "not a source tree"
