"""The teaching page: one self-contained HTML file, built from a run of `classroom` and the verdicts.

The page computes predictions and sensitivities in the browser, from the weights stored in it. Losses,
cosines and norm ratios during training are those measured in the run. The folder `page` contains the
HTML, the style sheet and the scripts. The file refers to no other file and to no network address.
"""

import base64
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from toyicl.core.errors import BadInput
from toyicl.harness import atomic_files, outputs, report
from toyicl.harness.provenance import as_plain
from toyicl.harness.results import load_results
from toyicl.tasks.linear import LinearRegression

CLASSROOM = "classroom"
"""The experiment whose results the page shows."""
QUICK_SEEDS = 2
"""Number of seeds to train if there is no run of this experiment."""
PAGE = Path(__file__).with_name("page")
SCRIPTS = ("maths", "data", "draw", "step", "learn", "deeper", "breaks", "claims", "main")
"""The page's scripts; each uses only those before it."""
HEADS = (1, 2)
KINDS = ("line", "wide")
"""Tasks of the linear-to-softmax comparison: one input dimension, and all those of the run's task."""


def shipped() -> Path:
    """Folder of the checked-in results: inside an installed package, or next to it in a source tree."""
    package = Path(__file__).parents[1]
    inside = package / "figures"
    return inside if inside.is_dir() else package.parent / "figures"


def place(own: Path) -> Path | None:
    """The folder of the run to show: the user's full run, else the checked-in run, else a quick run.

    `own` is the folder of the user's runs. Returns None if there is no run of `classroom`.
    """
    mine, theirs = own / CLASSROOM, shipped() / "teaching" / CLASSROOM
    if outputs.is_full(mine):
        return mine
    return next((folder for folder in (theirs, mine) if outputs.has_results(folder)), None)


