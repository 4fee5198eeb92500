"""A linear layer that gradient descent trained is linear attention over its training.

The dual form of Aizerman et al. (1964) and Irie et al. (2022), with several epochs of gradient descent
on squared error and on cross-entropy; what Dai et al. (2022) make of it, demonstrations as a change of
weights dW; of which objective dW is the gradient; and softmax attention as one gradient step. In
float64 and float32, each beside where it ends. Drawn: how queries attend to what trained a layer.

Expected: the identities to rounding; softmax attention does not add up; dW is a gradient of an
objective that has no minimum, and of least squares at W = 0 alone.
Cost: seconds.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import require_positive, require_size
from toyicl.core.datasets import dataset
from toyicl.finetuning import dual_form
from toyicl.harness import catalogue, claims
from toyicl.plots import figures, panels
from toyicl.studies.alignment import Variables
from toyicl.tasks.prompts import Classification, require_each_class
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the identities, and of the layer whose training is drawn."""

    task: Classification = Classification(context_size=64)
    """The task, whose demonstrations are keys or training examples."""
    episodes: int = 200
    """Episodes."""
    epochs: int = 4
    """Epochs of training, one example at a time."""
    learning_rate: float = 0.05
    """Its rate."""

    def __post_init__(self) -> None:
        for name in ("episodes", "epochs"):
            require_size(name, getattr(self, name))
        require_positive("learning_rate", self.learning_rate)


FULL = QUICK = Settings()
PRECISIONS = {"float32": False, "float64": True}


def _error(answer: jax.Array, label: jax.Array) -> jax.Array:
    return answer - label


def _probability_error(logits: jax.Array, label: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits) - label


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """The largest gap of each identity in both precisions, and a layer's attention to its training."""
    drawn = _drawn(settings)
    found = []
    for wide in PRECISIONS.values():
        with jax.enable_x64(wide):
            episodes = settings.task.sample(jax.random.key(2022), settings.episodes)
            keys = jax.random.split(jax.random.key(0), settings.episodes)
            each = jax.jit(jax.vmap(partial(_gaps, settings), in_axes=(0, -1, -1, -1)))
            found.append(jax.device_get(each(keys, *episodes[:3])))
    return dataset(
        {
            name: (("precision", "episode"), np.stack([part[name] for part in found]))
            for name in found[0]
        },
        _attention(settings, *drawn),
        epochs=settings.epochs,
    ).assign_coords(precision=list(PRECISIONS))


def _gap(one: jax.Array, other: jax.Array) -> jax.Array:
    """Norm of the difference over that of the second."""
    return jnp.linalg.norm(one - other) / jnp.linalg.norm(other)


def _gaps(
    settings: Settings, key: jax.Array, x: jax.Array, y: jax.Array, x_query: jax.Array
) -> dict[str, jax.Array]:
    """Identities, and where they end, on one episode."""
    weight_key, start_key = jax.random.split(key)
    weights, elsewhere = jax.random.normal(weight_key, (2, y.shape[1], x.shape[1]))
    inputs, labels = (jnp.tile(values, (settings.epochs, 1)) for values in (x, y))
    found = {}
    for name, slope in (("trained", _probability_error), ("squared", _error)):
        trained = dual_form.train(weights, inputs, labels, settings.learning_rate, slope)
        by_attention = dual_form.answer_by_attention(weights, trained, x_query)
        found[name] = _gap(by_attention, trained.weights @ x_query)
    values = x @ weights.T  # of a layer whose values are another map of its inputs
    half = len(x) // 2
    parts = [(x[:half], values[:half]), (x[half:], values[half:])]
    added = [dual_form.context_weights(*part) for part in parts]
    whole = dual_form.context_weights(x, values)
    softmax = dual_form.softmax_attention(x, values, x_query)
    first, second = (dual_form.softmax_attention(*part, x_query) for part in parts)
    split = first + second
    return found | {
        "demonstrations": _gap(
            (added[0] + added[1]) @ x_query, dual_form.linear_attention(x, values, x_query)
        ),
        "softmax_parts": _gap(split * (split @ softmax) / (split @ split), softmax),
        "agreement": _gap(-jax.grad(dual_form.agreement)(elsewhere, x, values), whole),
        "squares": _gap(-jax.grad(dual_form.squares)(jnp.zeros_like(weights), x, values), whole),
        "elsewhere": _gap(-jax.grad(dual_form.squares)(elsewhere, x, values), whole),
        "softmax_step": _gap(
            dual_form.local_step(x, values, x_query, jax.random.normal(start_key, softmax.shape)),
            softmax,
        ),
    }


