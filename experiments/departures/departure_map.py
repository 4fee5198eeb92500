"""One layer agrees with gradient descent while part of its attention is linear, for lines and sines.

A map over two factors with eight values each: the fraction of softmax attention in one head, and
the fraction of a sine in the labels. `toyicl departures` measures the same along any other factor,
or over any other pair of factors.

Expected: gradient descent explains the predictions at the linear end; untrained models have the
loss of predicting 0 everywhere.
Alias: probe
Cost: half an hour; quick: less than one minute.
"""

from pathlib import Path

from toyicl.harness import catalogue, claim_values
from toyicl.plots import sweep_panels
from toyicl.studies import departure_sweep
from toyicl.training.step import Training

EIGHT = tuple(round(index / 7, 6) for index in range(8))
FULL = departure_sweep.DepartureSweep(values=EIGHT, second_factor="task.sine", second_values=EIGHT)
QUICK = departure_sweep.DepartureSweep(
    training=Training(steps=1500, batch_size=256, snapshot_every=500, learning_rate=3e-3),
    values=(0.0, 0.5, 1.0),
    second_factor="task.sine",
    second_values=(0.0, 0.5, 1.0),
    evaluation_episodes=2000,
)
trainings, measure = departure_sweep.trainings, departure_sweep.measure
draw = sweep_panels.draw
CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "MAP-corner": claim_values.at_stage("unexplained"),
        "MAP-control": lambda results: abs(
            claim_values.at_stage("excess", "untrained")(results) - 1
        ).max(),
    },
)
