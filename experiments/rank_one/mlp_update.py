"""A context acts on an MLP as a rank-one change of its first matrix, which is not a gradient step.

An MLP after attention answers with a context as one with first matrix W + dW answers without it, where
dW = (W dA) A(x)^T / |A(x)|^2 (Dherin et al., 2025). The identity is tested on trained and untrained
models, in double and in single precision. dW is then compared with the negative gradient, by W, of the
loss of the demonstrations without a context: by its cosine, with the largest cosine of any matrix
u A(x)^T, and with controls, which are the context of another task and random matrices of the norm of
dW. The loss in context is compared with that after the best single step along the gradient.

Expected: the identity holds to rounding. The cosine is 0 before training and about .08 after it, where
.38 is the largest possible. The losses in context and after one gradient step are similar all the same.
Alias: rank1
Cost: eight minutes on one core; quick: half a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import named_in_errors, require_increasing, require_positive
from toyicl.core.datasets import dataset, side_by_side
from toyicl.core.episode import Episode
from toyicl.finetuning import evaluation, rank_one
from toyicl.harness import catalogue, claim_values
from toyicl.harness.evaluation import Value
from toyicl.models.attention import AttentionSettings
from toyicl.models.attention_mlp import AttentionMLP, AttentionThenMLP
from toyicl.plots import panels
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training

STAGES = ("untrained", "trained")
UPDATES = ("context", "another task's context", "random A(x)^T", "random")
"""Labels of the dimension `update`: what is compared with the gradient. The third has a random left
factor; both random ones have the norm of dW."""
LOSSES = ("zero-shot", "gradient step", "in context")
"""Labels of the dimension `way`."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the models, their training, and the comparison."""

    task: LinearRegression = LinearRegression(dim=5, context_size=20, input_distribution="normal")
    """The task."""
    linear: AttentionMLP = AttentionMLP(attention=AttentionSettings(init_scale=0.1))
    """Linear attention followed by an MLP."""
    softmax: AttentionMLP = AttentionMLP(
        attention=AttentionSettings(kind="softmax", init_scale=1.0)
    )
    """Softmax attention followed by an MLP."""
    training: Training = Training(
        steps=3000, batch_size=512, learning_rate=3e-3, final_learning_rate=0.0, clip_norm=1.0
    )
    """The training of both."""
    evaluation_episodes: int = 2000
    """Number of held-out episodes; half of them choose the size of the gradient step."""
    step_sizes: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
    """Sizes of a step along the gradient, of which the best is taken."""

    def __post_init__(self) -> None:
        require_episodes("evaluation_episodes", self.evaluation_episodes, self.task)
        require_increasing("step_sizes", self.step_sizes)
        for size in self.step_sizes:
            require_positive("step_sizes", size)


FULL = Settings()
QUICK = replace(
    FULL, training=replace(FULL.training, steps=500, batch_size=128), evaluation_episodes=500
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each kind of attention."""
    builders = {"linear": settings.linear, "softmax": settings.softmax}
    return {name: Job(one, settings.task, settings.training) for name, one in builders.items()}


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Test the identity, and compare the update with the gradient, for each kind of attention."""
    parts = {}
    for name, history in histories.items():
        found: dict[str, Any] = {}
        for dtype in ("float64", "float32"):
            with jax.enable_x64(dtype == "float64"):
                models, episodes = jax.tree.map(
                    partial(jnp.asarray, dtype=dtype), (history.learners, _episodes(settings))
                )
                wide = history._replace(learners=models)
                measured = evaluation.before_and_after(_identity, wide, (episodes,))
            found[f"difference_{dtype}"] = (("seed", "stage"), measured)
        compare = partial(_compare, settings.step_sizes)
        measured = evaluation.before_and_after(compare, history, (_episodes(settings),))
        dims = {"cosine": ("update",), "loss": ("way",)}
        found |= {key: (("seed", "stage", *dims.get(key, ())), v) for key, v in measured.items()}
        parts[name] = dataset({"seed": history.seeds, **found})
    joined = side_by_side(parts, "attention")
    return joined.assign_coords(stage=list(STAGES), update=list(UPDATES), way=list(LOSSES))


def _episodes(settings: Settings) -> Episode:
    """The held-out episodes in single precision, with episodes on the last axis."""
    with jax.enable_x64(False):
        return settings.task.sample(jax.random.key(2022), settings.evaluation_episodes)


def _identity(model: AttentionThenMLP, episodes: Episode) -> jax.Array:
    """Largest difference of the answer in context and that of the changed MLP without a context.

    It is relative to the root mean square of the answers.
    """

    def both(x: jax.Array, y: jax.Array, x_query: jax.Array) -> tuple[jax.Array, jax.Array]:
        before, after = model.token(x_query), model.attended(x, y, x_query)
        changed = rank_one.with_context(model.mlp, before, after)
        return model.answer(after), _answer(model, changed, before)

    answers, others = jax.vmap(both, in_axes=-1, out_axes=-1)(*episodes[:3])
    return jnp.max(jnp.abs(answers - others)) / jnp.sqrt(jnp.mean(answers**2))


def _answer(model: AttentionThenMLP, mlp: Any, token: jax.Array) -> jax.Array:
    """The answer at an attention output by another MLP."""
    return -mlp(token)[..., -model.outputs :]


def _compare(
    step_sizes: tuple[float, ...], model: AttentionThenMLP, episodes: Episode
) -> dict[str, jax.Array]:
    """Cosines with the gradient, and losses, in means over episodes."""
    others = jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=-1), episodes)
    keys = jax.random.split(jax.random.key(7), episodes.y_query.shape[-1])
    sizes = jnp.asarray(step_sizes)
    one = partial(_compare_one, model, sizes)
    found = jax.vmap(one, in_axes=(0, -1, -1))(keys, episodes, others)
    half = len(keys) // 2
    best = jnp.argmin(jnp.mean(found.pop("step_loss")[:half], axis=0))
    ways = found.pop("losses")
    losses = jnp.mean(ways[half:], axis=0)
    means = {name: jnp.nanmean(values, axis=0) for name, values in found.items()}
    return means | {
        "loss": jnp.stack([losses[0], losses[1 + best], losses[-1]]),
        "step_size": sizes[best],
    }


