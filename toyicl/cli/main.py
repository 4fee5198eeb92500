"""The command line: parse, call, print; nothing else. Nothing here imports JAX before it must."""

import dataclasses
import importlib.metadata
import json
import os
import shlex
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toyicl.cli import parsing
from toyicl.cli.console import InterruptHandler, TerminalConsole, print_floors, print_verdicts
from toyicl.cli.options import FIGURES, RUNS, Demo, Draw, Floors, List, Probe, Run, Verify
from toyicl.core.errors import BadInput, BadSetting, Unfinished
from toyicl.harness import experiment

if TYPE_CHECKING:
    from toyicl.harness import runner

RESULTS, CHECKPOINT = "results.nc", "checkpoint"


def main(words: Sequence[str] | None = None, leaving: InterruptHandler | None = None) -> None:
    """The program: exits with 0 if done, 1 if a claim or a run failed, 2 for bad input."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        code = _obey(words, leaving or InterruptHandler())
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever read the output has seen enough, as in `toyicl list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except BadInput as error:
        print(f"toyicl: {error}", file=sys.stderr)
        sys.exit(2)
    except Unfinished as error:
        print(f"toyicl: {error}", file=sys.stderr)
        sys.exit(1)


def _obey(words: list[str], leaving: InterruptHandler) -> int:
    kinds: dict[str, Callable[..., Any]] = {
        "list": List,
        "run": Run,
        "probe": Probe,
        "draw": Draw,
        "verify": Verify,
        "floors": Floors,
        "demo": Demo,
    }
    if words == ["--version"]:
        print(f"toyicl {importlib.metadata.version('toyicl')}")
        return 0
    loaded = _experiment_with_settings(words[1:]) if words[:1] == ["run"] else None
    if loaded is not None:
        default = loaded.quick if "--quick" in words else loaded.full
        kinds["run"] = _with_settings(default)
    try:
        command = parsing.parse_command(kinds, words)
    except BadSetting as error:
        if loaded is None:
            raise
        raise BadInput(parsing.name_as_given(error, default, words)) from None
    match command:
        case List():
            return list_runs(command) if command.runs else list_experiments(command)
        case Run():
            return run(command, words, leaving, loaded)
        case Probe():
            asked = command.axis or command.values
            return probe(command, words, leaving) if asked else list_axes()
        case Draw():
            return draw(command)
        case Verify():
            return verify(command)
        case Demo():
            return demo(command, leaving)
        case _:
            return floors(command)


def list_experiments(command: List) -> int:
    """Print every experiment; imports no JAX."""
    from toyicl.harness.experiment import listings

    for listing in listings():
        alias = f" ({listing.alias})" if listing.alias else ""
        print(f"{listing.name}{alias}")
        print(f"    {listing.claim}")
        print(f"    Cost: {listing.cost} {_state(listing, command.out)}")
    return 0


def _state(listing: experiment.Listing, out: Path) -> str:
    folder = experiment.place(out, listing)
    if (folder / RESULTS).exists():
        return "Has been run."
    if (folder / CHECKPOINT).exists():
        return "Incomplete; rerun the same command to resume."
    kept = out == RUNS and (experiment.place(FIGURES, listing) / RESULTS).exists()
    return "Kept in figures/." if kept else "Not run yet."


def list_runs(command: List) -> int:
    """Print every run of a folder: what it is, where it comes from, whether it is whole."""
    from toyicl.harness.results import describe

    if not command.out.is_dir():
        if command.out == RUNS:
            print("No runs yet; `toyicl run fig2 --quick` makes the first.")
            return 0
        raise BadInput(f"out must be a folder of runs, got {command.out}, which does not exist")
    for folder in sorted(path for path in command.out.iterdir() if path.is_dir()):
        for line in describe(folder):
            print(line)
    return 0


def run(
    command: Run,
    words: Sequence[str],
    leaving: InterruptHandler,
    known: experiment.Experiment | None = None,
) -> int:
    """Run experiments.

    `known` is the experiment if it is the only one and has been loaded, so that its file is not
    executed again.
    """
    from toyicl.core.config import require_not_negative, require_positive, require_size
    from toyicl.harness import runner
    from toyicl.training import compilation_cache, distributed
    from toyicl.training.placement import AcrossBatch, AcrossRuns

    require_size("seeds", command.seeds)
    if command.checkpoint_every is not None:
        require_not_negative("checkpoint_every", command.checkpoint_every)
    require_positive("patience", command.patience)
    _prepare_devices()
    chosen = _chosen(command.experiments)
    loaded = [known or experiment.load(listing) for listing in chosen]
    grids = [_grid(command, one) for one in loaded]
    given = (command.coordinator, command.processes, command.rank)
    if not command.distributed and given != (None, None, None):
        raise BadInput("coordinator, processes and rank need --distributed")
    if command.distributed:
        distributed.connect(
            command.coordinator, command.processes, command.rank, patience=command.patience
        )
    failed = False
    for listing, one, grid in zip(chosen, loaded, grids, strict=True):
        outcome = runner.run(
            one,
            grid,
            experiment.place(command.out, listing),
            seeds=command.seeds,
            quick=command.quick,
            command=_said(one.name, command.experiments, words),
            fresh=command.fresh,
            checkpoint_every=command.checkpoint_every,
            lock=command.lock,
            spread=AcrossRuns() if command.shard == "run" else AcrossBatch(),
            screen=TerminalConsole(leaving),
        )
        failed = bool(_say(outcome, command.quick)) or failed
        compilation_cache.forget_programs()
    return int(failed)


def _say(outcome: "runner.Outcome", quick: bool) -> int:
    """Print what a run left behind; 1 if a training diverged."""
    print_verdicts(outcome.verdicts)
    if quick:
        print("Quick settings: fewer steps and episodes; these verdicts are indicative.")
    for path in outcome.files:
        print(f"wrote {path}")
    for sentence in outcome.diverged:
        print(f"toyicl: {sentence}", file=sys.stderr)
    return int(bool(outcome.diverged))


def list_axes() -> int:
    """Print every axis of a probe."""
    from toyicl.studies.departures import AXES

    for name, axis in AXES.items():
        values = ", ".join(f"{value:g}" for value in axis.values)
        print(f"{name:<22} {axis.meaning}")
        print(f"{'':<22} values, if none are given: {values}")
    return 0


def probe(command: Probe, words: Sequence[str], leaving: InterruptHandler) -> int:
    """Measure along one axis, or over two."""
    from toyicl.core.config import require_size
    from toyicl.harness import runner
    from toyicl.training.placement import AcrossRuns

    require_size("seeds", command.seeds)
    if len(command.axis) > 2 or len(command.values) > len(command.axis):
        raise BadInput(
            "probe must have one axis or two, and at most as many lists of values, "
            f"got {len(command.axis)} and {len(command.values)}"
        )
    _prepare_devices()
    along = [parsing.parse_values(text) for text in command.values]
    given: dict[str, Any] = dict(zip(("axis", "second_axis"), command.axis, strict=False))
    given |= dict(zip(("values", "second_values"), along, strict=False))
    one = experiment.load(experiment.find("probe"))
    changes = {"second_axis": None, "values": (), "second_values": (), **given}
    full, quick = (
        dataclasses.replace(settings, **changes, tolerance=command.tolerance)
        for settings in (one.full, one.quick)
    )
    one, base = dataclasses.replace(one, full=full), quick if command.quick else full
    outcome = runner.run(
        one,
        runner.Grid(base, {}, [base]),
        command.out / "-".join(["probe", *command.axis]),
        seeds=command.seeds,
        quick=command.quick,
        command=shlex.join(["toyicl", *words]),
        fresh=command.fresh,
        spread=AcrossRuns(),
        screen=TerminalConsole(leaving),
    )
    return _say(outcome, command.quick)


def draw(command: Draw) -> int:
    """Redraw figures, and judge the claims again, from saved results; with all, of those there are."""
    from toyicl.harness import runner

    folders = [Path(name) for name in command.experiments if runner.has_results(Path(name))]
    named = [name for name in command.experiments if Path(name) not in folders]
    chosen = _chosen(named) if named or not folders else []
    drawn = [(listing, _folder(command.out, listing)) for listing in chosen]
    drawn += [(experiment.find(runner.experiment_of(folder)), folder) for folder in folders]
    for listing, folder in drawn:
        if "all" in command.experiments and not runner.has_results(folder):
            print(f"toyicl: {listing.name} has not been run", file=sys.stderr)
            continue
        for path in runner.redraw(experiment.load(listing), folder, _note, lock=command.lock):
            print(f"wrote {path}")
    return 0


def verify(command: Verify) -> int:
    """Judge claims from saved results, and report on all of them if none is named."""
    from toyicl.harness import report, runner

    if command.out is not None and not command.out.is_dir():
        raise BadInput(f"out must be a folder of runs, got {command.out}, which does not exist")
    chapters, damaged = [], False
    for listing in _chosen(command.experiments or ("all",)):
        folder = _folder(command.out, listing)
        if (
            command.out is None
            and folder.parent == FIGURES
            and runner.has_results(experiment.place(RUNS, listing))
        ):
            passed = f"{experiment.place(RUNS, listing)}, a quick run, is judged by --out {RUNS}"
            print(f"toyicl: {listing.name}: judged {folder}; {passed}", file=sys.stderr)
        results = None
        try:
            results = runner.results_of(folder, _note)
        except (BadInput, Unfinished) as error:  # the others are judged all the same
            print(f"toyicl: {error}", file=sys.stderr)
            damaged = True
        verdicts = runner.judge(experiment.load(listing), results)
        chapters.append(report.Chapter(listing, results, folder, verdicts))
    records = [record for chapter in chapters for record in chapter.verdicts]
    if command.json:
        print(json.dumps(records, indent=1, allow_nan=False))
    else:
        print_verdicts(records)
    if not command.experiments and not command.json:
        print(_counted(records))
    if not command.experiments and any(chapter.results is not None for chapter in chapters):
        for path in report.write(chapters, command.out or FIGURES):
            print(f"wrote {path}", file=sys.stderr)
    return int(damaged or any(record["verdict"] == "fails" for record in records))


def _note(sentence: str) -> None:
    """Print something that a user should know, without ending the command."""
    print(f"toyicl: {sentence}", file=sys.stderr, flush=True)


def _counted(records: Sequence[Mapping[str, Any]]) -> str:
    """How many claims there are of each verdict, in one line."""
    holds, fails, not_run = (
        sum(record["verdict"] == verdict for record in records)
        for verdict in ("holds", "fails", "not run")
    )
    hint = "; `toyicl run fig2 --quick` makes first results" if not_run == len(records) else ""
    return f"{holds} hold, {fails} fail, {not_run} not run{hint}"


def _folder(out: Path | None, listing: experiment.Listing) -> Path:
    """Where the results of an experiment are: a quick run does not stand in for those in figures/."""
    from toyicl.harness import runner

    if out is not None:
        return experiment.place(out, listing)
    own, shipped = (experiment.place(folder, listing) for folder in (RUNS, FIGURES))
    if not runner.has_results(shipped):
        return own
    return own if runner.is_full(own) else shipped


def floors(command: Floors) -> int:
    """Print exact references."""
    from tqdm import tqdm

    from toyicl import theory
    from toyicl.core.config import require_size
    from toyicl.tasks.linear import LinearRegression

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
        print(json.dumps(values, indent=1, allow_nan=False))
        return 0
    print_floors(values)
    return 0


def demo(command: Demo, leaving: InterruptHandler) -> int:
    """Write the teaching page, train what it lacks before, and open it."""
    from toyicl.demo.build import CLASSROOM, QUICK_SEEDS, place, require_place, write

    require_place(command.out)
    folder = place(RUNS)
    if folder is None:
        folder = RUNS / CLASSROOM
        print(f"toyicl: no run to show; training quick settings into {folder}", file=sys.stderr)
        _train_quick(CLASSROOM, QUICK_SEEDS, folder, leaving)
    page = write(command.out, folder)
    print(f"wrote {page}")
    if command.open and not webbrowser.open(page.resolve().as_uri()):
        print("toyicl: no browser was found; open the file in one", file=sys.stderr)
    return 0


def _train_quick(name: str, seeds: int, folder: Path, leaving: InterruptHandler) -> None:
    """Run an experiment at quick settings."""
    from toyicl.harness import runner
    from toyicl.training.placement import AcrossRuns

    _prepare_devices()
    one = experiment.load(experiment.find(name))
    runner.run(
        one,
        runner.Grid(one.quick, {}, [one.quick]),
        folder,
        seeds=seeds,
        quick=True,
        command=f"toyicl run {name} --quick --seeds {seeds}",
        spread=AcrossRuns(),
        screen=TerminalConsole(leaving),
    )


def _chosen(names: Sequence[str]) -> list[experiment.Listing]:
    if "all" in names:
        return experiment.listings()
    if not names:
        raise BadInput("experiment must be named, or all; `toyicl list` shows them")
    return [experiment.find(name) for name in names]


def _prepare_devices() -> None:
    """Before any experiment file is loaded, since such a file may make arrays at once."""
    from toyicl.training import compilation_cache, distributed

    compilation_cache.keep_compiled()
    distributed.use_all_cores()


def _experiment_with_settings(words: Sequence[str]) -> experiment.Experiment | None:
    """The experiment whose own settings the words of `run` may change: the only one, loaded.

    None if several are named, or none. Raises BadInput for settings without a single experiment.
    """
    if "--help" in words or "-h" in words:
        words = [word for word in words if word not in ("--help", "-h")]
    command, unknown = parsing.parse_known(Run, words)
    names = command.experiments
    if len(names) == 1 and names[0] != "all":
        listing = experiment.find(names[0])
        _prepare_devices()
        return experiment.load(listing)
    settings = [word for word in unknown if word.startswith("--settings")]
    if settings:
        given = ", ".join(names) or "none"
        raise BadInput(f"{settings[0]} needs exactly one experiment, got {given}")
    return None


def _with_settings(default: Any) -> type[Run]:
    """The options of `run`, with an experiment's own settings."""
    extended = dataclasses.make_dataclass(
        "Run", [("settings", type(default), default)], bases=(Run,), frozen=True
    )
    extended.__doc__ = Run.__doc__
    return extended


