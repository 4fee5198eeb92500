"""In a pretrained language model, finetuning changes attention as demonstrations in the context do.

SmolLM2-135M-Instruct, or another Llama-like model, reads reviews with the arbitrary labels A and B,
whose meaning is drawn for each task. It answers queries zero-shot, with demonstrations in the
context, and after finetuning W_K and W_V on them, one example at a time. The measures of Dai et al.
(2022) are compared with controls: noise, random updates of the same norm, the best of many by the
loss on the demonstrations, finetuning with exchanged labels, on a task with the other meaning of the
labels, layer by layer at the same rate, and of the MLPs, and a model of the same shapes with random
weights. Intervals are over tasks.

Expected: accuracy increases from chance by .1 to .3 in context. Attention outputs change in similar
directions, equally so after finetuning with exchanged labels or on another task, and more with
random weights. In-context learning recovers what finetuning gains at the level of chance.
Alias: lm
Cost: twenty minutes on one core; quick: some four minutes. Needs the extra `lm`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.harness import catalogue, intervals
from toyicl.harness.evaluation import Value
from toyicl.plots import figures, panels
from toyicl.studies import language_comparison, language_model
from toyicl.studies.language_comparison import (
    ANOTHER,
    BEST,
    CAUSAL,
    EXCHANGED,
    LARGE,
    MLPS,
    ORDERS,
    PUBLISHED,
    RANDOM,
    SIDES,
    UPDATES,
    WAYS,
    LanguageStudy,
)
from toyicl.studies.language_model import METHODS, NOISES
from toyicl.training.loop import Histories

DAI = (0.186, 0.225)
"""SimAOU of Dai et al. (2022), for models of 1.3 and 2.7 billion parameters."""
FULL = LanguageStudy()
QUICK = replace(
    FULL,
    tasks=3,
    further_tasks=4,
    rate_tasks=1,
    rates=(0.001, 0.003, 0.01),
    draws=4,
    fractions=(1.0,),
    factors=(1.0,),
)


def prerequisites(settings: LanguageStudy) -> None:
    """Raises BadInput, which states how to install it, unless the extra `lm` is installed."""
    language_model.require_model(settings.model)


def measure(settings: LanguageStudy, histories: Histories) -> xr.Dataset:
    """Compare finetuning and other updates with in-context learning, task by task."""
    return language_comparison.compare(settings, language_model.load(settings.model))


LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
COLORS = (figures.MODEL, figures.REFERENCE, figures.THIRD, figures.FOURTH, "0.35", "#E69F00")
Drawn = Mapping[str, xr.DataArray]
"""Values (task, ...) to draw, by their labels."""


def _bands(axes: Axes, drawn: Drawn, along: str, **settings: Any) -> None:
    """Means over tasks along a dimension, with 95% intervals as bands."""
    for (label, values), line, color in zip(drawn.items(), LINES, COLORS, strict=False):
        middle, low, high = _intervals(values.transpose("task", along).values)
        axes.plot(values[along], middle, linestyle=line, color=color, label=label, linewidth=1.2)
        axes.fill_between(values[along].values, low, high, color=color, alpha=0.18, linewidth=0)
    axes.set(xlabel=along, **settings)
    axes.legend(fontsize=6)


def _bars(axes: Axes, drawn: Drawn, **settings: Any) -> None:
    """Means over tasks with 95% intervals as horizontal bars, in one row each; tasks as dots."""
    for row, values in enumerate(drawn.values()):
        own = values.values[np.isfinite(values.values)]
        axes.plot(own, np.full(len(own), row), ".", color="0.6", markersize=3)
        if len(own) > 1:
            middle, low, high = _intervals(own[:, None])
            axes.errorbar(
                middle,
                [row],
                xerr=[middle - low, high - middle],
                fmt="o",
                color=figures.MODEL,
                markersize=3.5,
                capsize=2,
            )
    axes.set_yticks(range(len(drawn)), list(drawn))
    axes.set(ylim=(len(drawn) - 0.5, -0.5), **settings)


def _intervals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of columns over rows, and the ends of their 95% intervals; NaN for columns with a NaN."""
    ends = []
    for column in values.T:
        finite = len(column) > 1 and bool(np.isfinite(column).all())
        ends.append(intervals.student(column.tolist()) if finite else (np.nan, np.nan))
    low, high = np.array(ends, float).T
    return values.mean(axis=0), low, high


def _over_layers(update: str = PUBLISHED, kind: str = "normalised") -> Value:
    """SimAOU in the mean over the layers where there is one, (task,)."""
    return lambda results: results.similarity.sel(update=update, kind=kind).mean("layer")


