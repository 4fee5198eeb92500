"""The changes that demonstrations and finetuning make to linear attention, compared as matrices.

Each head of linear attention multiplies a query by W_ZSL = sum_i v_i k_i^T over the tokens of a
zero-shot prompt. Demonstrations add to this matrix, and finetuning of W_K and W_V, as in Dai et al.
(2022), changes it. The two changes are compared as matrices: by their cosine, norm ratio, and principal
angles of their two leading left and right singular vectors in each head. Controls are demonstrations
of another task, random matrices with the same singular values, and models before training. The
similarity of the changes of attention outputs, which the literature compares, is measured as well.

Expected: both ways gain accuracy, and the cosines are between -.1 and .1 all the same. The singular
vectors have more in common than by chance, before training too, and as much with another task's.
Alias: zsl
Cost: six minutes on one core; quick: a minute.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import require, require_size
from toyicl.core.datasets import dataset
from toyicl.finetuning import attention_weights, evaluation
from toyicl.finetuning.evaluation import KINDS, EvaluationSet, FinetuningStudy
from toyicl.finetuning.updates import published
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.causal import CausalArchitecture, CausalTransformer
from toyicl.plots import panels
from toyicl.studies.departure_sweep import STAGES
from toyicl.tasks.prompts import cross_entropy
from toyicl.training.loop import Histories

PUBLISHED = published(cross_entropy)
CONTROLS = ("demonstrations", "another task's", "random")
"""Labels of the dimension `change`: what is compared with the change by finetuning."""
WAYS = ("zero-shot", "in context", "finetuned")
"""Labels of the dimension `way`."""


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the model with linear attention, its training, and the comparison."""

    model: CausalArchitecture = CausalArchitecture(attention="linear")
    """The causal transformer; its attention is linear."""
    singular_vectors: int = 2
    """Number of leading singular vectors of each head whose principal angles are compared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        linear = self.model.attention == "linear"
        require(linear, "model.attention", "linear", self.model.attention)
        require_size("singular_vectors", self.singular_vectors)
        size = self.model.width // self.model.heads
        rule = f"at most the key size ({size})"
        require(self.singular_vectors <= size, "singular_vectors", rule, self.singular_vectors)


FULL = Settings(queries=24)
QUICK = replace(FULL.quick(), queries=16)
trainings = FinetuningStudy.trainings
DIMS: dict[str, tuple[str, ...]] = {
    "accuracy": ("way",),
    "norm_ratio": ("layer",),
    "similarity": ("kind", "layer"),
    **dict.fromkeys(("cosine", "left", "right"), ("change", "layer")),
}
"""Dimensions of the variables that are not scalars."""


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare both changes before and after training."""
    history = histories["model"]
    found = evaluation.before_and_after(
        partial(_compare, settings), history, settings.evaluation_sets()
    )
    variables = {
        name: (("seed", "stage", *DIMS.get(name, ())), values) for name, values in found.items()
    }
    chance = settings.singular_vectors * settings.model.heads / settings.model.width
    return dataset({"seed": history.seeds, **variables}, {"chance": chance}).assign_coords(
        stage=list(STAGES),
        change=list(CONTROLS),
        way=list(WAYS),
        kind=list(KINDS),
        layer=np.arange(1, settings.model.depth + 1),
    )


