"""One model three ways: without demonstrations, with them in its context, finetuned on them.

A trial is some tasks with demonstrations and many queries each, tasks and queries on the FIRST axes: a
few thousand prompts are measured once, nothing is trained on them. Functions are of one model; seeds
are a `jax.vmap` outside.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from toyicl.core.config import named_in_errors, require_different, require_positive, require_size
from toyicl.finetuning import similarity as similarity_measures
from toyicl.finetuning.updates import Objective, Search, Which, finetune, search
from toyicl.models.causal import Activations, CausalArchitecture, CausalTransformer
from toyicl.tasks.prompts import Classification, PromptTask
from toyicl.training.loop import Job
from toyicl.training.step import Training

Score = Callable[[jax.Array, jax.Array], jax.Array]
"""How good answers are beside labels, both (tasks, queries, m): the higher the better."""
KINDS = ("normalised", "raw", "centred", "centred raw")
"""Similarities of attention outputs: of their directions or as they are, centred or not."""


@named_in_errors
@dataclass(frozen=True, kw_only=True)
class FinetuningStudy:
    """Settings of a trained model that is finetuned: what its experiments share."""

    task: Classification = Classification()
    """The task."""
    model: CausalArchitecture = CausalArchitecture()
    """The causal transformer."""
    training: Training = Training(
        steps=1200, batch_size=64, snapshot_every=200, learning_rate=3e-3, clip_norm=1.0
    )
    """Its training."""
    max_seeds: int = 5
    """Largest number of seeds."""
    tasks: int = 48
    """Tasks on which it is measured, and as many others on which rates are chosen."""
    queries: int = 48
    """Queries of each."""
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
    """Rates of finetuning to choose from, by accuracy on the other tasks."""

    def __post_init__(self) -> None:
        require_size("tasks", self.tasks, least=2)
        require_size("queries", self.queries)
        require_size("max_seeds", self.max_seeds)
        require_different("rates", self.rates)
        for rate in self.rates:
            require_positive("rates", rate)

    def quick(self, **changes: Any) -> Self:
        """Half the training, measured on fewer tasks and queries, with other changes."""
        training = replace(self.training, steps=self.training.steps // 2)
        fewer: dict[str, Any] = {"training": training, "tasks": 16, "queries": 32}
        return replace(self, **(fewer | changes))

    def trainings(self) -> dict[str, Job]:
        """The training of the model on the task, named "model"."""
        return {"model": Job(self.model, self.task, self.training, max_seeds=self.max_seeds)}

    def trials(self) -> "tuple[EvaluationSet, EvaluationSet]":
        """The tasks to measure on, and those to choose rates on."""
        draw = partial(draw_trial, self.task, tasks=self.tasks, queries=self.queries)
        return draw(jax.random.key(2022)), draw(jax.random.key(2023))


class EvaluationSet(NamedTuple):
    """Tasks with demonstrations and queries."""

    x: jax.Array
    """Inputs of the demonstrations, (tasks, N, d)."""
    y: jax.Array
    """Their labels, (tasks, N, m)."""
    queries: jax.Array
    """(tasks, queries, d)."""
    labels: jax.Array
    """Labels of the queries, (tasks, queries, m)."""


def draw_trial(task: PromptTask, key: jax.Array, *, tasks: int, queries: int) -> EvaluationSet:
    """Tasks of which the first N points are demonstrations, the others queries."""
    count = task.context_size
    episodes = task.of_size(count + queries).sample(key, tasks)
    x, y = (jnp.moveaxis(values, -1, 0) for values in episodes[:2])
    return EvaluationSet(x[:, :count], y[:, :count], x[:, count:], y[:, count:])


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of answers whose largest logit is that of the label."""
    return jnp.mean(right(logits, labels))


