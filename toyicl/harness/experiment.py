"""Experiment files: settings, trainings, a measurement, a figure, and claims to judge.

An experiment file defines

- `FULL`, an instance of a frozen dataclass: the paper's settings;
- `QUICK`, another instance, which takes minutes;
- `trainings(settings) -> dict[str, Job]`, what is trained, by name; absent if nothing is trained;
- `measure(settings, histories) -> Dataset`, where `histories` has the history of each training by name;
- `draw(results) -> Figure`;
- `CLAIMS`, a tuple of `Claim` and `Finding`;
- `prerequisites(settings) -> None`, which raises BadInput if something that the experiment needs is not
  installed; absent if nothing has to be.

The first line of its docstring is its claim; a line "Cost: ..." gives the cost, and an optional line
"Alias: ..." a second name. The files are in the folder `experiments`, or given by path.
"""

import ast
import difflib
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from toyicl.core.errors import BadInput
from toyicl.harness.claims import Statement

if TYPE_CHECKING:  # so that listing experiments needs none of them
    import xarray as xr
    from matplotlib.figure import Figure

    from toyicl.training.loop import Histories, Job

GROUPS = (
    "von_oswald_2022",
    "objections",
    "departures",
    "dai_2022",
    "softmax_context",
    "task_diversity",
    "prior_mean",
    "labels_alone",
    "mixed_noise",
    "preconditioned_depth",
    "weight_changes",
    "rank_one",
    "recurrent",
    "language_model",
    "teaching",
)
"""Folders of the experiments, in the order in which they are listed."""
RESULTS, CHECKPOINT = "results.nc", "checkpoint"
"""Names of a run's results, and of the folder of its checkpoint, in the run's folder."""


def _no_prerequisites(settings: Any) -> None:
    """Of an experiment that needs no optional package."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment file, loaded."""

    name: str
    full: Any
    """Settings at full length."""
    quick: Any
    """Settings that take minutes and keep the qualitative result."""
    trainings: "Callable[[Any], dict[str, Job]]"
    """The trainings that given settings need, by name; none if the file does not define it."""
    measure: "Callable[[Any, Histories], xr.Dataset]"
    draw: "Callable[[xr.Dataset], Figure]"
    claims: Sequence[Statement]
    prerequisites: "Callable[[Any], None]" = _no_prerequisites
    """Raises BadInput if something is not installed that the experiment needs at given settings."""
    digest: str
    """Digest of the file."""


@dataclass(frozen=True)
class Listing:
    """What an experiment file states about itself, read without running it."""

    name: str
    """The file's name without its suffix."""
    path: Path
    claim: str
    """The first line of the docstring."""
    cost: str
    """What the docstring states after "Cost:"."""
    alias: str = ""
    """A second name, given in the docstring after "Alias:"; empty if there is none."""
    group: str = ""
    """Folder of the file below the folder of the experiments; empty for a user's own file."""


def folder() -> Path:
    """Folder of the experiments: next to the package in a source tree, inside it when installed."""
    package = Path(__file__).parents[1]
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def listings() -> list[Listing]:
    """All experiments that come with the package, by group and name."""
    found = (describe(path) for path in folder().glob("*/[!_]*.py"))
    return sorted(found, key=lambda listing: (GROUPS.index(listing.group), listing.name))


def describe(path: Path) -> Listing:
    """What an experiment file states in its docstring.

    Raises BadInput unless the file can be read and parsed, and its docstring starts with a claim and
    has a line "Cost: ...".
    """
    try:
        docstring = _docstring(path.read_text(encoding="utf-8"), path.name)
    except (OSError, SyntaxError, ValueError) as error:  # also text that is not UTF-8
        raise BadInput(f"experiment must be a Python file, got {str(path)!r}: {error}") from None
    lines = docstring.splitlines()
    claim = lines[0] if lines else ""
    cost, alias = (_entry(lines, name) for name in ("Cost", "Alias"))
    if not path.stem.isidentifier():
        raise BadInput(f"an experiment file must be named like a Python module, got {path}")
    if not claim or not cost:
        raise BadInput(
            f"{path} must have a docstring whose first line is its claim and which has a line "
            "'Cost: ...'"
        )
    own = path.resolve().parent.parent == folder().resolve()
    return Listing(path.stem, path, claim, cost, alias, path.parent.name if own else "")


