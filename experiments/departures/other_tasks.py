"""A layer that was never trained on regression can still agree with gradient descent.

One linear layer is trained to recall labels, on a mixture of recall and regression, and to predict
the next state of a linear dynamical system; a layer trained on regression is the comparison. Each
layer is compared, before and after training, with the best step of gradient descent on its own
task: by cosine, norm ratio and the variance that the step leaves unexplained. Circuit scores
measure how far the weights are from the construction.

Expected: all layers agree with a step of gradient descent, so the agreement follows from the
architecture and does not show what a layer was trained on.
Alias: untaught
Cost: ten minutes; quick: one.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import xarray as xr
from matplotlib.figure import Figure

from toyicl.analysis.weights import circuit_scores, random_circuit_score
from toyicl.core.config import named_in_errors
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, sweep_panels
from toyicl.studies import departure_sweep
from toyicl.tasks.dynamics import Dynamics
from toyicl.tasks.linear import LinearRegression, Task, require_episodes
from toyicl.tasks.recall import Mixture, Recall
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the four trainings."""

    dim: int = 5
    """Number of inputs, and of outputs, in all tasks."""
    context_size: int = 10
    """Number of context points."""
    training: Training = Training(steps=5000, learning_rate=3e-3)
    """The training on each task."""
    evaluation_episodes: int = 5000
    """Held-out episodes of each task."""

    def __post_init__(self) -> None:
        for task in self.tasks().values():  # sizes that are not allowed are refused here
            require_episodes("evaluation_episodes", self.evaluation_episodes, task)

    def tasks(self) -> dict[str, Task]:
        """The four tasks by name."""
        d, n = self.dim, self.context_size
        regression = LinearRegression(dim=d, outputs=d, context_size=n)
        return {
            "regression": regression,
            "recall": Recall(base=regression),
            "mixture": Mixture(base=regression),
            "dynamics": Dynamics(dim=d, context_size=n),
        }


FULL = Settings()
QUICK = Settings(training=Training(steps=1500, batch_size=256, learning_rate=3e-3))


def trainings(settings: Settings) -> dict[str, Job]:
    """One linear layer on each task."""
    return {
        name: Job(Architecture(), task, settings.training)
        for name, task in settings.tasks().items()
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the layer on each task with the best step on that task."""
    d, episodes = settings.dim, settings.evaluation_episodes
    parts = {}
    for name, task in settings.tasks().items():
        history = histories[name]
        scores = jax.vmap(partial(circuit_scores, dim=d))(history.final)
        parts[name] = dataset(
            dict(departure_sweep.compare_with_descent(history, task, 1, episodes)),
            {"key_query_score": ("seed", scores.key_query[:, 0])},
            {"value_output_score": ("seed", scores.value_output[:, 0])},
            {"seed": history.seeds},
        )
    joined = side_by_side(parts, "task").assign_coords(stage=list(departure_sweep.STAGES))
    return joined.assign(random_score=random_circuit_score(d))


def draw(results: xr.Dataset) -> Figure:
    """Each measure of every seed, before and after training, and the circuit scores."""
    drawn: dict[str, panels.Panel] = {}
    for name in ("model_cosine", "norm_ratio", "unexplained"):
        stages = {stage: claim_values.at_stage(name, stage) for stage in ("trained", "untrained")}
        # The predictions of untrained models are so small that the step is many times as large.
        scale = "log" if name == "unexplained" else "linear"
        title = sweep_panels.TITLES[name]
        drawn[title] = panels.rows(stages, "task", xscale=scale, xlabel=title)
    scores: dict[str, Value] = {
        "$W_K^T W_Q$": lambda results: results.key_query_score,
        "$P W_V$": lambda results: results.value_output_score,
    }
    levels = {"random weights": float(results.random_score)}
    drawn["distance of the circuits from the identity"] = panels.rows(
        scores, "task", levels=levels, xlabel="circuit score"
    )
    sentence = (
        "One linear layer on each of four tasks, compared with the best step of gradient descent (GD) "
        "on its own task. Unexplained by GD: 1 - R^2."
    )
    return panels.figure(results, drawn, sentence)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        f"OTHER-{task}{end}": claim_values.at_stage(name)
        for task in ("recall", "mixture", "dynamics")
        for end, name in (("", "unexplained"), ("-cosine", "model_cosine"))
    },
)