def require_place(out: Path) -> None:
    """Check, before anything is trained, that the file can be written.

    Raises BadInput, which names the path, if it cannot.
    """
    rule = "out must be a file in a folder that exists and can be written"
    if out.is_dir():
        raise BadInput(f"{rule}, got {out}, which is a folder")
    if not out.parent.is_dir():
        raise BadInput(f"{rule}, got {out}; there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise BadInput(f"{rule}, got {out}; {out.parent} cannot be written")


def write(out: Path, folder: Path) -> Path:
    """Write the page for the run in a folder, with the checked-in verdicts; returns `out`.

    Raises BadInput and Damaged as `results.load_results` does, and BadInput if the results are not
    those of one run of `classroom`.
    """
    page = render(contents(load_results(folder), verdicts(shipped())))
    return atomic_files.save_text(page, out)


def verdicts(folder: Path) -> list[dict[str, Any]]:
    """The verdicts that `toyicl verify` saved in a folder, by experiment; empty if there are none."""
    path = folder / report.RECORDS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def render(data: Mapping[str, Any]) -> str:
    """The HTML text of the page, with the style sheet, the scripts and the given data inserted."""
    text = (PAGE / "page.html").read_text(encoding="utf-8")
    parts = {
        "style": (PAGE / "style.css").read_text(encoding="utf-8"),
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "script": "".join((PAGE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
        "made": html.escape(data["made"]),
    }
    for name, part in parts.items():
        before, after = text.split(f"{{{{{name}}}}}")
        text = before + part + after
    return text


def contents(results: xr.Dataset, verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """The data stored in the page, as JSON-compatible values; arrays are float32, as in the run.

    Raises BadInput if the results are not those of one run of `classroom`.
    """
    _require_classroom(results)
    task = json.loads(results.attrs["settings"])["task"]
    return {
        "made": _made(results),
        "task": {
            "dim": task["dim"],
            "count": task["context_size"],
            "range": task["input_range"],
        },
        "learn": _learn(results, int(task["context_size"])),
        "deep": {
            "seeds": results.seed.values.tolist(),
            "stuck": results.deep_on_plateau.values.tolist(),
            "loss": packed(results.deep_loss),
            **_circuits(results, "deep_"),
        },
        "references": {
            "zero": float(results.zero_loss),
            **{name: results[variable].values.tolist() for name, variable in REFERENCES.items()},
        },
        "dial": {
            "shares": results.share.values.tolist(),
            "seeds": results.dial_seed.values.tolist(),
            **{kind: _dial(results, kind) for kind in KINDS},
        },
        "verdicts": verdicts,
    }


REFERENCES = {
    "rate": "descent_rate",
    "loss": "descent_loss",
    "curvedRate": "curved_rate",
    "curvedGamma": "curved_gamma",
    "curvedLoss": "curved_loss",
}
"""Optimal parameters and losses of gradient descent and GD++: the page's name for each variable."""


def packed(values: xr.DataArray) -> dict[str, Any]:
    """An array as its shape and its numbers, encoded as little-endian float32 in base64."""
    array = np.ascontiguousarray(values.values, "<f4")
    return {"shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode()}


def _require_classroom(results: xr.Dataset) -> None:
    found = results.attrs.get("experiment")
    if found != CLASSROOM:
        raise BadInput(f"the page needs a run of {CLASSROOM}, got a run of {found}")
    if outputs.swept(results):
        raise BadInput(f"the page needs a single run of {CLASSROOM}, got a sweep")
    task = json.loads(results.attrs["settings"])["task"]
    drawn = {name: task[name] for name in ("dim", "context_size", "input_range")}
    plain = as_plain(LinearRegression(**drawn))  # the page's script samples this task only
    other = [name for name, value in task.items() if value != plain.get(name, value)]
    if other:
        raise BadInput(
            f"the page needs a run with the default values of the task's {', '.join(other)}, got "
            + ", ".join(f"{name} {task[name]}" for name in other)
        )


def _made(results: xr.Dataset) -> str:
    """A sentence with the run's command, settings, seeds, date and revision."""
    attributes = results.attrs
    tree = "" if attributes["tree"] == "clean" else f" ({attributes['tree']} tree)"
    cut = f" {attributes['cut']}" if attributes.get("cut") else ""
    return (
        f"Results of {attributes['command']}: {attributes['level']} settings, "
        f"{results.sizes['seed']} seeds, finished {attributes['finished'][:10]}, "
        f"revision {attributes['revision'][:10]}{tree}.{cut}"
    )


def _learn(results: xr.Dataset, count: int) -> dict[str, Any]:
    """Measurements and circuits of one layer at every snapshot of its training."""
    return {
        "seeds": results.seed.values.tolist(),
        "steps": results.step.values.tolist(),
        "stuck": results.on_plateau.values.tolist(),
        "loss": packed(results.loss),
        "cosine": packed(results.model_cosine.sel(reference="gd")),
        "ratio": packed(results.norm_ratio.sel(reference="gd")),
        "floor": float(results.descent_loss[0]),
        "zero": float(results.zero_loss),
        "step": float(results.descent_rate[0]) / count,
        **_circuits(results, ""),
    }


def _circuits(results: xr.Dataset, before: str) -> dict[str, Any]:
    """Both circuits of a model's heads, under the page's names; `before` is the variables' prefix."""
    return {
        "keyQuery": packed(results[f"{before}key_query"]),
        "valueOutput": packed(results[f"{before}value_output"]),
    }


def _dial(results: xr.Dataset, kind: str) -> dict[str, Any]:
    """Layers from linear to softmax attention, (softmax fraction, seed, ...), by number of heads."""
    heads = {}
    untrained, trained = (results.sel(stage=stage) for stage in ("untrained", "trained"))
    for count in HEADS:
        before = f"{kind}_{count}_"
        heads[str(count)] = {
            "loss": packed(trained[f"{before}loss"]),
            "cosine": packed(trained[f"{before}model_cosine"]),
            "ratio": packed(trained[f"{before}norm_ratio"]),
            "stuck": results[f"{before}on_plateau"].values.tolist(),
            "untrainedCosine": packed(untrained[f"{before}model_cosine"]),
            **_circuits(results, before),
        }
    rate = results.line_rate if kind == "line" else results.descent_rate[0]
    descent = results[f"{kind}_1_gd_loss"].values.tolist()
    return {"rate": float(rate), "descent": descent, "heads": heads}