def _compare_one(
    model: AttentionThenMLP, sizes: jax.Array, key: jax.Array, episode: Episode, other: Episode
) -> dict[str, jax.Array]:
    """Cosines and losses of one episode; `other` is an episode of another task."""
    x, y, x_query, y_query = episode
    answer: Callable[..., jax.Array] = partial(_answer, model)
    before, weights = model.token(x_query), rank_one.first_matrix(model.mlp)
    after = model.attended(x, y, x_query)
    tokens = jax.vmap(model.token)(x)
    gradient = rank_one.demonstration_gradient(answer, model.mlp, tokens, y)
    update = rank_one.rank_one_update(weights, before, after)
    another = model.attended(other.x, other.y, x_query)
    left, right = (
        jax.random.normal(k, (n,))
        for k, n in zip(jax.random.split(key), weights.shape, strict=True)
    )
    size = jnp.linalg.norm(update)
    random = [jnp.outer(left, vector) for vector in (before, right)]
    compared = [
        update,
        rank_one.rank_one_update(weights, before, another),
        *(matrix * size / jnp.linalg.norm(matrix) for matrix in random),
    ]
    cosines = [rank_one.matrix_cosine(matrix, -gradient) for matrix in compared]

    def error(weights: jax.Array) -> jax.Array:
        changed = rank_one.with_first_matrix(model.mlp, weights)
        return 0.5 * jnp.sum((answer(changed, before) - y_query) ** 2)

    steps = jax.vmap(lambda size: error(weights - size * gradient))(sizes)
    losses = [error(weights)[None], steps, error(weights + update)[None]]
    return {
        "cosine": jnp.stack(cosines),
        "largest_cosine": rank_one.best_rank_one_cosine(gradient, before),
        "norm_ratio": size / jnp.linalg.norm(gradient),
        "step_loss": steps,
        "losses": jnp.concatenate(losses),
    }


def draw(results: xr.Dataset) -> Figure:
    """The identity, the cosines with the gradient, and the losses."""
    precisions = {"double": "difference_float64", "single": "difference_float32"}
    rounding = {
        f"{precision}, {stage}": _at(name, stage=stage)
        for precision, name in precisions.items()
        for stage in STAGES
    }
    drawn: dict[str, panels.Panel] = {
        "identity: relative difference": panels.magnitudes(rounding, limits=(1e-10, 1e-5))
    }
    for kind in results.attention.values:
        cosines = {stage: _at("cosine", stage=stage, attention=kind) for stage in STAGES}
        drawn[f"cosine, {kind} attention"] = partial(_cosines, cosines, kind)
    losses: dict[str, Value] = {
        str(k): _at("loss", stage="trained", attention=k) for k in results.attention.values
    }
    drawn["loss after training"] = panels.rows(losses, "way", xlabel="loss", xlim=(0, None))
    sentence = (
        "The change dW of the first matrix of an MLP that amounts to a context, and the negative "
        "gradient of the loss of the demonstrations by this matrix. Dotted: in (a) 1e-10 and 1e-5, "
        "in (b) and (c) the largest cosine of a matrix u A(x)^T, trained, mean over seeds."
    )
    return panels.figure(results, drawn, sentence)


def _cosines(values: dict[str, Value], kind: str, axes: Axes, results: xr.Dataset) -> None:
    """Cosines of each update, and the largest that is possible."""
    levels = {
        "largest": float(_at("largest_cosine", stage="trained", attention=kind)(results).mean())
    }
    panels.rows(values, "update", levels=levels, xlabel="cosine", xlim=(-0.3, 1))(axes, results)


def _at(name: str, **where: Any) -> Value:
    return panels.selected(name, **where)


def _cosine(stage: str = "trained", update: str = "context") -> Value:
    return _at("cosine", stage=stage, update=update)


def _own(results: xr.Dataset) -> xr.DataArray:
    """Cosine of the own context's update minus that of another task's."""
    return _cosine()(results) - _cosine(update="another task's context")(results)


def _gain(results: xr.Dataset) -> xr.DataArray:
    """What the gradient step gains over the zero-shot loss, relative to what the context gains."""
    loss = results.loss.sel(stage="trained")
    zero = loss.sel(way="zero-shot")
    return (zero - loss.sel(way="gradient step")) / (zero - loss.sel(way="in context"))


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "RANK-identity": claim_values.largest("difference_float64"),
        "RANK-single": claim_values.largest("difference_float32"),
        "RANK-cosine": _cosine(),
        "RANK-untrained": _cosine("untrained"),
        "RANK-random": _cosine(update="random"),
        "RANK-own": _own,
        "RANK-largest": lambda r: _cosine()(r) / _at("largest_cosine", stage="trained")(r),
        "RANK-gain": _gain,
    },
)
