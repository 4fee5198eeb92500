"""The command line: parse, call, print; nothing else. Nothing here imports JAX before it must."""

import contextlib
import dataclasses
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
import tyro.extras

from toyicl import experiment
from toyicl.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

RUNS = Path("runs")
Names = Annotated[tuple[str, ...], tyro.conf.Positional]


@dataclasses.dataclass(frozen=True)
class List:
    """Every experiment: what it claims, what it costs, whether it has been run."""

    out: Path = RUNS
    """Folder of the runs."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Train, measure, save, draw, and print the verdicts.

    `toyicl run fig2 --help` lists that experiment's own settings as well.
    """

    experiments: Names
    """Experiments to run: names, paths to experiment files, or all."""
    seeds: int = 5
    """How many seeds: 0, 1, ..."""
    quick: bool = False
    """Start from the experiment's quick settings instead of its full ones."""
    out: Path = RUNS
    """Folder of the runs; each experiment writes into a folder of its name there."""


@dataclasses.dataclass(frozen=True)
class Draw:
    """Redraw figures from saved results; nothing is trained."""

    experiments: Names
    """Experiments to draw: names, paths to experiment files, or all."""
    out: Path = RUNS
    """Folder of the runs."""


@dataclasses.dataclass(frozen=True)
class Verify:
    """Each claim: the paper's value, ours with its range over seeds, the exact floor, a verdict."""

    experiments: Names = ()
    """Experiments to verify; all if none is named."""
    out: Path = RUNS
    """Folder of the runs."""
    json: bool = False
    """Print one JSON document and nothing else."""


@dataclasses.dataclass(frozen=True)
class Floors:
    """Exact references on linear regression: predict-0, GD, GD++, ridge and Bayes, and their steps."""

    dim: int = 10
    """Number of inputs, d."""
    context_size: int = 10
    """Number of labelled points, N."""
    input_range: float = 1.0
    """Width r of the inputs' law U(-r/2, r/2)."""
    noise: float = 0.0
    """Standard deviation of the label noise."""
    steps: int = 5
    """Largest number of steps."""
    json: bool = False
    """Print one JSON document and nothing else."""


def main(words: Sequence[str] | None = None) -> None:
    """The program: exits with 0 if done, 1 if a claim or a run failed, 2 for bad input."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        sys.exit(_obey(words))
    except BadInput as error:
        print(f"toyicl: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("toyicl: stopped", file=sys.stderr, flush=True)
        os._exit(1)  # at once: XLA's threads may be compiling, and crash if Python ends around them


def _obey(words: list[str]) -> int:
    kinds: dict[str, Callable[..., Any]] = {
        "list": List,
        "run": Run,
        "draw": Draw,
        "verify": Verify,
        "floors": Floors,
    }
    if words[:1] == ["run"]:
        kinds["run"] = _with_own_settings(words[1:])
    command = _parse(kinds, words)
    match command:
        case List():
            return list_experiments(command)
        case Run():
            return run(command)
        case Draw():
            return draw(command)
        case Verify():
            return verify(command)
        case _:
            return floors(command)


def list_experiments(command: List) -> int:
    """Print every experiment; imports no JAX."""
    from toyicl.experiment import listings

    for listing in listings():
        done = (command.out / listing.name / "results.nc").exists()
        print(f"{listing.name:<8} {listing.claim}")
        print(f"{'':<8} costs {listing.cost} {'Has been run.' if done else 'Not run yet.'}")
    return 0


def run(command: Run) -> int:
    """Run experiments, each with its own settings if it is the only one named."""
    from toyicl import devices, laboratory
    from toyicl.settings import require_size

    require_size("seeds", command.seeds)
    chosen = _chosen(command.experiments)
    devices.use_all_cores()
    failed = False
    for listing in chosen:
        loaded = experiment.load(listing)
        default = loaded.quick if command.quick else loaded.full
        outcome = laboratory.run(
            loaded,
            getattr(command, "settings", default),
            command.out / listing.name,
            seeds=command.seeds,
            quick=command.quick,
            progress=_progress,
        )
        _print_verdicts(outcome.verdicts)
        for path in outcome.files:
            print(f"wrote {path}")
        for sentence in outcome.diverged:
            print(f"toyicl: {sentence}", file=sys.stderr)
            failed = True
    return int(failed)


def draw(command: Draw) -> int:
    """Redraw figures, and judge the claims again, from saved results."""
    from toyicl import laboratory, runs

    for listing in _chosen(command.experiments):
        loaded = experiment.load(listing)
        folder = command.out / listing.name
        results = runs.load_results(folder)
        for path in laboratory.write(loaded, results, folder, laboratory.judge(loaded, results)):
            print(f"wrote {path}")
    return 0


def verify(command: Verify) -> int:
    """Judge claims from saved results."""
    from toyicl import laboratory, runs

    if command.out != RUNS and not command.out.is_dir():
        raise BadInput(f"out must be a folder of runs, got {command.out}, which does not exist")
    verdicts = []
    for listing in _chosen(command.experiments or ("all",)):
        folder = command.out / listing.name
        done = (folder / runs.RESULTS).exists()
        results = runs.load_results(folder) if done else None
        verdicts += laboratory.judge(experiment.load(listing), results)
    if command.json:
        print(json.dumps(verdicts, indent=1))
    else:
        _print_verdicts(verdicts)
    return int(any(record["verdict"] == "fails" for record in verdicts))


def floors(command: Floors) -> int:
    """Print exact references."""
    from tqdm import tqdm

    from toyicl import theory
    from toyicl.settings import require_size
    from toyicl.tasks import LinearRegression

    task = LinearRegression(
        dim=command.dim,
        context_size=command.context_size,
        input_range=command.input_range,
        label_noise=command.noise or None,
    )
    require_size("steps", command.steps)
    depths = tqdm(range(1, command.steps + 1), unit="step", disable=None, leave=False)
    values = theory.floors(task, depths)
    if command.json:
        print(json.dumps(values, indent=1))
        return 0
    print(f"predict 0               {values['predict_zero']:.6f}")
    for name, title in (
        ("gd_shared", "GD, one shared step"),
        ("gd_per_step", "GD, a step for each"),
        ("gdpp_shared", "GD++, shared"),
    ):
        for row in values[name]:
            rest = {key: value for key, value in row.items() if key not in ("steps", "loss")}
            print(f"{title:<20} {row['steps']:>2} {row['loss']:.6f}  {_plain(rest)}")
    ridge = values["ridge"]
    print(f"ridge                   {ridge['loss']:.6f}  penalty {ridge['penalty']:.6g}")
    print(f"Bayes                   {values['bayes']:.6f}")
    return 0


def _chosen(names: Sequence[str]) -> list[experiment.Listing]:
    if "all" in names:
        return experiment.listings()
    if not names:
        raise BadInput("experiment must be named, or all; `toyicl list` shows them")
    return [experiment.find(name) for name in names]


def _with_own_settings(words: Sequence[str]) -> type[Run]:
    """The options of `run`, with those of the experiment if a single one is named."""
    first_option = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    names = words[:first_option]
    if len(names) != 1 or names[0] == "all":
        return Run
    loaded = experiment.load(experiment.find(names[0]))
    default = loaded.quick if "--quick" in words else loaded.full
    extended = dataclasses.make_dataclass(
        "Run", [("settings", type(default), default)], bases=(Run,), frozen=True
    )
    extended.__doc__ = Run.__doc__
    return extended


def _parse(kinds: dict[str, Callable[..., Any]], words: Sequence[str]) -> Any:
    """Parse with tyro; what it has to say of bad input becomes one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(kinds, prog="toyicl", args=words)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise BadInput(_one_line(complaint.getvalue())) from None


