"""Circuits of the attention heads of a pretrained decoder, with their controls.

Only the attention weights are read. The gain of the norm before attention is part of W_Q, W_K and
W_V. Rotary positions are left out, except where a distance between query and key is given.
"""

import jax
import jax.numpy as jnp
import xarray as xr

from toyicl.analysis import head_circuits
from toyicl.analysis.head_circuits import CIRCUITS, HeadCircuits, IdentityScores
from toyicl.core.datasets import dataset
from toyicl.language.decoder import DecoderArchitecture, rotate
from toyicl.language.files import ATTENTION, ModelFile

SOURCES = ("model", "rotated", "other head", "other layer", "untrained")
"""The model's own circuits, and those of its controls."""
DISTANCES = (0, 1, 4, 16, 64)
"""Distances between query and key at which key-query circuits are scored."""


def read_circuits(file: ModelFile) -> dict[str, HeadCircuits]:
    """Both circuits of every head, (layer, head, k, n), with the norm's gain as part of the weights."""
    weights = {name: jnp.asarray(values) for name, values in file.weights(ATTENTION).items()}
    gain = weights["attention_norm"][:, None, None]
    group = file.architecture.heads // file.architecture.key_value_heads
    query = weights["query"] * gain
    key, value = (jnp.repeat(weights[name] * gain, group, axis=1) for name in ("key", "value"))
    return head_circuits.circuits(query, key, value, weights["output"])


def identity_scores(file: ModelFile, seed: int = 0) -> xr.Dataset:
    """Scores of all heads and of their controls: variables (source, circuit, layer, head).

    `z_at_distance` (distance, layer, head) is the z of the key-query circuit where the key is that many
    tokens before the query.
    """
    found, sizes = read_circuits(file), file.architecture
    group = sizes.heads // sizes.key_value_heads
    key = jax.random.key(seed)
    by_circuit = [_with_controls(found[name], key, group) for name in CIRCUITS]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *by_circuit)
    dims = ("source", "circuit", "layer", "head")
    values = {name: (dims, getattr(stacked, name)) for name in IdentityScores._fields}
    far = [_z_at_distance(found["key_query"], sizes, distance) for distance in DISTANCES]
    at_distances = {"z_at_distance": (("distance", "layer", "head"), jnp.stack(far))}
    return dataset(values, at_distances).assign_coords(
        source=list(SOURCES),
        circuit=list(CIRCUITS),
        distance=list(DISTANCES),
        layer=range(sizes.layers),
        head=range(sizes.heads),
    )


def _with_controls(found: HeadCircuits, key: jax.Array, group: int) -> IdentityScores:
    """Scores of a circuit of all heads and of its controls, (source, layer, head).

    `group` heads share a factor of the circuit; another head is one that does not share it.
    """
    rotation_key, weights_key = jax.random.split(key)
    sources = (
        found,
        head_circuits.rotated(rotation_key, found),
        head_circuits.shuffled(found, group),
        head_circuits.shuffled(found, 0, layers=1),
        head_circuits.untrained(weights_key, found),
    )
    scores = [jax.jit(head_circuits.scores)(each) for each in sources]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *scores)


def _z_at_distance(found: HeadCircuits, sizes: DecoderArchitecture, distance: int) -> jax.Array:
    """The z of the key-query circuit for keys that are `distance` tokens before the query."""
    size = sizes.key_size
    rotation = rotate(jnp.eye(size), jnp.full(size, distance), sizes.rotary_base).T
    return head_circuits.scores(head_circuits.at_distance(found, rotation)).z
