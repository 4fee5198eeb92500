"""Statements to judge: claims by other authors, and findings of toyicl.

A claim compares a measured value with a value in one of six relations. Its verdict follows from a 95%
interval of the measured value (`intervals`) and, for equality, from the margin of its quantity
(`margins`). A finding gives a band of values, and serves as a regression test.
"""

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from toyicl.core.errors import BadInput
from toyicl.harness import verdicts
from toyicl.harness.evaluation import (
    DEFAULT_PLATEAU,
    BrokenClaim,
    Evaluated,
    NotMeasured,
    Value,
    evaluate,
    finite,
    names_checked,
)
from toyicl.harness.intervals import Interval, student
from toyicl.harness.margins import MARGINS, half_width
from toyicl.harness.verdicts import Region, Verdict

if TYPE_CHECKING:  # so that listing experiments does not need it
    import xarray as xr

Relation = Literal["equals", "less", "greater", "increases", "decreases", "appears"]
RELATIONS = ("equals", "less", "greater", "increases", "decreases", "appears")
AUTHORS = ("paper", "critic", "later paper")
"""Authors of claims."""
OURS = "toyicl"
"""Author of findings."""


@dataclass(frozen=True)
class Statement(ABC):
    """A checkable statement with a measured value: a `Claim` or a `Finding`."""

    id: str
    """Short name, such as VO-2a-1."""
    statement: str
    """The statement, as one sentence."""
    value: Value
    """Function that computes the measured value from the results: one for each seed, or a scalar."""
    _: KW_ONLY
    source: str
    """Where the statement is made."""
    paper: str
    """The author's own value, as text."""
    work: str = ""
    """The work that makes the statement."""
    floor: float | None = None
    """The theoretical value, where one is known."""
    kind: Literal["measured", "cosine"] = "measured"
    """Whether the statement is based on a cosine alone."""
    analytical: bool = False
    """Whether the statement is independent of training. Seeds on a plateau then count."""
    shown_with: Mapping[str, Value] = field(default_factory=dict)
    """Further values, by name, that the report shows next to the measured one, such as the norm ratio
    and the untrained control of a cosine. They are means over seeds and do not affect the verdict."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Coordinates of the part of the results to which the statement applies, such as {"heads": 2};
    all results if empty."""
    over: Sequence[str] = ()
    """Dimensions along which the values are a sample, if they are not those of seeds."""
    plateau: str = DEFAULT_PLATEAU
    """The variable that marks the seeds that are still on their plateau."""
    note: str = ""
    """Remarks on the verdict."""

    def __post_init__(self) -> None:
        if self.floor is not None and not math.isfinite(self.floor):
            raise BadInput(f"{self.id}: floor must be a finite number or None, got {self.floor}")

    def judge(
        self, results: "xr.Dataset | None", whole: "xr.Dataset | None" = None
    ) -> dict[str, Any]:
        """The record of the statement, as plain data: measured value, interval, verdict, and origin.

        Seeds that never left their plateau are named and do not count. Without results, and where
        results lack the statement's part, the verdict is "not run". `whole` are the results of all
        points of a sweep, if `results` are those of one. Raises BrokenClaim for names that results
        lack.
        """
        record = self._description() | {
            "measured": None,
            "spread": None,
            "interval": None,
            "values": None,
            "seeds": None,
            "plateau_seeds": [],
            "plateau_losses": [],
            "shown_with": {},
            "verdict": verdicts.NOT_RUN,
            "reason": "",
            "place": "",
        }
        if results is None:
            return record | {"reason": "there are no results"}
        whole = results if whole is None else whole
        try:
            found = self.evaluate(results, whole)
            with names_checked(self.id, whole):
                shown = {n: found.mean(v(found.part)) for n, v in self.shown_with.items()}
        except NotMeasured as error:
            return record | {"reason": str(error)}
        verdict = self._verdict(found)
        return record | {
            "shown_with": shown,
            "plateau_seeds": found.plateau_seeds(),
            "plateau_losses": found.plateau_losses(),
            **self._measured(found),
            **verdict._asdict(),
            "interval": _representable(verdict.interval),
        }

    def evaluate(self, results: "xr.Dataset", whole: "xr.Dataset | None" = None) -> Evaluated:
        """The statement's part of the results, its values there, and the seeds on their plateau.

        Raises NotMeasured if the results lack the part, and BrokenClaim for names that they lack.
        """
        plateau = "" if self.analytical else self.plateau
        whole = results if whole is None else whole
        return evaluate(self.id, self.value, self.where, plateau, results, whole)

    @property
    @abstractmethod
    def accepted(self) -> Region:
        """The values with which the statement is true."""

    @property
    @abstractmethod
    def criterion(self) -> str:
        """The values with which the statement is true, as text."""

    def sample_dims(self, found: Evaluated) -> tuple[str, ...]:
        """Dimensions along which the values are a sample.

        Raises BrokenClaim if the values lack a dimension of `over`.
        """
        missing = [dim for dim in self.over if dim not in found.values.dims]
        if missing:
            raise BrokenClaim(f"claim {self.id}: values have no dimension {missing[0]!r} (over)")
        return tuple(self.over) or found.seed_dims()

    @abstractmethod
    def _verdict(self, found: Evaluated) -> Verdict:
        """The verdict on the values."""

    def _description(self) -> dict[str, Any]:
        """The entries of a record that do not depend on results."""
        return {
            "id": self.id,
            "work": self.work,
            "source": self.source,
            "statement": self.statement,
            "paper": self.paper,
            "floor": self.floor,
            "kind": self.kind,
            "analytical": self.analytical,
            "band": [finite(self.accepted.low), finite(self.accepted.high)],
            "criterion": self.criterion,
            "note": self.note,
        }

    def _measured(self, found: Evaluated) -> dict[str, Any]:
        """Mean and range of the values that count, each of them if they are few, and how many."""
        counted = found.counted()
        numbers = [float(value) for value in counted if math.isfinite(value)]
        dims = self.sample_dims(found)
        samples = found.samples(dims) if dims else []
        total = math.prod(found.values.sizes[dim] for dim in dims)
        return {
            "measured": statistics.mean(numbers) if numbers else None,  # which does not overflow
            "spread": [min(numbers), max(numbers)] if numbers else None,
            "values": [finite(value) for value in samples[0].values] if len(samples) == 1 else None,
            "seeds": [min(len(sample.values) for sample in samples), total] if samples else None,
        }


