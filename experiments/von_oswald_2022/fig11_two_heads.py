"""The circuits of two softmax heads cancel off the diagonal.

Figure 11 of von Oswald et al. (2022): W_K^T W_Q of each head times the label entry of its P W_V,
and the sum over heads, in one layer of softmax attention with two heads.

Expected: the sum is diagonal.
Alias: fig11
Cost: two minutes; quick: half a minute.
"""

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue, claim_values
from toyicl.models.transformer import Architecture
from toyicl.plots import panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training

FULL = Study(model=Architecture(attention="softmax", heads=2), training=Training(steps=10_000))
QUICK = Study(model=FULL.model, training=Training(steps=5000, batch_size=512, learning_rate=3e-3))


def trainings(settings: Study) -> dict[str, Job]:
    """The layer with two heads."""
    require(settings.model.heads == 2, "model.heads", "2 in this experiment", settings.model.heads)
    return settings.trainings()


def measure(settings: Study, histories: Histories) -> xr.Dataset:
    """Compute the circuits of every seed."""
    history = histories["model"]
    attention, d = history.final.blocks[0].attention, settings.task.dim
    written = np.asarray(attention.value_output)[:, :, -1, -1]
    scores = np.asarray(attention.key_query)[:, :, :d, :d]
    return dataset(
        alignment(settings, history, best_references(settings.task, 1)),
        {"circuit": (("seed", "head", "row", "column"), written[..., None, None] * scores)},
    )


def draw(results: xr.Dataset) -> Figure:
    """Both heads of the seed with the lowest loss, and their sum."""
    best = int(claim_values.last(results.loss).values.argmin())
    circuit = results.circuit.isel(seed=best)
    names = ("head 1", "head 2", "their sum")
    shown = dict(zip(names, [*circuit, circuit.sum("head")], strict=True))
    drawn = {name: panels.heat_map(name, r"$\eta_h W_K^T W_Q$") for name in names}
    sentence = f"The circuits of seed {int(results.seed[best])}, which has the lowest loss."
    pictured = xr.Dataset(shown, attrs=results.attrs).drop_vars("seed")
    return panels.figure(pictured, drawn, sentence, columns=3)


def _off_diagonal(matrices: xr.DataArray) -> xr.DataArray:
    """Frobenius norm of the entries off the diagonal."""
    off = matrices.where(matrices.row != matrices.column, 0.0)
    return (off**2).sum(["row", "column"]) ** 0.5


def _off_diagonals(results: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Off-diagonal norms of the sum of heads, and of each head."""
    circuit = results.circuit.assign_coords(
        row=np.arange(results.sizes["row"]), column=np.arange(results.sizes["column"])
    )
    return _off_diagonal(circuit.sum("head")), _off_diagonal(circuit)


def _norm_ratio(results: xr.Dataset) -> xr.DataArray:
    """Off-diagonal norm of the sum, divided by the mean of the heads'."""
    together, each = _off_diagonals(results)
    return together / each.mean("head")


def _square_ratio(results: xr.Dataset) -> xr.DataArray:
    """Squared off-diagonal norm of the sum, divided by the smaller of the heads'."""
    together, each = _off_diagonals(results)
    return together**2 / (each**2).min("head")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {"VO-11-1": _norm_ratio, "VO-11-1-mass": _square_ratio},
)