def _said(name: str, names: Sequence[str], words: Sequence[str]) -> str:
    """The command of one experiment's results: what was said, but for other names and the places.

    An experiment that was said by its path is found by nothing else.
    """
    paths = [word for word in names if word.endswith(".py") and experiment.find(word).name == name]
    kept = [word for word in words[1:] if word not in names]
    options = [
        "--out",
        "--coordinator",
        "--processes",
        "--rank",
        "--patience",
        "--checkpoint-every",
    ]
    said = ["toyicl", "run", *(paths[:1] or [name])]
    while kept:
        word = kept.pop(0)
        option, equals, _ = word.replace("_", "-").partition("=")
        if option in options and not equals:
            kept.pop(0)
        elif option not in [*options, "--fresh", "--distributed"]:
            said.append(word)
    return shlex.join(said)


def _grid(command: Run, loaded: experiment.Experiment) -> "runner.Grid":
    """The settings to run: the experiment's, or those given, at each point of the sweep."""
    from toyicl.harness import runner, sweeps

    base = getattr(command, "settings", loaded.quick if command.quick else loaded.full)
    sweep = parsing.parse_sweep(base, command.sweep)
    points = [parsing.with_values(base, values) for values in sweeps.grid(sweep)]
    return runner.Grid(base, sweep, points)
