"""One layer trained for a few steps, for the tests of running experiments.

Cost: seconds.
"""

from dataclasses import dataclass, replace

import jax
import xarray as xr
from jax.flatten_util import ravel_pytree

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.harness.claims import Finding
from toyicl.models.transformer import Architecture
from toyicl.plots import figures
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Job
from toyicl.training.step import Training


@dataclass(frozen=True)
class Settings:
    """A task, a model, a training."""

    task: LinearRegression = LinearRegression(dim=3, context_size=4)
    model: Architecture = Architecture()
    training: Training = Training(steps=200, batch_size=32, snapshot_every=20)
    second: bool = False
    """Whether there is a second training."""
    evaluation_episodes: int = 100
    """Episodes that are measured on; no training depends on them."""


FULL = Settings()
QUICK = Settings(training=Training(steps=40, batch_size=32, snapshot_every=20))


def trainings(settings):
    jobs = {"first": Job(settings.model, settings.task, settings.training)}
    if settings.second:
        longer = replace(settings.training, steps=2 * settings.training.steps)
        jobs["second"] = Job(settings.model, settings.task, longer, max_seeds=1)
    return jobs


def measure(settings, histories):
    history = histories["first"]
    episodes = settings.task.sample(jax.random.key(1), settings.evaluation_episodes)
    descent = GradientDescent.shared(settings.task)
    compared = metrics.over_snapshots(metrics.compare, history.learners, descent, episodes)
    parameters = jax.vmap(lambda model: ravel_pytree(model)[0])(history.final)
    return xr.Dataset(
        {
            **{name: (("seed", "step"), value) for name, value in compared._asdict().items()},
            "parameters": (("seed", "parameter"), parameters),
        },
        coords={"seed": history.seeds, "step": history.steps},
    )


def draw(results):
    figure = figures.panels(1, 1)
    figures.every_seed(figure.axes[0], results.loss, "step", label="loss", color="k")
    return figure


CLAIMS = (
    Finding(
        id="S-1",
        source="tests",
        statement="the loss falls",
        value=lambda results: results.loss[:, -1] / results.loss[:, 0],
        band=(0.0, 1.0),
    ),
)
