"""Layers that update labels only are steps of descent that depend on the labels, and not GD++.

K linear layers with their own weights, which update the label entries of tokens only or whole tokens,
on the task of von Oswald et al. (2022). Layers that update labels only are compared with K steps of
gradient descent and, because their loss is below that of the best such steps, with steps whose scores
contain labels (`LabelDescent`). Parts of the trained weights are removed to see which of them lowers
the loss. Initial weights have a hundred times the variance of the released code, with which deep models
rest on plateaus for long.

Expected: without the worst thousandth of the episodes the loss of K = 2 (5) layers on labels is .98
times that of the best steps of gradient descent, .139 (.077), as is a local optimum of label
descent; two layers on whole tokens reach .090, and five are shown by `fig03_five_layers`.
Alias: labels_only
Cost: 12 minutes on one core; quick: a minute.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.label_descent import LabelDescent
from toyicl.analysis import metrics
from toyicl.analysis.weights import label_steps
from toyicl.core.config import require_increasing, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.core.episode import Episode, Learner
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.construction import layer_circuits, with_circuits
from toyicl.models.transformer import Architecture, Transformer
from toyicl.plots import figures, panels
from toyicl.studies.alignment import Study
from toyicl.training import recipes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the layers; `model` is that of all depths."""

    model: Architecture = Architecture(init_scale=0.2)
    training: Training = replace(recipes.FALLING, steps=24_000, learning_rate=2e-3)
    depths: tuple[int, ...] = (2, 5)
    """Numbers of layers that update labels."""
    most_updated: int = 2
    """Largest number of layers for which whole tokens are updated, too."""
    evaluation_episodes: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_increasing("depths", self.depths)
        require_size("most_updated", self.most_updated, least=0)
        for depth in self.depths:
            require_size("depths", depth, least=2)

    def updated(self, depth: int) -> tuple[str, ...]:
        """What the trained layers of a depth update."""
        return tuple(name for name in UPDATED if name == "labels" or depth <= self.most_updated)


FULL = Settings()
QUICK = Settings(
    training=replace(FULL.training, steps=2000, batch_size=128),
    depths=(2,),
    evaluation_episodes=2000,
)
UPDATED = {"labels": False, "tokens": True}
"""What layers update, and `update_inputs` of their architecture."""
LINES = {
    "gd shared": ("GD, one step size", "0.6", ":"),
    "gd": ("GD", figures.REFERENCE, "--"),
    "label descent": ("label descent", figures.THIRD, "-."),
    "label descent, smallest first": ("the same, smallest first", figures.THIRD, ":"),
    "gdpp shared": ("GD++, shared", figures.FOURTH, ":"),
    "gdpp": ("GD++", figures.FOURTH, "-"),
}
"""Label, colour and line style of each reference."""
SEVERAL = 2.0
"""Ratio of losses from which an axis is logarithmic."""
PARTS = {
    "label scores": "products of labels in scores",
    "mixed": "inputs in values and in scores of labels",
    "matrix": "all of the input block but its mean diagonal",
    "all": "all three: gradient descent is left",
}
"""Parts of trained weights that are removed."""


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each number of layers and for what they update."""
    return {
        f"{depth} layers, {updated}": Job(
            replace(settings.model, depth=depth, update_inputs=UPDATED[updated]),
            settings.task,
            settings.training,
        )
        for depth in settings.depths
        for updated in settings.updated(depth)
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Losses of the models, of references, and of models without parts of their weights."""
    parts = {depth: _compared(settings, histories, depth) for depth in settings.depths}
    return side_by_side(parts, "layers")


def references(settings: Settings, depth: int) -> dict[str, Learner]:
    """The best descents of K steps: gradient descent, with labels in its scores, and GD++."""
    task = settings.task
    return {
        "gd shared": GradientDescent.shared(task, depth),
        "gd": GradientDescent.per_step(task, depth),
        "label descent": LabelDescent.best(task, depth),
        "label descent, smallest first": LabelDescent.best(task, depth, smallest_first=True),
        "gdpp shared": GradientDescentPlusPlus.shared(task, depth),
        "gdpp": GradientDescentPlusPlus.per_layer(task, depth),
    }


def _compared(settings: Settings, histories: Histories, depth: int) -> xr.Dataset:
    episodes, dim = settings.episodes(), settings.task.dim
    names = settings.updated(depth)
    each = {updated: histories[f"{depth} layers, {updated}"] for updated in names}
    known = references(settings, depth)
    losses = np.stack([metrics.losses(one.final, episodes) for one in each.values()])
    trimmed = np.stack([_trimmed(one.final, episodes) for one in each.values()])
    models = each["labels"].final
    without = [
        _trimmed(jax.vmap(partial(removed, dim=dim, part=part))(models), episodes) for part in PARTS
    ]
    read = jax.vmap(partial(_as_descent, dim=dim))(models)
    steps, weights = jax.vmap(partial(label_steps, dim=dim))(models)
    found = {name: float(metrics.trimmed_loss(one, episodes)) for name, one in known.items()}
    one_less = metrics.trimmed_loss(GradientDescent.per_step(settings.task, depth - 1), episodes)
    return dataset(
        {
            "seed": each["labels"].seeds,
            "reference": list(known),
            "updated": list(names),
            "part": list(PARTS),
            "layer": np.arange(1, depth + 1),
            "loss": (("updated", "seed"), losses),
            "on_plateau": (("updated", "seed"), trimmed > (float(one_less) + found["gd"]) / 2),
            "reference_loss": (
                "reference",
                [float(metrics.loss(one, episodes)) for one in known.values()],
            ),
            "exact_loss": theory.gd_per_step(settings.task, depth).loss,
            "trimmed_loss": (("updated", "seed"), trimmed),
            "trimmed_reference_loss": ("reference", list(found.values())),
            "trimmed_without": (("part", "seed"), np.stack(without)),
            "trimmed_as_descent": ("seed", _trimmed(read, episodes)),
            "step_size": (("layer", "seed"), np.asarray(steps).T),
            "label_weight": (("layer", "seed"), np.asarray(weights).T),
        }
    )


