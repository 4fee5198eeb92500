"""The saddle points of trained models, for those models whose saddle points are known."""

import numpy as np
import xarray as xr

from toyicl import theory
from toyicl.core.episode import Learner
from toyicl.core.errors import BadInput
from toyicl.models.transformer import Transformer
from toyicl.tasks.linear import LinearRegression, Task


def known_saddles(model: Learner, task: Task) -> np.ndarray | None:
    """Losses of the saddle points of a model on a task, (d + 1,), decreasing; None if not known.

    They are known for one layer of linear attention on plain joint tokens with one output, with any
    number of heads that together are wide enough for a matrix of rank d, on the tasks that
    `theory.saddle_losses` accepts. Leaves of the model may have leading axes.
    """
    if not isinstance(task, LinearRegression) or not _is_one_linear_layer(model, task.dim):
        return None
    try:
        return theory.saddle_losses(task)
    except BadInput:  # there is no closed form on this task
        return None


def _is_one_linear_layer(model: Learner, dim: int) -> bool:
    """Whether a model's predictions depend on its weights through a d x d step matrix of any rank."""
    if not isinstance(model, Transformer) or model.depth != 1 or model.outputs != 1:
        return False
    if model.tokens != "joint" or model.embedding is not None or model.token_clip is not None:
        return False
    block = model.layer(0)
    heads, key_size = block.attention.key[...].shape[-3:-1]
    plain = block.attention_norm is None and block.mlp is None and model.initial_weights is None
    return plain and block.attention.kind == "linear" and heads * key_size >= dim


def stays_near(
    values: xr.DataArray, level: float, *, distance: float, steps: float
) -> xr.DataArray:
    """Where values (seed, step) stay near a level for at least some training steps, as booleans.

    Near is a relative distance below `distance`, at snapshots in succession of which the first and the
    last are at least `steps` apart. A loss that passes by a level takes less.
    """
    near = abs(values / level - 1).transpose("seed", "step").values < distance
    stays = np.zeros_like(near)
    for seed, row in enumerate(near):
        edges = np.flatnonzero(np.diff(row.astype(int), prepend=0, append=0))
        for first, end in edges.reshape(-1, 2):
            stays[seed, first:end] = values.step[end - 1] - values.step[first] >= steps
    return values.transpose("seed", "step").copy(data=stays)
