"""Answers of a language model to prompts: zero-shot, in context, and what finetuning minimises."""

import jax
import jax.numpy as jnp

from toyicl.language.decoder import Decoder, Reading
from toyicl.language.prompts import PromptSet


def zero_shot(model: Decoder, prompts: PromptSet, task: int | jax.Array) -> Reading:
    """Activations at the last token of each query alone; leaves (queries, ...)."""
    _, past = model.read(prompts.beginning)
    return jax.vmap(lambda tokens: model.read(tokens, past)[0].last())(prompts.queries[task])


def in_context(model: Decoder, prompts: PromptSet, task: int | jax.Array) -> Reading:
    """Activations at the last token of each query after the demonstrations; leaves (queries, ...).

    The demonstrations are read once.
    """
    shown = prompts.demonstrations[task].reshape(-1)
    _, past = model.read(jnp.concatenate([prompts.beginning, shown]))
    return jax.vmap(lambda tokens: model.read(tokens, past)[0].last())(prompts.queries[task])


def right(model: Decoder, reading: Reading, prompts: PromptSet, task: int | jax.Array) -> jax.Array:
    """Whether the right label has the larger logit of the two, (queries,)."""
    logits = model.logits(reading.hidden)[:, prompts.answers]
    finite = jnp.all(jnp.isfinite(logits), axis=-1)
    return finite & (jnp.argmax(logits, axis=-1) == prompts.labels[task])


def example_loss(model: Decoder, tokens: jax.Array, beginning: jax.Array) -> jax.Array:
    """Cross-entropy of the label of one example (T,), the last token but one, given its query."""
    reading, _ = model.read(jnp.concatenate([beginning, tokens[:-2]]))
    return -jax.nn.log_softmax(model.logits(reading.hidden[-1]))[tokens[-2]]
