"""On sines, a transformer with an MLP predicts like one step of GD on meta-learned features.

Figure 4 of von Oswald et al. (2022): tokens are embedded, and pass an MLP and one linear attention
layer. The reference is the same embedding and MLP, meta-learned so that one step of gradient
descent on its features has a low loss.

Expected: losses of a few thousandths for both; similar predictions and derivatives, but not equal
ones.
Alias: fig4
Cost: 50 minutes; quick: a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.core.config import named_in_errors
from toyicl.core.datasets import dataset, seed_coordinate
from toyicl.core.episode import Episode, Learner
from toyicl.harness import catalogue, claim_values
from toyicl.models.feature_descent import MetaLearner
from toyicl.models.transformer import Architecture
from toyicl.plots import panels, reference_panels
from toyicl.tasks.linear import require_episodes
from toyicl.tasks.sine import SineRegression
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Build, Training


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of regression on sines."""

    task: SineRegression = SineRegression()
    """The task; `task.draws` selects the variant of the released code."""
    model: Architecture = Architecture(embedding_size=40, embedding_mlp_size=160)
    """The transformer."""
    training: Training = Training(steps=20_000, snapshot_every=500, clip_norm=100.0)
    """Its training."""
    reference: MetaLearner = MetaLearner()
    """The meta-learned features with one step of gradient descent."""
    reference_training: Training = Training(
        steps=20_000, snapshot_every=500, clip_norm=100.0, learning_rate=3e-4
    )
    """Its training."""
    evaluation_episodes: int = 2048
    """Number of held-out episodes, the same for both."""
    curve_points: int = 100
    """Number of queries at which the learned functions of one episode are drawn."""

    def __post_init__(self) -> None:
        require_episodes("evaluation_episodes", self.evaluation_episodes, self.task)
        require_episodes("curve_points", self.curve_points, self.task)


FULL = Settings()
QUICK = Settings(
    training=Training(steps=3000, batch_size=256, snapshot_every=200, clip_norm=100.0),
    reference_training=Training(steps=3000, batch_size=256, snapshot_every=200, clip_norm=100.0),
)
LEARNERS = ("transformer", "meta-learned step")
MOMENTS = ("before", "after")
"""Before and after the attention layer, or the step of gradient descent."""