def _trimmed(learners: Learner, episodes: Episode) -> np.ndarray:
    """Losses of learners that are stacked on a leading axis, without a thousandth of the episodes."""
    return np.asarray(jax.lax.map(lambda one: metrics.trimmed_loss(one, episodes), learners))


def _as_descent(model: Transformer, dim: int) -> LabelDescent:
    """The label descent with the steps and label weights that are in a model's weights."""
    return LabelDescent(*label_steps(model, dim), model.depth)


def removed(model: Transformer, dim: int, part: str) -> Transformer:
    """A model of layers that update labels only, without a part of its circuits (see `PARTS`)."""
    circuits = []
    for index in range(model.depth):
        (key_query,), (value_output,) = layer_circuits(model, index)
        if part in ("label scores", "all"):
            key_query = key_query.at[dim, dim].set(0)
        if part in ("mixed", "all"):
            key_query = key_query.at[dim, :dim].set(0).at[:dim, dim].set(0)
            value_output = value_output.at[dim, :dim].set(0)
        if part in ("matrix", "all"):
            square = key_query[:dim, :dim]
            key_query = key_query.at[:dim, :dim].set(jnp.trace(square) / dim * jnp.eye(dim))
        circuits.append((key_query, value_output))
    smaller = with_circuits(circuits, dim)
    smaller.update_inputs = False
    return smaller


def draw(results: xr.Dataset) -> Figure:
    """Losses by what is updated, and without parts of the weights, over that of gradient descent."""
    drawn = {}
    for depth in results.layers.values:
        drawn[f"{depth} layers"] = panels.of(_losses, layers=depth)
        drawn[f"{depth} layers on labels, without parts"] = panels.of(_without, layers=depth)
    sentence = (
        "Linear layers with their own weights that update labels only, or whole tokens. Points: each "
        "seed, hollow where it is on a plateau, the loss of one step less; lines: the best algorithms. "
        "Losses without the worst thousandth of the episodes, on which several steps can diverge."
    )
    return panels.figure(results, drawn, sentence, size=(5.4, 3.2))


def _losses(axes: Axes, results: xr.Dataset) -> None:
    trained = results.trimmed_loss.notnull().any("seed")
    kinds = [str(updated) for updated in results.updated.values if trained.sel(updated=updated)]
    for place, updated in enumerate(kinds):
        own = results.sel(updated=updated)
        figures.seeds_at(axes, place, own.trimmed_loss, own.on_plateau)
    for name, (label, color, line) in LINES.items():
        value = float(results.trimmed_reference_loss.sel(reference=name))
        axes.axhline(value, color=color, linestyle=line, label=label, linewidth=1)
    names = [f"layers on {one}" for one in kinds]
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="loss", ylim=(0, None), xlim=(-0.5, len(names) - 0.5))
    axes.legend(loc="lower left", fontsize="small", ncols=2)


def _without(axes: Axes, results: xr.Dataset) -> None:
    gd = results.trimmed_reference_loss.sel(reference="gd")
    rows = {"nothing removed": results.trimmed_loss.sel(updated="labels")}
    rows |= {f"without {part}": results.trimmed_without.sel(part=part) for part in PARTS}
    rows |= {"read as label descent": results.trimmed_as_descent}
    for place, values in enumerate(rows.values()):
        figures.seeds_at(axes, place, values / gd, results.on_plateau.sel(updated="labels"))
    for name in ("gd", "label descent", "label descent, smallest first"):
        label, color, line = LINES[name]
        value = float(results.trimmed_reference_loss.sel(reference=name) / gd)
        axes.axhline(value, color=color, linestyle=line, linewidth=1, label=label)
    axes.set_xticks(range(len(rows)), list(rows), rotation=25, ha="right", fontsize="small")
    largest = max(float(values.max()) for values in rows.values()) / float(gd)
    axes.set(ylabel="loss over that of GD", yscale="log" if largest > SEVERAL else "linear")
    axes.legend(fontsize="small")


def _over(reference: str) -> Value:
    """Loss of the layers divided by that of a reference."""
    return lambda results: (
        results.trimmed_loss / results.trimmed_reference_loss.sel(reference=reference, drop=True)
    )


def _without_label_scores(results: xr.Dataset) -> xr.DataArray:
    """Loss without label scores, divided by that of the model."""
    return results.trimmed_without.sel(part="label scores", drop=True) / results.trimmed_loss


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        f"{name}-K{depth}": value
        for depth in (2, 5)
        for name, value in {
            "BLP-steps": _over("gd"),
            "LAB-below": _over("gd"),
            "LAB-descent": _over("label descent, smallest first"),
            "LAB-scores": _without_label_scores,
        }.items()
    }
    | {"LAB-inputs-K2": _over("gd")},
)
