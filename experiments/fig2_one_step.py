"""fig2: one trained linear attention layer is one step of gradient descent.

Figure 2 of von Oswald et al. (2022): the loss while training, the alignment of predictions and
sensitivities, the final loss for other sizes, and the loss on inputs scaled away from training, each
beside the best single step of gradient descent on the same episodes and beside its exact loss.

Expected, at the defaults: loss .2062 for both, cosine and norm ratio 1, learned eta/N .606.
Cost: about two minutes on two cores, of which panel (c) is two thirds.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl import claims, metrics, plotting, theory
from toyicl.construction import (
    gradient_descent_transformer,
    interpolate,
    read_layer,
    require_one_linear_layer,
)
from toyicl.experiment import Fit
from toyicl.references import GradientDescent
from toyicl.settings import require, require_different, require_positive, require_size
from toyicl.tasks import LinearRegression
from toyicl.training import Training
from toyicl.transformer import Architecture, Transformer


@dataclass(frozen=True)
class Settings:
    """Settings of Figure 2; panels (a), (b) and (d) are the released code's."""

    task: LinearRegression = LinearRegression()
    """The task of panels (a), (b) and (d)."""
    model: Architecture = Architecture()
    """The transformer."""
    training: Training = Training()
    """Training for panels (a), (b) and (d)."""
    evaluation_episodes: int = 10_000
    """Held-out episodes, shared by model and reference."""
    scales: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5, 1.75, 2.0)
    """Factors alpha on the input range, panel (d)."""
    sizes: tuple[int, ...] = (5, 10, 20, 30, 40, 50)
    """Sizes N = d of panel (c), one training each."""
    size_seeds: int = 2
    """Seeds for each size in panel (c), at most; the paper has one training each."""
    size_training: Training = Training(
        steps=2000, batch_size=512, snapshot_every=500, learning_rate=5e-4
    )
    """Training for panel (c); the paper's is as long as panel (a)'s."""

    def __post_init__(self) -> None:
        require_one_linear_layer(self.model)
        require(self.task.outputs == 1, "task.outputs", "1 in this experiment", self.task.outputs)
        require_size("evaluation_episodes", self.evaluation_episodes)
        require_size("size_seeds", self.size_seeds)
        require_different("sizes", self.sizes)
        require_different("scales", self.scales)
        for size in self.sizes:
            self.task_of_size(size)  # refused here, not after panels (a), (b) and (d)
        for scale in self.scales:
            require_positive("scales", scale)

    def task_of_size(self, size: int) -> LinearRegression:
        """The task of panel (c) with as many inputs and context points."""
        return replace(self.task, dim=size, context_size=size)


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000),
    sizes=(5, 10, 20),
    size_training=Training(steps=1000, batch_size=512, snapshot_every=500),
)


def measure(settings: Settings, fit: Fit) -> xr.Dataset:
    """Train, and measure everything the four panels show."""
    task = settings.task
    descent = GradientDescent.shared(task)  # first, since not every task has a closed form
    history = fit(settings.model, task, settings.training, label="one layer")
    episodes = task.sample(jax.random.key(2022), settings.evaluation_episodes)
    reference = metrics.observe(descent, episodes)
    gd_loss = metrics.squared_error(reference.predictions, episodes)
    compared = metrics.over_snapshots(
        metrics.compare_observed, history.learners, reference, episodes
    )
    rate, exact = descent.learning_rate[...], theory.gd_shared(task, 1)
    target = gradient_descent_transformer(rate, task.context_size, task.dim, task.outputs)
    blends = jax.vmap(partial(interpolate, reference=target, dim=task.dim))(history.final)
    readings = jax.vmap(partial(read_layer, dim=task.dim))(history.final)

    over_scales = _over_scales(settings, history.final, descent)
    over_sizes = _over_sizes(settings, fit)
    curves = {name: (("seed", "step"), values) for name, values in compared._asdict().items()}
    return xr.Dataset(
        {
            **curves,
            "gd_loss": gd_loss,
            "exact_gd_loss": exact.loss,
            "exact_step": exact.learning_rates[0] / task.context_size,
            "on_plateau": (
                "seed",
                metrics.on_plateau(compared.loss[:, -1], gd_loss, theory.predict_zero_loss(task)),
            ),
            "interpolated_loss": ("seed", jax.vmap(metrics.loss, (0, None))(blends, episodes)),
            "learned_step": ("seed", readings.step),
            "off_construction": ("seed", readings.off_construction),
            **over_scales,
            **over_sizes,
        },
        coords={
            "seed": history.seeds,
            "step": history.steps,
            "alpha": list(settings.scales),
            "size": list(settings.sizes),
            "size_seed": np.arange(over_sizes["size_loss"][1].shape[1]),
        },
        attrs={"size_training": _describe(settings.size_training)},
    )


def _describe(training: Training) -> str:
    """Panel (c)'s training in words, and whether it is the paper's."""
    words = (
        f"{training.steps} steps of {training.batch_size} episodes, rate {training.learning_rate:g}"
    )
    full = training == replace(Training(), snapshot_every=training.snapshot_every)
    return words if full else f"cut to {words} for each size"


def _over_scales(
    settings: Settings, models: Transformer, descent: GradientDescent
) -> dict[str, tuple]:
    """Losses of the trained models and of gradient descent, both left as they are, on scaled inputs."""
    own, other = _losses_on(
        settings.task,
        jnp.array(settings.scales),
        models,
        descent,
        settings.evaluation_episodes,
    )
    return {"scaled_loss": (("alpha", "seed"), own), "scaled_gd_loss": ("alpha", other)}


