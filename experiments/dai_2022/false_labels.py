"""The effect of false labels on in-context learning, on finetuning, and on their similarity.

A fraction of the demonstrations' labels is replaced by other classes: in the context only, for
finetuning only, or the same labels for both. Measured are the accuracies of both, and the
similarity of the changes that they make to attention outputs, with the learning rate of finetuning
that was chosen with true labels.

Expected: accuracies fall with the fraction; the similarity falls where only one of the two has
false labels, and stays where both have them; that of an untrained model does not change.
Cost: some 2 minutes on two cores.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import require, require_fraction, require_increasing
from toyicl.core.datasets import dataset
from toyicl.finetuning import evaluation
from toyicl.finetuning.evaluation import KINDS, EvaluationSet, FinetuningStudy
from toyicl.finetuning.updates import published
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.causal import CausalTransformer
from toyicl.plots import figures, panels
from toyicl.studies.departure_sweep import STAGES
from toyicl.tasks.prompts import cross_entropy, with_false_labels
from toyicl.training.loop import Histories

SIDES = ("in context", "finetuning", "both")
"""Where labels are false."""
WAYS = ("in context", "finetuned")
"""Labels of the dimension `way`."""
PUBLISHED = published(cross_entropy)


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the model, its training, and the false labels."""

    fractions: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Fractions of the demonstrations whose labels are false."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_increasing("fractions", self.fractions)
        start = len(self.fractions) > 1 and self.fractions[0] == 0
        require(start, "fractions", "two or more, of which the first is 0", self.fractions)
        for fraction in self.fractions:
            require_fraction("fractions", fraction)


FULL = Settings()
QUICK = FULL.quick(fractions=(0.0, 0.5, 1.0))
trainings = FinetuningStudy.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Measure accuracies and similarities with false labels, before and after training."""
    history = histories["model"]
    found = evaluation.before_and_after(
        partial(_compare, settings), history, settings.evaluation_sets()
    )
    return dataset(
        {
            "accuracy": (("seed", "stage", "way", "fraction"), found["accuracy"]),
            "similarity": (
                ("seed", "stage", "side", "fraction", "kind", "layer"),
                found["similarity"],
            ),
            "zero_shot": (("seed", "stage"), found["zero_shot"]),
            "chosen_rate": (("seed", "stage"), found["rate"]),
        },
        {"seed": history.seeds},
    ).assign_coords(
        stage=list(STAGES),
        way=list(WAYS),
        side=list(SIDES),
        fraction=list(settings.fractions),
        kind=list(KINDS),
        layer=np.arange(1, settings.model.depth + 1),
    )


def _compare(
    settings: Settings, model: CausalTransformer, data: EvaluationSet, other_data: EvaluationSet
) -> dict[str, Any]:
    """Accuracies at each fraction, and similarities by where labels are false."""
    rate = evaluation.choose_rate(model, other_data, settings.rates, **PUBLISHED).best
    before = evaluation.zero_shot(model, data)
    keys = jax.random.split(jax.random.key(3), len(data.x))

    def with_false(fraction: jax.Array) -> tuple:
        labels = jax.vmap(with_false_labels, (0, 0, None))(keys, data.y, fraction)
        changed = data._replace(y=labels)
        tuned = evaluation.finetuned(model, changed, rate, **PUBLISHED)
        both = (
            evaluation.in_context(model, changed),
            evaluation.zero_shot_per_task(tuned, changed),
        )
        return tuple((one.logits, one.attended) for one in both)

    in_context, tuned = jax.lax.map(with_false, jnp.asarray(settings.fractions))

    def similarity(one: jax.Array, other: jax.Array) -> jax.Array:
        return evaluation.update_similarity(before.attended, one, other).similarity

    def with_true(attended: jax.Array) -> jax.Array:
        return jnp.broadcast_to(attended[:1], attended.shape)

    pairs = {
        "in context": (in_context[1], with_true(tuned[1])),
        "finetuning": (with_true(in_context[1]), tuned[1]),
        "both": (in_context[1], tuned[1]),
    }
    accuracies = [
        jax.vmap(evaluation.accuracy, (0, None))(logits, data.labels)
        for logits, _ in (in_context, tuned)
    ]
    return {
        "zero_shot": evaluation.accuracy(before.logits, data.labels),
        "accuracy": jnp.stack(accuracies),
        "similarity": jnp.stack([jax.vmap(similarity)(*pairs[side]) for side in SIDES]),
        "rate": rate,
    }


def _similarity(side: str, kind: str = "normalised", stage: str = "trained") -> Value:
    """Similarity at the last layer, (seed, fraction)."""
    return lambda results: results.similarity.sel(side=side, kind=kind, stage=stage).isel(layer=-1)


def draw(results: xr.Dataset) -> Figure:
    """Accuracies, and similarities as published and centred, by the fraction of false labels."""
    xlabel = "fraction of false labels"

    def accuracies(axes: Axes, results: xr.Dataset) -> None:
        trained = results.sel(stage="trained")
        for way, (color, style) in zip(WAYS, panels.LOOKS, strict=False):
            values = trained.accuracy.sel(way=way)
            figures.every_seed(axes, values, "fraction", label=way, color=color, style=style)
        zero = float(trained.zero_shot.mean())
        figures.floor_line(axes, zero, f"zero-shot: {zero:.2f}")
        axes.set(xlabel=xlabel, ylabel="accuracy", ylim=(0, 1))
        axes.legend()

    def similarities(kind: str, stage: str = "trained") -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            for side, (color, style) in zip(SIDES, panels.LOOKS, strict=False):
                values = _similarity(side, kind, stage)(results)
                label = f"false: {side}"
                figures.every_seed(axes, values, "fraction", label=label, color=color, style=style)
            axes.set(xlabel=xlabel, ylabel="similarity, last layer", ylim=(-0.2, 0.7))
            axes.legend()

        return draw

    drawn = {
        "accuracy": accuracies,
        "similarity, as published": similarities("normalised"),
        "similarity, centred": similarities("centred"),
        "similarity before training, as published": similarities("normalised", "untrained"),
    }
    sentence = "False labels of demonstrations in the context, for finetuning, or for both."
    return panels.figure(results, drawn, sentence)


def _largest_rise(way: str) -> Value:
    """The largest increase of an accuracy from one fraction to the next, for each seed."""
    return lambda results: (
        results.accuracy.sel(stage="trained", way=way).diff("fraction").max("fraction")
    )


def _change(side: str, stage: str = "trained") -> Value:
    """Similarity with all labels false minus that with true labels."""

    def value(results: xr.Dataset) -> xr.DataArray:
        values = _similarity(side, stage=stage)(results)
        return values.sel(fraction=1.0) - values.sel(fraction=0.0)

    return value


CLAIMS = catalogue.read(
    Path(__file__).with_name("unfinished_report.toml"),
    {
        "REP-3-icl": _largest_rise("in context"),
        "REP-3-ft": _largest_rise("finetuned"),
        "REP-3": _change("in context"),
        "REP-3-finetuning": _change("finetuning"),
        "REP-3-both": _change("both"),
    },
) + catalogue.read(
    Path(__file__).parents[1] / "objections" / "claims.toml",
    {"CR-10-labels": _change("in context", "untrained")},
)
