"""One trained layer, applied repeatedly, follows gradient descent.

Figure 1 (right) of von Oswald et al. (2022): a trained layer is applied 50 times to its own label
entries, with updates multiplied by .75, and compared with as many steps of gradient descent with
.75 times the best learning rate.

Expected: both losses fall together, from .219 after one layer to .044 after fifty.
Alias: fig1
Cost: half a minute.
"""

from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require, require_memory, require_positive, require_size
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue, claim_values
from toyicl.models.layers import LAYER_NUMBERS
from toyicl.plots import panels, reference_panels
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.roll_outs import roll_outs
from toyicl.training.loop import Histories
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """Settings of a roll-out."""

    damping: float = 0.75
    """Factor on each update of the layer, and on the steps of gradient descent."""
    depth: int = 50
    """Number of times that the layer is applied."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("damping", self.damping)
        require_size("depth", self.depth)
        require_memory("depth", self.depth, self.depth * LAYER_NUMBERS)
        require(self.model.depth == 1, "model.depth", "1 to be repeated", self.model.depth)


FULL = Settings()
QUICK = Settings(training=Training(steps=2000, batch_size=512))
trainings = Study.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the repeated layer with repeated steps of gradient descent."""
    history = histories["model"]
    references = best_references(settings.task, 1)
    return dataset(
        alignment(settings, history, references),
        roll_outs(settings, history.final, references, [settings.damping], settings.depth),
    ).isel(damping=0)


def draw(results: xr.Dataset) -> Figure:
    """Loss after each application of the layer."""
    sentence = f"One trained layer applied repeatedly, with damping {float(results.damping):g}."
    return panels.figure(
        results, {"loss after each layer": reference_panels.roll_out_panel}, sentence, columns=1
    )


def _descent(results: xr.Dataset) -> xr.DataArray:
    """Loss of as many steps of gradient descent."""
    return claim_values.of(results, "rolled_reference_loss", "gd")


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-1-1": lambda results: results.rolled_loss / _descent(results),
        "VO-1-1-end": lambda results: results.rolled_loss.isel(layer=-1),
    },
)
