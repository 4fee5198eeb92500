"""With inputs and labels in separate tokens, two layers copy labels and then take one step.

Figure 5 of von Oswald et al. (2022): tokens x_1, y_1, ..., each with its position, pass a softmax
layer and a linear layer. The first layer should copy each label to its input, the second take one
step of gradient descent. The model is trained at a larger rate that falls to 0, with which it leaves
its plateau earlier, and by the released code's recipe, for as many steps as the paper draws. A linear
first layer is trained as well, with three learning rates.

Expected: the loss of one step, .206, and not that of two, .157; a linear first layer does not
learn.
Alias: fig5
Cost: an hour on one core; quick: a minute, on a smaller task.
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
from toyicl.plots import figures, panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references, released_loss, thinned
from toyicl.tasks.linear import LinearRegression, require_episodes
from toyicl.training import recipes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of separate tokens."""

    model: Architecture = Architecture(
        tokens="separate", depth=2, first_attention="softmax", key_size=20
    )
    training: Training = replace(recipes.FALLING_FAST, steps=20_000)
    released_training: Training = replace(recipes.RELEASED_TOKENS, steps=40_000, snapshot_every=500)
    """The released code's training of the same model, for as many steps as the paper draws."""
    released_max_seeds: int = 3
    """Largest number of seeds of that training."""
    close_max_seeds: int = 3
    """Largest number of seeds of a shorter training with more snapshots."""
    linear_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rates with which a linear first layer is trained."""
    linear_max_seeds: int = 1
    """Largest number of seeds for each of those rates."""
    joint_training: Training = Training()
    """Training of one layer on joint tokens, as in Figure 2."""
    sensitivity_episodes: int = 64
    """Number of episodes over which the sensitivities of tokens are averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("linear_rates", self.linear_rates)
        for name in (
            "released_max_seeds",
            "close_max_seeds",
            "linear_max_seeds",
        ):
            require_size(name, getattr(self, name))
        require_episodes("sensitivity_episodes", self.sensitivity_episodes, self.task)


LOOK_EVERY, LOOK_UP_TO = 150, 12_000
"""Steps between the snapshots of a further training of the first seeds, and its largest length."""
TOKENS = ("itself", "following", "others")
"""Labels of the dimension `token`, the fields of `TokenSensitivity`."""
FULL = Settings()
QUICK = Settings(
    task=LinearRegression(
        dim=4, context_size=6, input_range=2.0
    ),  # learned in a tenth of the steps
    training=replace(recipes.FALLING_FAST, steps=3000, batch_size=256, snapshot_every=100),
    released_training=replace(
        recipes.RELEASED_TOKENS, steps=3000, batch_size=256, learning_rate=3e-3
    ),
    released_max_seeds=1,
    close_max_seeds=1,
    linear_rates=(3e-3,),
    joint_training=Training(steps=1000, batch_size=128, clip_norm=10.0, learning_rate=3e-3),
)


def trainings(settings: Settings) -> dict[str, Job]:
    """The model by two recipes, with a linear first layer, on joint tokens, and more snapshots."""
    task, training = settings.task, settings.training
    linear = replace(settings.model, first_attention=None)
    looked = min(int(training.steps), LOOK_UP_TO)
    every = min(LOOK_EVERY, looked)
    more_snapshots = replace(
        training,
        steps=looked - looked % every,
        snapshot_every=every,
        final_learning_rate=None,  # a shorter training would fall faster
    )
    released = Job(
        settings.model, task, settings.released_training, max_seeds=settings.released_max_seeds
    )
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
            "released": released,
            "joint tokens": Job(Architecture(), task, settings.joint_training),
            "more snapshots": Job(
                settings.model, task, more_snapshots, max_seeds=settings.close_max_seeds
            ),
        }
    )


