"""Claims: checkable statements, the measured values, and the verdicts."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from toyicl.core.errors import Unfinished

if TYPE_CHECKING:  # so that listing experiments does not need it
    import xarray as xr

Value = Callable[["xr.Dataset"], "xr.DataArray"]
DEFAULT_PLATEAU = "on_plateau"
"""Variable that marks seeds on their plateau, if a claim names no other."""
FIXED_DIMENSIONS = ("reference", "stage", "shift", "kind", "method")
"""Dimensions whose labels do not depend on settings, so that a label they lack is a wrong name."""


class BrokenClaim(Unfinished):
    """A claim asks for a variable, a dimension, an attribute or a label that results do not have."""


class NotMeasured(LookupError):  # noqa: N818 (the claim is not at fault)
    """Results lack a label that a claim is about, since they are of other settings."""


@dataclass(frozen=True)
class Claim:
    """A checkable statement of the paper, and the band of measured values for which it holds."""

    id: str
    """Short name, such as VO-2a-1."""
    statement: str
    """The statement, as one sentence."""
    value: "Value"
    """Function that computes the measured value from the results: one for each seed, or a scalar."""
    band: tuple[float, float]
    """Smallest and largest value for which the statement holds, both included."""
    _: KW_ONLY
    source: str
    """Where the paper makes the statement."""
    paper: str
    """The paper's own value, as text."""
    floor: float | None = None
    """The theoretical value, where one is known."""
    kind: Literal["measured", "by construction", "cosine"] = "measured"
    """Whether it is measured, holds by construction, or is based on a cosine alone."""
    shown_with: "Mapping[str, Value]" = field(default_factory=dict)
    """Further values, by name, that the report shows next to the measured one, such as the norm ratio
    and the untrained control of a cosine. They are means over seeds and do not affect the verdict."""
    where: "Mapping[str, Any]" = field(default_factory=dict)
    """Coordinates of the part of the results to which the claim applies, such as {"heads": 2};
    all results if empty."""
    plateau: str = DEFAULT_PLATEAU
    """The variable that marks the seeds that are still on their plateau."""
    note: str = ""
    """Why it fails or holds, or how the band was chosen."""

    def judge(
        self, results: "xr.Dataset | None", whole: "xr.Dataset | None" = None
    ) -> dict[str, Any]:
        """The claim with the measured value (mean and range over seeds) and its verdict.

        A claim holds if the value of every seed lies in the band. Seeds that never left their plateau
        are named and excluded from the value. The claim fails if no other seed remains, for example at
        one size, or if a seed diverged. It was not run where results lack the claim's part.

        `whole` are the results of all points of a sweep, if `results` are those of one. Raises
        BrokenClaim for names that results lack.
        """
        record: dict[str, Any] = {
            "id": self.id,
            "source": self.source,
            "statement": self.statement,
            "paper": self.paper,
            "measured": None,
            "spread": None,
            "floor": self.floor,
            "verdict": "not run",
            "band": [_finite(bound) for bound in self.band],
            "plateau_seeds": [],
            "kind": self.kind,
            "shown_with": {},
            "note": self.note,
            "seeds": None,
            "reason": "",
        }
        if results is None:
            return record | {"reason": "there are no results"}
        whole = results if whole is None else whole
        try:
            chosen, values, stuck = self.evaluate(results, whole)
            with self._names_checked(whole):
                record["shown_with"] = {
                    name: _finite(float(_left(value(chosen), stuck).mean()))
                    for name, value in self.shown_with.items()
                }
        except NotMeasured as error:
            return record | {"reason": str(error)}
        left, judged = True, values.size
        if stuck is not None:
            record["plateau_seeds"] = _named(stuck)
            if stuck.any() and stuck.ndim == 1:
                record["seeds"] = [int((~stuck).sum()), stuck.size]
            left = not bool(stuck.all(_seed_dim(stuck)).any())
            values = values.where(~stuck)
            judged = int((~stuck).broadcast_like(values).sum())
        finite = values.where(abs(values) < math.inf)
        if not finite.count():
            return record | {"verdict": "fails"}
        low, high = float(finite.min()), float(finite.max())
        counted = left and int(finite.count()) == judged
        holds = counted and self.band[0] <= low and high <= self.band[1]
        return record | {
            "measured": float(finite.mean()),
            "spread": [low, high],
            "verdict": "holds" if holds else "fails",
        }

    def evaluate(
        self, results: "xr.Dataset", whole: "xr.Dataset | None" = None
    ) -> "tuple[xr.Dataset, xr.DataArray, xr.DataArray | None]":
        """The claim's part of the results, its value there, and the seeds that are on their plateau.

        The last are None if the value has no seeds. `whole` is as in `judge`. Raises NotMeasured if the
        results lack the claim's part, and BrokenClaim for names that they lack.
        """
        from toyicl.core.datasets import part  # listing experiments needs no xarray

        with self._names_checked(results if whole is None else whole):
            for name in self.where:
                if name not in results.coords:
                    raise NotMeasured(f"results have no coordinate {name!r}")
            chosen = part(results, **self.where)
            values = self.value(chosen)
        return chosen, values, self._stuck(chosen, values)

    def _stuck(self, results: "xr.Dataset", values: "xr.DataArray") -> "xr.DataArray | None":
        """Which of the value's seeds never left their plateau; None if the value has no seeds.

        Raises BrokenClaim if `plateau` is the name of no variable, unless it is the default and no
        variable of the results has that name.
        """
        if not self.plateau:
            return None
        found = results.get(self.plateau)
        if found is None and self.plateau != DEFAULT_PLATEAU:
            raise BrokenClaim(
                f"claim {self.id}: results have no variable {self.plateau!r} (plateau)"
            )
        known = found is not None and set(found.dims) <= set(values.dims)
        return found if known else None

    @contextlib.contextmanager
    def _names_checked(self, whole: "xr.Dataset") -> Iterator[None]:
        """Distinguish a label that was not measured from a name that does not exist.

        Raises NotMeasured for a label that a coordinate lacks, since other settings have other labels,
        and BrokenClaim for a variable, a dimension or an attribute that results lack, and for a label
        of a fixed dimension that no part of the whole results has.
        """
        try:
            yield
        except NotMeasured:
            raise
        except KeyError as error:
            missing = _missing_labels(error)
            if missing is None:
                raise BrokenClaim(f"claim {self.id}: {error.args[0]}") from error
            for dim in FIXED_DIMENSIONS:
                known = whole[dim].values.ravel().tolist() if dim in whole.coords else []
                wrong = [label for label in missing.get(dim, []) if label not in known]
                if wrong:
                    raise BrokenClaim(
                        f"claim {self.id}: the dimension {dim!r} has no label {wrong[0]!r}; "
                        f"its labels are {', '.join(map(repr, known))}"
                    ) from error
            raise NotMeasured(f"results lack a label: {error.args[0]}") from error
        except (AttributeError, ValueError) as error:
            raise BrokenClaim(f"claim {self.id}: {error}") from error


