"""One to four layers that update labels only take preconditioned steps, and more than those.

The experiment of Ahn et al. (2023) on depth: inputs x ~ N(0, Sigma) and weights w ~ N(0, Sigma^-1),
where plain gradient descent is slow and descent preconditioned by Sigma^-1 is that on isotropic
inputs. The published losses are logarithms of the mean squared error. They fit Sigma = D^2 with
D = diag(1, 1, 1/2, 1/4, 1), by which inputs are multiplied in the released code, one step size for all
steps, and 20 points. The released baselines drop the last of the points.

Expected: logarithms .811, .498, .331 and .195 of K plain steps, .143, -.695, -1.315 and -1.812 of
preconditioned ones, and -1.018, -2.013 and -2.901 of those with a step size each; trained layers
are at the latter or below, apart from seeds on a plateau, three of five with three layers.
Alias: ahn
Cost: eight minutes on one core; quick: a minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.algorithms.gradient_descent import GradientDescent, leja_order
from toyicl.algorithms.iterative import PreconditionedGradientDescent
from toyicl.algorithms.label_descent import LabelDescent
from toyicl.analysis import metrics
from toyicl.analysis.weights import implied_step, label_steps
from toyicl.core.config import require, require_increasing, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.core.episode import Episode, Learner
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture, Transformer
from toyicl.plots import figures, panels
from toyicl.studies.alignment import Study
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import Optimum
from toyicl.theory.correlated_inputs import input_covariance
from toyicl.training import recipes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training

SCALES = (1.0, 1.0, 0.5, 0.25, 1.0)
"""D, by which independent normal inputs are multiplied."""
PUBLISHED = {
    "gd": (0.833, 0.498, 0.341, 0.180),
    "pgd": (0.164, -0.699, -1.300, -1.827),
}
"""Logarithms of mean squared errors that Ahn et al. (2023) publish for 1, ..., 4 steps."""
LABELS = "pgd, labels in scores"
"""Preconditioned steps whose scores contain labels, `LabelDescent` in isotropic coordinates."""
LINES = {
    "gd": ("GD, one step size", figures.MODEL, ":"),
    "gd per step": ("GD", figures.MODEL, "-"),
    "pgd": ("preconditioned, one step size", figures.REFERENCE, ":"),
    "pgd per step": ("preconditioned", figures.REFERENCE, "--"),
    LABELS: ("labels in scores, local optimum", figures.THIRD, "-."),
}
"""Label, colour and line style of each reference."""


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the depths; `model` is that of all depths."""

    task: LinearRegression = LinearRegression(
        dim=5,
        context_size=20,
        input_distribution="normal",
        covariance=tuple(scale**2 for scale in SCALES),
        weight_covariance=tuple(scale**-2 for scale in SCALES),
    )
    model: Architecture = Architecture(update_inputs=False, init_scale=0.2)
    training: Training = replace(recipes.FALLING, steps=24_000, learning_rate=2e-3, batch_size=256)
    depths: tuple[int, ...] = (1, 2, 3, 4)
    """Numbers of layers, and of steps."""
    evaluation_episodes: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_increasing("depths", self.depths)
        for depth in self.depths:
            require_size("depths", depth)
        more = self.task.context_size > 1
        require(more, "task.context_size", "at least 2, as one is dropped", self.task.context_size)

    def isotropic(self, dropped: int = 0) -> LinearRegression:
        """The task in the coordinates in which inputs are isotropic, with fewer points."""
        size = self.task.context_size - dropped
        return replace(self.task, covariance=None, weight_covariance=None, context_size=size)


