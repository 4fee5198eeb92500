"""A linear layer that was trained by gradient descent is linear attention over its training.

The dual form of Aizerman et al. (1964) and Irie et al. (2022), with several epochs of gradient
descent on squared error and on cross-entropy; its use by Dai et al. (2022), demonstrations as a
change of weights dW; the objective of which dW is the gradient; and softmax attention as one
gradient step. All are computed in float64 and float32, with cases in which they do not hold. The
figure also shows the attention of queries to the examples on which a layer was trained.

Expected: the identities hold to rounding; softmax attention is not additive over demonstrations; dW
is a gradient of an objective without minimum, and of least squares only at W = 0.
Cost: seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import named_in_errors, require_memory, require_positive, require_size
from toyicl.core.datasets import Variables, dataset
from toyicl.finetuning import dual_form
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.plots import figures, panels
from toyicl.tasks.linear import episode_size, require_episodes
from toyicl.tasks.prompts import Classification, require_each_class
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the identities, and of the layer whose training is drawn."""

    task: Classification = Classification(context_size=64)
    """The task, whose demonstrations are keys or training examples."""
    episodes: int = 200
    """Number of episodes."""
    epochs: int = 4
    """Number of epochs of training, one example at a time."""
    learning_rate: float = 0.05
    """Learning rate of the training."""

    def __post_init__(self) -> None:
        require_episodes("episodes", self.episodes, self.task)
        require_size("epochs", self.epochs)
        repeated = self.epochs * self.episodes * episode_size(self.task)
        require_memory("epochs", self.epochs, repeated)
        require_positive("learning_rate", self.learning_rate)


FULL = QUICK = Settings()
PRECISIONS = {"float32": False, "float64": True}
IDENTITIES = {
    "trained": "training on cross-entropy",
    "squared": "training on squared error",
    "demonstrations": "demonstrations add up to dW",
    "agreement": "dW: gradient of an agreement",
    "squares": "dW: least squares at W = 0",
    "softmax_step": "softmax: step on a local loss",
    "softmax_parts": "softmax: sum of two halves",
    "elsewhere": "dW: least squares elsewhere",
}
"""Names of the statements and their labels; the last two do not hold."""


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Relative differences in both precisions, and the attention of queries to a layer's training."""
    drawn = _drawn(settings)
    found = []
    for wide in PRECISIONS.values():
        with jax.enable_x64(wide):
            episodes = settings.task.sample(jax.random.key(2022), settings.episodes)
            keys = jax.random.split(jax.random.key(0), settings.episodes)
            each = jax.jit(jax.vmap(partial(_differences, settings), in_axes=(0, -1, -1, -1)))
            found.append(jax.device_get(each(keys, *episodes[:3])))
    differences = [[part[name] for name in IDENTITIES] for part in found]
    return dataset(
        {"difference": (("precision", "identity", "episode"), np.array(differences, float))},
        _attention(settings, *drawn),
        epochs=settings.epochs,
    ).assign_coords(precision=list(PRECISIONS), identity=list(IDENTITIES))


def _differences(
    settings: Settings, key: jax.Array, x: jax.Array, y: jax.Array, x_query: jax.Array
) -> dict[str, jax.Array]:
    """Relative difference of each statement on one episode."""
    weight_key, start_key = jax.random.split(key)
    weights, elsewhere = jax.random.normal(weight_key, (2, y.shape[1], x.shape[1]))
    inputs, labels = (jnp.tile(values, (settings.epochs, 1)) for values in (x, y))
    found = {}
    for name, slope in (("trained", _probability_error), ("squared", _error)):
        trained = dual_form.train(weights, inputs, labels, settings.learning_rate, slope)
        by_attention = dual_form.answer_by_attention(weights, trained, x_query)
        found[name] = _relative(by_attention, trained.weights @ x_query)
    values = x @ weights.T  # the values of a layer are another linear map of its inputs
    half = len(x) // 2
    parts = [(x[:half], values[:half]), (x[half:], values[half:])]
    added = [dual_form.context_weights(*part) for part in parts]
    whole = dual_form.context_weights(x, values)
    linear = dual_form.linear_attention(x, values, x_query)
    softmax = dual_form.softmax_attention(x, values, x_query)
    first, second = (dual_form.softmax_attention(*part, x_query) for part in parts)
    total = first + second
    start = jax.random.normal(start_key, softmax.shape)
    step = dual_form.local_step(x, values, x_query, start)

    def gradient(objective: Callable[..., jax.Array], at: jax.Array) -> jax.Array:
        return -jax.grad(objective)(at, x, values)

    return found | {
        "demonstrations": _relative((added[0] + added[1]) @ x_query, linear),
        "softmax_parts": _relative(total * (total @ softmax) / (total @ total), softmax),
        "agreement": _relative(gradient(dual_form.agreement, elsewhere), whole),
        "squares": _relative(gradient(dual_form.squares, jnp.zeros_like(weights)), whole),
        "elsewhere": _relative(gradient(dual_form.squares, elsewhere), whole),
        "softmax_step": _relative(step, softmax),
    }