def _of_random_weights(kind: str = "normalised", factor: float = 1.0) -> Value:
    """SimAOU of the published update in a model with random weights, in the mean over layers."""
    return lambda results: results.untrained_similarity.sel(kind=kind, factor=factor).mean("layer")


def draw(results: xr.Dataset) -> Figure:
    """Accuracies, similarities by layer and by update, attention maps, ranks, and false labels."""

    def by_count(axes: Axes, results: xr.Dataset) -> None:
        _bands(axes, {"in context": results.accuracy_by_count}, "count")
        for name, line in ((PUBLISHED, "--"), (MLPS, ":")):
            value = float(results.accuracy.sel(update=name).mean())
            label = f"{name} finetuned: {value:.2f}"
            axes.axhline(value, color="0.3", linestyle=line, label=label)
        axes.set(xlabel="demonstrations", ylabel="accuracy", ylim=(0, 1))
        axes.legend(fontsize=6)

    def accuracies(axes: Axes, results: xr.Dataset) -> None:
        drawn = {"zero-shot": results.zero_shot, "in context": results.in_context}
        drawn |= {name: results.accuracy.sel(update=name) for name in UPDATES}
        drawn["in context, all tasks"] = results.in_context_of_all
        _bars(axes, drawn, xlabel="accuracy", xlim=(0, 1))

    def recovery(axes: Axes, results: xr.Dataset) -> None:
        drawn = {}
        for name in METHODS:
            drawn[name] = results.recovered.sel({"method": name})
            drawn[f"{name}: chance"] = results.recovered_by_chance.sel({"method": name})
        _bars(axes, drawn, xlabel="fraction recovered", xlim=(-0.05, 1.05))

    def by_layer(kind: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            shown = (PUBLISHED, EXCHANGED, MLPS, LARGE, BEST)
            values = results.similarity.sel(kind=kind)
            drawn = {name: values.sel(update=name) for name in shown}
            drawn["random weights"] = results.untrained_similarity.sel(kind=kind).isel(factor=0)
            _bands(axes, drawn, "layer", ylabel=f"{kind} SimAOU")

        return draw

    def over_layers(kind: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            drawn = {name: _over_layers(name, kind)(results) for name in (*UPDATES, *NOISES)}
            for factor in results.factor.values:
                name = "random weights" + ("" if factor == 1 else f", rate x {factor:g}")
                drawn[name] = _of_random_weights(kind, factor)(results)
            _bars(axes, drawn, xlabel=f"{kind} SimAOU, mean over layers")
            if kind == "normalised":
                for value in DAI:
                    axes.axvline(value, color="0.4", linestyle=":")
            axes.axvline(0, color="0.4", linewidth=0.6)

        return draw

    def by_rate(kind: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            values = results.similarity_by_rate.sel(kind=kind).mean("layer")
            _bands(axes, {name: values.sel(layerwise=name) for name in (PUBLISHED, CAUSAL)}, "rate")
            axes.set(
                xscale="log", xlabel="learning rate", ylabel=f"{kind} SimAOU, mean over layers"
            )

        return draw

    def maps(axes: Axes, results: xr.Dataset) -> None:
        after = results.map_similarity.sel(pair="after")
        drawn = {
            "before": results.map_before,
            "finetuned": after.sel(update=PUBLISHED),
            "random update": after.sel(update=RANDOM),
            "labels exchanged": after.sel(update=EXCHANGED),
        }
        _bands(axes, drawn, "layer", ylabel="SimAM, to maps in context")

    def ranks(axes: Axes, results: xr.Dataset) -> None:
        drawn = {name: results.kendall.sel(ranking=name) for name in ORDERS}
        _bands(axes, drawn, "layer", ylabel="Kendall's rank correlation")

    def false(kind: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            values = results.false_similarity.sel(kind=kind).mean("layer")
            drawn = {f"false: {side}": values.sel(side=side) for side in SIDES}
            _bands(axes, drawn, "fraction", ylabel="SimAOU, mean over layers", ylim=(0, None))
            axes.set(xlabel="fraction of false labels")

        return draw

    def false_accuracies(axes: Axes, results: xr.Dataset) -> None:
        drawn = {way: results.false_accuracy.sel(way=way) for way in WAYS}
        _bands(axes, drawn, "fraction", ylabel="accuracy", ylim=(0, 1))
        axes.set(xlabel="fraction of false labels")

    drawn: dict[str, panels.Panel] = {
        "accuracy in context": by_count,
        "accuracy after each update": accuracies,
        "Rec2FTP": recovery,
        "SimAOU, as published, by layer": by_layer("normalised"),
        "SimAOU, centred, by layer": by_layer("centred"),
        "SimAOU, as published": over_layers("normalised"),
        "SimAOU, not normalised": over_layers("raw"),
        "SimAOU, centred": over_layers("centred"),
        "SimAOU, as published, by rate": by_rate("normalised"),
        "SimAOU, centred, by rate": by_rate("centred"),
        "SimAM by layer": maps,
        "order of the demonstrations": ranks,
        "false labels: accuracy": false_accuracies,
        "false labels: SimAOU": false("normalised"),
    }
    sentence = (
        f"In-context learning and finetuning of {results.attrs['language_model']} on reviews with "
        f"arbitrary labels; {results.sizes['task']} tasks. Means and 95% intervals over tasks. Dotted "
        "in (f): the values of Dai et al. for models of 1.3 and 2.7 billion parameters."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _difference(one: Value, other: Value) -> Value:
    return lambda results: one(results) - other(results)


def _accuracy(update: str) -> Value:
    return lambda results: results.accuracy.sel(update=update)


def _gain_of_all(results: xr.Dataset) -> xr.DataArray:
    """Accuracy in context minus zero-shot accuracy, on all tasks, (any_task,)."""
    return results.in_context_of_all - results.zero_shot_of_all


def _zero_shot(results: xr.Dataset) -> xr.DataArray:
    return results.zero_shot


def _recovered(name: str = "recovered") -> Value:
    """Rec2FTP, or its chance level, of the tasks in which finetuning newly gets an answer right."""
    return lambda results: results[name].sel({"method": PUBLISHED}).dropna("task")


def _map_gain(update: str = PUBLISHED) -> Value:
    """SimAM after minus before an update, in the mean over layers."""
    return lambda results: (
        results.map_similarity.sel(update=update, pair="after") - results.map_before
    ).mean("layer")


def _ranks(ranking: str = "finetuned") -> Value:
    """Rank correlation of the demonstrations, in the mean over layers."""
    return lambda results: results.kendall.sel(ranking=ranking).mean("layer")


def _with_false(side: str, kind: str = "normalised") -> Value:
    """SimAOU with all labels false minus that with none, in the mean over layers."""

    def value(results: xr.Dataset) -> xr.DataArray:
        values = results.false_similarity.sel(side=side, kind=kind).mean("layer")
        return values.sel(fraction=1.0) - values.sel(fraction=0.0)

    return value


def _accuracy_with_false(way: str) -> Value:
    """Accuracy with all labels false minus that with none."""

    def value(results: xr.Dataset) -> xr.DataArray:
        values = results.false_accuracy.sel(way=way)
        return values.sel(fraction=1.0) - values.sel(fraction=0.0)

    return value


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "LM-icl": _gain_of_all,
        "LM-icl-gain": _gain_of_all,
        "LM-ft": _difference(_accuracy(PUBLISHED), _zero_shot),
        "LM-3": _recovered(),
        "LM-3-chance": _difference(_recovered(), _recovered("recovered_by_chance")),
        "LM-4": _over_layers(),
        "LM-4-random": _difference(_over_layers(), _over_layers("uniform noise")),
        "LM-4-gaussian": _over_layers("Gaussian noise"),
        "LM-4-best": _difference(_over_layers(), _over_layers(BEST)),
        "LM-4-large": _difference(_over_layers(), _over_layers(LARGE)),
        "LM-4-large-centred": _difference(
            _over_layers(kind="centred"), _over_layers(LARGE, "centred")
        ),
        "LM-4-exchanged": _difference(_over_layers(), _over_layers(EXCHANGED)),
        "LM-4-another": _difference(_over_layers(), _over_layers(ANOTHER)),
        "LM-4-another-centred": _difference(
            _over_layers(kind="centred"), _over_layers(ANOTHER, "centred")
        ),
        "LM-4-centred": _over_layers(kind="centred"),
        "LM-4-mlps": _difference(_over_layers(), _over_layers(MLPS)),
        "LM-5": _map_gain(),
        "LM-6": _ranks(),
        "LM-6-not-finetuned": _difference(_ranks(), _ranks("not finetuned")),
        "LM-untrained": _difference(_over_layers(), _of_random_weights()),
        "LM-causal": _difference(_over_layers(CAUSAL), _over_layers()),
        "LM-raw": _over_layers(kind="raw"),
        "LM-false-context": _with_false("in context"),
        "LM-false-finetuning": _with_false("finetuning"),
        "LM-false-icl": _accuracy_with_false("in context"),
        "LM-false-ft": _accuracy_with_false("finetuned"),
        "LM-best": _difference(_over_layers(BEST), _over_layers(RANDOM)),
    },
)