def _name(rate: float) -> str:
    """Name of the training of a linear first layer at a learning rate."""
    return f"linear, rate {rate}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Measure losses, and on which tokens the tokens after the first layer depend."""
    task, history = settings.task, histories["model"]
    joint, close = histories["joint tokens"], histories["more snapshots"]
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
        {"sensitivity": (("token", "seed", "step"), _by_token(seen))},
        {"linear_loss": (("rate", "linear_seed"), linear), "rate": list(settings.linear_rates)},
        seed_coordinate(tried[0].seeds, "linear_seed"),
        {"joint_loss": (("joint_seed", "joint_step"), joint_loss), "joint_step": joint.steps},
        seed_coordinate(joint.seeds, "joint_seed"),
        {"close_loss": (("close_seed", "close_step"), close_loss), "close_step": close.steps},
        seed_coordinate(close.seeds, "close_seed"),
        {"close_sensitivity": (("token", "close_seed", "close_step"), _by_token(close_seen))},
        {"two_step_loss": two},
        released_loss(settings, histories["released"]),
    ).assign_coords(token=list(TOKENS))


def _by_token(found: TokenSensitivity) -> np.ndarray:
    """Sensitivities with a leading axis for `TOKENS`."""
    return np.stack([getattr(found, name) for name in TOKENS])


def _sensitivity(model: Transformer, episodes: Episode) -> TokenSensitivity:
    """Sensitivities of tokens after the first layer, means over episodes."""
    x, y, x_query, _ = episodes
    each = jax.vmap(partial(token_sensitivity, model), in_axes=-1)(x, y, x_query)
    return jax.tree.map(jnp.mean, each)


def draw(results: xr.Dataset) -> Figure:
    """Loss, and on which tokens the tokens after the first layer depend."""

    def loss(axes: Axes, results: xr.Dataset) -> None:
        reference_panels.training_panel(axes, results)
        two = float(results.two_step_loss)
        axes.axhline(two, color="0.4", linestyle=":", label=f"two steps of GD: {two:.4f}")
        axes.set(ylim=(0, 1))
        axes.legend()

    def dependence(axes: Axes, results: xr.Dataset) -> None:
        labels = {"following": "the next token", "itself": "itself", "others": "other tokens"}
        for (token, label), (color, style) in zip(labels.items(), panels.LOOKS, strict=False):
            values = results.sensitivity.sel(token=token)
            figures.every_seed(axes, values, "step", label=label, color=color, style=style)
        axes.set(xlabel="training step", ylabel="norm of the derivative")
        axes.legend()

    drawn = {
        "loss during training": loss,
        "dependence of tokens after the first layer": dependence,
    }
    linear = ", ".join(
        f"{float(losses.min()):.3f} with learning rate {rate:g}"
        for rate, losses in zip(results.rate.values, results.linear_loss, strict=True)
    )
    sentence = (
        "Inputs and labels in separate tokens. (b): derivatives of a token after the first layer with "
        f"respect to tokens before it. Losses with a linear first layer: {linear}."
    )
    return panels.figure(results, drawn, sentence)


def _slower(results: xr.Dataset) -> xr.DataArray:
    """Steps to 1.21 times the loss of one step, divided by the median with joint tokens.

    Both are trained by the released code's recipes. Seeds that never reach this loss count with all
    their steps, as a lower bound.
    """
    level = 1.21 * claim_values.reference_loss(results, "gd")
    separate = results.released_loss.rename(released_step="step")
    joint = claim_values.first_step(results.joint_loss.rename(joint_step="step") < level)
    median = joint.fillna(np.inf).median("joint_seed")
    return claim_values.first_step(separate < level).fillna(int(separate.step[-1])) / median


def _ahead(results: xr.Dataset, over_step: float | None = None) -> xr.DataArray:
    """Steps from the beginning of copying until the loss is below a level.

    Copying begins where tokens depend on the next token three times as much as on others. The level
    is a multiple of the loss of one step, or 95% of the plateau's loss if none is given.
    """
    close = results[["close_loss", "close_sensitivity"]].rename(close_step="step")
    plateau = float(close.close_loss.isel(step=slice(5, 20)).median())
    following, others = (close.close_sensitivity.sel(token=t) for t in ("following", "others"))
    copying = claim_values.first_step(following > 3 * others)
    step_loss = claim_values.reference_loss(results, "gd")
    level = 0.95 * plateau if over_step is None else over_step * step_loss
    return claim_values.first_step(close.close_loss < level) - copying


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