FULL = Settings()
QUICK = replace(
    FULL,
    training=replace(FULL.training, steps=1500, batch_size=128),
    depths=(1, 2),
    evaluation_episodes=2000,
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each number of layers."""
    return {
        _name(depth): Job(replace(settings.model, depth=depth), settings.task, settings.training)
        for depth in settings.depths
    }


def _name(depth: int) -> str:
    return f"{depth} layer{'s' if depth > 1 else ''}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Losses of layers and of plain and preconditioned steps, and the matrices of the layers."""
    parts = {
        depth: _compared(settings, histories[_name(depth)], depth) for depth in settings.depths
    }
    return side_by_side(parts, "layers")


def optima(settings: Settings, depth: int, dropped: int = 0) -> dict[str, Optimum]:
    """The best K steps: plain and preconditioned, with one step size, and with one for each step.

    Preconditioned by Sigma^-1, steps on the task are plain steps on isotropic inputs.
    """
    task = replace(settings.task, context_size=settings.task.context_size - dropped)
    isotropic = settings.isotropic(dropped)
    return {
        "gd": theory.correlated_gd(task, depth),
        "gd per step": theory.correlated_gd(task, depth, per_step=True),
        "pgd": theory.gd_shared(isotropic, depth),
        "pgd per step": theory.gd_per_step(isotropic, depth),
    }


def _learner(settings: Settings, name: str, best: Optimum) -> Learner:
    """The learner that takes the steps of an optimum."""
    rates = np.broadcast_to(leja_order(best.learning_rates), (best.steps,))
    if name.startswith("gd"):
        return GradientDescent(jnp.asarray(rates), best.steps)
    inverse = np.linalg.inv(input_covariance(settings.task))
    return PreconditionedGradientDescent(rates[:, None, None] * inverse, best.steps)


def _whitened(settings: Settings, learner: Learner) -> Learner:
    """A learner that receives inputs multiplied by a square root of Sigma^-1."""
    root = np.linalg.cholesky(input_covariance(settings.task))
    return jax.tree_util.Partial(_in_other_coordinates, learner, jnp.asarray(np.linalg.inv(root)))


def _in_other_coordinates(
    learner: Learner, inverse: jax.Array, x: jax.Array, y: jax.Array, x_query: jax.Array
) -> jax.Array:
    return learner(x @ inverse.T, y, inverse @ x_query)


def references(settings: Settings, depth: int) -> dict[str, Learner]:
    """The best steps, and a local optimum of preconditioned ones whose scores contain labels."""
    known = {name: _learner(settings, name, best) for name, best in optima(settings, depth).items()}
    return known | {LABELS: _whitened(settings, LabelDescent.best(settings.isotropic(), depth))}


def _compared(settings: Settings, history: History, depth: int) -> xr.Dataset:
    models, episodes, dim = history.final, settings.episodes(), settings.task.dim
    known, fewer = (optima(settings, depth, dropped) for dropped in (0, 1))
    losses = np.asarray(metrics.losses(models, episodes))
    learners = references(settings, depth)
    found = [float(metrics.loss(one, episodes)) for one in learners.values()]
    one_less = optima(settings, depth - 1)["pgd per step"].loss if depth > 1 else dim / 2
    steps, weights = _read(settings, models)
    parts = {"loss_as_steps": weights, "loss_without_labels": 0 * weights}
    published = [
        PUBLISHED.get(name, (np.nan,) * 4)[depth - 1 : depth] or (np.nan,) for name in known
    ]
    return dataset(
        {
            "seed": history.seeds,
            "reference": list(learners),
            "loss": ("seed", losses),
            "on_plateau": ("seed", losses > (one_less + known["pgd per step"].loss) / 2),
            "reference_loss": ("reference", found),
            "exact_loss": ("reference", _padded([best.loss for best in known.values()])),
            "exact_loss_dropped": ("reference", _padded([best.loss for best in fewer.values()])),
            "published": ("reference", _padded(list(np.ravel(published)))),
            "matrix_distance": ("seed", _distances(settings, models)),
        },
        {
            name: ("seed", [_loss(settings, episodes, *one) for one in zip(steps, c, strict=True)])
            for name, c in parts.items()
        },
    )


def _read(settings: Settings, models: Transformer) -> tuple[np.ndarray, np.ndarray]:
    """Steps h and label weights c of the models' layers, each (seed, depth).

    Step matrices are projected on Sigma^-1, and h is the coefficient. The mean diagonal of a multiple
    of Sigma^-1, which `label_steps` reads, is h times that of Sigma^-1.
    """
    inverse = np.linalg.inv(input_covariance(settings.task))
    read = jax.vmap(partial(label_steps, dim=settings.task.dim))(models)
    means, weights = (np.asarray(one, float) for one in read)
    matrices = _step_matrices(settings, models)
    steps = np.einsum("slab,ab->sl", matrices, inverse) / np.sum(inverse**2)
    return steps, weights * means / steps


def _loss(settings: Settings, episodes: Episode, steps: np.ndarray, weights: np.ndarray) -> float:
    """Loss of preconditioned steps with label weights."""
    learner = LabelDescent(jnp.asarray(steps), jnp.asarray(weights), len(steps))
    return float(metrics.loss(_whitened(settings, learner), episodes))


def _step_matrices(settings: Settings, models: Transformer) -> np.ndarray:
    """Step matrices of all layers, (seed, depth, d, d)."""
    layers = [
        jax.vmap(partial(implied_step, dim=settings.task.dim, layer=layer))(models)
        for layer in range(models.depth)
    ]
    return np.stack([np.asarray(one, float) for one in layers], axis=1)


def _padded(values: Sequence[float]) -> np.ndarray:
    """Values of the exact optima, and NaN for label descent, which has none."""
    return np.array([*values, np.nan])


def _distances(settings: Settings, models: Transformer) -> np.ndarray:
    """Largest relative distance of a layer's step matrix from a multiple of Sigma^-1, (seed,)."""
    inverse = np.linalg.inv(input_covariance(settings.task))
    steps, matrices = _read(settings, models)[0], _step_matrices(settings, models)
    rest = matrices - steps[:, :, None, None] * inverse
    return (_norms(rest) / _norms(matrices)).max(axis=1)


def _norms(matrices: np.ndarray) -> np.ndarray:
    """Frobenius norms of matrices (..., d, d)."""
    return np.sqrt(np.sum(matrices**2, axis=(-2, -1)))


def draw(results: xr.Dataset) -> Figure:
    """Logarithms of losses over the depth, and how far the layers are from preconditioned steps."""
    drawn = {
        "losses": _losses,
        "losses over preconditioned steps": _ratios,
        "step matrices of the layers": _matrices,
    }
    sentence = (
        "One to four linear layers that update labels only, on inputs of covariance Sigma and weights "
        "of covariance 1/Sigma. Dots: each seed, hollow where it is on a plateau, the loss of one step "
        "less; lines: the best steps; crosses: losses that Ahn et al. (2023) publish."
    )
    return panels.figure(results, drawn, sentence, columns=3, size=(4.2, 3.4))


def _losses(axes: Axes, results: xr.Dataset) -> None:
    for name, (label, color, line) in LINES.items():
        chosen = results.sel(reference=name)
        losses = chosen.reference_loss if name == LABELS else chosen.exact_loss
        axes.plot(results.layers, np.log(2 * losses), line, color=color, label=label)
        axes.plot(results.layers, chosen.published, "x", color=color)
    _seeds(axes, results, np.log(2 * results.loss))
    axes.set(xlabel="layers or steps, K", ylabel="log of the mean squared error")
    axes.set_xticks(results.layers.values)
    axes.legend(fontsize="small")


def _ratios(axes: Axes, results: xr.Dataset) -> None:
    best = results.reference_loss.sel(reference="pgd per step")
    _seeds(axes, results, results.loss / best)
    for name in ("pgd per step", LABELS):
        label, color, line = LINES[name]
        ratio = results.reference_loss.sel(reference=name) / best
        axes.plot(results.layers, ratio, line, color=color, label=label)
    axes.set(xlabel="layers or steps, K", ylabel="loss over that of the steps", ylim=(0, None))
    axes.set_xticks(results.layers.values)
    axes.legend(fontsize="small")


def _matrices(axes: Axes, results: xr.Dataset) -> None:
    _seeds(axes, results, results.matrix_distance)
    axes.set(
        xlabel="layers, K", ylabel=r"distance from a multiple of $\Sigma^{-1}$", ylim=(0, None)
    )
    axes.set_xticks(results.layers.values)


def _seeds(axes: Axes, results: xr.Dataset, values: xr.DataArray) -> None:
    """The values of all seeds at each depth."""
    for depth in results.layers.values:
        stuck = results.on_plateau.sel(layers=depth)
        figures.seeds_at(axes, depth, values.sel(layers=depth), stuck, color="black")


def _over(reference: str) -> Value:
    """Loss divided by that of a reference."""
    return lambda results: results.loss / results.reference_loss.sel(reference=reference, drop=True)


def _squared_error(reference: str) -> Value:
    """Exact mean squared error of a reference, twice its loss."""
    return lambda results: 2 * results.exact_loss.sel(reference=reference, drop=True)


def _over_as_steps(results: xr.Dataset) -> xr.DataArray:
    """Loss of preconditioned steps with the numbers in the weights, over that of the layers."""
    return results.loss_as_steps / results.loss


def _without_labels(results: xr.Dataset) -> xr.DataArray:
    """Loss of the same steps without labels in their scores, over that of the layers."""
    return results.loss_without_labels / results.loss


def _labels_gain(results: xr.Dataset) -> xr.DataArray:
    """Loss of preconditioned steps whose scores contain labels, over that of those without."""
    losses = (results.reference_loss.sel(reference=name) for name in (LABELS, "pgd per step"))
    with_labels, without = (one.drop_vars("reference") for one in losses)
    return with_labels / without


def _normalisation(results: xr.Dataset) -> xr.DataArray:
    """Largest difference of the exact and the published natural logarithms."""
    published = results.published.dropna("reference")
    exact = np.log(2 * results.exact_loss.sel(reference=published.reference))
    return abs(exact - published).max()


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        **{
            f"AHN-{name}-{depth}": _squared_error(name)
            for name, values in PUBLISHED.items()
            for depth in range(1, len(values) + 1)
        },
        "AHN-one": _over("pgd"),
        "PRE-normalisation": _normalisation,
        **{f"PRE-layers-{depth}": _over("pgd per step") for depth in (2, 3, 4)},
        **{f"PRE-steps-{depth}": _over_as_steps for depth in (2, 3, 4)},
        **{f"PRE-scores-{depth}": _without_labels for depth in (2, 3, 4)},
        "PRE-labels": _labels_gain,
        "PRE-matrix": lambda results: results.matrix_distance,
    },
)