@functools.lru_cache(maxsize=256)
def _docstring(code: str, name: str) -> str:
    """The docstring of a Python file, or nothing; raises SyntaxError or ValueError if it is none.

    All files are read each time that an experiment is looked up, but parsed only if they have changed.
    """
    return ast.get_docstring(ast.parse(code, filename=name)) or ""


def _entry(lines: Sequence[str], name: str) -> str:
    """The text after "name:" in the lines of a docstring; empty if no line has it."""
    found = (line.removeprefix(f"{name}:").strip() for line in lines if line.startswith(f"{name}:"))
    return next(found, "")


def find(name: str) -> Listing:
    """The experiment with a name or an alias, or the one in a Python file given by its path.

    Raises BadInput, with the nearest name, if there is none.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise BadInput(f"experiment must be a name or a Python file that exists, got {name!r}")
        if not _is_text(str(path.resolve())):
            raise BadInput(f"experiment must be a file whose path is UTF-8 text, got {name!r}")
        return describe(path)
    known = listings()
    for listing in known:
        if name and name in (listing.name, listing.alias):
            return listing
    names = [listing.name for listing in known]
    nearest = difflib.get_close_matches(name, [*names, *(one.alias for one in known)], n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    rule = "a name that `toyicl list` shows, or the path of an experiment file"
    raise BadInput(f"experiment must be {rule}, got {name!r}{hint}")


def _is_text(path: str) -> bool:
    """Whether a path can be encoded; JAX fails on code in other files."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def place(out: Path, listing: Listing) -> Path:
    """Folder of an experiment's results below a folder of results.

    Grouped like the experiments if `out` has a folder for the group, as `figures` has; for a new
    group, run `mkdir figures/GROUP` first.
    """
    grouped = out / listing.group
    return (grouped if listing.group and grouped.is_dir() else out) / listing.name


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
    needed = ("FULL", "QUICK", "measure", "draw", "CLAIMS")
    missing = [name for name in needed if not hasattr(module, name)]
    if missing:
        raise BadInput(f"{listing.path} must define {', '.join(needed)}; it lacks {missing}")
    wrong = _wrong_kinds(module)
    if wrong:
        raise BadInput(f"{listing.path}: {'; '.join(wrong)}")
    return Experiment(
        name=listing.name,
        full=module.FULL,
        quick=module.QUICK,
        trainings=getattr(module, "trainings", _no_trainings),
        measure=module.measure,
        draw=module.draw,
        claims=module.CLAIMS,
        prerequisites=getattr(module, "prerequisites", _no_prerequisites),
        digest=hashlib.sha256(listing.path.read_bytes()).hexdigest()[:16],
    )


def _no_trainings(settings: Any) -> "dict[str, Job]":
    """Of an experiment that trains nothing."""
    return {}


def _wrong_kinds(module: ModuleType) -> list[str]:
    """A sentence for each name of an experiment file that is not of the kind it has to be."""
    full, claims = module.FULL, module.CLAIMS
    settings = is_dataclass(full) and not isinstance(full, type)
    each_a_statement = isinstance(claims, tuple | list) and all(
        isinstance(c, Statement) for c in claims
    )
    rules = {
        "FULL must be an instance of a frozen dataclass": settings
        and type(full).__dataclass_params__.frozen,
        "QUICK must be of the class of FULL": isinstance(module.QUICK, type(full)),
        "trainings must be a function (settings)": callable(
            getattr(module, "trainings", _no_trainings)
        ),
        "prerequisites must be a function (settings)": callable(
            getattr(module, "prerequisites", _no_prerequisites)
        ),
        "measure must be a function (settings, histories)": callable(module.measure),
        "draw must be a function (results)": callable(module.draw),
        "CLAIMS must be a tuple of Claim and Finding": each_a_statement,
    }
    return [rule for rule, holds in rules.items() if not holds]
