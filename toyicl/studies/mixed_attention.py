"""Layers between linear and softmax attention, with one head and with two, on several tasks."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from toyicl.core.datasets import dataset, side_by_side
from toyicl.models.transformer import Architecture
from toyicl.studies.departure_sweep import STAGES, compare_with_descent
from toyicl.studies.weights import circuits
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories, Job
from toyicl.training.step import Training

HEADS = (1, 2)
"""Numbers of heads."""
KEPT = ("loss", "model_cosine", "norm_ratio", "on_plateau", "reference_loss")
"""Variables of the comparison with gradient descent that are kept."""
Tasks = Mapping[str, LinearRegression]
"""Tasks by name."""


def trainings(
    tasks: Tasks, fractions: Sequence[float], training: Training, *, max_seeds: int
) -> dict[str, Job]:
    """One layer on each task, with each number of heads, at each fraction of softmax attention."""
    return {
        _name(name, heads, fraction): Job(
            Architecture(attention="mixed", softmax_fraction=fraction, heads=heads),
            task,
            training,
            max_seeds=max_seeds,
        )
        for name, task in tasks.items()
        for heads in HEADS
        for fraction in fractions
    }


def _name(task: str, heads: int, fraction: float) -> str:
    """Name of a training."""
    return f"{task}, heads: {heads}, softmax fraction {fraction}"


def measure(
    tasks: Tasks, fractions: Sequence[float], histories: Histories, evaluation_episodes: int
) -> xr.Dataset:
    """Compare the layers with one step of gradient descent, and keep their circuits.

    Dimensions: task, heads, softmax_fraction, and those of `KEPT` and of the circuits, which are padded
    with NaN where a layer has fewer heads or inputs. Names of variables start with `mixed_`, as do
    those of the dimensions of seeds, rows and columns.
    """
    of_tasks = {}
    for name, task in tasks.items():
        of_heads = {}
        for heads in HEADS:
            points = {}
            for fraction in fractions:
                history = histories[_name(name, heads, fraction)]
                compared = compare_with_descent(history, task, 1, evaluation_episodes)
                point = dataset(
                    {variable: compared[variable] for variable in KEPT},
                    circuits(history.final),
                    {"seed": history.seeds},
                )
                sizes = {dim: np.arange(point.sizes[dim]) for dim in ("head", "row", "column")}
                points[fraction] = point.assign_coords({"stage": list(STAGES)} | sizes)
            of_heads[heads] = side_by_side(points, "softmax_fraction")
        of_tasks[name] = side_by_side(of_heads, "heads")
    joined = side_by_side(of_tasks, "task")
    renamed = (*joined.data_vars, "seed", "row", "column")
    return joined.rename({str(name): f"mixed_{name}" for name in renamed})
