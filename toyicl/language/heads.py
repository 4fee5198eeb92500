"""Circuits of the attention heads of a pretrained decoder.

Only the attention weights are read. The gain of the norm before attention is part of W_Q, W_K and
W_V. Rotary positions are left out, except where a distance between query and key is given.
"""

from typing import NamedTuple

import jax.numpy as jnp

from toyicl.analysis import head_circuits
from toyicl.analysis.head_circuits import HeadCircuits
from toyicl.language.decoder import DecoderArchitecture, rotate
from toyicl.language.files import ATTENTION, ModelFile


class ModelHeads(NamedTuple):
    """The attention heads of a pretrained model."""

    name: str
    """Name of its file."""
    circuits: dict[str, HeadCircuits]
    """Both circuits of every head by name, (layer, head, k, n); see `head_circuits.CIRCUITS`."""
    architecture: DecoderArchitecture


def read_heads(file: ModelFile) -> ModelHeads:
    """The attention heads of a model's file."""
    return ModelHeads(file.path.name, _circuits(file), file.architecture)


def _circuits(file: ModelFile) -> dict[str, HeadCircuits]:
    weights = {name: jnp.asarray(values) for name, values in file.weights(ATTENTION).items()}
    gain = weights["attention_norm"][:, None, None]
    group = shared_by(file.architecture)
    query = weights["query"] * gain
    key, value = (jnp.repeat(weights[name] * gain, group, axis=1) for name in ("key", "value"))
    return head_circuits.circuits(query, key, value, weights["output"])


def shared_by(architecture: DecoderArchitecture) -> int:
    """Number of heads that share keys and values."""
    return architecture.heads // architecture.key_value_heads


def at_distance(
    found: HeadCircuits, architecture: DecoderArchitecture, distance: int
) -> HeadCircuits:
    """Key-query circuits W_K^T R W_Q for keys that are `distance` tokens before the query.

    R is the rotation of a query relative to such a key.
    """
    size = architecture.key_size
    rotation = rotate(jnp.eye(size), jnp.full(size, distance), architecture.rotary_base).T
    return found._replace(right=rotation @ found.right)