def right(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether each answer's largest logit is that of the label; never, if one is not finite."""
    same = jnp.argmax(logits, axis=-1) == jnp.argmax(labels, axis=-1)
    return same & jnp.all(jnp.isfinite(logits), axis=-1)


def minus_error(answers: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus 1/2 the mean squared error."""
    return -jnp.mean(jnp.sum((answers - labels) ** 2, axis=-1)) / 2


def zero_shot(model: CausalTransformer, trial: EvaluationSet) -> Activations:
    """What is seen of each query behind BOS alone; leaves (tasks, queries, ...)."""
    return jax.vmap(jax.vmap(lambda query: model.zero_shot(query)))(trial.queries)


def in_context(model: CausalTransformer, trial: EvaluationSet) -> Activations:
    """What is seen of each query behind the demonstrations."""

    def see(x: jax.Array, y: jax.Array, query: jax.Array) -> Activations:
        return model.in_context(x, y, query)

    return jax.vmap(jax.vmap(see, (None, None, 0)))(trial.x, trial.y, trial.queries)


def with_models(models: Any, trial: EvaluationSet) -> Activations:
    """What the model of each task, on a leading axis of every leaf, sees zero-shot of its queries."""

    def see(model: CausalTransformer, queries: jax.Array) -> Activations:
        return jax.vmap(model.zero_shot)(queries)

    return jax.vmap(see)(models, trial.queries)


def finetuned(
    model: CausalTransformer,
    trial: EvaluationSet,
    rate: float | jax.Array,
    *,
    which: Which,
    objective: Objective,
) -> Any:
    """The model of each task after finetuning on its demonstrations, stacked."""

    def tune(x: jax.Array, y: jax.Array) -> CausalTransformer:
        return finetune(model, x, y, rate, which=which, objective=objective)

    return jax.vmap(tune)(trial.x, trial.y)


def three_ways(
    model: CausalTransformer,
    trial: EvaluationSet,
    rate: float | jax.Array,
    *,
    which: Which,
    objective: Objective,
) -> tuple[Activations, Activations, Activations]:
    """What is seen of each query zero-shot, in context, and zero-shot after finetuning."""
    tuned = finetuned(model, trial, rate, which=which, objective=objective)
    return zero_shot(model, trial), in_context(model, trial), with_models(tuned, trial)


def choose_rate(
    model: CausalTransformer,
    trial: EvaluationSet,
    rates: tuple[float, ...],
    *,
    which: Which,
    objective: Objective,
    score: Score = accuracy,
) -> Search:
    """The rate of finetuning that does best on a trial, which should not be the one to measure on."""

    def attempt(rate: jax.Array) -> tuple[jax.Array, jax.Array]:
        models = finetuned(model, trial, rate, which=which, objective=objective)
        logits = with_models(models, trial).logits
        return score(logits, trial.labels), jnp.all(jnp.isfinite(logits))

    return search(rates, attempt)


class Likeness(NamedTuple):
    """Similarity of the changes of attention outputs, means over tasks and queries, layer by layer."""

    similarity: jax.Array
    """SimAOU of each kind, (kind, layer), in the order of `KINDS`."""
    unmoved: jax.Array
    """Number of tasks and queries without one, since a change is 0, (kind, layer)."""
    diverged: jax.Array
    """Number of those where a change is not finite, (kind, layer)."""
    norm_ratio: jax.Array
    """Mean norm of the second change over that of the first, as they are, where both are finite."""


def likeness(before: jax.Array, one: jax.Array, other: jax.Array) -> Likeness:
    """How alike attention outputs (tasks, queries, layer, width) changed in two ways."""
    directions, raw = (
        [
            similarity_measures.updates(after, before, normalised=normalised)
            for after in (one, other)
        ]
        for normalised in (True, False)
    )
    return changes_alike(*directions, *raw)


def changes_alike(
    one: jax.Array, other: jax.Array, one_raw: jax.Array, other_raw: jax.Array
) -> Likeness:
    """How alike changes are, which are given of directions and as they are."""
    pairs = [(one, other), (one_raw, other_raw)]
    pairs += [(similarity_measures.centred(a), similarity_measures.centred(b)) for a, b in pairs]
    found = [similarity_measures.mean_cosine(a, b) for a, b in pairs]
    means, unmoved, diverged = (jnp.stack(parts) for parts in zip(*found, strict=True))
    first, second = (jnp.linalg.norm(v, axis=-1) for v in pairs[1])
    finite = jnp.isfinite(first) & jnp.isfinite(second)
    first, second = (jnp.sum(jnp.where(finite, v, 0), axis=(0, 1)) for v in (first, second))
    ratio = jnp.where(first > 0, second / jnp.where(first > 0, first, 1), jnp.nan)
    return Likeness(means, unmoved, diverged, ratio)


def demonstrations_ranked(
    model: CausalTransformer, models: Any, trial: EvaluationSet
) -> tuple[jax.Array, jax.Array]:
    """How two ways weigh each demonstration, both (tasks, queries, layer, N).

    In context, the attention of the query to the tokens of x_i and y_i together, summed over heads.
    Finetuned, the inner products of the query vectors of x_i, as an example, and of the query, Q'^T q,
    summed over heads; Dai et al. (2022), section 4.4.
    """
    scores = in_context(model, trial).scores
    softmax = model.blocks[0].attention.kind == "softmax"
    weights = jnp.sum(jax.nn.softmax(scores, axis=-1) if softmax else scores, axis=-2)
    pieces, count = model.input_tokens, trial.x.shape[1]
    told = weights[..., 1:-pieces].reshape(*weights.shape[:-1], count, pieces + 1)

    def products(model: CausalTransformer, x: jax.Array, queries: jax.Array) -> jax.Array:
        examples, asked = (jax.vmap(model.zero_shot)(rows).queries for rows in (x, queries))
        return jnp.einsum("nlhk,qlhk->qln", examples, asked)

    return jnp.sum(told, axis=-1), jax.vmap(products)(models, trial.x, trial.queries)


def own_scores(model: CausalTransformer, seen: Activations) -> jax.Array:
    """Scores of the query over its own tokens, (tasks, queries, layer, heads, input tokens)."""
    return seen.scores[..., -model.input_tokens :]


def before_and_after(look: Callable[..., Any], history: Any, context: Any) -> Any:
    """`look(model, *context)` of each seed's model untrained and trained: leaves (seed, 2, ...)."""
    ends = jax.tree.map(lambda leaf: leaf[:, [0, -1]], history.learners)
    return _each(look, ends, context)


def untrained_with(look: Callable[..., Any], history: Any, own: jax.Array, context: Any) -> Any:
    """`look(model, its own, *context)` of each seed's untrained model: leaves (seed, ...).

    `own` (seed, ...) holds what is told to the model of each seed alone.
    """
    starts = jax.tree.map(lambda leaf: leaf[:, 0], history.learners)

    @jax.jit
    def each(models: Any, own: jax.Array, context: Any) -> Any:
        return jax.lax.map(lambda pair: look(*pair, *context), (models, own))

    return jax.device_get(each(starts, own, context))


def trained(look: Callable[..., Any], history: Any, context: Any) -> Any:
    """`look(model, *context)` of each seed's trained model: leaves (seed, ...)."""
    ends = jax.tree.map(lambda leaf: leaf[:, -1:], history.learners)
    return jax.tree.map(lambda leaf: leaf[:, 0], _each(look, ends, context))


def _each(look: Callable[..., Any], models: Any, context: Any) -> Any:
    """What is found of models with two leading axes, one after another, on the host."""

    @jax.jit
    def each(models: Any, context: Any) -> Any:
        return jax.lax.map(partial(jax.lax.map, lambda model: look(model, *context)), models)

    return jax.device_get(each(models, context))
