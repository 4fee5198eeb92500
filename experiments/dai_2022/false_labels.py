"""What false labels do to in-context learning, to finetuning, and to their likeness.

A share of the demonstrations' labels is replaced by other classes: in the context alone, for finetuning
alone, or, the same ones, for both. Accuracy of both, and the similarity of the changes that they make
to attention outputs, at the rate of finetuning that was chosen with true labels.

Expected: accuracy falls with the share; the similarity falls where one side alone is told false labels
and stays where both are, while that of an untrained model does not notice.
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
from toyicl.harness import catalogue, claims
from toyicl.models.causal import CausalTransformer
from toyicl.plots import figures, panels
from toyicl.tasks.prompts import cross_entropy, with_false_labels
from toyicl.training.loop import Histories

SIDES = ("in context", "finetuning", "both")
"""Who is told the false labels."""
PUBLISHED = published(cross_entropy)


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the vehicle, and how many labels are false."""

    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Shares of the demonstrations whose labels are false."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_increasing("shares", self.shares)
        rise = len(self.shares) > 1 and self.shares[0] == 0
        require(rise, "shares", "two or more, from 0, true labels, on", self.shares)
        for share in self.shares:
            require_fraction("shares", share)


FULL = Settings()
QUICK = FULL.quick(shares=(0.0, 0.5, 1.0))


trainings = FinetuningStudy.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train the vehicle, and tell it false labels."""
    history = histories["model"]
    found = evaluation.before_and_after(
        partial(_look, settings), history, settings.evaluation_sets()
    )
    return dataset(
        {
            "in_context": (("seed", "model", "share"), found["in_context"]),
            "finetuned": (("seed", "model", "share"), found["finetuned"]),
            "similarity": (
                ("seed", "model", "side", "share", "kind", "layer"),
                found["similarity"],
            ),
            "zero_shot": (("seed", "model"), found["zero_shot"]),
            "chosen_rate": (("seed", "model"), found["rate"]),
        },
        {"seed": history.seeds},
    ).assign_coords(
        model=["untrained", "trained"],
        side=list(SIDES),
        share=list(settings.shares),
        kind=list(KINDS),
        layer=np.arange(1, settings.model.depth + 1),
    )


def _look(
    settings: Settings, model: CausalTransformer, trial: EvaluationSet, held_out: EvaluationSet
) -> dict[str, Any]:
    """Accuracies at each share, and similarities by who is told it."""
    rate = evaluation.choose_rate(model, held_out, settings.rates, **PUBLISHED).best
    zero = evaluation.zero_shot(model, trial)
    keys = jax.random.split(jax.random.key(3), len(trial.x))

    def seen(share: jax.Array) -> tuple:
        labels = jax.vmap(with_false_labels, (0, 0, None))(keys, trial.y, share)
        told = trial._replace(y=labels)
        tuned = evaluation.finetuned(model, told, rate, **PUBLISHED)
        both = evaluation.in_context(model, told), evaluation.zero_shot_per_task(tuned, told)
        return tuple((one.logits, one.attended) for one in both)

    (told, tuned) = jax.lax.map(seen, jnp.asarray(settings.shares))

    def alike(one: jax.Array, other: jax.Array) -> jax.Array:
        return evaluation.update_similarity(zero.attended, one, other).similarity

    pairs = {
        "in context": (told[1], jnp.broadcast_to(tuned[1][:1], tuned[1].shape)),
        "finetuning": (jnp.broadcast_to(told[1][:1], told[1].shape), tuned[1]),
        "both": (told[1], tuned[1]),
    }
    accuracies = [
        jax.vmap(evaluation.accuracy, (0, None))(logits, trial.labels)
        for logits, _ in (told, tuned)
    ]
    return {
        "zero_shot": evaluation.accuracy(zero.logits, trial.labels),
        "in_context": accuracies[0],
        "finetuned": accuracies[1],
        "similarity": jnp.stack([jax.vmap(alike)(*pairs[side]) for side in SIDES]),
        "rate": rate,
    }


def _similarity(side: str, kind: str = "normalised", model: str = "trained") -> claims.Value:
    """Similarity at the last layer, (seed, share)."""
    return lambda results: results.similarity.sel(side=side, kind=kind, model=model).isel(layer=-1)


def draw(results: xr.Dataset) -> Figure:
    """Accuracies, and similarities as published and centred, against the share."""

    def answers(axes: Axes, results: xr.Dataset) -> None:
        looks = zip(("in_context", "finetuned"), panels.LOOKS, strict=False)
        for name, (color, style) in looks:
            values = results[name].sel(model="trained")
            label = name.replace("_", " ")
            figures.every_seed(axes, values, "share", label=label, color=color, style=style)
        zero = float(results.zero_shot.sel(model="trained").mean())
        figures.floor_line(axes, zero, f"zero-shot: {zero:.2f}")
        axes.set(xlabel="share of false labels", ylabel="accuracy", ylim=(0, 1))
        axes.legend()

    def alike(kind: str, model: str = "trained") -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            for side, (color, style) in zip(SIDES, panels.LOOKS, strict=False):
                values = _similarity(side, kind, model)(results)
                label = f"told to {side}"
                figures.every_seed(axes, values, "share", label=label, color=color, style=style)
            axes.set(xlabel="share of false labels", ylabel="similarity, last layer")
            axes.set_ylim(-0.2, 0.7)
            axes.legend()

        return draw

    drawn = {
        "answers": answers,
        "similarity, as published": alike("normalised"),
        "similarity, centred": alike("centred"),
        "untrained, as published": alike("normalised", "untrained"),
    }
    sentence = (
        "Labels of demonstrations replaced by other classes, in the context or for finetuning."
    )
    return panels.figure(results, drawn, sentence)


def _steps(name: str) -> claims.Value:
    """The largest rise of an accuracy from one share to the next, for each seed."""
    return lambda results: results[name].sel(model="trained").diff("share").max("share")


def _change(side: str, model: str = "trained") -> claims.Value:
    """Similarity where all labels are false minus that where none is."""

    def value(results: xr.Dataset) -> xr.DataArray:
        values = _similarity(side, model=model)(results)
        return values.sel(share=1.0) - values.sel(share=0.0)

    return value


CLAIMS = catalogue.read(
    Path(__file__).with_name("unfinished_report.toml"),
    {
        "REP-3-icl": _steps("in_context"),
        "REP-3-ft": _steps("finetuned"),
        "REP-3": _change("in context"),
        "REP-3-finetuning": _change("finetuning"),
        "REP-3-both": _change("both"),
    },
) + catalogue.read(
    Path(__file__).parents[1] / "objections" / "claims.toml",
    {"CR-10-labels": _change("in context", "untrained")},
)
