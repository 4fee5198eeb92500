"""Trained weights and losses that the teaching page shows.

Trains what `toyicl demo` draws, and keeps the circuits W_K^T W_Q and P W_V: of one linear layer
during training (with the settings of Figure 2; most often while the loss changes most), of two layers
with the same weights after training, and of layers between linear and softmax attention, with one
head and with two, on one input and on as many as the task has.

Expected: loss .2062 for one layer, .1105 for two; with softmax attention .2912 (one head) and .2153
(two).
Cost: some minutes on two cores; quick: half a minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from toyicl import theory
from toyicl.analysis import metrics
from toyicl.core.config import require, require_different, require_fraction, require_size
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue, claim_values
from toyicl.models.construction import require_one_linear_layer
from toyicl.models.transformer import Architecture, Transformer
from toyicl.plots import figures, panels, reference_panels
from toyicl.studies import mixed_attention
from toyicl.studies.alignment import Study, alignment, best_references, where_losses_change
from toyicl.studies.saddles import stays_near
from toyicl.studies.weights import circuits, learned_steps
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the page's trainings; `model` and `training` are those of the one linear layer."""

    training: Training = Training(snapshot_every=20)
    """Figure 2's training; `snapshots` of its snapshots are kept."""
    snapshots: int = 60
    """Largest number of snapshots of the one linear layer whose weights are kept."""
    two_layer_training: Training = Training(batch_size=512, snapshot_every=1000)
    """Training of two layers with the same weights: Figure 3's, with a quarter of the batch."""
    mixed_training: Training = Training(
        steps=4000, batch_size=256, snapshot_every=1000, learning_rate=3e-3
    )
    """Training at every fraction of softmax attention, with one head and with two."""
    softmax_fractions: tuple[float, ...] = (
        *(0.0, 0.2, 0.4, 0.6, 0.8, 0.9),
        *(0.92, 0.94, 0.96, 0.98, 0.99, 1.0),
    )
    """Fractions of softmax attention; most are near 1, where the trained layers change most."""
    mixed_max_seeds: int = 5
    """Largest number of seeds at each fraction."""
    depth: int = 5
    """Largest number of steps of gradient descent and GD++ whose best parameters are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_linear_layer(self.model)
        require(self.task.outputs == 1, "task.outputs", "1 in this experiment", self.task.outputs)
        require_different("softmax_fractions", self.softmax_fractions)
        for fraction in self.softmax_fractions:
            require_fraction("softmax_fractions", fraction)
        require_size("mixed_max_seeds", self.mixed_max_seeds)
        require_size("snapshots", self.snapshots, least=2)
        require_size("depth", self.depth, least=2)

    def tasks(self) -> dict[str, LinearRegression]:
        """The tasks of layers between linear and softmax attention, by name."""
        return {ONE_INPUT: replace(self.task, dim=1, covariance=None), ALL_INPUTS: self.task}


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=256, snapshot_every=50, learning_rate=3e-3),
    two_layer_training=Training(
        steps=2500, batch_size=256, snapshot_every=500, learning_rate=2e-3, clip_norm=10.0
    ),
    mixed_training=Training(steps=1500, batch_size=128, snapshot_every=500, learning_rate=1e-2),
    softmax_fractions=(0.0, 0.25, 0.5, 0.75, 1.0),
    mixed_max_seeds=1,
    evaluation_episodes=2000,
)
ONE_INPUT, ALL_INPUTS = "one input", "all inputs"
TWO_LAYERS = Architecture(depth=2, shared=True)
KEPT_OF_TWO_LAYERS = ("loss", "model_cosine", "norm_ratio", "learned_curvature", "on_plateau")
NEAR = 0.015
"""Largest distance of a loss on the plateau from that of the saddle point, relative to the latter."""
PLATEAU_STEPS = 100
"""Steps for which a loss that near has to stay there; a loss that only passes by takes fewer."""


def trainings(settings: Settings) -> dict[str, Job]:
    """One layer, two layers, and the layers between linear and softmax attention."""
    two = Job(TWO_LAYERS, settings.task, settings.two_layer_training)
    mixed = mixed_attention.trainings(
        settings.tasks(),
        settings.softmax_fractions,
        settings.mixed_training,
        max_seeds=settings.mixed_max_seeds,
    )
    return settings.trainings() | {"two layers": two} | mixed


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the layers with gradient descent and GD++, and keep their circuits."""
    losses = metrics.over_snapshots(metrics.loss, histories["model"].learners, settings.episodes())
    history = where_losses_change(histories["model"], largest_changes(losses), settings.snapshots)
    one = dataset(
        alignment(settings, history, best_references(settings.task, 1)),
        learned_steps(settings, history.final),
        {"closed_form_loss": ("seed", _closed_form_losses(settings.task, history.final))},
        circuits(history.learners, ("seed", "step")),
    )
    parts = [
        one.isel(head=0),
        _two_layers(settings, histories["two layers"]).isel(head=0),
        _exact(settings),
        mixed_attention.measure(
            settings.tasks(),
            settings.softmax_fractions,
            histories,
            settings.evaluation_episodes,
        ),
    ]
    return xr.merge(parts, join="outer", combine_attrs="drop_conflicts")