@dataclass(frozen=True, kw_only=True)
class Claim(Statement):
    """A statement by an author other than toyicl.

    Raises BadInput for entries that do not fit the relation.
    """

    relation: Relation
    """How the measured value compares with `reference`: it "equals" it within the margin of `quantity`,
    is "less" or "greater"; or it "increases" or "decreases": is above or below 0, as a difference or a
    slope is; or an event, a value of 0 or 1, "appears" in more than the fraction `reference` of
    seeds."""
    quantity: str = ""
    """A key of `margins.MARGINS`, for "equals"."""
    reference: float | None = None
    """The value that the measured one is compared with; for "appears", a half if it is not given."""
    printed: str = ""
    """The number that the work prints, as text; the margin covers half a unit of its last digit."""
    author: Literal["paper", "critic", "later paper"] = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        compared = self.reference is not None
        rules = {
            f"relation must be one of {', '.join(RELATIONS)}": self.relation in RELATIONS,
            f"author must be one of {', '.join(AUTHORS)}; a statement by {OURS} is a finding": (
                self.author in AUTHORS
            ),
            "reference must be a finite number": not compared or math.isfinite(self.reference or 0),
            "equals, less and greater need a value to compare with": compared
            or self.relation not in ("equals", "less", "greater"),
            "increases and decreases compare with 0 and take no other value": not compared
            or self.relation not in ("increases", "decreases"),
            f"quantity must be one of {', '.join(MARGINS)}": self.quantity in ("", *MARGINS),
            "equals needs a quantity": bool(self.quantity) or self.relation != "equals",
        }
        for rule, kept in rules.items():
            if not kept:
                raise BadInput(f"claim {self.id}: {rule}")
        if self.relation == "equals":
            self._half_width()

    def _half_width(self) -> float:
        try:
            return half_width(self.quantity, self.reference or 0.0, self.printed)
        except BadInput as error:
            raise BadInput(f"claim {self.id}: {error}") from error

    @property
    def compared_with(self) -> float:
        """The value that the measured one is compared with."""
        default = 0.5 if self.relation == "appears" else 0.0
        return default if self.reference is None else self.reference

    @property
    def accepted(self) -> Region:
        """The values with which the claim is true."""
        value = self.compared_with
        match self.relation:
            case "equals":
                half = self._half_width()
                return Region(value - half, value + half, closed=True)
            case "less" | "decreases":
                return Region(-math.inf, value, closed=False)
            case _:
                return Region(value, math.inf, closed=False)

    @property
    def criterion(self) -> str:
        """The values with which the claim is true, as text."""
        value = self.compared_with
        match self.relation:
            case "equals":
                return f"{value:.4g} ± {self._half_width():.2g}"
            case "less" | "decreases":
                return f"less than {value:.4g}"
            case "appears":
                return f"in more than {100 * value:.4g}% of seeds"
            case _:
                return f"greater than {value:.4g}"

    def _verdict(self, found: Evaluated) -> Verdict:
        over = self.sample_dims(found)
        if self.analytical:
            each = verdicts.of_each_value(self.accepted, found.samples(()))
            proved = each.verdict == verdicts.REPRODUCED
            return each._replace(verdict=verdicts.PROVED if proved else verdicts.REFUTED)
        if not over:
            verdict = verdicts.of_each_value(self.accepted, found.samples(()))
        else:
            interval_of = verdicts.successes if self.relation == "appears" else student
            verdict = verdicts.of_samples(self.accepted, found.samples(over), interval_of)
        if verdict.verdict != verdicts.REPRODUCED and _was_cut(found):
            return verdict._replace(verdict=verdicts.INCONCLUSIVE, reason=verdicts.CUT, place="")
        return verdict

    def _description(self) -> dict[str, Any]:
        return super()._description() | {
            "author": self.author,
            "relation": self.relation,
            "quantity": self.quantity,
            "reference": self.compared_with,
            "over": list(self.over),
        }