def _one_line(box: str) -> str:
    """The message in tyro's framed text: its lines up to the first rule, joined."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:] if not line.startswith("╰")]
    text = " ".join(line for line in lines if not line.startswith("───"))
    text = text.split("For full helptext")[0].split("Argument helptext")[0]
    text = (
        re.sub(r" in toyicl (\w+ )?--help", "", text)
        .replace("Error parsing ", "")
        .replace("__tyro-dummy-inner__.", "")
    )
    return re.sub(r"\s+", " ", text).strip()


@contextlib.contextmanager
def _progress(label: str, steps: int) -> "Iterator[Callable[[int, np.ndarray], None]]":
    """A bar with the mean loss and the time left on a terminal; nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(total=steps, desc=label, unit="step", disable=None, file=sys.stderr) as bar:

        def show(done: int, losses: "np.ndarray") -> None:
            seen = " ".join(f"{loss:.4f}" for loss in losses[:8])
            bar.set_postfix_str(f"loss {seen}", refresh=False)
            bar.update(done - bar.n)

        yield show


def _print_verdicts(verdicts: Sequence[dict[str, Any]]) -> None:
    width = max((len(record["id"]) for record in verdicts), default=0)
    for record in verdicts:
        print(f"{record['verdict']:<8} {record['id']:<{width}}  {record['statement']}")
        ours = "not run" if record["verdict"] == "not run" else "no seed to judge"
        if record["measured"] is not None:
            low, high = record["spread"]
            ours = f"ours {record['measured']:.4g}"
            ours += f" ({low:.4g} to {high:.4g} over seeds)" if high > low else ""
        exact = "" if record["floor"] is None else f"; exact {record['floor']:.4g}"
        print(f"{'':<8} {'':<{width}}  paper: {record['paper']}; {ours}{exact}")
        if record["plateau_seeds"]:
            stuck = ", ".join(map(str, record["plateau_seeds"]))
            print(f"{'':<8} {'':<{width}}  left out, still on its plateau: seed {stuck}")


def _plain(values: dict[str, Any]) -> str:
    def show(value: Any) -> str:
        return ", ".join(map(show, value)) if isinstance(value, list) else f"{value:.6g}"

    return "; ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in values.items())
