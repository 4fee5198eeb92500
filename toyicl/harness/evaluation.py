"""Evaluation of statements: their part of the results, measured values, and the seeds that count."""

import contextlib
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from toyicl.core.errors import Unfinished
from toyicl.harness.verdicts import Sample

if TYPE_CHECKING:  # so that listing experiments needs neither
    import numpy as np
    import xarray as xr

Value = Callable[["xr.Dataset"], "xr.DataArray"]
DEFAULT_PLATEAU = "on_plateau"
"""Variable that marks seeds on their plateau, if a statement names no other."""
FIXED_DIMENSIONS = ("reference", "stage", "shift", "kind", "method")
"""Dimensions whose labels do not depend on settings, so that a label they lack is a wrong name."""

OPTIONAL_DIMENSIONS = ("second_value",)
"""Dimensions that results have with some settings only, so that a claim on another one is not run."""


class BrokenClaim(Unfinished):
    """A statement asks for a variable, a dimension, an attribute or a label that results lack."""


class NotMeasured(LookupError):  # noqa: N818 (the statement is not at fault)
    """Results lack a label that a statement is about, since they are of other settings."""


class Evaluated(NamedTuple):
    """What a statement is judged by."""

    part: "xr.Dataset"
    """The part of the results that the statement is about."""
    values: "xr.DataArray"
    """The measured value: one for each seed, also of other dimensions, or a scalar."""
    stuck: "xr.DataArray | None"
    """Which seeds are on their plateau; None if the value has no seeds or none are marked."""

    def counted(self) -> "np.ndarray":
        """Values of the seeds that left their plateau, of all dimensions, in one array."""
        values = self.values.values.astype(float)
        if self.stuck is None:
            return values.ravel()
        return values[~self._stuck_values()]

    def on_plateau(self) -> "np.ndarray":
        """Values of the seeds that did not leave their plateau."""
        return self.values.values.astype(float)[self._stuck_values()]

    def _stuck_values(self) -> "np.ndarray":
        import numpy as np  # listing experiments does not need it

        if self.stuck is None:
            return np.zeros(self.values.shape, bool)
        return self.stuck.broadcast_like(self.values).transpose(*self.values.dims).values

    def seed_dims(self) -> tuple[str, ...]:
        """Dimensions of the value that are dimensions of seeds in the results."""
        return tuple(str(dim) for dim in self.values.dims if _is_of_seeds(dim, self.part))

    def samples(self, over: Sequence[str]) -> list[Sample]:
        """The values that count, as a sample over some dimensions at each point of the others."""
        others = [dim for dim in self.values.dims if dim not in over]
        values = self.values.transpose(*others, *over).values.astype(float)
        stuck = self.values.copy(data=self._stuck_values()).transpose(*others, *over).values
        found = []
        for index in itertools.product(*(range(self.values.sizes[dim]) for dim in others)):
            place = ", ".join(
                f"{dim} {self.values[dim].values[i]}" for dim, i in zip(others, index, strict=True)
            )
            kept = values[index][~stuck[index]]
            found.append(Sample(kept.ravel().tolist(), place))
        return found

    def mean(self, value: "xr.DataArray") -> float | None:
        """Mean of another value over the seeds that count; None if it is not finite."""
        stuck = self.stuck
        if stuck is not None and set(stuck.dims) <= set(value.dims) and not bool(stuck.all()):
            value = value.where(~stuck)
        return finite(float(value.mean()))

    def plateau_seeds(self) -> list[Any]:
        """Seeds on their plateau: numbers, or texts such as "size 20, seed 1" with more dimensions."""
        stuck = self.stuck
        if stuck is None:
            return []
        if stuck.dims == ("seed",):
            return [int(seed) for seed in stuck["seed"].values[stuck.values]]
        return [
            ", ".join(f"{dim} {stuck[dim].values[i]}" for dim, i in zip(dims, place, strict=True))
            for dims, place in self._plateau_places()
        ]

    def plateau_losses(self) -> list[float | None]:
        """Losses at the end of training of `plateau_seeds`; empty if the results do not have them."""
        loss = self.part.get("loss")
        if self.stuck is None or loss is None or set(loss.dims) != {*self.stuck.dims, "step"}:
            return []
        last = loss.isel(step=-1)
        return [
            finite(float(last.isel(dict(zip(dims, place, strict=True)))))
            for dims, place in self._plateau_places()
        ]

    def _plateau_places(self) -> "Iterator[tuple[tuple[Any, ...], tuple[int, ...]]]":
        """Dimensions and indices of each seed on its plateau, the dimension of seeds last."""
        from toyicl.core.datasets import seed_dim  # not at the top: listing needs no xarray

        assert self.stuck is not None
        dim = seed_dim(self.stuck)
        ordered = self.stuck.transpose(..., dim)
        for place in zip(*ordered.values.nonzero(), strict=True):
            yield ordered.dims, tuple(int(i) for i in place)