def largest_changes(losses: ArrayLike) -> np.ndarray:
    """The accumulated largest change of the losses (seed, snapshot) of any seed, (1, snapshot).

    In place of the losses, it keeps as many snapshots of one seed whose loss falls late as of several
    seeds whose losses fall at the same time. Changes that are not finite count as 0.
    """
    changes = abs(np.diff(np.asarray(losses), axis=1))
    largest = np.where(np.isfinite(changes), changes, 0.0).max(axis=0)
    return np.concatenate([[0.0], np.cumsum(largest)])[None]


def _closed_form_losses(task: LinearRegression, models: Transformer) -> list[float]:
    """The exact loss of each layer, computed from its circuits."""
    attention = models.blocks[0].attention
    pairs = zip(attention.key_query[:, 0], attention.value_output[:, 0], strict=True)
    return [theory.single_head_loss(task, *pair) for pair in pairs]


def _two_layers(settings: Settings, history: History) -> xr.Dataset:
    """Two layers with the same weights after training, compared with GD++."""
    references = best_references(settings.task, TWO_LAYERS.depth)
    aligned = dataset(
        alignment(settings, history, references), learned_steps(settings, history.final)
    )
    kept = aligned.isel(step=-1, drop=True).sel(reference=["gdpp"])[[*KEPT_OF_TWO_LAYERS]]
    kept = kept.assign(dataset(circuits(history.final)))
    return kept.rename({name: f"two_layers_{name}" for name in kept.data_vars})


def _exact(settings: Settings) -> xr.Dataset:
    """The best parameters of gradient descent and GD++ by number of steps, and their exact losses."""
    depths, task = range(1, settings.depth + 1), settings.task
    gd = [theory.gd_shared(task, depth) for depth in depths]
    gdpp = [theory.gdpp_shared(task, depth) for depth in depths]
    rates = [[best.learning_rates[0] for best in each] for each in (gd, gdpp)]
    curvatures = [[0.0 for _ in gd], [best.curvatures[0] for best in gdpp]]
    dims = ("reference", "depth")
    variables = {
        "exact_loss": (dims, [[best.loss for best in each] for each in (gd, gdpp)]),
        "exact_rate": (dims, rates),
        "exact_curvature": (dims, curvatures),
        "exact_rate_of_one_input": theory.gd_shared(settings.tasks()[ONE_INPUT], 1).learning_rates[
            0
        ],
        "zero_loss": theory.predict_zero_loss(task),
    }
    return xr.Dataset(variables, coords={"reference": ["gd", "gdpp"], "depth": list(depths)})


