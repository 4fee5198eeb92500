"""Attention with momentum, sum_{i<t} eta^(t-i) v_i, models sequences better.

Causal transformers with momentum attention of several decays eta are trained on the same episodes
for the same number of steps; eta = 0 is vanilla attention exactly. As a control, the heads of a
further model add eta times the value of the previous token only: the first term of the momentum,
which is not an average of gradients. Perplexity is that of all labels of held-out prompts.

Expected: slightly lower perplexity with eta = .5, higher with .9; most of the gain, or all of it,
is that of the previous token.
Alias: dai_momentum
Cost: some 2 minutes on two cores.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.core.config import require, require_different, require_not_negative
from toyicl.core.datasets import dataset
from toyicl.finetuning import evaluation
from toyicl.finetuning.evaluation import FinetuningStudy
from toyicl.harness import catalogue, claim_values
from toyicl.harness.evaluation import Value
from toyicl.models.causal import CausalTransformer
from toyicl.plots import figures, panels
from toyicl.tasks.linear import require_episodes
from toyicl.tasks.prompts import Prompt
from toyicl.training.loop import Histories, Job


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the model, its training, and the decays."""

    etas: tuple[float, ...] = (0.0, 0.5, 0.9)
    """Decays of the momentum, including 0."""
    previous: float = 0.5
    """Factor on the value of the previous token, in the control."""
    evaluation_episodes: int = 2000
    """Number of held-out prompts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("etas", self.etas)
        for eta in (*self.etas, self.previous):
            require_not_negative("etas", eta)
        require(0.0 in self.etas, "etas", "such that they include 0, vanilla attention", self.etas)
        require_episodes("evaluation_episodes", self.evaluation_episodes, self.task)


FULL = Settings(max_seeds=2)
QUICK = Settings(training=replace(FULL.training, steps=400), evaluation_episodes=500, max_seeds=2)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each decay, and the control."""
    momentum = {
        f"eta {eta:g}": replace(settings.model, memory="momentum", eta=eta) for eta in settings.etas
    }
    control = replace(settings.model, memory="previous", eta=settings.previous)
    return {
        name: Job(model, settings.task, settings.training, max_seeds=settings.max_seeds)
        for name, model in {**momentum, "previous token": control}.items()
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Measure perplexity and accuracy of all models at every snapshot."""
    names = list(trainings(settings))
    episodes = settings.task.sample(jax.random.key(2022), settings.evaluation_episodes)
    found = [
        metrics.over_snapshots(_evaluate, histories[name].learners, episodes) for name in names
    ]
    vanilla = histories["eta 0"]
    return dataset(
        {
            name: (("attention", "seed", "step"), [part[name] for part in found])
            for name in found[0]
        },
        {"gap": ("seed", evaluation.trained(_gap, vanilla, (episodes,)))},
        {"seed": vanilla.seeds, "step": vanilla.steps},
    ).assign_coords(attention=names)


def _evaluate(model: CausalTransformer, episodes: Prompt) -> dict[str, jax.Array]:
    """Perplexity of all labels, and accuracy without demonstrations and with all of them."""
    answers = jax.vmap(model.answers, in_axes=-1, out_axes=-1)(*episodes[:3])
    labels = jnp.concatenate([episodes.y, episodes.y_query[None]])
    correct = jnp.argmax(answers, axis=1) == jnp.argmax(labels, axis=1)
    costs = -jnp.sum(labels * jax.nn.log_softmax(answers, axis=1), axis=1)
    return {
        "perplexity": jnp.exp(jnp.mean(costs)),
        "zero_shot": jnp.mean(correct[0]),
        "in_context": jnp.mean(correct[-1]),
    }


def _gap(model: CausalTransformer, episodes: Prompt) -> jax.Array:
    """The largest difference of the predictions from vanilla attention with the same weights."""
    vanilla = nnx.clone(model)
    vanilla.memory = None
    both = [jax.vmap(one.answers, -1, -1)(*episodes[:3]) for one in (model, vanilla)]
    return jnp.max(jnp.abs(both[0] - both[1]))


def draw(results: xr.Dataset) -> Figure:
    """Perplexity during training, and final perplexities and accuracies of each model."""

    def training(axes: Axes, results: xr.Dataset) -> None:
        later = results.isel(step=slice(1, None))
        for name, (color, style) in zip(results.attention.values, panels.LOOKS, strict=False):
            values = later.perplexity.sel(attention=name)
            figures.every_seed(axes, values, "step", label=name, color=color, style=style)
        axes.set(xlabel="training step", ylabel="perplexity")
        axes.legend()

    final = {
        name: partial(lambda r, name: r[name].isel(step=-1), name=name)
        for name in ("perplexity", "zero_shot", "in_context")
    }
    accuracies = {"zero-shot": final["zero_shot"], "in context": final["in_context"]}
    drawn = {
        "perplexity during training": training,
        "final perplexity": panels.rows(
            {"all labels": final["perplexity"]}, "attention", xlabel="perplexity"
        ),
        "final accuracy": panels.rows(accuracies, "attention", xlabel="accuracy"),
    }
    sentence = (
        "Momentum attention; eta 0 is vanilla attention. Previous token: only the first term of the "
        "momentum."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _final(name: str, attention: str) -> Value:
    return lambda results: results[name].sel(attention=attention).isel(step=-1)


def _both(name: str, one: str, other: str, join: Any) -> Value:
    return lambda results: join(_final(name, one)(results), _final(name, other)(results))


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "DAI-7-zero": claim_values.largest("gap"),
        "DAI-7": _both("perplexity", "eta 0.5", "eta 0", np.divide),
        "DAI-7-control": _both("perplexity", "eta 0.5", "previous token", np.divide),
        "DAI-7-icl": _both("in_context", "eta 0.5", "eta 0", np.subtract),
    },
)
