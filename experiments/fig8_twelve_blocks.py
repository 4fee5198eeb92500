"""fig8: twelve blocks with MLPs and four heads come close to GD++.

Figure 8 of von Oswald et al. (2022): K = 12, weights of their own, four heads of linear attention and
an MLP in each block, no LayerNorm, token values clipped to 10.

Expected: GD++ is nearer than least squares or ridge.
Cost: a day at full settings, 20 minutes as checked in; quick: two minutes.
"""

import xarray as xr

from toyicl import study
from toyicl.experiment import Fit
from toyicl.training import Training
from toyicl.transformer import Architecture

FULL = study.Study(
    model=Architecture(depth=12, heads=4, mlp_size=40, token_clip=10.0),
    training=Training(steps=50_000, snapshot_every=500, learning_rate=5e-4, clip_norm=10.0),
)
QUICK = study.Study(
    model=FULL.model,
    training=Training(
        steps=500, batch_size=128, snapshot_every=250, learning_rate=1e-3, clip_norm=10.0
    ),
)


def measure(settings: study.Study, fit: Fit) -> xr.Dataset:
    history = fit(settings.model, settings.task, settings.training, label="twelve blocks")
    raise SystemExit("trained")


def draw(results): ...


CLAIMS = ()
