"""With inputs and labels in separate tokens, two layers can copy, then take one step.

Figure 5 of von Oswald et al. (2022): tokens x_1, y_1, ..., each with its position beside it; a softmax
layer, then a linear one. The first is to copy each label to its input, the second to take one step of
gradient descent. A linear first layer is trained beside it, at three learning rates.

Expected: the loss of one step, .206, not of two, .157; no training with a linear first layer.
Alias: fig5
Cost: 20 minutes; quick: a minute, on a smaller task.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.analysis.token_jacobian import TokenSensitivity, token_sensitivity
from toyicl.core.config import require_different, require_size
from toyicl.core.datasets import dataset, seed_coordinate
from toyicl.core.episode import Episode
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture, Transformer
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment, best_references, thinned
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of separate tokens."""

    model: Architecture = Architecture(
        tokens="separate", depth=2, first_attention="softmax", key_size=20
    )
    training: Training = Training(steps=10_000, clip_norm=10.0)
    linear_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rates at which a linear first layer is tried."""
    linear_max_seeds: int = 1
    """Largest number of seeds for each of those rates."""
    joint_training: Training = Training()
    """Training of the layer on joint tokens beside them: Figure 2's."""
    sensitivity_episodes: int = 64
    """Episodes over which the tokens' sensitivities are averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("linear_rates", self.linear_rates)
        for name in ("linear_max_seeds", "sensitivity_episodes"):
            require_size(name, getattr(self, name))


LOOK_EVERY, LOOK_UP_TO = 150, 12_000
"""Steps between the snapshots of one more training of the first seed, and its length."""
FULL = Settings()
QUICK = Settings(
    task=LinearRegression(
        dim=4, context_size=6, input_range=2.0
    ),  # learned in a tenth of the steps
    training=Training(steps=3000, batch_size=256, clip_norm=10.0, learning_rate=3e-3),
    linear_rates=(3e-3,),
    joint_training=Training(steps=1000, batch_size=128, clip_norm=10.0, learning_rate=3e-3),
)


def trainings(settings: Settings) -> dict[str, Job]:
    """The model, a linear first layer at each rate, joint tokens, and the model looked at closely."""
    task, training = settings.task, settings.training
    linear = replace(settings.model, first_attention=None)
    looked = min(int(training.steps), LOOK_UP_TO)
    every = min(LOOK_EVERY, looked)
    closely = replace(training, steps=looked - looked % every, snapshot_every=every)
    of_rates = {
        _name(rate): Job(
            linear, task, replace(training, learning_rate=rate), max_seeds=settings.linear_max_seeds
        )
        for rate in settings.linear_rates
    }
    return (
        settings.trainings()
        | of_rates
        | {
            "joint tokens, as in Figure 2": Job(Architecture(), task, settings.joint_training),
            "looked at closely": Job(settings.model, task, closely, max_seeds=1),
        }
    )


def _name(rate: float) -> str:
    """Name of the training of a linear first layer at a learning rate."""
    return f"linear, rate {rate}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train, see what the first layer attends to, and try a linear first layer and joint tokens."""
    task, history = settings.task, histories["model"]
    joint, close = histories["joint tokens, as in Figure 2"], histories["looked at closely"]
    tried = [histories[_name(rate)] for rate in settings.linear_rates]
    linear = [metrics.losses(one.final, settings.episodes()) for one in tried]
    references = best_references(task, 1)
    two = metrics.loss(GradientDescent.shared(task, 2), settings.episodes())
    few = task.sample(jax.random.key(2028), settings.sensitivity_episodes)
    seen = metrics.over_snapshots(_sensitivity, thinned(history).learners, few)
    joint_loss = metrics.over_snapshots(metrics.loss, joint.learners, settings.episodes())
    close_loss = metrics.over_snapshots(metrics.loss, close.learners, settings.episodes())
    close_seen = metrics.over_snapshots(_sensitivity, close.learners, few)
    return dataset(
        alignment(settings, history, references),
        {f"to_{name}": (("seed", "step"), value) for name, value in seen._asdict().items()},
        {"linear_loss": (("rate", "linear_seed"), linear), "rate": list(settings.linear_rates)},
        seed_coordinate(tried[0].seeds, "linear_seed"),
        {"joint_loss": (("joint_seed", "joint_step"), joint_loss), "joint_step": joint.steps},
        seed_coordinate(joint.seeds, "joint_seed"),
        {"close_loss": (("close_seed", "close_step"), close_loss), "close_step": close.steps},
        seed_coordinate(close.seeds, "close_seed"),
        {
            f"close_{name}": (("close_seed", "close_step"), v)
            for name, v in close_seen._asdict().items()
        },
        {"two_loss": two},
    )


