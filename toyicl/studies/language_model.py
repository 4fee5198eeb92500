"""In-context learning of a pretrained decoder compared with finetuning it on the demonstrations.

The measures of `toyicl.finetuning`, on the tasks of `language.prompts`. Finetuning is one epoch of
gradient descent on the demonstrations, one at a time. Updates are compared by their changes of the
attention outputs at the last token of each query.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.finetuning import baselines, similarity
from toyicl.finetuning.updates import ParameterFilter, finetune
from toyicl.language import answers
from toyicl.language.decoder import Decoder
from toyicl.language.prompts import PromptSet

PARAMETERS: dict[str, ParameterFilter] = {
    "keys and values": lambda path, value: path[-1] in ("key", "value"),
    "MLPs": lambda path, value: path[-1] in ("gate", "up", "down"),
}
"""Sets of parameters to finetune, by the names of `Decoder`; Dai et al. (2022) finetune W_K and W_V."""
KINDS = ("normalised", "raw", "centred")
"""Kinds of SimAOU; see `finetuning.similarity`. Changes are centred after normalisation."""


class Way(NamedTuple):
    """What a model answers in one way to the queries of a task."""

    right: jax.Array
    """Whether each answer is right, (queries,)."""
    attended: jax.Array
    """Attention outputs at the last token, (queries, layer, n)."""
    own_scores: jax.Array
    """Scores of the last token for the query's own tokens, (queries, layer, head, tokens)."""


def answer(model: Decoder, prompts: PromptSet, task: Any, *, context: bool) -> Way:
    """The answers to the queries of a task, zero-shot or after its demonstrations."""
    read = answers.in_context if context else answers.zero_shot
    found = read(model, prompts, task)
    own = found.scores[..., -prompts.queries.shape[-1] :]
    return Way(answers.right(model, found, prompts, task), found.attended, own)


@partial(jax.jit, static_argnames="context")
def answered(model: Decoder, prompts: PromptSet, task: Any, *, context: bool) -> Way:
    """`answer`, compiled."""
    return answer(model, prompts, task, context=context)


@partial(jax.jit, static_argnames="which")
def tuned(model: Decoder, prompts: PromptSet, task: Any, rate: Any, *, which: str) -> Decoder:
    """The model after one epoch of gradient descent on a task's demonstrations."""
    shown = prompts.demonstrations[task]

    def objective(model: Any, tokens: jax.Array, label: jax.Array) -> jax.Array:
        return answers.example_loss(model, tokens, prompts.beginning)

    found: Any = finetune(
        model,  # type: ignore[arg-type]
        shown,
        shown[:, -2],
        rate,
        which=PARAMETERS[which],
        objective=objective,
    )
    return found


@partial(jax.jit, static_argnames="which")
def randomly_updated(key: jax.Array, model: Decoder, other: Decoder, *, which: str) -> Decoder:
    """The model after a random update with the norm of that to `other` in each array."""
    found: Any = baselines.random_update(key, model, other, which=PARAMETERS[which])  # type: ignore[arg-type]
    return found


@jax.jit
def demonstration_loss(model: Decoder, prompts: PromptSet, task: Any) -> jax.Array:
    """Mean cross-entropy of the labels of a task's demonstrations, each on its own."""
    losses = jax.vmap(answers.example_loss, (None, 0, None))
    return jnp.mean(losses(model, prompts.demonstrations[task], prompts.beginning))


def untrained(key: jax.Array, model: Decoder) -> Decoder:
    """A decoder of the same architecture with random weights of the same norms."""
    found = model.architecture(key)
    for name in model.architecture.shapes():
        own, drawn = getattr(model, name)[...], getattr(found, name)
        if not name.endswith("norm"):
            drawn[...] = drawn[...] * (jnp.linalg.norm(own) / jnp.linalg.norm(drawn[...]))
    return found


def choose_rate(
    model: Decoder, prompts: PromptSet, rates: tuple[float, ...], *, which: str
) -> tuple[float, np.ndarray]:
    """The learning rate with the highest accuracy on the tasks of `prompts`, and all accuracies."""
    accuracies = np.array(
        [
            np.mean(
                [
                    answered(
                        tuned(model, prompts, task, rate, which=which), prompts, task, context=False
                    ).right
                    for task in range(len(prompts.demonstrations))
                ]
            )
            for rate in rates
        ]
    )
    return rates[int(np.argmax(accuracies))], accuracies


def similarities(
    before: np.ndarray, context: np.ndarray, others: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """SimAOU of the change by demonstrations and of each other change, {name: (kind, task, layer)}.

    Arrays have shape (task, query, layer, n). The kinds are `KINDS`; means are over queries.
    """
    found = {}
    for name, after in others.items():
        kinds = []
        for normalised, centre in ((True, False), (False, False), (True, True)):
            pair = [
                similarity.updates(jnp.asarray(each), jnp.asarray(before), normalised=normalised)
                for each in (context, after)
            ]
            pair = [similarity.centred(each) for each in pair] if centre else pair
            kinds.append(jnp.nanmean(similarity.cosine(*pair), axis=1))
        found[name] = np.asarray(jnp.stack(kinds))
    return found
