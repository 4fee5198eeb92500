"""What the teaching page shows: weights while a layer learns, two layers, the softmax dial.

Trains what `toyicl demo` draws and keeps the circuits W_K^T W_Q and P W_V: of one linear layer at even
distances while it learns (Figure 2's settings), of two layers with the same weights at the end, and of
layers between linear and softmax attention, with one head and with two, on one input and on ten.

Expected: .2062 for one layer, .1105 for two; at the softmax end .2912 (one head) and .2153 (two).
Cost: some minutes on two cores; quick: half a minute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.core.config import require, require_different, require_fraction, require_size
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.models.construction import require_one_linear_layer
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels
from toyicl.studies import departure_sweep, departures
from toyicl.studies.alignment import Study, Variables, alignment, best_references, readings, thinned
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of the page's trainings; `model` and `training` are those of the one linear layer."""

    training: Training = Training(snapshot_every=200)
    """Figure 2's training, with a snapshot for each picture of the weights."""
    deep_training: Training = Training(batch_size=512, snapshot_every=1000)
    """Training of two layers with the same weights: Figure 3's, with a quarter of the batch."""
    dial_training: Training = Training(
        steps=4000, batch_size=256, snapshot_every=1000, learning_rate=3e-3
    )
    """Training at every share of softmax, with one head and with two."""
    shares: tuple[float, ...] = departures.SHARES
    """Shares of softmax in what attention reads."""
    dial_max_seeds: int = 2
    """Largest number of seeds at each share."""
    depth: int = 5
    """Most steps of gradient descent and GD++ whose best sizes are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_linear_layer(self.model)
        require(self.task.outputs == 1, "task.outputs", "1 in this experiment", self.task.outputs)
        require_different("shares", self.shares)
        for share in self.shares:
            require_fraction("shares", share)
        require_size("dial_max_seeds", self.dial_max_seeds)
        require_size("depth", self.depth, least=2)


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=256, snapshot_every=50, learning_rate=3e-3),
    deep_training=Training(
        steps=2500, batch_size=256, snapshot_every=500, learning_rate=2e-3, clip_norm=10.0
    ),
    dial_training=Training(steps=1500, batch_size=128, snapshot_every=500, learning_rate=1e-2),
    shares=(0.0, 0.25, 0.5, 0.75, 1.0),
    dial_max_seeds=1,
    evaluation_episodes=2000,
)
HEADS = (1, 2)
RESTED = 1000
"""Steps after which a layer whose loss is still high rests on the plateau."""
SHOWN = ("loss", "model_cosine", "norm_ratio", "on_plateau", "gd_loss")
"""What is kept of each layer along the dial."""
SHOWN_DEEP = ("loss", "model_cosine", "norm_ratio", "learned_curvature", "on_plateau")
"""What is kept of two layers."""
DEEP = Architecture(depth=2, shared=True)


def trainings(settings: Settings) -> dict[str, Job]:
    """One layer, two layers, and the layers along the dials."""
    two = Job(DEEP, settings.task, settings.deep_training)
    dials = {
        _name(task, heads, share): Job(
            Architecture(attention="mixed", softmax_fraction=share, heads=heads),
            task,
            settings.dial_training,
            max_seeds=settings.dial_max_seeds,
        )
        for task in _dial_tasks(settings).values()
        for heads in HEADS
        for share in settings.shares
    }
    return settings.trainings() | {"two layers": two} | dials


def _dial_tasks(settings: Settings) -> dict[str, LinearRegression]:
    """The tasks along the dials: of one input, and of as many as the one linear layer has."""
    return {"line": replace(settings.task, dim=1, covariance=None), "wide": settings.task}


def _name(task: LinearRegression, heads: int, share: float) -> str:
    """Name of the training at a share of softmax."""
    inputs = f"{task.dim} input{'s' if task.dim > 1 else ''}"
    return f"dial, {inputs}, heads: {heads}, share {share}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train, and keep the circuits beside what is measured of them."""
    task = settings.task
    references = best_references(task, 1)
    history = thinned(histories["model"])
    parts = [
        dataset(
            alignment(settings, history, references),
            readings(settings, history.final),
            _circuits(history.learners, ("seed", "step")),
            {"closed_loss": ("seed", _closed_losses(task, history.final))},
        ),
        _deep(settings, histories["two layers"]),
        _references(settings),
    ]
    for name, one in _dial_tasks(settings).items():
        for heads in HEADS:
            along = [histories[_name(one, heads, share)] for share in settings.shares]
            parts.append(_dial(settings, one, along, f"{name}_{heads}"))
    return xr.merge(parts, combine_attrs="drop_conflicts")


def _circuits(models: Any, dims: tuple[str, ...]) -> Variables:
    """Both circuits of the first layer's heads, (dims, head, row, column), in single precision."""
    attention = models.blocks[0].attention
    dims = (*dims, "head", "row", "column")
    circuits = {"key_query": attention.key_query, "value_output": attention.value_output}
    return {name: (dims, np.asarray(matrix, np.float32)) for name, matrix in circuits.items()}


def _closed_losses(task: LinearRegression, models: Any) -> list[float]:
    """What each layer loses over all tasks, from its circuits alone."""
    attention = models.blocks[0].attention
    pairs = zip(attention.key_query[:, 0], attention.value_output[:, 0], strict=True)
    return [theory.single_head_loss(task, *pair) for pair in pairs]


