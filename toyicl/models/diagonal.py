"""Layers of linear attention whose weights are diagonal blocks: four numbers for each layer.

Vladymyrov et al. (2024) call this parametrisation DIAG. A full layer has a matrix in the place of each
number.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import require, require_not_negative, require_size, settings, static
from toyicl.core.products import contract
from toyicl.tasks.linear import Task

State = tuple[jax.Array, jax.Array]
"""Inputs and labels of some tokens, (rows, d) and (rows, m)."""


@settings
class DiagonalArchitecture:
    """Settings of diagonal layers; calling them with a task and a key builds a model.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    depth: int = static(default=2)
    """Number of layers."""
    init_scale: float = 0.01
    """Standard deviation of the initial weights, times the number of points."""

    def __post_init__(self) -> None:
        require_size("depth", self.depth)
        require_not_negative("init_scale", self.init_scale)

    def __call__(self, task: Task, key: jax.Array) -> "DiagonalLayers":
        """Build a model with fresh weights for the episodes of a task."""
        weights = jax.random.normal(key, (self.depth, 4)) / task.context_size
        return DiagonalLayers(self.init_scale * weights)


class DiagonalLayers(nnx.Module):
    """Layers with weights (w_xx, w_xy, w_yx, w_yy) each, (depth, 4), as a learner on one episode.

        x_j <- x_j + sum_i (w_xx x_i . x_j + w_xy y_i . y_j) x_i
        y_j <- y_j + sum_i (w_yx x_i . x_j + w_yy y_i . y_j) y_i

    for all points and for the query (x_q, 0), which no token attends to. The prediction is minus the
    query's label after the last layer. Two heads of linear attention can have such weights. Those of
    GD++ are (-gamma, 0, -eta / N, 0); w_yy makes the step depend on the size of the labels, and
    therefore on the noise.

    Raises BadInput for weights of another shape.
    """

    def __init__(self, weights: jax.Array):
        shape = jnp.shape(weights)
        allowed = len(shape) == 2 and shape[0] > 0 and shape[1] == 4
        require(allowed, "weights", "of shape (depth, 4)", shape)
        self.weights = nnx.Param(jnp.asarray(weights, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        depth = self.weights[...].shape[0]
        context, query = (x, y), (x_query[None], jnp.zeros_like(y[:1]))
        for layer in range(depth - 1):
            context, query = (self._advance(layer, rows, context) for rows in (context, query))
        return -self._advance(depth - 1, query, context)[1][0]

    def _advance(self, layer: int, rows: State, context: State) -> State:
        """Tokens after a layer in which they attend to the context."""
        w_xx, w_xy, w_yx, w_yy = (self.weights[...][layer, column] for column in range(4))
        (x, y), (inputs, labels) = rows, context
        of_inputs, of_labels = contract(x, inputs, (1, 1)), contract(y, labels, (1, 1))
        return (
            x + contract(w_xx * of_inputs + w_xy * of_labels, inputs),
            y + contract(w_yx * of_inputs + w_yy * of_labels, labels),
        )