def _drawn(settings: Settings) -> tuple[jax.Array, ...]:
    """Examples and queries of the one task that is drawn, with their labels.

    Raises BadInput where a class has no example or no query: means over each class are drawn.
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
    """How the queries of one task attend to the steps that trained a layer on it.

    For one query, each step's attention and what it adds to the right answer; and mean attention by
    the classes of example and query.
    """
    count, classes = labels.shape
    inputs, shown = (jnp.tile(values, (settings.epochs, 1)) for values in (examples, labels))
    start = jnp.zeros((classes, examples.shape[1]))
    trained = dual_form.train(start, inputs, shown, settings.learning_rate, _probability_error)
    attention = jax.vmap(partial(dual_form.attention_over_training, trained))(queries)
    asked = int(jnp.argmax(answers[0]))
    by_class = answers.T @ attention[:, :count] @ labels
    by_class = by_class / (jnp.sum(answers, axis=0)[:, None] * jnp.sum(labels, axis=0)[None])
    own = jnp.argmax(shown, axis=1) == asked
    return {
        "attention": ("training_step", attention[0]),
        "added": ("training_step", attention[0] * trained.errors[:, asked]),
        "own_class": ("training_step", own),
        "by_class": (("query_class", "example_class"), by_class),
        "accuracy": jnp.mean(
            jnp.argmax(queries @ trained.weights.T, axis=1) == jnp.argmax(answers, axis=1)
        ),
    }


IDENTITIES = {
    "trained": "training, cross-entropy",
    "squared": "training, squared error",
    "demonstrations": "demonstrations add dW",
    "agreement": "dW: slope of an agreement",
    "squares": "dW: least squares at 0",
    "softmax_step": "softmax: a step of its own",
    "softmax_parts": "softmax: sum of two halves",
    "elsewhere": "dW: least squares elsewhere",
}


def draw(results: xr.Dataset) -> Figure:
    """Gaps in both precisions, and a trained layer's attention over its training."""

    def of(precision: str) -> panels.Panel:
        drawn = panels.magnitudes(IDENTITIES, limits=(1e-10 if precision == "float64" else 1e-5,))
        return lambda axes, results: drawn(axes, results.sel(precision=precision))

    def steps(axes: Axes, results: xr.Dataset) -> None:
        looks = ((True, "o", figures.MODEL), (False, "x", figures.REFERENCE))
        for own, mark, color in looks:
            kept = results.own_class.values == own
            label = "example of the query's class" if own else "of another class"
            axes.plot(
                np.flatnonzero(kept),
                results.added.values[kept],
                mark,
                color=color,
                markersize=3,
                alpha=0.7,
                label=label,
            )
        axes.set(xlabel="training step", ylabel="attention x error, in its logit")
        axes.margins(y=0.5)
        axes.legend(loc="upper right")

    def classes(axes: Axes, results: xr.Dataset) -> None:
        values = results.by_class.values
        bound = float(np.abs(values).max())
        image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound)
        axes.figure.colorbar(image, ax=axes, shrink=0.8)
        places = range(len(values))
        axes.set(xlabel="class of the example", ylabel="class of the query")
        axes.set(xticks=places, yticks=places)
        axes.grid(visible=False)

    drawn = {
        "relative gaps, float64": of("float64"),
        "relative gaps, float32": of("float32"),
        "what each step adds to one answer": steps,
        "mean attention to examples": classes,
    }
    sentence = (
        f"{results.sizes['episode']} episodes. Below: a linear layer after {results.epochs} epochs of "
        f"cross-entropy, read as attention over its training; accuracy {float(results.accuracy):.2f}."
    )
    return panels.figure(results, drawn, sentence)


def _largest(name: str, precision: str = "float64") -> claims.Value:
    return lambda results: results[name].sel(precision=precision).max(skipna=False)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "DAI-1": _largest("trained"),
        "DAI-1-squared": _largest("squared"),
        "DAI-1-float32": _largest("trained", "float32"),
        "DAI-2": _largest("demonstrations"),
        "DAI-2-softmax": lambda r: r.softmax_parts.sel(precision="float64").median(),
        "DAI-8": _largest("agreement"),
        "DAI-8-squares": _largest("squares"),
        "DAI-8-elsewhere": lambda r: r.elsewhere.sel(precision="float64").min(),
        "DAI-8-softmax": _largest("softmax_step"),
        "DAI-8-softmax-float32": _largest("softmax_step", "float32"),
    },
)