@dataclass(frozen=True)
class Finding(Statement):
    """A statement by toyicl, which holds if the values of all seeds lie in its band.

    With `over`, it is a statement on the mean along these dimensions, and is judged by the interval of
    the mean, as a claim is: it holds if the whole interval lies in the band.
    """

    band: tuple[float, float]
    """Smallest and largest value for which the statement holds, both included."""
    _: KW_ONLY
    paper: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.band
        if not low <= high:
            raise BadInput(f"finding {self.id}: band must be (low, high), got {self.band}")

    @property
    def author(self) -> str:
        """The author of every finding."""
        return OURS

    @property
    def accepted(self) -> Region:
        """The band."""
        return Region(*self.band, closed=True)

    @property
    def criterion(self) -> str:
        """The band as text."""
        low, high = self.band
        if math.isinf(low):
            return "any value" if math.isinf(high) else f"at most {high:.4g}"
        return f"at least {low:.4g}" if math.isinf(high) else f"{low:.4g} to {high:.4g}"

    def _verdict(self, found: Evaluated) -> Verdict:
        samples = found.samples(self.sample_dims(found))
        if self.over:
            verdict = verdicts.of_samples(self.accepted, samples, student)
            names = {verdicts.REPRODUCED: verdicts.HOLDS, verdicts.NOT_REPRODUCED: verdicts.FAILS}
            return verdict._replace(verdict=names.get(verdict.verdict, verdict.verdict))
        if not all(sample.values for sample in samples):
            return Verdict(verdicts.FAILS, verdicts.ALL_ON_PLATEAU)
        each = verdicts.of_each_value(self.accepted, samples)
        holds = each.verdict == verdicts.REPRODUCED
        return each._replace(verdict=verdicts.HOLDS if holds else verdicts.FAILS)

    def _description(self) -> dict[str, Any]:
        return super()._description() | {"author": OURS}


def _representable(interval: Interval | None) -> list[float] | None:
    """The ends of an interval; None also if they exceed the largest number."""
    return None if interval is None or not all(map(math.isfinite, interval)) else list(interval)


def _was_cut(found: Evaluated) -> bool:
    """Whether training was shorter than at full settings and the loss was still falling."""
    from toyicl.harness import loss_curves  # needs NumPy, which listing experiments does not

    return loss_curves.is_shortened(found.part) and loss_curves.any_is_falling(
        found.part, found.stuck
    )
