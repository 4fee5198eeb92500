"""What is made from the saved results of a run: verdicts on its claims, and its figure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from toyicl.core import strict_json
from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import atomic_files, sweeps
from toyicl.harness.experiment import RESULTS, Experiment
from toyicl.harness.results import CLAIMS, FIGURE, load_results, require_places, require_results
from toyicl.plots import figures


def redraw(
    experiment: Experiment, folder: Path, warn: Callable[[str], None], *, lock: bool = True
) -> list[Path]:
    """Judge the claims and draw the figure again from the saved results of a run.

    Raises BadInput if there are none or the folder is in use, and Unfinished if they cannot be saved.
    """
    require_results(folder)
    require_places(folder)
    atomic_files.prepare_folder(folder)
    with atomic_files.locked(folder, warn, lock=lock):
        results = load_results(folder, warn)
        try:
            return write(experiment, results, folder, judge(experiment, results))
        except OSError as error:
            raise Unfinished(
                f"the figure could not be saved in {folder} ({error.strerror or error}); the results "
                "are kept; rerun the same command once there is room"
            ) from error


def judge(experiment: Experiment, results: xr.Dataset | None) -> list[dict[str, Any]]:
    """The verdict on every claim of an experiment, at each point of a sweep.

    Without results the verdicts are "not run".
    """
    if results is None:
        return [claim.judge(None) for claim in experiment.claims]
    sweep = swept(results)
    if not sweep:
        return [claim.judge(results) for claim in experiment.claims]
    points = zip(sweeps.grid(sweep), sweeps.points_of(results, sweep), strict=True)
    return [
        claim.judge(point, results) | {"point": where}
        for where, point in points
        for claim in experiment.claims
    ]


def write(
    experiment: Experiment, results: xr.Dataset, folder: Path, verdicts: list[dict[str, Any]]
) -> list[Path]:
    """Write the verdicts and the figure; returns the files."""
    text = strict_json.text(verdicts, indent=1) + "\n"
    claims = atomic_files.save_text(text, folder / CLAIMS)
    sweep = swept(results)
    with figures.style():
        figure = (
            sweeps.draw(experiment.claims, results, sweep) if sweep else experiment.draw(results)
        )
        return [claims, *figures.save(figure, folder / FIGURE)]


def has_results(folder: Path) -> bool:
    """Whether a folder holds the results of a run."""
    return (folder / RESULTS).exists()


def experiment_of(folder: Path) -> str:
    """Name of the experiment whose results are in a folder.

    Raises BadInput and Damaged as `results.load_results`.
    """
    return str(load_results(folder).attrs["experiment"])


def is_full(folder: Path) -> bool:
    """Whether a folder holds the results of a run that started from full settings."""
    if not has_results(folder):
        return False
    try:
        return load_results(folder).attrs.get("level") != "quick"
    except (BadInput, Unfinished):  # reported when the results are loaded
        return True


def results_of(folder: Path, note: Callable[[str], None]) -> xr.Dataset | None:
    """The results in a folder; None if there are none.

    Raises BadInput and Damaged as `results.load_results`, which calls `note`.
    """
    return load_results(folder, note) if has_results(folder) else None


def swept(results: xr.Dataset) -> dict[str, list[Any]]:
    """Values of each swept setting; empty if the results are those of one point."""
    return json.loads(results.attrs.get("sweep", "{}"))
