"""The teaching page: one self-contained HTML file, made of a run of `classroom` and of the verdicts.

The page computes predictions and sensitivities in the browser, from the weights it holds; losses and
likeness along training are the run's. Its parts, HTML, style and scripts, are in the folder `page`.
Nothing in it refers to anything outside the file.
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
from toyicl.harness import atomic_files, report, runner
from toyicl.harness.provenance import as_plain
from toyicl.harness.results import load_results
from toyicl.tasks.linear import LinearRegression

CLASSROOM = "classroom"
"""The experiment that the page is made of."""
QUICK_SEEDS = 2
"""Seeds that are trained where there is no run of it at all."""
PAGE = Path(__file__).with_name("page")
SCRIPTS = ("maths", "data", "draw", "step", "learn", "deeper", "breaks", "claims", "main")
"""The page's scripts, in the order in which they use each other."""
HEADS = (1, 2)
KINDS = ("line", "wide")
"""Tasks of the dial: with one input, and with as many as the run's."""


def shipped() -> Path:
    """Where checked-in results are: beside the package in a source tree, inside it when installed."""
    package = Path(__file__).parents[1]
    inside = package / "figures"
    return inside if inside.is_dir() else package.parent / "figures"


def place(own: Path) -> Path | None:
    """The folder of the run to show: a full one of the user's own, what is checked in, a quick one.

    `own` is the folder of the user's runs. None where there is no run of `classroom` at all.
    """
    mine, theirs = own / CLASSROOM, shipped() / "teaching" / CLASSROOM
    if runner.is_full(mine):
        return mine
    return next((folder for folder in (theirs, mine) if runner.has_results(folder)), None)


def require_place(out: Path) -> None:
    """Check, before anything is trained, that a file can be written.

    Raises BadInput, which names the place, where it cannot.
    """
    rule = "out must be a file in a folder that exists and can be written"
    if out.is_dir():
        raise BadInput(f"{rule}, got {out}, which is a folder")
    if not out.parent.is_dir():
        raise BadInput(f"{rule}, got {out}; there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise BadInput(f"{rule}, got {out}; {out.parent} cannot be written")


def write(out: Path, folder: Path) -> Path:
    """Write the page of the run in a folder, and of the verdicts that are checked in.

    Raises BadInput and Damaged as `runs.load_results`, and BadInput for results that are not those of
    one run of `classroom`.
    """
    page = render(contents(load_results(folder), verdicts(shipped())))
    return atomic_files.save_text(page, out)


def verdicts(folder: Path) -> list[dict[str, Any]]:
    """The verdicts that `toyicl verify` left in a folder, by experiment; none if it left none."""
    path = folder / report.RECORDS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def render(data: Mapping[str, Any]) -> str:
    """The page around its data."""
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
    """What the page holds, as plain data: arrays of the run in single precision, as they were saved.

    Raises BadInput for results that are not those of one run of `classroom`.
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
"""The page's names of the best steps of gradient descent and GD++, and the run's."""


def packed(values: xr.DataArray) -> dict[str, Any]:
    """An array as its shape and its numbers: float32, little-endian, in base 64."""
    array = np.ascontiguousarray(values.values, "<f4")
    return {"shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode()}


def _require_classroom(results: xr.Dataset) -> None:
    found = results.attrs.get("experiment")
    if found != CLASSROOM:
        raise BadInput(f"the page must be made of a run of {CLASSROOM}, got one of {found}")
    if runner.swept(results):
        raise BadInput(f"the page must be made of one run of {CLASSROOM}, got a sweep")
    task = json.loads(results.attrs["settings"])["task"]
    drawn = {name: task[name] for name in ("dim", "context_size", "input_range")}
    plain = as_plain(LinearRegression(**drawn))  # whose episodes the page draws
    other = [name for name, value in task.items() if value != plain.get(name, value)]
    if other:
        raise BadInput(
            f"the page must be made of a run with the task's {', '.join(other)} left as they are, got "
            + ", ".join(f"{name} {task[name]}" for name in other)
        )


def _made(results: xr.Dataset) -> str:
    """Where the run comes from, in a sentence."""
    attributes = results.attrs
    tree = "" if attributes["tree"] == "clean" else f" ({attributes['tree']} tree)"
    cut = f" {attributes['cut']}" if attributes.get("cut") else ""
    return (
        f"Made of {attributes['command']}: {attributes['level']} settings, "
        f"{results.sizes['seed']} seeds, finished {attributes['finished'][:10]}, "
        f"revision {attributes['revision'][:10]}{tree}.{cut}"
    )


def _learn(results: xr.Dataset, count: int) -> dict[str, Any]:
    """One layer at every snapshot of its training."""
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
    """Both circuits of a model's heads, by the page's names."""
    return {
        "keyQuery": packed(results[f"{before}key_query"]),
        "valueOutput": packed(results[f"{before}value_output"]),
    }


def _dial(results: xr.Dataset, kind: str) -> dict[str, Any]:
    """Layers between linear and softmax attention, (share, seed, ...), for each number of heads."""
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
