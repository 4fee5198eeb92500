"""Evaluation of one model zero-shot, in context, and zero-shot after finetuning on the demonstrations.

An evaluation set has tasks with demonstrations and queries, on the FIRST axes of its arrays: it has a
few thousand prompts, which are evaluated once and not trained on. Functions take one model; several
seeds are evaluated by a loop or a `jax.vmap` over them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from toyicl.core.config import (
    named_in_errors,
    require_different,
    require_memory,
    require_positive,
    require_size,
)
from toyicl.finetuning import similarity as similarity_measures
from toyicl.finetuning.updates import ExampleObjective, ParameterFilter, Search, finetune, search
from toyicl.models.attention import linear_weights, softmax_weights
from toyicl.models.causal import Activations, CausalArchitecture, CausalTransformer
from toyicl.tasks.prompts import Classification, PromptTask
from toyicl.training.loop import Job
from toyicl.training.step import Training

Score = Callable[[jax.Array, jax.Array], jax.Array]
"""Score of answers given labels, both (tasks, queries, m): higher is better."""
KINDS = ("normalised", "raw", "centred", "centred raw")
"""Similarities of attention outputs: normalised or not, centred or not."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class FinetuningStudy:
    """Settings that experiments on finetuning share: task, model, training and evaluation."""

    task: Classification = Classification()
    """The task of training and evaluation."""
    model: CausalArchitecture = CausalArchitecture()
    """The causal transformer."""
    training: Training = Training(
        steps=1200, batch_size=64, snapshot_every=200, learning_rate=3e-3, clip_norm=1.0
    )
    """The training of the model before finetuning."""
    max_seeds: int = 5
    """Largest number of seeds that are trained."""
    tasks: int = 48
    """Number of tasks for evaluation, and of other tasks for the choice of the learning rate."""
    queries: int = 48
    """Number of queries of each task."""
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
    """Learning rates of finetuning; the best on the other tasks is chosen."""

    def __post_init__(self) -> None:
        require_size("tasks", self.tasks, least=2)
        require_size("queries", self.queries)
        require_size("max_seeds", self.max_seeds)
        points = (self.task.context_size + self.queries) * (self.task.dim + self.task.outputs)
        largest = "tasks" if self.tasks > self.queries else "queries"
        require_memory(largest, getattr(self, largest), 2 * self.tasks * points)
        require_different("rates", self.rates)
        for rate in self.rates:
            require_positive("rates", rate)

    def quick(self, **changes: Any) -> Self:
        """The settings with half the training steps, fewer tasks and queries, and the given changes."""
        training = replace(self.training, steps=self.training.steps // 2)
        fewer: dict[str, Any] = {"training": training, "tasks": 16, "queries": 32}
        return replace(self, **(fewer | changes))

    def trainings(self) -> dict[str, Job]:
        """The training of the model on the task, named "model"."""
        return {"model": Job(self.model, self.task, self.training, max_seeds=self.max_seeds)}

    def evaluation_sets(self) -> "tuple[EvaluationSet, EvaluationSet]":
        """The evaluation set, and another one for the choice of the learning rate."""
        draw = partial(draw_evaluation_set, self.task, tasks=self.tasks, queries=self.queries)
        return draw(jax.random.key(2022)), draw(jax.random.key(2023))


class EvaluationSet(NamedTuple):
    """Demonstrations and queries of several tasks."""

    x: jax.Array
    """Inputs of the demonstrations, (tasks, N, d)."""
    y: jax.Array
    """Their labels, (tasks, N, m)."""
    queries: jax.Array
    """Inputs of the queries, (tasks, queries, d)."""
    labels: jax.Array
    """Labels of the queries, (tasks, queries, m)."""


def draw_evaluation_set(
    task: PromptTask, key: jax.Array, *, tasks: int, queries: int
) -> EvaluationSet:
    """Draw tasks; their first N points are the demonstrations, and the others are the queries."""
    count = task.context_size
    episodes = task.of_size(count + queries).sample(key, tasks)
    x, y = (jnp.moveaxis(values, -1, 0) for values in episodes[:2])
    return EvaluationSet(x[:, :count], y[:, :count], x[:, count:], y[:, count:])


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Fraction of answers whose largest logit is that of the label."""
    return jnp.mean(correct(logits, labels))


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the largest logit of each answer is that of the label; False if a logit is not finite."""
    same = jnp.argmax(logits, axis=-1) == jnp.argmax(labels, axis=-1)
    return same & jnp.all(jnp.isfinite(logits), axis=-1)


def negative_error(answers: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the mean of 0.5 * squared error."""
    return -jnp.mean(jnp.sum((answers - labels) ** 2, axis=-1)) / 2


def zero_shot(model: CausalTransformer, data: EvaluationSet) -> Activations:
    """Activations at each query after BOS only; leaves (tasks, queries, ...)."""
    return jax.vmap(jax.vmap(lambda query: model.zero_shot(query)))(data.queries)


def in_context(model: CausalTransformer, data: EvaluationSet) -> Activations:
    """Activations at each query after its task's demonstrations; leaves (tasks, queries, ...)."""

    def activations(x: jax.Array, y: jax.Array, query: jax.Array) -> Activations:
        return model.in_context(x, y, query)

    return jax.vmap(jax.vmap(activations, (None, None, 0)))(data.x, data.y, data.queries)


def zero_shot_per_task(models: Any, data: EvaluationSet) -> Activations:
    """Zero-shot activations with a model for each task, on a leading axis of every leaf of `models`."""

    def activations(model: CausalTransformer, queries: jax.Array) -> Activations:
        return jax.vmap(model.zero_shot)(queries)

    return jax.vmap(activations)(models, data.queries)


def finetuned(
    model: CausalTransformer,
    data: EvaluationSet,
    rate: float | jax.Array,
    *,
    which: ParameterFilter,
    objective: ExampleObjective,
) -> Any:
    """The model after finetuning on each task's demonstrations, stacked over tasks.

    Other arguments as in `updates.finetune`.
    """

    def tune(x: jax.Array, y: jax.Array) -> CausalTransformer:
        return finetune(model, x, y, rate, which=which, objective=objective)

    return jax.vmap(tune)(data.x, data.y)


def three_ways(
    model: CausalTransformer,
    data: EvaluationSet,
    rate: float | jax.Array,
    *,
    which: ParameterFilter,
    objective: ExampleObjective,
) -> tuple[Activations, Activations, Activations]:
    """Activations at each query zero-shot, in context, and zero-shot after finetuning."""
    tuned = finetuned(model, data, rate, which=which, objective=objective)
    return zero_shot(model, data), in_context(model, data), zero_shot_per_task(tuned, data)


def choose_rate(
    model: CausalTransformer,
    data: EvaluationSet,
    rates: tuple[float, ...],
    *,
    which: ParameterFilter,
    objective: ExampleObjective,
    score: Score = accuracy,
) -> Search:
    """The learning rate of finetuning with the best score on `data`.

    `data` should not be the set that the model is evaluated on.
    """

    def attempt(rate: jax.Array) -> tuple[jax.Array, jax.Array]:
        models = finetuned(model, data, rate, which=which, objective=objective)
        logits = zero_shot_per_task(models, data).logits
        return score(logits, data.labels), jnp.all(jnp.isfinite(logits))

    return search(rates, attempt)


class UpdateSimilarity(NamedTuple):
    """Similarity of two changes of attention outputs of each layer, in means over all queries."""

    similarity: jax.Array
    """SimAOU of each kind, (kind, layer), in the order of `KINDS`."""
    unmoved: jax.Array
    """Number of queries without a similarity, because a change is 0, (kind, layer)."""
    diverged: jax.Array
    """Number of queries where a change is not finite, (kind, layer)."""
    norm_ratio: jax.Array
    """Mean norm of the second change divided by that of the first, not normalised, (layer,)."""


def update_similarity(before: jax.Array, one: jax.Array, other: jax.Array) -> UpdateSimilarity:
    """Similarity of the changes from `before` to `one` and to `other`.

    All are attention outputs of shape (tasks, queries, layer, width).
    """
    directions, raw = (
        [
            similarity_measures.updates(after, before, normalised=normalised)
            for after in (one, other)
        ]
        for normalised in (True, False)
    )
    return similarity_of_changes(*directions, *raw)


def similarity_of_changes(
    one: jax.Array, other: jax.Array, one_raw: jax.Array, other_raw: jax.Array
) -> UpdateSimilarity:
    """Similarity of two changes (tasks, queries, layer, width), given normalised and not (`_raw`)."""
    pairs = [(one, other), (one_raw, other_raw)]
    pairs += [(similarity_measures.centred(a), similarity_measures.centred(b)) for a, b in pairs]
    found = [similarity_measures.mean_cosine(a, b) for a, b in pairs]
    means, unmoved, diverged = (jnp.stack(parts) for parts in zip(*found, strict=True))
    first, second = (jnp.linalg.norm(v, axis=-1) for v in pairs[1])
    finite = jnp.isfinite(first) & jnp.isfinite(second)
    first, second = (jnp.sum(jnp.where(finite, v, 0), axis=(0, 1)) for v in (first, second))
    ratio = jnp.where(first > 0, second / jnp.where(first > 0, first, 1), jnp.nan)
    return UpdateSimilarity(means, unmoved, diverged, ratio)


def demonstration_weights(
    model: CausalTransformer, models: Any, data: EvaluationSet
) -> tuple[jax.Array, jax.Array]:
    """Weights of each demonstration in context and after finetuning, both (tasks, queries, layer, N).

    In context: the attention of the query to the tokens of x_i and y_i together, summed over heads.
    After finetuning: the inner product Q'^T q of the query vectors of x_i, as an example, and of the
    query, summed over heads; Dai et al. (2022), section 4.4. `models` has a model for each task.
    """
    scores = in_context(model, data).scores
    weigh = softmax_weights if model.blocks[0].attention.kind == "softmax" else linear_weights
    weights = jnp.sum(weigh(scores), axis=-2)
    pieces, count = model.input_tokens, data.x.shape[1]
    of_points = weights[..., 1:-pieces].reshape(*weights.shape[:-1], count, pieces + 1)

    def products(model: CausalTransformer, x: jax.Array, queries: jax.Array) -> jax.Array:
        examples, others = (jax.vmap(model.zero_shot)(rows).queries for rows in (x, queries))
        return jnp.einsum("nlhk,qlhk->qln", examples, others)

    return jnp.sum(of_points, axis=-1), jax.vmap(products)(models, data.x, data.queries)


def own_scores(model: CausalTransformer, activations: Activations) -> jax.Array:
    """Scores of the query for its own tokens, (tasks, queries, layer, heads, input tokens)."""
    return activations.scores[..., -model.input_tokens :]


def before_and_after(measure: Callable[..., Any], history: Any, context: Any) -> Any:
    """`measure(model, *context)` of each seed before and after training: leaves (seed, 2, ...)."""
    ends = jax.tree.map(lambda leaf: leaf[:, [0, -1]], history.learners)
    return _each(measure, ends, context)


def untrained_with(measure: Callable[..., Any], history: Any, own: jax.Array, context: Any) -> Any:
    """`measure(model, value, *context)` of each seed's untrained model: leaves (seed, ...).

    `own`, (seed, ...), holds the value for each seed.
    """
    starts = jax.tree.map(lambda leaf: leaf[:, 0], history.learners)

    @jax.jit
    def each(models: Any, own: jax.Array, context: Any) -> Any:
        return jax.lax.map(lambda pair: measure(*pair, *context), (models, own))

    return jax.device_get(each(starts, own, context))


def trained(measure: Callable[..., Any], history: Any, context: Any) -> Any:
    """`measure(model, *context)` of each seed's trained model: leaves (seed, ...)."""
    ends = jax.tree.map(lambda leaf: leaf[:, -1:], history.learners)
    return jax.tree.map(lambda leaf: leaf[:, 0], _each(measure, ends, context))


def _each(measure: Callable[..., Any], models: Any, context: Any) -> Any:
    """`measure` of models with two leading axes, computed one after another, on the host."""

    @jax.jit
    def each(models: Any, context: Any) -> Any:
        return jax.lax.map(partial(jax.lax.map, lambda model: measure(model, *context)), models)

    return jax.device_get(each(models, context))