@partial(jax.jit, static_argnames="count")
def _losses_on(
    task: LinearRegression,
    scales: jax.Array,
    models: Transformer,
    descent: GradientDescent,
    count: int,
) -> tuple[jax.Array, jax.Array]:
    """Losses (scale, seed) of models, and (scale,) of gradient descent, on scaled inputs."""

    def losses(scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        episodes = task.scaled(scale).sample(jax.random.key(2023), count)
        own = jax.vmap(metrics.loss, (0, None))(models, episodes)
        return own, metrics.loss(descent, episodes)

    return jax.lax.map(losses, scales)


def _over_sizes(settings: Settings, fit: Fit) -> dict[str, tuple]:
    """Final losses of model, gradient descent and their interpolation for each N = d."""
    rows = []
    for size in settings.sizes:
        task = settings.task_of_size(size)
        history = fit(
            settings.model,
            task,
            settings.size_training,
            label=f"N = {size}",
            at_most=settings.size_seeds,
        )
        episodes = task.sample(jax.random.key(2024), settings.evaluation_episodes)
        descent = GradientDescent.shared(task)
        target = gradient_descent_transformer(descent.learning_rate[...], size, size, task.outputs)
        blends = jax.vmap(partial(interpolate, reference=target, dim=size))(history.final)
        own = jax.vmap(metrics.loss, (0, None))(history.final, episodes)
        gd_loss = metrics.loss(descent, episodes)
        blended = jax.vmap(metrics.loss, (0, None))(blends, episodes)
        stuck = metrics.on_plateau(own, gd_loss, theory.predict_zero_loss(task))
        rows.append((own, gd_loss, blended, stuck))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return {
        "size_loss": (("size", "size_seed"), columns[0]),
        "size_gd_loss": ("size", columns[1]),
        "size_interpolated_loss": (("size", "size_seed"), columns[2]),
        "size_on_plateau": (("size", "size_seed"), columns[3]),
    }


def draw(results: xr.Dataset) -> Figure:
    """The four panels, with every seed."""
    figure = plotting.panels(2, 2)
    training, alignment, sizes, scales = figure.axes
    model, gd = plotting.MODEL, plotting.REFERENCE

    plotting.title(training, 0, "loss while training")
    plotting.every_seed(training, results.loss, "step", label="trained layer", color=model)
    training.axhline(float(results.gd_loss), color=gd, linestyle="--", label="one GD step")
    exact = float(results.exact_gd_loss)
    plotting.floor_line(training, exact, f"exact: {exact:.4f}")
    training.set(xlabel="training step", ylabel="loss", ylim=(0, None))
    training.legend()

    plotting.title(alignment, 1, "alignment with the GD step")
    for name, label, color, style in (
        ("model_cosine", "model cosine", model, "-"),
        ("norm_ratio", "norm ratio", plotting.FOURTH, "-."),
        ("model_difference", "model difference", plotting.THIRD, "--"),
        ("prediction_difference", "prediction difference", gd, ":"),
    ):
        plotting.every_seed(alignment, results[name], "step", label=label, color=color, style=style)
    alignment.set(xlabel="training step", ylim=(0, None))
    alignment.legend(loc="center", bbox_to_anchor=(0.5, 0.7))

    plotting.title(sizes, 2, "final loss by size")
    for name, label, color, marker in (
        ("size_loss", "trained layer", model, "o"),
        ("size_interpolated_loss", "interpolated weights", plotting.THIRD, "^"),
    ):
        values = results[name].rename(size_seed="seed")
        plotting.every_seed(sizes, values, "size", label=label, color=color, style=marker)
    sizes.plot(results.size, results.size_gd_loss, "x--", color=gd, label="one GD step")
    # Interpolating a seed on its plateau, whose attention is near 0, means nothing: off the scale.
    limit = 2.2 * float(results.size_gd_loss.max())
    sizes.set(xlabel="N = number of inputs", ylabel="loss", ylim=(0, limit))
    sizes.legend(loc="upper left")

    plotting.title(scales, 3, "inputs scaled away from training")
    plotting.every_seed(scales, results.scaled_loss, "alpha", label="trained layer", color=model)
    scales.plot(results.alpha, results.scaled_gd_loss, "x--", color=gd, label="one GD step")
    scales.set(xlabel=r"$\alpha$, the factor on the inputs", ylabel="loss", yscale="log")
    scales.legend()

    plotting.caption(
        figure,
        [
            f"One linear self-attention layer, {results.sizes['seed']} seeds, each drawn;",
            f"{int(results.step[-1])} steps in (a), (b), (d).",
            plotting.plateau_sentence(results.on_plateau),
            f"Panel (c): {results.attrs['size_training']}.",
            plotting.plateau_sentence(results.size_on_plateau.rename(size_seed="seed")),
            str(results.attrs.get("cut", "")),
            plotting.command_sentence(results),
        ],
    )
    return figure


CLAIMS = claims.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-2a-1": claims.loss_over("gd"),
        "VO-2b-1": claims.final("model_cosine"),
        "VO-2b-1-norm": claims.final("norm_ratio"),
        "VO-2b-2-model": claims.final("model_difference"),
        "VO-2b-2": claims.final("prediction_difference"),
        "VO-2c-1": lambda results: results.size_loss / results.size_gd_loss,
        "VO-2c-2": lambda results: results.interpolated_loss / results.gd_loss,
        "VO-2d-1": claims.shift("scaled", "gd", low=0.5, high=1.25),
        "VO-2d-1-far": claims.shift("scaled", "gd", low=0.5, high=2.0),
        "VO-P1-7": lambda results: results.learned_step / results.exact_step,
    },
)
