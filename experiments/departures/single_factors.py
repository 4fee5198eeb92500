"""Where linearity breaks, one departure from linear attention on linear tasks at a time.

Each axis starts from Figure 2's layer. Beside every trained model stands the same one untrained: a
cosine that it has, too, says nothing of training.

Expected: .2062 at the linear ends; softmax at .2912; noise and anisotropy leave one step, not its size.
Alias: dials
Cost: half an hour; quick: one minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from toyicl.core.config import require_different
from toyicl.core.datasets import side_by_side
from toyicl.harness import catalogue, claim_values
from toyicl.plots import sweep_panels
from toyicl.studies import departure_sweep, departures
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the dials."""

    axes: tuple[str, ...] = (
        "attention.softmax",
        "mlp.gate",
        "norm.gate",
        "task.sine",
        "task.network",
        "task.noise",
        "task.anisotropy",
    )
    """The dials to turn, one after the other; each at its own values."""
    probe: departure_sweep.Probe = departure_sweep.Probe()
    """What is measured along each; its own axis is left out."""

    def __post_init__(self) -> None:
        require_different("axes", self.axes)
        for name in self.axes:
            departures.find(name)


FULL = Settings()
QUICK = Settings(
    axes=("attention.softmax", "task.anisotropy"),
    probe=departure_sweep.Probe(
        training=Training(steps=1500, batch_size=256, snapshot_every=500, learning_rate=3e-3),
        evaluation_episodes=5000,
    ),
)


def _along(settings: Settings) -> dict[str, departure_sweep.Probe]:
    """What is measured along each dial."""
    return {name: replace(settings.probe, axis=name, values=()) for name in settings.axes}


def trainings(settings: Settings) -> dict[str, Job]:
    """The trainings along each dial."""
    return {
        name: job
        for own in _along(settings).values()
        for name, job in departure_sweep.trainings(own).items()
    }


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Turn each dial."""
    parts = {
        name: departure_sweep.measure(own, histories).isel(axis=0, drop=True)
        for name, own in _along(settings).items()
    }
    return side_by_side(parts, "axis")


def draw(results: xr.Dataset) -> Figure:
    """A row for each dial."""
    return sweep_panels.draw_axes(results, {name: name for name in results["axis"].values})


CLAIMS = (
    *catalogue.read(
        Path(__file__).with_name("claims.toml"),
        {
            "DIAL-linear": lambda results: claim_values.at_stage("loss")(results) / results.gd_loss,
            "DIAL-softmax": claim_values.at_stage("loss"),
            "DIAL-control": claim_values.at_stage("excess", "untrained"),
        },
    ),
    *catalogue.read(
        Path(__file__).parents[1] / "objections" / "claims.toml",
        {
            "CR-1": lambda results: claim_values.at_stage("loss")(results) - results.gd_loss,
            "CR-1-cosine": claim_values.at_stage("model_cosine"),
        },
    ),
)
