"""From linear to softmax attention, on labels from linear to sine, what is left of GD.

A map of two dials, eight values each: the share of softmax in what one head reads, and the share of a
sine in the labels. `toyicl probe` turns any other dial, or pair of dials, with the same measurement.

Expected: gradient descent explains the linear end alone; untrained models miss all of the way to it.
Alias: probe
Cost: half an hour; quick: less than one minute.
"""

from pathlib import Path

from toyicl.harness import catalogue, claim_values
from toyicl.plots import sweep_panels
from toyicl.studies import departure_sweep
from toyicl.training.step import Training

EIGHT = tuple(round(index / 7, 6) for index in range(8))
FULL = departure_sweep.Probe(values=EIGHT, second_axis="task.sine", second_values=EIGHT)
QUICK = departure_sweep.Probe(
    training=Training(steps=1500, batch_size=256, snapshot_every=500, learning_rate=3e-3),
    values=(0.0, 0.5, 1.0),
    second_axis="task.sine",
    second_values=(0.0, 0.5, 1.0),
    evaluation_episodes=2000,
)
trainings, measure = departure_sweep.trainings, departure_sweep.measure
draw = sweep_panels.draw
CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "PROBE-corner": claim_values.at_stage("unexplained"),
        "PROBE-control": lambda results: abs(
            claim_values.at_stage("excess", "untrained")(results) - 1
        ).max(),
    },
)
