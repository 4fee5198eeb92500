"""Training recipes with names: those of the released code and of the paper, and a falling rate.

A recipe fixes the optimiser. The numbers of steps and episodes are those of the figure it was made
for, and may be changed: `name` compares the optimiser alone.
"""

from dataclasses import replace

from toyicl.training.step import Training

RELEASED = Training()
"""The released code of von Oswald et al. (2022), for one or two layers."""
RELEASED_DEEP = Training(snapshot_every=500, learning_rate=5e-4, clip_norm=10.0)
"""The released code for more than three layers."""
RELEASED_TOKENS = Training(clip_norm=10.0)
"""The released code for separate tokens and for LayerNorm."""
RELEASED_SINE = Training(steps=20_000, snapshot_every=500, clip_norm=100.0)
"""The released code for sines."""
PAPER_TEXT = Training(clip_norm=10.0, b2=0.999)
"""The paper's text, for all depths."""
FALLING = Training(
    steps=40_000,
    batch_size=512,
    snapshot_every=500,
    learning_rate=1e-3,
    final_learning_rate=0.0,
    clip_norm=10.0,
)
"""For more than three layers: a rate that falls to 0, with which the loss stops falling."""
FALLING_FAST = replace(FALLING, learning_rate=3e-3)
"""For several linear layers and separate tokens: from a larger rate, which ends lower."""
TUNED_GDPP = Training(steps=1000, batch_size=512, learning_rate=5e-4, clip_norm=10.0)
"""The released code's tuning of the two numbers of GD++ with shared steps."""
TUNED_GDPP_PER_LAYER = replace(TUNED_GDPP, steps=30_000, snapshot_every=500)
"""The released code's tuning of GD++ with two numbers for each layer."""

NAMES = {
    "released code": RELEASED,
    "released code, deep": RELEASED_DEEP,
    "released code, clip 10": RELEASED_TOKENS,
    "released code, sines": RELEASED_SINE,
    "paper's text": PAPER_TEXT,
    "falling rate": FALLING,
    "falling rate, fast": FALLING_FAST,
}
"""Recipes by the name under which figures state them."""


def name(training: Training) -> str:
    """Name of the recipe with the same optimiser, or "own settings" if there is none."""
    own = _optimiser(training)
    return next((name for name, one in NAMES.items() if _optimiser(one) == own), "own settings")


def describe(training: Training) -> str:
    """The recipe of a training, its steps and its batch size, as text."""
    return f"{name(training)}, {training.steps:,} steps of {training.batch_size:,} episodes"


def _optimiser(training: Training) -> tuple[float | None, ...]:
    falling = training.final_learning_rate
    return (training.learning_rate, falling, training.clip_norm, training.b1, training.b2)
