"""Updates of a model compared with the changes that demonstrations in its context make.

An update is finetuning by one of several methods, finetuning on another task, a random update, or noise
in place of the attention outputs. All functions measure one model on one evaluation set.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from toyicl.finetuning import baselines, evaluation, similarity
from toyicl.finetuning.evaluation import EvaluationSet, UpdateSimilarity
from toyicl.finetuning.updates import PARAMETERS, Method, layer_causal, plain, published
from toyicl.models.causal import CausalTransformer
from toyicl.tasks.prompts import cross_entropy

PUBLISHED_NAME = "keys and values"
"""Name of the method of Dai et al. (2022): W_K and W_V change, one demonstration at a time."""
PUBLISHED = published(cross_entropy)
METHODS: dict[str, Method] = {
    PUBLISHED_NAME: PUBLISHED,
    "layer-causal": {
        "which": PARAMETERS[PUBLISHED_NAME],
        "objective": layer_causal(cross_entropy),
    },
    "queries": {"which": PARAMETERS["queries"], "objective": plain(cross_entropy)},
    "MLPs": {"which": PARAMETERS["MLPs"], "objective": plain(cross_entropy)},
    "all": {"which": PARAMETERS["all"], "objective": plain(cross_entropy)},
}
"""Methods of finetuning: which parameters change, and the objective."""
NOISES = ("Gaussian noise", "uniform noise")
"""Names of the updates that are noise in place of attention outputs."""
DIMS: dict[str, tuple[str, ...]] = {
    "zero_shot": (),
    "in_context": (),
    "accuracy": ("update",),
    "similarity": ("update", "kind", "layer"),
    "unmoved": ("update", "kind", "layer"),
    "diverged": ("update", "kind", "layer"),
    "update_norm_ratio": ("update", "layer"),
    "prediction_difference": (),
    "recovered": ("method",),
    "recovered_by_chance": ("method",),
    "gained": ("method",),
    "missed": ("method",),
    "chosen_rate": ("method",),
    "rate_score": ("method", "rate"),
    "rate_diverged": ("method", "rate"),
}
"""Dimensions of the variables that `compare` returns."""
Found = dict[str, jax.Array]
"""Measured values by the name of their variable."""


def update_names(draws: Sequence[int]) -> list[str]:
    """Labels of the dimension `update`; `draws` are numbers of random updates."""
    best = [f"best of {count} random" for count in draws]
    return [*METHODS, "another task's", "random", *best, *NOISES]


def compare(
    model: CausalTransformer,
    data: EvaluationSet,
    other_data: EvaluationSet,
    *,
    rates: tuple[float, ...],
    draws: Sequence[int],
) -> Found:
    """Accuracies, similarities of attention outputs, and Rec2FTP of one model, for all updates.

    Learning rates are chosen on `other_data`. Accuracies after noise are NaN, since there is no model.
    """
    before, with_context = evaluation.zero_shot(model, data), evaluation.in_context(model, data)
    searches, models = [], {}
    for name, method in METHODS.items():
        searches.append(evaluation.choose_rate(model, other_data, rates, **method))
        models[name] = evaluation.finetuned(model, data, searches[-1].best, **method)
    models |= baselines.weight_baselines(
        jax.random.key(1), model, models[PUBLISHED_NAME], data, draws=draws, **PUBLISHED
    )
    after = {name: evaluation.zero_shot_per_task(each, data) for name, each in models.items()}
    similarities = {
        name: evaluation.update_similarity(before.attended, with_context.attended, one.attended)
        for name, one in after.items()
    } | baselines.output_baselines(jax.random.key(2), before.attended, with_context.attended)
    correct = {name: evaluation.correct(one.logits, data.labels) for name, one in after.items()}
    first, second = (evaluation.correct(one.logits, data.labels) for one in (before, with_context))
    found: UpdateSimilarity = _stacked(list(similarities.values()))
    recovery: similarity.Recovery = _stacked(
        [similarity.recovery(first, second, correct[name]) for name in METHODS]
    )
    search = _stacked(searches)
    accuracies = [jnp.mean(each) for each in correct.values()] + [jnp.nan for _ in NOISES]
    distances = jnp.linalg.norm(after[PUBLISHED_NAME].logits - with_context.logits, axis=-1)
    return {
        "zero_shot": jnp.mean(first),
        "in_context": jnp.mean(second),
        "accuracy": jnp.stack(accuracies),
        "similarity": found.similarity,
        "unmoved": found.unmoved,
        "diverged": found.diverged,
        "update_norm_ratio": found.norm_ratio,
        "prediction_difference": jnp.mean(distances),
        "recovered": recovery.score,
        "recovered_by_chance": recovery.chance,
        "gained": recovery.gained,
        "missed": recovery.missed,
        "chosen_rate": search.best,
        "rate_score": search.scores,
        "rate_diverged": search.diverged,
    }


def _stacked(parts: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def by_step(rates: tuple[float, ...]) -> Callable[..., Found]:
    """A function that measures one snapshot of a training, finetuned by the published method.

    It returns the similarity at the last layer, (kind,), and the gains in accuracy over zero-shot of
    in-context learning and of finetuning, (2,).
    """

    def measure(model: CausalTransformer, sets: tuple[EvaluationSet, EvaluationSet]) -> Found:
        data, other_data = sets
        rate = evaluation.choose_rate(model, other_data, rates, **PUBLISHED).best
        ways = evaluation.three_ways(model, data, rate, **PUBLISHED)
        before, with_context, after = (evaluation.accuracy(way.logits, data.labels) for way in ways)
        return {
            "similarity_by_step": _similarity(ways)[:, -1],
            "gain_by_step": jnp.stack([with_context - before, after - before]),
        }

    return measure


def similarity_at(model: CausalTransformer, rate: jax.Array, data: EvaluationSet) -> jax.Array:
    """Similarities (kind, layer) after finetuning by the published method at a given rate."""
    return _similarity(evaluation.three_ways(model, data, rate, **PUBLISHED))


def _similarity(ways: Sequence[Any]) -> jax.Array:
    return evaluation.update_similarity(*(way.attended for way in ways)).similarity
