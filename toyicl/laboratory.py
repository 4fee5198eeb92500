"""Running an experiment: train, measure, save, draw, judge."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr

from toyicl import fitting, plotting, runs
from toyicl.errors import BadInput
from toyicl.experiment import Experiment
from toyicl.tasks import Task
from toyicl.training import Build, Training


class Progress(Protocol):
    """What shows the user how far a training is: opened with its label and its number of steps."""

    def __call__(
        self, label: str, steps: int
    ) -> AbstractContextManager[Callable[[int, np.ndarray], None]]:
        """A context whose value is called with (steps done, losses)."""
        ...


class Outcome(NamedTuple):
    """What a run left behind."""

    files: list[Path]
    verdicts: list[dict[str, Any]]
    diverged: list[str]
    """A sentence for each seed whose training diverged."""


def run(
    experiment: Experiment,
    settings: Any,
    folder: Path,
    *,
    seeds: int,
    quick: bool,
    progress: Progress,
) -> Outcome:
    """Run an experiment into a folder: results, claims and figure.

    Raises ValueError, before anything is computed, if the folder cannot be written.
    """
    runs.prepare_folder(folder)
    diverged: list[str] = []
    fit = partial(_fit, seeds=seeds, progress=progress, diverged=diverged)
    results = experiment.measure(settings, fit)
    if not isinstance(results, xr.Dataset):
        kind = type(results).__name__
        raise BadInput(f"measure of {experiment.name} must return an xarray.Dataset, got {kind}")
    origin = runs.provenance(settings, seeds, quick)
    results = results.assign_attrs({"experiment": experiment.name, **results.attrs, **origin})
    saved = runs.save_results(results, folder)
    results = runs.load_results(folder)  # so that claims and figure come from what was saved
    verdicts = judge(experiment, results)
    return Outcome([saved, *write(experiment, results, folder, verdicts)], verdicts, diverged)


def judge(experiment: Experiment, results: xr.Dataset | None) -> list[dict[str, Any]]:
    """Every claim of an experiment beside its results; "not run" without any."""
    return [claim.judge(results) for claim in experiment.claims]


def write(
    experiment: Experiment, results: xr.Dataset, folder: Path, verdicts: list[dict[str, Any]]
) -> list[Path]:
    """Write what follows from results: the claims with their verdicts, and the figure."""
    text = json.dumps(verdicts, indent=1) + "\n"
    claims = runs.save_text(text, folder / runs.CLAIMS)
    with plotting.style():
        return [claims, *plotting.save(experiment.draw(results), folder / runs.FIGURE)]


def _fit(
    build: Build,
    task: Task,
    settings: Training,
    *,
    label: str,
    at_most: int | None = None,
    seeds: int,
    progress: Progress,
    diverged: list[str],
) -> fitting.History:
    """Train, show progress, and note which seeds diverged."""
    seeds = seeds if at_most is None else min(seeds, at_most)
    with progress(label, settings.steps * seeds) as show:
        history = fitting.fit(build, task, settings, seeds=seeds, progress=show)
    for seed, step in zip(history.seeds, history.diverged_at, strict=True):
        if step >= 0:
            diverged.append(f"{label}: seed {seed} diverged, its loss is not finite at step {step}")
    return history
