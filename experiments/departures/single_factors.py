"""How one layer departs from gradient descent when a single factor is varied.

Each factor starts from the layer and the task of Figure 2. Every trained model is compared with
itself before training, since a cosine that the untrained model has as well is not a result of
training.

Expected: loss .2062 at the linear ends and .2912 with softmax attention; with label noise and with
anisotropic inputs the layer is still one step, of another size.
Alias: dials
Cost: half an hour; quick: one minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import named_in_errors, require_different
from toyicl.core.datasets import side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.plots import sweep_panels
from toyicl.studies import departure_sweep, departures
from toyicl.studies.departure_sweep import DepartureSweep
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the sweeps along single factors."""

    factors: tuple[str, ...] = (
        "attention.softmax",
        "mlp.gate",
        "norm.gate",
        "task.sine",
        "task.network",
        "task.noise",
        "task.anisotropy",
    )
    """The factors to vary, one at a time, each over its default values."""
    departure: DepartureSweep = DepartureSweep()
    """Settings of each sweep, except for its factor and values."""

    def __post_init__(self) -> None:
        require_different("factors", self.factors)
        for name in self.factors:
            departures.find(name)

    def sweeps(self) -> dict[str, DepartureSweep]:
        """The sweep along each factor."""
        return {name: replace(self.departure, factor=name, values=()) for name in self.factors}


FULL = Settings()
QUICK = Settings(
    factors=("attention.softmax", "task.anisotropy"),
    departure=DepartureSweep(
        training=Training(steps=1500, batch_size=256, snapshot_every=500, learning_rate=3e-3),
        evaluation_episodes=5000,
    ),
)


def trainings(settings: Settings) -> dict[str, Job]:
    """The trainings along each factor."""
    jobs: dict[str, Job] = {}
    for sweep in settings.sweeps().values():
        jobs |= departure_sweep.trainings(sweep)
    return jobs


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Compare the models along each factor with gradient descent."""
    parts = {
        name: departure_sweep.measure(sweep, histories).isel(factor=0, drop=True)
        for name, sweep in settings.sweeps().items()
    }
    return side_by_side(parts, "factor")


def draw(results: xr.Dataset) -> Figure:
    """A row of panels for each factor."""
    return sweep_panels.draw_factors(results, {name: name for name in results.factor.values})


def _loss(results: xr.Dataset) -> xr.DataArray:
    return claim_values.at_stage("loss")(results)


CLAIMS = (
    *catalogue.read(
        Path(__file__).with_name("claims.toml"),
        {
            "FACTOR-linear": lambda results: _loss(results) / results.reference_loss,
            "FACTOR-softmax": _loss,
            "FACTOR-control": claim_values.at_stage("excess", "untrained"),
        },
    ),
    *catalogue.read(
        Path(__file__).parents[1] / "objections" / "claims.toml",
        {
            "CR-1": lambda results: _loss(results) - results.reference_loss,
            "CR-1-cosine": claim_values.at_stage("model_cosine"),
        },
    ),
)
