"""The teaching page: one self-contained HTML file, built from a run of `classroom` and the verdicts.

The page computes predictions and sensitivities in the browser, from the weights stored in it. Losses,
cosines and norm ratios during training are those measured in the run. The folder `page` contains the
HTML, the style sheet and the scripts. The file refers to no other file and to no network address.
"""

import base64
import html
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from toyicl.core import strict_json
from toyicl.core.datasets import part
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
SCRIPTS = (
    *("maths", "data", "draw", "state"),
    *("task", "step", "valley", "measure", "learn", "breaks"),
    *("limits", "deeper", "larger", "heads"),
    *("claims", "guide", "main"),
)
"""The page's scripts: helper functions, the sections in their order, and what uses all sections."""
STORY = "story.json"
"""The steps of the guided tour and the cards of the verdicts, with the verdicts that they rest on."""
BOUNDS = "token_clip"
"""The experiment whose results show what a bound on token entries changes."""
LANGUAGE_HEADS = "head_circuits"
"""The experiment whose results are the heads of a language model."""
HEADS = (1, 2)
TASKS = {"line": "one input", "wide": "all inputs"}
"""Tasks of the linear-to-softmax comparison: the page's names, and the labels in the results."""


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
    data = contents(
        load_results(folder),
        verdicts(shipped()),
        clipped=_shipped_results("departures", BOUNDS),
        language_heads=_shipped_results("language_model", LANGUAGE_HEADS),
    )
    return atomic_files.save_text(render(data), out)


def _shipped_results(group: str, name: str) -> xr.Dataset | None:
    """The checked-in results of an experiment, or None if there are none."""
    folder = shipped() / group / name
    return load_results(folder) if outputs.has_results(folder) else None


def verdicts(folder: Path) -> dict[str, Any]:
    """The verdicts that `toyicl verify` saved in a folder, by figure and by experiment.

    Both are empty if there are none.
    """
    path = folder / report.RECORDS
    if not path.is_file():
        return {"figures": [], "experiments": []}
    return json.loads(path.read_text(encoding="utf-8"))


def story() -> dict[str, Any]:
    """The steps of the guided tour and the cards of the verdicts."""
    return json.loads((PAGE / STORY).read_text(encoding="utf-8"))


def cited() -> list[str]:
    """Identifiers of the verdicts that the page's sentences, its tour and its cards rest on."""
    text = (PAGE / "page.html").read_text(encoding="utf-8")
    names = [name for all_ in re.findall(r'data-verdict="([^"]*)"', text) for name in all_.split()]
    content = story()
    names += [name for step in content["steps"] for name in step.get("verdict", [])]
    names += [one["id"] for card in content["cards"] for one in card["rests"]]
    return list(dict.fromkeys(names))


def cited_verdicts(verdicts: Mapping[str, Any]) -> dict[str, Any]:
    """The cited records by identifier, each with the command of its experiment; those that exist."""
    records = {
        record["id"]: record | {"command": one["command"]}
        for one in verdicts["experiments"]
        for record in one["records"]
    }
    return {name: records[name] for name in cited() if name in records}