def _error(answer: jax.Array, label: jax.Array) -> jax.Array:
    """Derivative of 0.5 * squared error with respect to the answer."""
    return answer - label


def _probability_error(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Derivative of the cross-entropy with respect to the logits."""
    return jax.nn.softmax(logits) - label


def _relative(one: jax.Array, other: jax.Array) -> jax.Array:
    """Norm of the difference, relative to that of the second argument."""
    return jnp.linalg.norm(one - other) / jnp.linalg.norm(other)


def _drawn(settings: Settings) -> tuple[jax.Array, ...]:
    """Examples and queries of the task that is drawn, each with their labels.

    Raises BadInput if a class has no example or no query, since means over classes are drawn.
    """
    count = settings.task.context_size
    both = settings.task.of_size(2 * count).sample(jax.random.key(7), 1)
    x, y = both.x[..., 0], both.y[..., 0]
    require_each_class("task.context_size", y[:count])
    require_each_class("task.context_size", y[count:])
    return x[:count], y[:count], x[count:], y[count:]


def _attention(
    settings: Settings,
    examples: jax.Array,
    labels: jax.Array,
    queries: jax.Array,
    answers: jax.Array,
) -> Variables:
    """The attention of queries of one task to the steps that trained a layer on it.

    For one query: the attention to each step, and what the step adds to the logit of the right answer.
    For all queries: mean attention by the classes of example and query.
    """
    count, classes = labels.shape
    inputs, repeated = (jnp.tile(values, (settings.epochs, 1)) for values in (examples, labels))
    start = jnp.zeros((classes, examples.shape[1]))
    trained = dual_form.train(start, inputs, repeated, settings.learning_rate, _probability_error)
    attention = jax.vmap(partial(dual_form.attention_over_training, trained))(queries)
    right = int(jnp.argmax(answers[0]))
    by_class = answers.T @ attention[:, :count] @ labels
    by_class = by_class / (jnp.sum(answers, axis=0)[:, None] * jnp.sum(labels, axis=0)[None])
    return {
        "attention": ("training_step", attention[0]),
        "added": ("training_step", attention[0] * trained.errors[:, right]),
        "own_class": ("training_step", jnp.argmax(repeated, axis=1) == right),
        "by_class": (("query_class", "example_class"), by_class),
        "accuracy": jnp.mean(
            jnp.argmax(queries @ trained.weights.T, axis=1) == jnp.argmax(answers, axis=1)
        ),
    }


def draw(results: xr.Dataset) -> Figure:
    """Differences in both precisions, and the attention of queries to a layer's training."""

    def differences(precision: str, limit: float) -> panels.Panel:
        values = {
            label: panels.selected("difference", precision=precision, identity=name)
            for name, label in IDENTITIES.items()
        }
        return panels.magnitudes(values, limits=(limit,))

    def steps(axes: Axes, results: xr.Dataset) -> None:
        looks = ((True, "o", figures.MODEL), (False, "x", figures.REFERENCE))
        for own, mark, color in looks:
            kept = results.own_class.values == own
            label = "example of the query's class" if own else "of another class"
            places = np.flatnonzero(kept)
            added = results.added.values[kept]
            axes.plot(places, added, mark, color=color, label=label, markersize=3, alpha=0.7)
        axes.set(xlabel="training step", ylabel="attention x error of the right logit")
        axes.margins(y=0.5)
        axes.legend(loc="upper right")

    def classes(axes: Axes, results: xr.Dataset) -> None:
        panels.heat_map("by_class", "class of the example")(axes, results)
        places = range(results.sizes["query_class"])
        axes.set(ylabel="class of the query", xticks=places, yticks=places)

    drawn = {
        "relative differences, float64": differences("float64", 1e-10),
        "relative differences, float32": differences("float32", 1e-5),
        "contribution of each training step to one answer": steps,
        "mean attention to examples": classes,
    }
    sentence = (
        f"(a), (b): {results.sizes['episode']} episodes; the last two statements do not hold. (c), "
        f"(d): a linear layer after {results.epochs} epochs of training on cross-entropy, as attention "
        f"over its training; accuracy {float(results.accuracy):.2f}."
    )
    return panels.figure(results, drawn, sentence)


def _of(identity: str, precision: str = "float64") -> Value:
    """Relative differences of a statement, (episode,)."""
    return panels.selected("difference", identity=identity, precision=precision)


def _largest(identity: str, precision: str = "float64") -> Value:
    return lambda results: _of(identity, precision)(results).max(skipna=False)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "DAI-1": _largest("trained"),
        "DAI-1-squared": _largest("squared"),
        "DAI-1-float32": _largest("trained", "float32"),
        "DAI-2": _largest("demonstrations"),
        "DAI-2-softmax": lambda results: _of("softmax_parts")(results).median(),
        "DAI-8": _largest("agreement"),
        "DAI-8-squares": _largest("squares"),
        "DAI-8-elsewhere": lambda results: _of("elsewhere")(results).min(),
        "DAI-8-softmax": _largest("softmax_step"),
        "DAI-8-softmax-float32": _largest("softmax_step", "float32"),
    },
)
