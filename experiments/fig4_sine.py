"""fig4: on sines, a transformer with an MLP does what a meta-learned MLP and one step of GD do.

Figure 4 of von Oswald et al. (2022): tokens are embedded, pass an MLP, and one linear attention layer.
The reference is the same embedding and MLP, meta-learned, with one step of gradient descent on top.

Expected: losses of a few thousandths for both; predictions and derivatives alike, not equal.
Cost: 30 minutes; quick: a minute.
"""

from dataclasses import dataclass

import xarray as xr

from toyicl.experiment import Fit
from toyicl.meta import MetaLearner
from toyicl.sines import SineRegression
from toyicl.training import Training
from toyicl.transformer import Architecture


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the sine."""

    task: SineRegression = SineRegression()
    """The task; task.draws chooses the released code's variant."""
    model: Architecture = Architecture(embedding_size=40, embedding_mlp_size=160)
    """The transformer."""
    training: Training = Training(steps=20_000, snapshot_every=500, clip_norm=100.0)
    """Its training."""
    reference: MetaLearner = MetaLearner()
    """The meta-learned step."""
    reference_training: Training = Training(
        steps=20_000, snapshot_every=500, clip_norm=100.0, learning_rate=3e-4
    )
    """Its training."""
    evaluation_episodes: int = 2048
    """Held-out episodes, shared by both."""
    curve_points: int = 100
    """Queries at which the learned functions of one episode are drawn."""


FULL = Settings()
QUICK = Settings(
    training=Training(steps=2000, batch_size=256, snapshot_every=200, clip_norm=100.0),
    reference_training=Training(steps=2000, batch_size=256, snapshot_every=200, clip_norm=100.0),
)


def measure(settings, fit: Fit) -> xr.Dataset:
    history = fit(settings.model, settings.task, settings.training, label="transformer")
    reference = fit(
        settings.reference, settings.task, settings.reference_training, label="meta-learned step"
    )
    raise SystemExit("trained")


def draw(results): ...


CLAIMS = ()
