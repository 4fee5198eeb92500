"""What an experiment is: a file with settings, a measurement, a drawing, and claims to judge.

An experiment file defines `Settings` (a frozen dataclass whose defaults are the full settings), `QUICK`
(the same class, minutes shorter), `measure(settings, fit) -> Dataset`, `draw(results) -> Figure` and
`CLAIMS`. The first line of its docstring is its name and what it claims, "fig2: one layer ...", and a
line "Cost: ..." says what it costs. Files are found in the folder `experiments`, or given by path.
"""

import ast
import difflib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from toyicl.errors import BadInput

if TYPE_CHECKING:  # so that listing experiments needs none of them
    import xarray as xr
    from matplotlib.figure import Figure

    from toyicl.fitting import History
    from toyicl.tasks import Task
    from toyicl.training import Build, Training


class Fit(Protocol):
    """`fitting.fit` as an experiment gets it: seeds, progress and devices are the runner's affair."""

    def __call__(
        self,
        build: "Build",
        task: "Task",
        training: "Training",
        *,
        label: str,
        at_most: int | None = None,
    ) -> "History":
        """Train one learner for each seed, or for the first few; `label` names it to the user."""
        ...


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A checkable statement of the paper, and the band in which our value makes it hold."""

    id: str
    """Short name, such as VO-2a-1."""
    source: str
    """Where the paper says it."""
    statement: str
    """What it says, in one sentence."""
    paper: str
    """The paper's own value, as text."""
    value: "Callable[[xr.Dataset], xr.DataArray]"
    """Our value from the results, one for each seed (or a scalar)."""
    band: tuple[float, float]
    """Least and greatest value, both included, with which the statement holds."""
    floor: float | None = None
    """The exact value where theory knows one."""
    plateau: str = "on_plateau"
    """The variable that says which of the value's seeds never left their plateau."""

    def judge(self, results: "xr.Dataset | None") -> dict[str, Any]:
        """The claim beside our value: mean and range over seeds, and a verdict.

        It holds if every seed's value lies in the band. Seeds that never left their plateau are named
        and stay out of the value; if no other is left, at one size or the like, it fails, as it does
        if a seed diverged.
        """
        record = {
            "id": self.id,
            "source": self.source,
            "statement": self.statement,
            "paper": self.paper,
            "measured": None,
            "spread": None,
            "floor": self.floor,
            "verdict": "not run",
            "band": list(self.band),
            "plateau_seeds": [],
        }
        if results is None:
            return record
        values, stuck = self.value(results), self.stuck(results)
        left, judged = True, values.size
        if stuck is not None:
            record["plateau_seeds"] = _named(stuck)
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

    def stuck(self, results: "xr.Dataset") -> "xr.DataArray | None":
        """Which of the value's seeds never left their plateau; None if the value has no seeds."""
        found, values = results.get(self.plateau), self.value(results)
        known = found is not None and set(found.dims) <= set(values.dims)
        return found if known else None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment file, loaded."""

    name: str
    full: Any
    """Settings at full length."""
    quick: Any
    """Settings that take minutes and keep the qualitative result."""
    measure: "Callable[[Any, Fit], xr.Dataset]"
    draw: "Callable[[xr.Dataset], Figure]"
    claims: Sequence[Claim]


@dataclass(frozen=True)
class Listing:
    """What an experiment file says of itself, read without running it."""

    name: str
    path: Path
    claim: str
    cost: str


def folder() -> Path:
    """Where the experiments are: beside the package in a source tree, inside it when installed."""
    package = Path(__file__).parent
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def listings() -> list[Listing]:
    """All experiments of the folder, in order of their names."""
    return [describe(path) for path in sorted(folder().glob("[!_]*.py"))]


def describe(path: Path) -> Listing:
    """What an experiment file says of itself, in its docstring."""
    lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
    name, _, claim = (lines[0] if lines else "").partition(": ")
    costs = [line.removeprefix("Cost:").strip() for line in lines if line.startswith("Cost:")]
    if not name.isidentifier() or not claim or not costs:
        raise BadInput(
            f"{path} must have a docstring that starts with 'name: claim' and has a line 'Cost: ...'"
        )
    return Listing(name, path, claim, costs[0])


def find(name: str) -> Listing:
    """The experiment of a name, a file name without .py, or a path to an experiment file.

    Raises BadInput, with the nearest name, if there is none.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise BadInput(f"experiment must be a name or a Python file that exists, got {name!r}")
        return describe(path)
    known = listings()
    for listing in known:
        if name in (listing.name, listing.path.stem):
            return listing
    names = [listing.name for listing in known]
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    allowed = f"one of {', '.join(names)}, or the path of an experiment file"
    raise BadInput(f"experiment must be {allowed}, got {name!r}{hint}")


def load(listing: Listing) -> Experiment:
    """Import an experiment file.

    Raises BadInput if it lacks one of the names that an experiment file defines, or if one of them is
    something else than it has to be: better now than after the training.
    """
    module_name = f"toyicl_experiment_{listing.path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, listing.path)
    if spec is None or spec.loader is None:
        raise BadInput(f"experiment must be a Python file, got {listing.path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    needed = ("Settings", "QUICK", "measure", "draw", "CLAIMS")
    missing = [name for name in needed if not hasattr(module, name)]
    if missing:
        raise BadInput(f"{listing.path} must define {', '.join(needed)}; it lacks {missing}")
    wrong = _wrong_kinds(module)
    if wrong:
        raise BadInput(f"{listing.path}: {'; '.join(wrong)}")
    return Experiment(
        name=listing.name,
        full=module.Settings(),
        quick=module.QUICK,
        measure=module.measure,
        draw=module.draw,
        claims=module.CLAIMS,
    )


def _seed_dim(values: "xr.DataArray") -> str:
    """The dimension of seeds: seed, or one of a name that ends with it."""
    return next(str(dim) for dim in values.dims if str(dim).endswith("seed"))


def _named(stuck: "xr.DataArray") -> list[Any]:
    """Seeds on their plateau: numbers, or texts such as "size 20: seed 1" if there is more to say."""
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


def _wrong_kinds(module: ModuleType) -> list[str]:
    """A sentence for each name of an experiment file that is not of the kind it has to be."""
    settings, claims = module.Settings, module.CLAIMS
    a_class = isinstance(settings, type) and is_dataclass(settings)
    each_a_claim = isinstance(claims, tuple | list) and all(isinstance(c, Claim) for c in claims)
    rules = {
        "Settings must be a frozen dataclass": a_class and settings.__dataclass_params__.frozen,
        "QUICK must be Settings with other values": a_class and isinstance(module.QUICK, settings),
        "measure must be a function (settings, fit)": callable(module.measure),
        "draw must be a function (results)": callable(module.draw),
        "CLAIMS must be a tuple of Claim": each_a_claim,
    }
    return [rule for rule, holds in rules.items() if not holds]
