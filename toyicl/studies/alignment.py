"""What most figures of the paper share: a model on linear regression, compared with references.

`Study` holds the settings. The functions that measure return variables for an `xarray.Dataset`, with
the dimensions seed, step, reference, shift and amount; `plots.panels` draws them, and
`harness.claim_values` computes the values of claims from them. Another reference is another label of
the dimension `reference`, and needs no new variable.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.analysis import metrics
from toyicl.analysis.weights import read_layer
from toyicl.core.config import named_in_errors, require_different, require_positive, require_size
from toyicl.core.episode import Episode, Learner
from toyicl.models.construction import as_transformer, interpolate, repeated
from toyicl.models.transformer import Architecture, Transformer
from toyicl.tasks.linear import InputDistribution, LinearRegression
from toyicl.training.loop import History, Job
from toyicl.training.step import Training

OTHER_DISTRIBUTIONS: tuple[InputDistribution, ...] = (
    "frobenius_normal",
    "frobenius_exponential",
    "frobenius_laplace",
)
Variables = dict[str, Any]
SNAPSHOTS = 101
"""Most snapshots of a training at which models are compared with references."""
References = Mapping[str, Learner]


@named_in_errors
@dataclass(frozen=True, kw_only=True)
class Study:
    """Settings of a figure about one model on linear regression."""

    task: LinearRegression = LinearRegression()
    """The task."""
    model: Architecture = Architecture()
    """The transformer."""
    training: Training = Training()
    """Its training."""
    evaluation_episodes: int = 10_000
    """Held-out episodes, shared by model and references."""
    scales: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5, 1.75, 2.0)
    """Factors alpha on the inputs."""
    factors: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0)
    """Factors on the targets, and Frobenius norms of contexts drawn from other laws."""

    def __post_init__(self) -> None:
        require_size("evaluation_episodes", self.evaluation_episodes)
        for name in ("scales", "factors"):
            values = getattr(self, name)
            require_different(name, values)
            for value in values:
                require_positive(name, value)

    def trainings(self) -> dict[str, Job]:
        """The training of the model on the task, named "model"."""
        return {"model": Job(self.model, self.task, self.training)}

    def episodes(self) -> Episode:
        """The held-out episodes."""
        return self.task.sample(jax.random.key(2022), self.evaluation_episodes)


def best_references(task: LinearRegression, steps: int) -> dict[str, Learner]:
    """The best gradient descent and GD++ of as many steps, each with parameters all steps share."""
    found: dict[str, Learner] = {"gd": GradientDescent.shared(task, steps)}
    if steps > 1:
        found["gdpp"] = GradientDescentPlusPlus.shared(task, steps)
    return found


def alignment(
    study: Study, history: History, references: References, episodes: Episode | None = None
) -> Variables:
    """Loss, and the comparison with each reference, at up to 101 snapshots of every seed.

    Variables: `loss` (seed, step), `reference_loss` (reference,), the fields of `metrics.Comparison`
    (reference, seed, step), and `on_plateau` (seed,), which compares the final loss with that of the
    first reference.
    """
    episodes = study.episodes() if episodes is None else episodes
    history = thinned(history)
    observed = {name: metrics.observe(one, episodes) for name, one in references.items()}
    compared = metrics.over_snapshots(_compare_with_all, history.learners, observed, episodes)
    losses = np.array([metrics.loss(one, episodes) for one in references.values()])
    each = [compared[name]._asdict() for name in references]
    found: Variables = {
        "seed": history.seeds,
        "step": history.steps,
        "reference": list(references),
        "loss": (("seed", "step"), each[0]["loss"]),
        "reference_loss": ("reference", losses),
    }
    for variable in each[0]:
        if variable != "loss":
            values = np.stack([one[variable] for one in each])
            found[variable] = (("reference", "seed", "step"), values)
    zero = float(metrics.zero_loss(episodes))
    final = each[0]["loss"][:, -1]
    found["on_plateau"] = ("seed", metrics.on_plateau(final, losses[0], zero))
    return found


def thinned(history: History, most: int = SNAPSHOTS) -> History:
    """A history with at most so many snapshots, at even distances, the last among them."""
    every = -(-(len(history.steps) - 1) // (most - 1))
    kept = np.arange(len(history.steps))[::-1][:: max(every, 1)][::-1]
    learners = jax.tree.map(lambda leaf: leaf[:, kept], history.learners)
    return history._replace(learners=learners, steps=history.steps[kept])


def _compare_with_all(
    learner: Learner, observed: dict[str, metrics.Observation], episodes: Episode
) -> dict[str, metrics.Comparison]:
    own, loss = metrics.observe(learner, episodes), metrics.loss(learner, episodes)
    return {name: metrics.difference(own, other, loss) for name, other in observed.items()}


def interpolation(
    study: Study,
    models: Any,
    reference: Learner,
    episodes: Episode | None = None,
) -> Variables:
    """Loss of the mean of trained and constructed weights, for each seed; one number a layer aside."""
    task = study.task
    target = as_transformer(reference, task.context_size, task.dim, task.outputs)
    blends = jax.vmap(partial(interpolate, reference=target, dim=task.dim))(models)
    episodes = study.episodes() if episodes is None else episodes
    return {"interpolated_loss": ("seed", metrics.losses(blends, episodes))}


def readings(study: Study, models: Any) -> Variables:
    """What the first layer's weights say, for each seed: its step, curvature and distance from GD."""
    read = jax.vmap(partial(read_layer, dim=study.task.dim))(models)
    return {
        "learned_step": ("seed", read.step),
        "learned_curvature": ("seed", read.curvature),
        "off_construction": ("seed", read.off_construction),
    }