def _missing_labels(error: KeyError) -> dict[str, list[Any]] | None:
    """The labels that xarray looked for in an index when it raised an error, by dimension.

    None if the error is not of a look-up. The message has only the name of the dimension; the labels
    are the argument of the index's method `sel`.
    """
    import numpy as np  # listing experiments does not need it

    found: dict[str, list[Any]] | None = None
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_globals.get("__name__") == "xarray.core.indexes":
            found = found or {}
            if frame.f_code.co_name == "sel":
                labels = frame.f_locals["labels"].items()
                found |= {str(dim): np.ravel(label).tolist() for dim, label in labels}
        trace = trace.tb_next
    return found


def band_in_words(low: float | None, high: float | None) -> str:
    """The values with which a claim holds, as text; None is an open end."""
    if low is None:
        return "any value" if high is None else f"at most {high:.4g}"
    return f"at least {low:.4g}" if high is None else f"{low:.4g} to {high:.4g}"


def _finite(number: float) -> float | None:
    """A number, or None if it is not finite, since JSON has no infinity or NaN."""
    return number if math.isfinite(number) else None


def _left(values: "xr.DataArray", stuck: "xr.DataArray | None") -> "xr.DataArray":
    """Values of the seeds that left their plateau; all values if no seed did, or none is marked."""
    if stuck is None or not set(stuck.dims) <= set(values.dims) or bool(stuck.all()):
        return values
    return values.where(~stuck)


def _named(stuck: "xr.DataArray") -> list[Any]:
    """Seeds on their plateau: numbers, or texts such as "size 20, seed 1" with more dimensions."""
    if stuck.dims == ("seed",):
        return [int(seed) for seed in stuck["seed"].values[stuck.values]]
    dim = _seed_dim(stuck)
    found = stuck.stack(place=[name for name in stuck.dims if name != dim] + [dim])
    return [
        ", ".join(
            f"{name} {value}"
            for name, value in zip(found.place.to_index().names, place, strict=True)
        )
        for place in found.place.values[found.values]
    ]


def _seed_dim(values: "xr.DataArray") -> str:
    from toyicl.core.datasets import seed_dim  # not at the top: listing needs no xarray

    return seed_dim(values)
