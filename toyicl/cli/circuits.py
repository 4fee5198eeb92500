"""The command `toyicl circuits`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toyicl.cli.console import print_json
from toyicl.cli.options import Circuits
from toyicl.core.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr

LISTED = 10
"""Number of heads that are listed."""


def circuits(command: Circuits) -> int:
    """Score the heads of a model or of a run, and print or draw the scores."""
    if command.model is not None and command.run is not None:
        raise BadInput(f"run must not be given with model, got {command.run} and {command.model}")
    if command.out is not None and (command.run is not None or command.out.suffix not in SUFFIXES):
        rule = f"a file with suffix {' or '.join(SUFFIXES)}, of a pretrained model"
        raise BadInput(f"out must be {rule}, got {command.out}")
    from toyicl.studies import circuit_survey

    control = {"constructed step of gradient descent": circuit_survey.positive_control()}
    if command.run is not None:
        scored = circuit_survey.of_run(command.run)
    else:
        from toyicl.studies import language_model

        heads = language_model.load_heads(str(command.model or ""))
        scored = {heads.name: circuit_survey.of_model(heads)}
        if command.out is not None:
            model = "" if command.model is None else f" --model {command.model}"
            words = f"toyicl circuits{model} --out {command.out}"
            _draw(scored[heads.name], words, command.out)
    summaries = {name: summary(found) for name, found in (scored | control).items()}
    if command.json:
        print_json(summaries)
    else:
        for name, found in summaries.items():
            _print(name, found)
    return 0


SUFFIXES = (".png", ".svg")
"""Suffixes of figures."""


def summary(scored: "xr.Dataset") -> dict[str, Any]:
    """Scores as plain values: by source and circuit, and of the heads with both circuits beyond 4."""
    import numpy as np

    from toyicl.analysis.head_circuits import BEYOND
    from toyicl.studies.circuit_survey import beyond, opposite

    by_source: dict[str, Any] = {}
    for source in scored.source.values:
        part = scored.sel(source=source)
        if bool(np.isnan(part.z).all()):
            continue
        by_source[str(source)] = {
            "both_beyond": int(beyond(part).sum()),
            **{str(c): _of_circuit(part.sel(circuit=c), BEYOND) for c in scored.circuit.values},
        }
    heads = beyond(scored).sel(source="model")
    found: dict[str, Any] = {
        "heads": int(heads.size),
        "beyond": BEYOND,
        "sources": by_source,
        "opposite_signs": int(opposite(scored).sel(source="model").sum()),
        "heads_beyond": [_head(scored, layer, head) for layer, head in np.argwhere(heads.values)],
    }
    if "z_at_distance" in scored:
        far = (abs(scored.z_at_distance) > BEYOND).mean(("layer", "head"))
        found["beyond_at_distance"] = {
            str(d): float(far.sel(distance=d)) for d in scored.distance.values
        }
    return found


def _of_circuit(part: "xr.Dataset", level: float) -> dict[str, float]:
    return {
        "median_z": float(part.z.median()),
        "largest_z": float(abs(part.z).max()),
        "beyond": float((abs(part.z) > level).mean()),
        "largest_fraction": float(part.fraction.max()),
        "median_sign": float(part.sign.median()),
    }


def _head(scored: "xr.Dataset", layer: int, head: int) -> dict[str, Any]:
    own = scored.sel(source="model").isel(layer=int(layer), head=int(head))
    values = {str(c): float(own.z.sel(circuit=c)) for c in scored.circuit.values}
    fractions = {f"{c}_fraction": float(own.fraction.sel(circuit=c)) for c in scored.circuit.values}
    return {"layer": int(layer), "head": int(head), **values, **fractions}


def _print(name: str, found: dict[str, Any]) -> None:
    """A table of the scores, and the heads with the largest smaller |z|."""
    level = found["beyond"]
    print(f"{name}: heads: {found['heads']}")
    above = f"|z| > {level:g}"
    print(f"  {'':<14} {'circuit':<13} {'median z':>9} {above:>8} {'largest |z|':>12}")
    for source, values in found["sources"].items():
        for circuit, title in (("key_query", "W_K^T W_Q"), ("value_output", "P W_V")):
            own = values[circuit]
            print(
                f"  {source:<14} {title:<13} {own['median_z']:>9.2f} {own['beyond']:>8.0%} "
                f"{own['largest_z']:>12.1f}"
            )
        print(f"  {source:<14} both beyond {level:g}: {values['both_beyond']} heads")
    print(
        f"  heads of the model with both beyond {level:g} and opposite signs, as the step has: "
        f"{found['opposite_signs']}"
    )
    for distance, fraction in found.get("beyond_at_distance", {}).items():
        print(
            f"  key {distance} tokens before the query: W_K^T R W_Q beyond {level:g} in {fraction:.0%}"
        )
    heads = sorted(
        found["heads_beyond"], key=lambda one: -min(abs(one["key_query"]), abs(one["value_output"]))
    )
    for one in heads[:LISTED]:
        print(
            f"  layer {one['layer']}, head {one['head']}: z {one['key_query']:.1f} and "
            f"{one['value_output']:.1f}, fractions {one['key_query_fraction']:.2f} and "
            f"{one['value_output_fraction']:.2f}"
        )
    if len(heads) > LISTED:
        print(f"  and {len(heads) - LISTED} more heads (--json lists all)")


def _draw(scored: "xr.Dataset", words: str, out: Path) -> None:
    from toyicl.plots import figures
    from toyicl.studies import circuit_survey

    with figures.style():
        circuit_survey.draw(scored, words).savefig(out)