def render(data: Mapping[str, Any]) -> str:
    """The HTML text of the page, with the style sheet, the scripts and the given data inserted."""
    text = (PAGE / "page.html").read_text(encoding="utf-8")
    parts = {
        "style": (PAGE / "style.css").read_text(encoding="utf-8"),
        "data": strict_json.text(data, separators=(",", ":")).replace("<", "\\u003c"),
        "script": "".join((PAGE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
        "made": html.escape(data["made"]),
    }
    for name, content in parts.items():
        before, after = text.split(f"{{{{{name}}}}}")
        text = before + content + after
    return text


def contents(
    results: xr.Dataset,
    verdicts: Mapping[str, Any],
    *,
    clipped: xr.Dataset | None = None,
    language_heads: xr.Dataset | None = None,
) -> dict[str, Any]:
    """The data stored in the page, as JSON-compatible values; arrays are float32, as in the run.

    `verdicts` are those that `verdicts` reads; `clipped` are results of `token_clip`, and
    `language_heads` of `head_circuits`, without which the page has no figure of them.

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
            "stuck": results.two_layers_on_plateau.values.tolist(),
            "loss": packed(results.two_layers_loss),
            **_circuits(results, "two_layers_"),
        },
        "references": _references(results),
        "softmaxSweep": {
            "fractions": results.softmax_fraction.values.tolist(),
            "seeds": results.mixed_seed.values.tolist(),
            **{name: _mixed(results, task) for name, task in TASKS.items()},
        },
        "clip": None if clipped is None else _bounds(clipped),
        "heads": None if language_heads is None else _language_heads(language_heads),
        "verdicts": cited_verdicts(verdicts),
        "story": story(),
    }


def _references(results: xr.Dataset) -> dict[str, Any]:
    """Optimal parameters and losses of gradient descent and GD++, by number of steps."""
    gd, gdpp = (results.sel(reference=name) for name in ("gd", "gdpp"))
    return {
        "zero": float(results.zero_loss),
        "rate": gd.exact_rate.values.tolist(),
        "loss": gd.exact_loss.values.tolist(),
        "curvedRate": gdpp.exact_rate.values.tolist(),
        "curvedGamma": gdpp.exact_curvature.values.tolist(),
        "curvedLoss": gdpp.exact_loss.values.tolist(),
    }


def packed(values: xr.DataArray | np.ndarray) -> dict[str, Any]:
    """An array as its shape and its numbers, encoded as little-endian float32 in base64."""
    return _encoded(np.ascontiguousarray(values, "<f4"))


def packed_integers(values: xr.DataArray) -> dict[str, Any]:
    """The same for 16-bit integers, in the unit that is the attribute `unit` of the values."""
    return _encoded(np.ascontiguousarray(values, "<i2")) | {"unit": float(values.attrs["unit"])}


def _encoded(array: np.ndarray) -> dict[str, Any]:
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
    best = results.sel(reference="gd", depth=1)
    return {
        "seeds": results.seed.values.tolist(),
        "steps": results.step.values.tolist(),
        "stuck": results.on_plateau.values.tolist(),
        "loss": packed(results.loss),
        "cosine": packed(best.model_cosine),
        "ratio": packed(best.norm_ratio),
        "floor": float(best.exact_loss),
        "saddles": results.saddle_loss.values.tolist(),
        "zero": float(results.zero_loss),
        "step": float(best.exact_rate) / count,
        **_circuits(results),
    }


def _circuits(results: xr.Dataset, prefix: str = "") -> dict[str, Any]:
    """Both circuits (..., head, row, column), under the page's names; `prefix` is the variables'."""
    found = {}
    for shown, name in (("keyQuery", "key_query"), ("valueOutput", "value_output")):
        values = results[f"{prefix}{name}"]
        array = values.values if "head" in values.dims else np.expand_dims(values.values, -3)
        found[shown] = packed(array)
    return found


def _bounds(results: xr.Dataset) -> dict[str, Any]:
    """Losses of trained models and of the best GD++ by layers and bound; no bound is None."""
    order = {"loss": ("layers", "clip", "seed"), "best": ("layers", "clip")}
    found = {"loss": results.loss, "best": results.exact_loss}
    finite = [float(bound) if np.isfinite(bound) else None for bound in results["clip"].values]
    return {
        "bounds": finite,
        "layers": results.layers.values.tolist(),
        **{name: packed(found[name].transpose(*dims)) for name, dims in order.items()},
    }


def _language_heads(results: xr.Dataset) -> dict[str, Any]:
    """Scores and eigenvalues of the heads of a language model, and eigenvalues of a trained layer."""
    own = results.sel(source=results.shown.values)
    order = ("source", "circuit", "layer", "head")
    return {
        "name": results.attrs["language_model"],
        "layers": results.sizes["layer"],
        "count": results.sizes["head"],
        "first": [int(results.strongest_layer), int(results.strongest_head)],
        "z": packed(own.z.transpose(*order)),
        "fraction": packed(own.fraction.transpose(*order)),
        "values": packed_integers(
            results.eigenvalue.transpose("shown", *order[1:], "part", "index")
        ),
        "trained": packed(
            results.trained_eigenvalue.isel(seed=0).transpose("circuit", "part", "trained_index")
        ),
    }


def _mixed(results: xr.Dataset, task: str) -> dict[str, Any]:
    """Layers from linear to softmax attention, (softmax fraction, seed, ...), by number of heads."""
    of_heads = {str(heads): part(results, task=task, heads=heads) for heads in HEADS}
    best = results.sel(reference="gd", depth=1)
    rate = best.exact_rate if task == TASKS["wide"] else results.exact_rate_of_one_input
    return {
        "rate": float(rate),
        "descent": of_heads["1"].mixed_reference_loss.values.tolist(),
        "heads": {heads: _mixed_heads(own) for heads, own in of_heads.items()},
    }


def _mixed_heads(results: xr.Dataset) -> dict[str, Any]:
    """Layers with one number of heads, (softmax fraction, seed, ...)."""
    untrained, trained = (results.sel(stage=stage) for stage in ("untrained", "trained"))
    return {
        "loss": packed(trained.mixed_loss),
        "cosine": packed(trained.mixed_model_cosine),
        "ratio": packed(trained.mixed_norm_ratio),
        "stuck": results.mixed_on_plateau.values.tolist(),
        "untrainedCosine": packed(untrained.mixed_model_cosine),
        **_circuits(results, "mixed_"),
    }