def draw(results: xr.Dataset) -> Figure:
    """The layer during training, and losses between linear and softmax attention."""

    def training(canvas: Axes, results: xr.Dataset) -> None:
        reference_panels.training_panel(canvas, results)
        exact = float(results.exact_loss.sel(reference="gd", depth=1))
        figures.floor_line(canvas, exact, f"exact: {exact:.4f}")
        canvas.legend()

    def mixed(task: str) -> panels.Panel:
        def draw(canvas: Axes, results: xr.Dataset) -> None:
            trained = results.sel(task=task, stage="trained")
            looks = zip(mixed_attention.HEADS, ("o-", "^--"), panels.LOOKS, strict=False)
            for heads, style, (color, _) in looks:
                values = trained.mixed_loss.sel(heads=heads).rename(mixed_seed="seed")
                label = f"heads: {heads}"
                figures.every_seed(
                    canvas, values, "softmax_fraction", label=label, color=color, style=style
                )
            step = trained.mixed_reference_loss.sel(heads=1).isel(softmax_fraction=0)
            figures.floor_line(canvas, float(step), "one step of GD")
            canvas.set(xlabel="fraction of softmax attention", ylabel="loss")
            canvas.legend()

        return draw

    inputs = results.sizes["row"] - 1
    drawn: Mapping[str, panels.Panel] = {
        "loss during training": training,
        "alignment with one step of GD": reference_panels.alignment_panel("gd"),
        f"linear to softmax attention, {inputs} inputs": mixed(ALL_INPUTS),
        "linear to softmax attention, one input": mixed(ONE_INPUT),
    }
    sentence = "Results of the teaching page. (a), (b): one linear layer."
    return panels.figure(results, drawn, sentence)


def _between(results: xr.Dataset) -> xr.DataArray:
    """Position of the loss of two layers between GD++, 0, and gradient descent, 1."""
    gd, gdpp = (results.exact_loss.sel(reference=name, depth=2) for name in ("gd", "gdpp"))
    return (results.two_layers_loss - gdpp) / (gd - gdpp)


def _over_descent(results: xr.Dataset) -> xr.DataArray:
    return results.mixed_loss.sel(stage="trained") / results.mixed_reference_loss


def _on_plateau(results: xr.Dataset) -> xr.DataArray:
    """Whether a seed's loss stays for some time near that of the first saddle point, (seed, step).

    The first saddle point is the one next to predicting 0, `theory.saddle_losses`.
    """
    level = float(results.saddle_loss.sel(saddle=1))
    return stays_near(results.loss, level, distance=NEAR, steps=PLATEAU_STEPS)


def _roles(results: xr.Dataset) -> xr.DataArray:
    """Smallest absolute cosine, on the plateau, of the label rows of W_K^T W_Q and P W_V."""
    keys, values = (
        results[name].isel(row=-1, column=slice(-1)) for name in ("key_query", "value_output")
    )
    norms = (keys**2).sum("column") * (values**2).sum("column")
    cosine = abs((keys * values).sum("column")) / norms**0.5
    return cosine.where(_on_plateau(results)).min()


def _input_keys(results: xr.Dataset) -> xr.DataArray:
    """Part of the step matrix with inputs as keys and labels as values, relative to the other part.

    The parts are u_y A and u_x a^T of `analysis.weights.implied_step`; the largest ratio of their norms
    on the plateau.
    """
    columns = results.key_query.isel(column=slice(-1))
    inputs = (columns.isel(row=slice(-1)) ** 2).sum(["row", "column"]) ** 0.5
    label = (columns.isel(row=-1) ** 2).sum("column") ** 0.5
    values = results.value_output.isel(row=-1)
    of_labels = abs(values.isel(column=-1))
    of_inputs = (values.isel(column=slice(-1)) ** 2).sum("column") ** 0.5
    return (of_labels * inputs / (of_inputs * label)).where(_on_plateau(results)).max()


CLAIMS = catalogue.read(
    Path(__file__).parents[1] / "departures" / "claims.toml",
    {
        "PLATEAU-roles": _roles,
        "PLATEAU-keys": _input_keys,
        "PAGE-weights": lambda results: results.closed_form_loss / claim_values.last(results.loss),
        "PAGE-line": _over_descent,
        "PAGE-line-softmax": _over_descent,
        "PAGE-deep": _between,
    },
)