def _compare(
    settings: Settings, model: CausalTransformer, data: EvaluationSet, other_data: EvaluationSet
) -> dict[str, Any]:
    """Compare both changes of one model, in means over tasks and queries."""
    rate = evaluation.choose_rate(model, other_data, settings.rates, **PUBLISHED).best
    tuned = evaluation.finetuned(model, data, rate, **PUBLISHED)
    ways = (
        evaluation.zero_shot(model, data),
        evaluation.in_context(model, data),
        evaluation.zero_shot_per_task(tuned, data),
    )
    demonstrated = jax.vmap(partial(attention_weights.demonstration_change, model))(data.x, data.y)
    keys = jax.random.split(jax.random.key(5), len(data.x))
    changes = jnp.stack(
        [
            demonstrated,
            jnp.roll(demonstrated, 1, axis=0),
            jax.vmap(attention_weights.random_change)(keys, demonstrated),
        ],
        axis=1,
    )

    def one_query(changes: jax.Array, tuned: CausalTransformer, query: jax.Array) -> Any:
        moved = attention_weights.finetuning_change(model, tuned, query)
        compare = partial(attention_weights.overlap, count=settings.singular_vectors)
        return jax.vmap(compare, (0, None))(changes, moved)

    def one_task(changes: jax.Array, tuned: CausalTransformer, queries: jax.Array) -> Any:
        return jax.vmap(partial(one_query, changes, tuned))(queries)

    found = jax.vmap(one_task)(changes, tuned, data.queries)
    means = jax.tree.map(lambda values: jnp.nanmean(values, axis=(0, 1)), found)
    outputs = evaluation.update_similarity(*(way.attended for way in ways))
    return {
        "cosine": means.cosine,
        "left": means.left,
        "right": means.right,
        "norm_ratio": means.norm_ratio[0],
        "similarity": outputs.similarity,
        "accuracy": jnp.stack([evaluation.accuracy(way.logits, data.labels) for way in ways]),
        "chosen_rate": rate,
    }


def draw(results: xr.Dataset) -> Figure:
    """Cosines and principal angles in each layer, and accuracies."""
    drawn: dict[str, panels.Panel] = {}
    last = int(results.layer[-1])
    for layer in results.layer.values:
        drawn[f"cosine, layer {layer}"] = panels.rows(
            _stages("cosine", layer=layer), "change", xlabel="cosine", xlim=(-0.5, 1)
        )
    for name in ("left", "right"):
        drawn[f"{name} singular vectors, layer {last}"] = partial(_angles, name, last)
    drawn["norm ratio, finetuning / demonstrations"] = panels.rows(
        _stages("norm_ratio"), "layer", xlabel="norm ratio", ylabel="layer", xlim=(0, None)
    )
    drawn["accuracy"] = panels.rows(_stages("accuracy"), "way", xlabel="accuracy", xlim=(0, 1))
    sentence = (
        "Changes of the matrices W_ZSL of linear attention by finetuning on demonstrations and by the "
        "demonstrations in the context, or by those of another task, or random with the same singular "
        "values. Singular vectors: mean squared cosine of the principal angles of the leading ones of "
        "each head."
    )
    return panels.figure(results, drawn, sentence)


def _angles(name: str, layer: int, axes: Axes, results: xr.Dataset) -> None:
    """Mean squared cosines of principal angles, and their value by chance."""
    sets, levels = _stages(name, layer=layer), {"chance": float(results.chance)}
    panels.rows(sets, "change", levels=levels, xlabel="mean squared cosine", xlim=(0, 1))(
        axes, results
    )


def _stages(name: str, **where: Any) -> dict[str, Value]:
    return {stage: panels.selected(name, stage=stage, **where) for stage in STAGES}


def _trained(name: str, **where: Any) -> Value:
    return panels.selected(name, stage="trained", **where)


def _own(name: str) -> Value:
    """What own demonstrations have more than another task's, in each layer of trained models."""

    def value(results: xr.Dataset) -> xr.DataArray:
        own, another = (_trained(name, change=change)(results) for change in CONTROLS[:2])
        return own - another

    return value


def _gain(way: str) -> Value:
    """Accuracy of a way minus the zero-shot accuracy, trained."""
    return lambda r: _trained("accuracy", way=way)(r) - _trained("accuracy", way=WAYS[0])(r)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "ZSL-context": _gain("in context"),
        "ZSL-finetuned": _gain("finetuned"),
        "ZSL-cosine": _trained("cosine", change="demonstrations"),
        "ZSL-random": _trained("cosine", change="random"),
        "ZSL-own": _own("cosine"),
        "ZSL-left": lambda r: (
            _trained("left", change="demonstrations")(r).isel(layer=-1) - r.chance
        ),
        "ZSL-left-own": _own("left"),
        "ZSL-right-own": _own("right"),
        "ZSL-norm": _trained("norm_ratio"),
    },
)
