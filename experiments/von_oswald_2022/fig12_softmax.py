"""One softmax head is not gradient descent; two heads come close to it.

Figure 12 of von Oswald et al. (2022): one layer of softmax attention with one head (5,000 steps)
and with two heads (10,000), compared with one step of gradient descent. Also the limit of two
subtracted heads with small logits (appendix A.9).

Expected: lowest losses .2912 with one head and .2153 with two; the limit is .2185, not .2062.
Alias: fig12
Cost: four minutes; quick: half a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import xarray as xr
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.core.config import require, require_positive
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.models.construction import subtracted_heads
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.shifts import shifts
from toyicl.tasks.linear import require_episodes
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of softmax attention; `model` and `training` are those of one head."""

    model: Architecture = Architecture(attention="softmax")
    two_head_training: Training = Training(steps=10_000)
    """Training of two heads."""
    small_logit: float = 1e-2
    """Factor on the logits of two subtracted heads."""
    limit_episodes: int = 100_000
    """Number of episodes on which the subtracted heads are evaluated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.model.heads == 1,
            "model.heads",
            "1: two heads are trained as well",
            self.model.heads,
        )
        kind = self.model.attention
        require(kind == "softmax", "model.attention", "softmax in this experiment", kind)
        require_positive("small_logit", self.small_logit)
        require_episodes("limit_episodes", self.limit_episodes, self.task)


BEST_HEAD, BEST_STEP = 0.29122, 0.206229
"""Exact losses of the best softmax head, and of the best step of gradient descent, d = N = 10."""
FULL = Settings()
QUICK = Settings(
    training=Training(steps=3000, batch_size=512, learning_rate=3e-3),
    two_head_training=Training(steps=5000, batch_size=512, learning_rate=3e-3),
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One head, and two."""
    of_heads = {1: settings.training, 2: settings.two_head_training}
    return {
        f"heads: {heads}": Job(replace(settings.model, heads=heads), settings.task, training)
        for heads, training in of_heads.items()
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare one head and two with one step of gradient descent."""
    references = best_references(settings.task, 1)
    parts = {}
    for heads in (1, 2):
        history = histories[f"heads: {heads}"]
        parts[heads] = dataset(
            alignment(settings, history, references),
            shifts(settings, history.final, references),
        )
    return side_by_side(parts, "heads").assign(small_logit_loss=_small_logit_loss(settings))


def _small_logit_loss(settings: Settings) -> float:
    """Loss of two subtracted heads with small logits, times the best factor on the episodes."""
    many = settings.task.sample(jax.random.key(2027), settings.limit_episodes)
    return float(
        metrics.best_multiple_loss(subtracted_heads(settings.small_logit, settings.task.dim), many)
    )


def draw(results: xr.Dataset) -> Figure:
    """A row for each number of heads."""
    drawn = panels.grid({1: "one head", 2: "two heads"}, "heads", reference_panels.COMPARED_WITH_GD)
    return panels.figure(results, drawn, "One layer of softmax attention.", columns=4)


def _over_best(results: xr.Dataset) -> xr.DataArray:
    """Lowest loss relative to the step on the same episodes, divided by the exact value of one head."""
    return (
        claim_values.last(results.loss).min()
        / claim_values.reference_loss(results, "gd")
        / (BEST_HEAD / BEST_STEP)
    )


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-12-1": claim_values.loss_over("gd"),
        "VO-12-1-best": _over_best,
        "VO-12-2": lambda results: claim_values.loss_over("gd")(results) / (BEST_HEAD / BEST_STEP),
        "VO-12-2-gap": claim_values.loss_over("gd"),
        "VO-12-2-level": claim_values.final("loss"),
        "VO-12-3-one": claim_values.final("model_cosine", "gd"),
        "VO-12-3": claim_values.final("model_cosine", "gd"),
        "VO-12-4": lambda results: results.small_logit_loss,
        "VO-12-5": claim_values.log10(claim_values.shift("inputs", "gd", low=0.5, high=2.0)),
    },
)
