"""Answers of a language model to prompts: zero-shot, in context, and what finetuning minimises."""

import jax
import jax.numpy as jnp

from toyicl.language.decoder import Decoder, Reading
from toyicl.language.prompts import PromptSet


def zero_shot(model: Decoder, prompts: PromptSet, task: int | jax.Array) -> Reading:
    """Activations at the last token of each query alone; leaves (queries, ...)."""
    return _at_ends(model, prompts, prompts.beginning, prompts.queries[task])


def in_context(model: Decoder, prompts: PromptSet, task: int | jax.Array) -> Reading:
    """Activations at the last token of each query after the demonstrations; leaves (queries, ...).

    The demonstrations are read once.
    """
    shown = prompts.demonstrations[task].reshape(-1)
    return _at_ends(
        model, prompts, jnp.concatenate([prompts.beginning, shown]), prompts.queries[task]
    )


def _at_ends(model: Decoder, prompts: PromptSet, before: jax.Array, texts: jax.Array) -> Reading:
    """Activations at the last token of texts (count, T) after other tokens; leaves (count, ...).

    What comes before, and the tokens that all texts begin with, are read once.
    """
    _, past = model.read(jnp.concatenate([before, prompts.opening]))
    rest = texts[:, len(prompts.opening) :]
    return jax.vmap(lambda tokens: model.read(tokens, past)[0].last())(rest)


def label_logits(model: Decoder, reading: Reading, prompts: PromptSet) -> jax.Array:
    """Logits of the two labels after each query, (queries, 2)."""
    return model.logits(reading.hidden)[:, prompts.answers]


def right(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the right label has the larger logit of the two, (queries,)."""
    finite = jnp.all(jnp.isfinite(logits), axis=-1)
    return finite & (jnp.argmax(logits, axis=-1) == labels)


def attention_to_demonstrations(reading: Reading, prompts: PromptSet) -> jax.Array:
    """Attention of the last token to the tokens of each demonstration, (queries, layer, N).

    Summed over heads; `reading` is that of `in_context`.
    """
    start, (count, size) = len(prompts.beginning), prompts.demonstrations.shape[1:]
    weights = jnp.sum(jax.nn.softmax(reading.scores, axis=-1), axis=-2)
    own = weights[..., start : start + count * size]
    return jnp.sum(own.reshape(*own.shape[:-1], count, size), axis=-1)


def examples(model: Decoder, prompts: PromptSet, task: int | jax.Array) -> Reading:
    """Activations at the last token before the label of each demonstration alone; leaves (N, ...)."""
    return _at_ends(model, prompts, prompts.beginning, prompts.demonstrations[task][:, :-2])


def mean_loss(model: Decoder, prompts: PromptSet, task: int | jax.Array) -> jax.Array:
    """Mean cross-entropy of the labels of a task's demonstrations, each on its own."""
    logits = model.logits(examples(model, prompts, task).hidden)
    labels = prompts.demonstrations[task][:, -2]
    chosen = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)


def example_loss(model: Decoder, tokens: jax.Array, beginning: jax.Array) -> jax.Array:
    """Cross-entropy of the label of one example (T,), the last token but one, given its query."""
    reading, _ = model.read(jnp.concatenate([beginning, tokens[:-2]]))
    return _cross_entropy(model.logits(reading.hidden[-1]), tokens[-2])


def layer_causal_loss(model: Decoder, tokens: jax.Array, beginning: jax.Array) -> jax.Array:
    """The cross-entropies of the early logits of one example, summed over layers.

    There is no gradient from a layer to earlier ones; see `finetuning.updates.layer_causal`.
    """
    reading, _ = model.read(
        jnp.concatenate([beginning, tokens[:-2]]), between=jax.lax.stop_gradient
    )
    return jnp.sum(_cross_entropy(model.logits(reading.early[:, -1]), tokens[-2]))


def _cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Of logits (..., vocabulary) and one label."""
    return -jax.nn.log_softmax(logits, axis=-1)[..., label]