def _deep(settings: Settings, history: History) -> xr.Dataset:
    """Two layers with the same weights, after training."""
    references = best_references(settings.task, DEEP.depth)
    found = (
        dataset(
            alignment(settings, history, references),
            readings(settings, history.final),
        )
        .isel(step=-1, drop=True)
        .sel(reference="gdpp", drop=True)[[*SHOWN_DEEP]]
    )
    kept = found.assign(dataset(_circuits(history.final, ("seed",))))
    return kept.rename({name: f"deep_{name}" for name in kept.data_vars}).rename(head="deep_head")


def _references(settings: Settings) -> xr.Dataset:
    """The best shared steps of gradient descent and GD++, and what they lose exactly."""
    depths, task = range(1, settings.depth + 1), settings.task
    descent = [theory.gd_shared(task, depth) for depth in depths]
    curved = [theory.gdpp_shared(task, depth) for depth in depths]
    line = theory.gd_shared(replace(task, dim=1, covariance=None), 1)
    variables = {
        "descent_loss": ("depth", [best.loss for best in descent]),
        "descent_rate": ("depth", [best.learning_rates[0] for best in descent]),
        "curved_loss": ("depth", [best.loss for best in curved]),
        "curved_rate": ("depth", [best.learning_rates[0] for best in curved]),
        "curved_gamma": ("depth", [best.curvatures[0] for best in curved]),
        "line_rate": line.learning_rates[0],
        "zero_loss": theory.predict_zero_loss(task),
    }
    return xr.Dataset(variables, coords={"depth": list(depths)})


def _dial(
    settings: Settings, task: LinearRegression, histories: Sequence[History], name: str
) -> xr.Dataset:
    """Layers at every share of softmax, beside one step of gradient descent and beside themselves."""
    rows = []
    for history in histories:
        beside = departure_sweep.beside_descent(history, task, 1, settings.evaluation_episodes)
        measured = {variable: beside[variable] for variable in SHOWN}
        rows.append(
            dataset(
                measured, _circuits(history.final, ("seed",)), {"seed": history.seeds}
            ).assign_coords(stage=list(departure_sweep.STAGES))
        )
    joined = side_by_side(dict(zip(settings.shares, rows, strict=True)), "share")
    sizes = {size: f"{name}_{size}" for size in ("head", "row", "column")}
    return joined.rename(
        {str(variable): f"{name}_{variable}" for variable in joined.data_vars}
        | sizes
        | {"seed": "dial_seed"}
    )


def draw(results: xr.Dataset) -> Figure:
    """The layer while it learns, and what the dial costs on ten inputs and on one."""

    def training(canvas: Axes, results: xr.Dataset) -> None:
        panels.training_panel(canvas, results)
        exact = float(results.descent_loss[0])
        figures.floor_line(canvas, exact, f"exact: {exact:.4f}")
        canvas.legend()

    def dial(name: str) -> panels.Panel:
        labels = {f"{name}_{heads}_loss": f"heads: {heads}" for heads in HEADS}
        curves = panels.curves(
            labels, "share", xlabel="share of softmax", ylabel="loss", markers=("o-", "^--")
        )

        def draw(canvas: Axes, results: xr.Dataset) -> None:
            curves(canvas, results.sel(stage="trained"))
            figures.floor_line(canvas, float(results[f"{name}_1_gd_loss"][0]), "one GD step")
            canvas.legend()

        return draw

    drawn: Mapping[str, panels.Panel] = {
        "loss during training": training,
        "alignment with the GD step": panels.alignment_panel("gd"),
        f"the dial, {results.sizes['row'] - 1} inputs": dial("wide"),
        "the dial, one input": dial("line"),
    }
    sentence = "What the teaching page is made of. (c), (d): one layer between linear and softmax."
    return panels.figure(results, drawn, sentence)


def _between(results: xr.Dataset) -> xr.DataArray:
    two = results.sel(depth=2)
    return (two.deep_loss - two.curved_loss) / (two.descent_loss - two.curved_loss)


def _over_descent(results: xr.Dataset) -> xr.DataArray:
    return results.line_1_loss.sel(stage="trained", drop=True) / results.line_1_gd_loss


def _resting(results: xr.Dataset) -> xr.DataArray:
    """Where a seed's loss has been on the plateau for some time: (seed, step)."""
    best, zero = results.descent_loss[0], results.zero_loss
    missing = (results.loss - best) / (zero - best)
    return (missing > departure_sweep.STUCK) & (results.step >= RESTED)


def _roles(results: xr.Dataset) -> xr.DataArray:
    """Cosine of the label's row of W_K^T W_Q and that of P W_V, over inputs, of seeds that rest."""
    keys, values = (results[name][:, :, 0, -1, :-1] for name in ("key_query", "value_output"))
    norms = (keys**2).sum("column") * (values**2).sum("column")
    cosine = abs((keys * values).sum("column")) / norms**0.5
    return cosine.where(_resting(results)).min()


def _input_keys(results: xr.Dataset) -> xr.DataArray:
    """Norm of the inputs' block of W_K^T W_Q over the label's row's: the median snapshot at rest."""
    keys = results.key_query[:, :, 0]
    inputs, label = (
        (block**2).sum([dim for dim in ("row", "column") if dim in block.dims]) ** 0.5
        for block in (keys[..., :-1, :-1], keys[..., -1, :-1])
    )
    return (inputs / label).where(_resting(results)).median()


CLAIMS = catalogue.read(
    Path(__file__).parents[1] / "departures" / "claims.toml",
    {
        "PLATEAU-roles": _roles,
        "PLATEAU-keys": _input_keys,
        "PAGE-weights": lambda results: results.closed_loss / claim_values.last(results.loss),
        "PAGE-line": _over_descent,
        "PAGE-line-softmax": _over_descent,
        "PAGE-deep": _between,
    },
)
