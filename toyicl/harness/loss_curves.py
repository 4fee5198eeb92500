"""Whether a training that was cut short had finished: signs that its loss was still falling."""

import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # so that listing experiments does not need it
    import xarray as xr

LENGTHS = ("steps", "batch_size")
"""Settings of a training that make it shorter."""
LEAST_FALL = 0.01
"""Relative decrease of the loss, from one tenth of the snapshots to the next, of a loss that falls."""


def is_shortened(results: "xr.Dataset") -> bool:
    """Whether a training of the results had fewer steps or smaller batches than at full settings.

    This follows from the attribute "changes", the settings that differ from the full ones by their
    paths. Results of earlier versions do not have it: theirs count as shortened if their attribute
    "cut" states that anything differed.
    """
    if "changes" not in results.attrs:
        return bool(results.attrs.get("cut", ""))
    changes = json.loads(results.attrs["changes"]).items()
    lengths = [pair for path, pair in changes if path.rpartition(".")[-1] in LENGTHS]
    return any(
        own < full for own, full in lengths if isinstance(own, int) and isinstance(full, int)
    )


def is_falling(curve: np.ndarray) -> bool:
    """Whether the losses (snapshot,) still fall at the end; NaN marks snapshots that were not taken.

    They fall if the mean over the last tenth of the snapshots is more than 1% below that over the tenth
    before. A single snapshot does not fall.
    """
    curve = curve[~np.isnan(curve)]
    tenth = max(1, len(curve) // 10)
    if len(curve) < 2 * tenth:
        return False
    before, end = curve[-2 * tenth : -tenth].mean(), curve[-tenth:].mean()
    return bool(end < (1 - LEAST_FALL) * before)


def any_is_falling(results: "xr.Dataset", stuck: "xr.DataArray | None") -> bool:
    """Whether the variable `loss` still falls along the dimension `step` for a seed that counts.

    `stuck` marks seeds on their plateau, which do not count; a seed counts if it left its plateau
    anywhere. False if the results have no such variable.
    """
    loss = results.get("loss")
    if loss is None or "step" not in loss.dims:
        return False
    falling = np.apply_along_axis(is_falling, -1, loss.transpose(..., "step").values)
    found = loss.isel(step=0, drop=True).copy(data=falling)
    if stuck is not None:
        counted = ~stuck.all([dim for dim in stuck.dims if dim not in found.dims])
        found = found & counted
    return bool(found.any())