def _sensitivity(model: Transformer, episodes: Episode) -> TokenSensitivity:
    """Means over episodes of the sensitivity of tokens after the first layer."""
    x, y, x_query, _ = episodes
    each = jax.vmap(partial(token_sensitivity, model), in_axes=-1)(x, y, x_query)
    return jax.tree.map(jnp.mean, each)


def draw(results: xr.Dataset) -> Figure:
    """Loss, what the first layer attends to, and the linear first layer."""

    def loss(axes: Axes, results: xr.Dataset) -> None:
        panels.training_panel(axes, results)
        two = float(results.two_loss)
        axes.axhline(two, color="0.4", linestyle=":", label=f"two GD steps: {two:.4f}")
        axes.set(ylim=(0, 1))
        axes.legend()

    tokens = {"to_following": "the next token", "to_itself": "itself", "to_others": "the others"}
    attention = panels.curves(tokens, ylabel="norm of the derivative")
    drawn = {"loss during training": loss, "what the first layer attends to": attention}
    tried = ", ".join(
        f"{float(losses.min()):.3f} at rate {rate:g}"
        for rate, losses in zip(results.rate.values, results.linear_loss, strict=True)
    )
    sentence = f"Inputs and labels in separate tokens. Losses with a linear first layer: {tried}."
    return panels.figure(results, drawn, sentence)


def _slower(results: xr.Dataset) -> xr.DataArray:
    """Steps to 1.21 times one step's loss over the median with joint tokens; seeds that get there."""
    level = 1.21 * claim_values.reference_loss(results, "gd")
    joint = claim_values.first_step(results.joint_loss.rename(joint_step="step") < level)
    usual = joint.fillna(np.inf).median("joint_seed")
    return claim_values.first_step(results.loss < level).dropna("seed") / usual


def _ahead(results: xr.Dataset, over_step: float | None = None) -> xr.DataArray:
    """Steps from attention to the next token, thrice that to others, to a loss below a level.

    The level is a multiple of one step's loss; without one, 95% of the plateau's.
    """
    close = results[["close_loss", "close_following", "close_others"]].rename(close_step="step")
    plateau = float(close.close_loss.isel(step=slice(5, 20)).median())
    attended = claim_values.first_step(close.close_following > 3 * close.close_others)
    level = (
        0.95 * plateau
        if over_step is None
        else over_step * claim_values.reference_loss(results, "gd")
    )
    below = close.close_loss < level
    return claim_values.first_step(below) - attended


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-5-1": lambda results: claim_values.loss_over("gd")(results).min(),
        "VO-5-1-every": claim_values.loss_over("gd"),
        "VO-5-2": _slower,
        "VO-5-3": lambda results: _ahead(results, 1.45),
        "VO-5-3-onset": _ahead,
        "VO-5-4": lambda results: (
            results.linear_loss.min() / claim_values.reference_loss(results, "gd")
        ),
        "VO-5-4-step": lambda results: (
            results.linear_loss.min() / claim_values.reference_loss(results, "gd")
        ),
    },
)
