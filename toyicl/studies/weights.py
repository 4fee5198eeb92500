"""What the weights of trained models show: learned steps, circuits, interpolation with references."""

from functools import partial
from typing import Any

import jax
import numpy as np

from toyicl.analysis import metrics
from toyicl.analysis.weights import read_layer
from toyicl.core.datasets import Variables
from toyicl.core.episode import Learner
from toyicl.models.construction import as_transformer, interpolate
from toyicl.studies.alignment import Study


def learned_steps(study: Study, models: Any) -> Variables:
    """Step size and curvature in the weights of the first layer, and distance from the construction.

    Each (seed,), of models whose leaves have a leading axis of seeds.
    """
    read = jax.vmap(partial(read_layer, dim=study.task.dim))(models)
    return {
        "learned_step": ("seed", read.step),
        "learned_curvature": ("seed", read.curvature),
        "off_construction": ("seed", read.off_construction),
    }


def circuits(models: Any, dims: tuple[str, ...] = ("seed",)) -> Variables:
    """Circuits W_K^T W_Q and P W_V of the first layer, (dims, head, row, column), in float32.

    `dims` names the leading axes of the models' leaves.
    """
    attention = models.blocks[0].attention
    found = {"key_query": attention.key_query, "value_output": attention.value_output}
    dims = (*dims, "head", "row", "column")
    return {name: (dims, np.asarray(matrix, np.float32)) for name, matrix in found.items()}


def interpolation(study: Study, models: Any, reference: Learner) -> Variables:
    """Loss of the mean of trained weights and those of a constructed reference, (seed,).

    The trained circuits are rescaled first, which changes no prediction; see `interpolate`.
    """
    task = study.task
    target = as_transformer(reference, task.context_size, task.dim, task.outputs)
    means = jax.vmap(partial(interpolate, reference=target, dim=task.dim))(models)
    return {"interpolated_loss": ("seed", metrics.losses(means, study.episodes()))}