def trainings(settings: Settings) -> dict[str, Job]:
    """Transformer and reference, and one seed of each on the episodes of the released code."""
    released = replace(settings.task, draws="single_key")
    builds: dict[str, tuple[Build, Training]] = {
        "transformer": (settings.model, settings.training),
        "meta-learned step": (settings.reference, settings.reference_training),
    }
    return {name: Job(build, settings.task, own) for name, (build, own) in builds.items()} | {
        f"{name}, one key": Job(build, released, own, max_seeds=1)
        for name, (build, own) in builds.items()
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the transformer with the reference after the same number of training steps."""
    task, history, meta = settings.task, histories["transformer"], histories["meta-learned step"]
    released = replace(task, draws="single_key")
    key_losses = [
        metrics.losses(
            histories[f"{name}, one key"].final,
            released.sample(jax.random.key(2022), settings.evaluation_episodes),
        )
        for name in LEARNERS
    ]
    episodes = task.sample(jax.random.key(2022), settings.evaluation_episodes)
    compared = _along(history, meta, episodes)
    queries = jnp.linspace(-task.input_range / 2, task.input_range / 2, settings.curve_points)
    model, reference = (jax.tree.map(lambda leaf: leaf[0], one.final) for one in (history, meta))
    x, y, _, _ = jax.tree.map(lambda leaf: leaf[..., 0], episodes)
    curves = [
        [
            _curve(lambda q: -model.arrange(x, y, q)[1][-1:], queries),
            _curve(lambda q: model(x, y, q), queries),
        ],
        [
            _curve(lambda q: reference.before(x, y, q), queries),
            _curve(lambda q: reference(x, y, q), queries),
        ],
    ]
    return dataset(
        {"seed": history.seeds, "step": history.steps, "query": queries},
        {name: (("seed", "step"), values) for name, values in compared.items()},
        {"curve": (("learner", "moment", "query"), np.array(curves))},
        {"context_x": ("point", x[:, 0]), "context_y": ("point", y[:, 0])},
        {"label_deviation": jnp.std(episodes.y_query)},
        {"key_loss": ("key_seed", key_losses[0])},
        {"key_reference_loss": ("key_seed", key_losses[1])},
        seed_coordinate(histories["transformer, one key"].seeds, "key_seed"),
    ).assign_coords(learner=list(LEARNERS), moment=list(MOMENTS))


def _along(history: History, meta: History, episodes: Episode) -> dict[str, np.ndarray]:
    """Losses of both, and their comparison, at every common snapshot, (seed, snapshot)."""
    shared = min(len(history.steps), len(meta.steps))
    both = tuple(
        jax.tree.map(lambda leaf: leaf[:, :shared], one.learners) for one in (history, meta)
    )
    found = metrics.over_snapshots(_compare_pair, both, episodes)
    compared, reference_loss, gap, signs = found
    return {
        **compared._asdict(),
        "reference_loss": reference_loss,
        "rms_difference": gap,
        "equal_signs": signs,
    }


def _compare_pair(
    pair: tuple[Learner, Learner], episodes: Episode
) -> tuple[metrics.Comparison, jax.Array, jax.Array, jax.Array]:
    """Comparison, reference loss, RMS difference of predictions, fraction of equal derivative signs."""
    own, other = (metrics.observe(learner, episodes) for learner in pair)
    gap = jnp.sqrt(jnp.mean((own.predictions - other.predictions) ** 2))
    signs = jnp.mean(jnp.sign(own.sensitivities) == jnp.sign(other.sensitivities))
    losses = [
        metrics.observed_loss(observation, learner, episodes)
        for observation, learner in zip((own, other), pair, strict=True)
    ]
    return metrics.difference(own, other, losses[0]), losses[1], gap, signs


def _curve(function: Callable[[jax.Array], jax.Array], queries: jax.Array) -> jax.Array:
    return jax.vmap(function)(queries[:, None])[:, 0]


def draw(results: xr.Dataset) -> Figure:
    """The functions of one episode, the losses, and the comparison."""

    def functions(axes: Axes, results: xr.Dataset) -> None:
        looks = zip(LEARNERS, panels.LOOKS, strict=False)
        for learner, (color, style) in looks:
            before, after = (results.curve.sel(learner=learner, moment=m) for m in MOMENTS)
            axes.plot(results["query"], before, ":", color=color, label=f"{learner}, before")
            axes.plot(results["query"], after, style, color=color, label=f"{learner}, after")
        axes.plot(results.context_x, results.context_y, "k.", label="context")
        low, high = axes.get_ylim()
        axes.set(xlabel="x", ylabel="y", ylim=(low, high + 0.45 * (high - low)))  # for the legend
        axes.legend(fontsize=6, loc="upper center", ncols=2)

    losses = dict(zip(("loss", "reference_loss"), LEARNERS, strict=True))
    drawn = {
        "one episode": functions,
        "loss during training": panels.curves(losses, ylabel="loss", yscale="log"),
        "transformer and meta-learned step": reference_panels.alignment_panel(),
    }
    return panels.figure(
        results,
        drawn,
        "Regression on sines; each seed is compared with the reference of the same seed.",
        columns=3,
    )


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-4-1": lambda results: claim_values.last(results.loss / results.reference_loss),
        "VO-4-1-key": lambda results: results.key_loss / results.key_reference_loss,
        "VO-4-1-loss": lambda results: claim_values.last(
            np.fmax(results.loss, results.reference_loss)
        ),
        "VO-4-2": lambda results: (
            claim_values.last(results.rms_difference) / results.label_deviation
        ),
        "VO-4-2-predictions": claim_values.final("prediction_difference"),
        "VO-4-3": claim_values.final("equal_signs"),
    },
)
