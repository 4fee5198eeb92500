"""Which heads of a model have circuits like those of a step of gradient descent, next to controls.

The heads come from the file of a pretrained model, from the folder of a run, or from a construction
that is known to take a step of gradient descent.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from toyicl.analysis import head_circuits
from toyicl.analysis.head_circuits import BEYOND, CIRCUITS, HeadCircuits, IdentityScores
from toyicl.core.datasets import Variables, dataset
from toyicl.core.errors import BadInput
from toyicl.harness import checkpoints
from toyicl.language import heads
from toyicl.language.heads import ModelHeads
from toyicl.models.construction import gradient_descent_circuits
from toyicl.plots import figures

DISTANCES = (0, 1, 4, 16, 64)
"""Distances between query and key, in tokens, at which key-query circuits are scored."""
POSITIVE_DIM = 10
"""Number of inputs, and of outputs, of the construction that is the positive control."""
NAMES = {"key_query": "W_K^T W_Q", "value_output": "P W_V"}
CAPTION = (
    "Circuits M of the attention heads: z = tr(M) sqrt(n) / |M|_F, about N(0, 1) for a random "
    "orientation. Controls: W_Q or W_V after a random rotation, of another head, of another layer, and "
    "weights from N(0, 1). Vertical line: |z| = 4."
)
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
Circuits = Mapping[str, HeadCircuits]
"""Both circuits of every head by name, (layer, head, k, n)."""


def of_model(found: ModelHeads, seed: int = 0) -> xr.Dataset:
    """Scores of the heads of a pretrained model and of their controls; see `survey`.

    Also `z_at_distance` (distance, layer, head), the z of the key-query circuit where rotary positions
    are those of a key that many tokens before the query.
    """
    _, circuits, sizes = found
    far = [
        head_circuits.scores(heads.at_distance(circuits["key_query"], sizes, distance)).z
        for distance in DISTANCES
    ]
    scored = survey(circuits, shared=heads.shared_by(sizes), seed=seed)
    at_distances = xr.Dataset({"z_at_distance": (("distance", "layer", "head"), jnp.stack(far))})
    return scored.merge(at_distances.assign_coords(distance=list(DISTANCES)))


def of_run(folder: Path, seed: int = 0) -> dict[str, xr.Dataset]:
    """Scores of the trained heads of a run, for each of its trainings and seeds, by name.

    Raises BadInput if the folder has no checkpoint, or no training with attention layers.
    """
    kept = checkpoints.load(folder, lambda sentence: None)
    if kept is None:
        raise BadInput(f"run must be the folder of a run with a checkpoint, got {folder}")
    found = {}
    for name, arrays in kept.states.items():
        for row, number in enumerate(kept.identity["seeds"][: len(arrays["step"])]):
            circuits = _trained(arrays, row)
            if circuits:
                found[f"{name}, seed {number}"] = survey(circuits, seed=seed)
    if not found:
        raise BadInput(f"run must have trained attention layers, got that in {folder}")
    return found


def _trained(arrays: Mapping[str, np.ndarray], row: int) -> Circuits | None:
    """The circuits at the last snapshot of a seed; None if the learner has no attention layers."""
    layers: list[list[jax.Array]] = []
    while f"learners.blocks.{len(layers)}.attention.key.value" in arrays:
        prefix = f"learners.blocks.{len(layers)}.attention"
        weights = (arrays[f"{prefix}.{name}.value"] for name in ("query", "key", "value", "output"))
        layers.append([jnp.asarray(each[row, -1]) for each in weights])
    if not layers:
        return None
    return head_circuits.circuits(*(jnp.stack(each) for each in zip(*layers, strict=True)))


def positive_control(seed: int = 0) -> xr.Dataset:
    """Scores of one constructed layer that takes a step of gradient descent on several outputs."""
    size = POSITIVE_DIM
    key_query, value_output = gradient_descent_circuits(1.0, size, size, size)
    identity = jnp.eye(2 * size)
    whole = head_circuits.circuits(key_query, identity, identity, value_output)
    return survey(jax.tree.map(lambda leaf: leaf[None, None], whole), seed=seed)


def survey(found: Circuits, *, shared: int = 1, seed: int = 0) -> xr.Dataset:
    """`IdentityScores` of all heads and of their controls, each (source, circuit, layer, head).

    The sources are the model; its circuits with W_Q or W_V after a random rotation, of another head,
    and of another layer; and weights from N(0, 1). `shared` is the number of neighbouring heads that
    share keys and values; another head is one that does not share them. Where there is no other head
    or layer, the scores of these controls are NaN.
    """
    keys = jax.random.split(jax.random.key(seed), len(CIRCUITS))
    each = [_controlled(found[name], key, shared) for name, key in zip(CIRCUITS, keys, strict=True)]
    dims = ("source", "circuit", "layer", "head")
    values = {
        name: (dims, np.stack([[getattr(s, name) for s in one.values()] for one in each], axis=1))
        for name in IdentityScores._fields
    }
    layers, count = found[CIRCUITS[0]].left.shape[:2]
    return dataset(values).assign_coords(
        source=list(each[0]), circuit=list(CIRCUITS), layer=range(layers), head=range(count)
    )


def spectra(found: Circuits, *, shared: int = 1) -> dict[str, np.ndarray]:
    """Eigenvalues of the circuits, and of those with W_Q or W_V of another head, by source.

    Each (circuit, layer, head, part, k), where the parts are real and imaginary; see
    `head_circuits.eigenvalues`. The sources are "model" and, unless all heads share keys and values,
    "other head"; see `survey`.
    """
    own = [found[name] for name in CIRCUITS]
    others = [one for one in (_of_other_head(each, shared) for each in own) if one is not None]
    return {"model": _eigenvalues(own)} | ({"other head": _eigenvalues(others)} if others else {})


def _of_other_head(found: HeadCircuits, shared: int) -> HeadCircuits | None:
    """The circuits with W_Q or W_V of a head with other keys and values; None if there is none."""
    count = found.left.shape[1]
    return head_circuits.shuffled(found, shared) if count > shared else None


def _eigenvalues(found: list[HeadCircuits]) -> np.ndarray:
    """Of several circuits (..., k, n): (circuit, ..., part, k)."""
    values = np.stack([head_circuits.eigenvalues(one) for one in found])
    return np.stack([values.real, values.imag], axis=-2)


def trained_heads(models: Any) -> Variables:
    """`IdentityScores` and eigenvalues of the first layer of trained models with one head.

    The leaves of the models have a leading axis of seeds. Variables `trained_z` and so on are (seed,
    circuit), and `trained_eigenvalue` is (seed, circuit, part, trained_index).
    """
    found = head_circuits.of_attention(models.blocks[0].attention)
    own = [jax.tree.map(lambda leaf: leaf[:, 0], found[name]) for name in CIRCUITS]
    scored = [head_circuits.scores(one) for one in own]
    return {
        **{
            f"trained_{name}": (
                ("seed", "circuit"),
                np.stack([getattr(s, name) for s in scored], 1),
            )
            for name in IdentityScores._fields
        },
        "trained_eigenvalue": (
            ("seed", "circuit", "part", "trained_index"),
            _eigenvalues(own).swapaxes(0, 1),
        ),
    }


def _controlled(found: HeadCircuits, key: jax.Array, shared: int) -> dict[str, IdentityScores]:
    """Scores of one circuit of all heads, (layer, head), by source."""
    rotation_key, weights_key = jax.random.split(key)
    layers, count = found.left.shape[:2]
    other_layer = head_circuits.shuffled(found, 0, layers=1) if layers > 1 else None
    sources = {
        "model": found,
        "rotated": head_circuits.rotated(rotation_key, found),
        "other head": _of_other_head(found, shared),
        "other layer": other_layer,
        "untrained": head_circuits.untrained(weights_key, found),
    }
    missing = IdentityScores(*(jnp.full((layers, count), jnp.nan) for _ in IdentityScores._fields))
    score = jax.jit(head_circuits.scores)
    return {name: missing if one is None else score(one) for name, one in sources.items()}


def beyond(scored: xr.Dataset) -> xr.DataArray:
    """Whether both circuits of a head have |z| > 4, (source, layer, head)."""
    return (abs(scored.z) > BEYOND).all("circuit")


def opposite(scored: xr.Dataset) -> xr.DataArray:
    """Whether both circuits of a head have |z| > 4, with opposite signs, (source, layer, head)."""
    return beyond(scored) & (scored.z.prod("circuit") < 0)


def strongest(scored: xr.Dataset) -> tuple[int, int]:
    """Layer and head of the model whose smaller |z| of both circuits is largest."""
    smaller = abs(scored.z.sel(source="model")).min("circuit").transpose("layer", "head").values
    layer, head = np.unravel_index(smaller.argmax(), smaller.shape)
    return int(layer), int(head)


def draw(scored: xr.Dataset, command: str) -> Figure:
    """Maps of layers by heads of the z of both circuits, and their distributions next to controls.

    The caption names the command that draws it.
    """
    figure = figures.panels(1, 2 * len(CIRCUITS))
    for place, circuit in enumerate(CIRCUITS):
        values = scored.z.sel(circuit=circuit)
        index, canvas = 2 * place, figure.axes[2 * place]
        draw_map(canvas, values.sel(source="model"))
        figures.title(canvas, index, f"z of {NAMES[circuit]} by head")
        draw_distributions(figure.axes[index + 1], values)
        figures.title(figure.axes[index + 1], index + 1, f"|z| of {NAMES[circuit]}, all heads")
    figures.caption(figure, [CAPTION, f"Command: {command}"])
    return figure


def draw_map(canvas: Axes, values: xr.DataArray) -> None:
    """A map of z (layer, head) on a scale that is linear near 0 and logarithmic beyond."""
    largest = max(float(abs(values).max()), BEYOND)
    norm = SymLogNorm(BEYOND, vmin=-largest, vmax=largest)
    drawn = values.transpose("layer", "head")
    image = canvas.imshow(drawn, cmap="RdBu_r", norm=norm, aspect="auto", origin="lower")
    canvas.set(xlabel="head", ylabel="layer")
    canvas.grid(visible=False)
    ticks = [t for t in (-100, -20, -4, 0, 4, 20, 100) if abs(t) <= largest]
    canvas.figure.colorbar(image, ax=canvas, ticks=ticks, format="%g")


def draw_distributions(canvas: Axes, values: xr.DataArray) -> None:
    """Fraction of heads whose |z| is below a value, for the model and each control.

    Values are (source, layer, head).
    """
    for source, style in zip(values.source.values, STYLES, strict=False):
        sizes = np.sort(abs(values.sel(source=source).values.ravel()))
        if np.isnan(sizes).all():
            continue
        heights = np.arange(1, len(sizes) + 1) / len(sizes)
        canvas.step(sizes, heights, linestyle=style, where="post", label=source)
    canvas.axvline(BEYOND, color="0.5", linewidth=0.8)
    canvas.set(xscale="log", xlim=(0.1, None), xlabel="|z|", ylabel="fraction of heads below")
    canvas.legend()
