"""Roll-outs: one trained layer applied repeatedly, compared with as many steps of references."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.analysis import metrics
from toyicl.core.config import require_different, require_positive
from toyicl.core.datasets import Variables
from toyicl.core.episode import Episode, require_squared_error
from toyicl.models.construction import as_transformer, repeated
from toyicl.models.transformer import Transformer
from toyicl.studies.alignment import References, Study


def roll_outs(
    study: Study,
    models: Any,
    references: References,
    dampings: Sequence[float],
    depth: int,
    episodes: Episode | None = None,
) -> Variables:
    """Losses of one-layer models and references that are applied up to `depth` times.

    `dampings` are factors on each update of a model, and on each step of a reference. Variables:
    `rolled_loss` (damping, seed, layer) and `rolled_reference_loss` (reference, damping, layer). The
    held-out episodes of the study are used unless `episodes` are given. Losses are half the squared
    error: raises BadInput for episodes with another loss, and unless the dampings are positive and
    different and the depth is at least 1.
    """
    episodes = study.episodes() if episodes is None else episodes
    require_squared_error("episodes", type(episodes))
    require_different("dampings", dampings)
    for damping in dampings:
        require_positive("dampings", damping)
    task = study.task

    @jax.jit
    def losses(model: Transformer, damping: jax.Array) -> jax.Array:
        unrolled = repeated(model, depth, damping)
        predictions = jax.vmap(unrolled.layerwise, in_axes=-1, out_axes=-1)(*episodes[:3])
        return jax.vmap(metrics.squared_error, (0, None))(predictions, episodes)

    factors = jnp.array(dampings)

    def of_models(models: Transformer, damping: jax.Array) -> jax.Array:
        return jax.lax.map(lambda model: losses(model, damping), models)

    constructed = [
        as_transformer(one, task.context_size, task.dim, task.outputs)
        for one in references.values()
    ]
    return {
        "reference": list(references),
        "damping": list(dampings),
        "layer": np.arange(1, depth + 1),
        "rolled_loss": (
            ("damping", "seed", "layer"),
            np.stack([of_models(models, factor) for factor in factors]),
        ),
        "rolled_reference_loss": (
            ("reference", "damping", "layer"),
            np.stack([[losses(one, factor) for factor in factors] for one in constructed]),
        ),
    }