def evaluate(
    name: str,
    value: Value,
    where: Mapping[str, Any],
    plateau: str,
    results: "xr.Dataset",
    whole: "xr.Dataset",
) -> Evaluated:
    """Evaluate a statement on results.

    `name` is the statement's, for errors; `whole` are the results of all points of a sweep, if
    `results` are those of one. Raises NotMeasured if the results lack the statement's part, and
    BrokenClaim for names that they lack.
    """
    from toyicl.core.datasets import part  # listing experiments needs no xarray

    with names_checked(name, whole):
        for dim in where:
            if dim not in whole.coords and dim not in OPTIONAL_DIMENSIONS:
                known = _quoted(name for name in whole.coords if name in whole.dims)
                raise BrokenClaim(
                    f"claim {name}: results have no dimension {dim!r} (where); those with labels are "
                    f"{known}"
                )
            if dim not in results.coords:
                raise NotMeasured(f"results have no coordinate {dim!r}")
        chosen = part(results, **where)
        values = value(chosen)
    return Evaluated(chosen, values, _stuck(name, plateau, chosen, values))


def _is_of_seeds(dim: Hashable, results: "xr.Dataset") -> bool:
    """Whether a dimension of results is one of seeds."""
    return dim == "seed" or (dim in results.coords and results[dim].attrs.get("role") == "seed")


def _stuck(
    name: str, plateau: str, results: "xr.Dataset", values: "xr.DataArray"
) -> "xr.DataArray | None":
    """Which of the value's seeds never left their plateau; None if the value has no such seeds.

    Where seeds are marked along further dimensions, such as several models that the value compares, a
    seed counts as on its plateau if it is marked at any of their points. Raises BrokenClaim if
    `plateau` is the name of no variable, or marks other seeds than those of the value. The default
    name may do both: not all results have plateaus, nor all seeds of results that have them.
    """
    if not plateau:
        return None
    found, named = results.get(plateau), plateau != DEFAULT_PLATEAU
    if found is None and named:
        raise BrokenClaim(f"claim {name}: results have no variable {plateau!r} (plateau)")
    own = [dim for dim in values.dims if _is_of_seeds(dim, results)]
    if found is None or not own:
        return None
    if not set(own) & set(found.dims):
        if named:
            raise BrokenClaim(
                f"claim {name}: {plateau!r} (plateau) has the dimensions {_quoted(found.dims)}, "
                f"and the value's seeds are those of {_quoted(own)}"
            )
        return None
    found = found.any([dim for dim in found.dims if dim not in values.dims])
    return found.sel({dim: values[dim] for dim in found.dims})  # values may lack some of the seeds


def _quoted(names: Iterable[Hashable]) -> str:
    return ", ".join(repr(str(name)) for name in names)


@contextlib.contextmanager
def names_checked(name: str, whole: "xr.Dataset") -> Iterator[None]:
    """Distinguish a label that was not measured from a name that does not exist.

    `name` is that of the statement. Raises NotMeasured for a label that a coordinate lacks, since other
    settings have other labels, and BrokenClaim for a variable, a dimension or an attribute that results
    lack, and for a label of a fixed dimension that no part of the whole results has.
    """
    try:
        yield
    except NotMeasured:
        raise
    except KeyError as error:
        missing = _missing_labels(error)
        if missing is None:
            raise BrokenClaim(f"claim {name}: {error.args[0]}") from error
        for dim in FIXED_DIMENSIONS:
            known = whole[dim].values.ravel().tolist() if dim in whole.coords else []
            wrong = [label for label in missing.get(dim, []) if label not in known]
            if wrong:
                raise BrokenClaim(
                    f"claim {name}: the dimension {dim!r} has no label {wrong[0]!r}; "
                    f"its labels are {', '.join(map(repr, known))}"
                ) from error
        raise NotMeasured(f"results lack a label: {error.args[0]}") from error
    except (AttributeError, ValueError) as error:
        raise BrokenClaim(f"claim {name}: {error}") from error


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


def finite(number: float) -> float | None:
    """A number, or None if it is not finite, since JSON has no infinity or NaN."""
    return number if math.isfinite(number) else None