def roll_outs(
    study: Study,
    models: Any,
    dampings: Sequence[float],
    depth: int,
    episodes: Episode | None = None,
) -> Variables:
    """Losses of one-layer models applied again and again, and of as many damped GD steps."""
    episodes = study.episodes() if episodes is None else episodes
    descent = as_transformer(
        GradientDescent.shared(study.task), study.task.context_size, study.task.dim
    )

    @jax.jit
    def losses(model: Transformer, damping: jax.Array) -> jax.Array:
        unrolled = repeated(model, depth, damping)
        predictions = jax.vmap(unrolled.layerwise, in_axes=-1, out_axes=-1)(*episodes[:3])
        return jax.vmap(metrics.squared_error, (0, None))(predictions, episodes)

    factors = jnp.array(dampings)
    over_models = jax.vmap(losses, (0, None))
    own = np.stack([over_models(models, factor) for factor in factors])
    other = np.stack([losses(descent, factor) for factor in factors])
    return {
        "damping": list(dampings),
        "layer": np.arange(1, depth + 1),
        "rolled_loss": (("damping", "seed", "layer"), own),
        "rolled_gd_loss": (("damping", "layer"), other),
    }


def larger_inputs(task: LinearRegression, alpha: jax.Array) -> LinearRegression:
    """Inputs scaled by alpha."""
    return task.scaled(alpha)


def larger_targets(task: LinearRegression, factor: jax.Array) -> LinearRegression:
    """Targets, that is weights, scaled by a factor."""
    return replace(task, weight_scale=task.weight_scale * factor)  # type: ignore[arg-type]


def context_norms(task: LinearRegression, factor: jax.Array) -> LinearRegression:
    """Contexts scaled to a Frobenius norm."""
    return replace(task, input_range=factor)  # type: ignore[arg-type]


def shifts(study: Study, models: Any, references: References) -> Variables:
    """Losses of models and references, as they are, on shifted distributions: Figure 6's columns.

    Shifts are those of `SHIFTS`; `amount` is the factor on inputs or targets, or the Frobenius norm of
    the context. Variables: `shifted_loss` (shift, amount, seed) and `shifted_reference_loss`
    (reference, shift, amount), NaN at amounts at which a shift is not measured.
    """
    others = [replace(study.task, input_distribution=name) for name in OTHER_DISTRIBUTIONS]
    families = {
        "inputs": ([study.task], larger_inputs, study.scales),
        "targets": ([study.task], larger_targets, study.factors),
        "distributions": (others, context_norms, study.factors),
        "distributions and targets": (others, larger_targets, study.factors),
    }
    amounts = sorted({*study.scales, *study.factors})
    seeds = len(jax.tree.leaves(models)[0])
    own = np.full((len(families), len(amounts), seeds), np.nan)
    other = np.full((len(references), len(families), len(amounts)), np.nan)
    for index, (tasks, shift, values) in enumerate(families.values()):
        each = [
            _losses(
                shift,
                task,
                jnp.array(values),
                models,
                dict(references),
                study.evaluation_episodes,
            )
            for task in tasks
        ]
        mean, means = jax.tree.map(lambda *losses: np.mean(losses, axis=0), *each)
        places = [amounts.index(value) for value in values]
        own[index, places] = mean
        other[:, index, places] = [means[name] for name in references]
    return {
        "reference": list(references),
        "shift": list(families),
        "amount": amounts,
        "shifted_loss": (("shift", "amount", "seed"), own),
        "shifted_reference_loss": (("reference", "shift", "amount"), other),
    }


@partial(jax.jit, static_argnames=("shift", "count"))
def _losses(
    shift: Callable, task: Any, values: jax.Array, models: Any, references: References, count: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Losses (value, seed) of models, and (value,) of each reference, on shifted tasks."""

    def losses(value: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        episodes = shift(task, value).sample(jax.random.key(2023), count)
        own = jax.vmap(metrics.loss, (0, None))(models, episodes)
        return own, {name: metrics.loss(one, episodes) for name, one in references.items()}

    return jax.lax.map(losses, values)
