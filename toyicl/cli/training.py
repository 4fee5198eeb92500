"""Commands that train: `run`, `departures`, and `demo` where there is no run to show."""

import dataclasses
import shlex
import sys
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toyicl.cli import job, parsing, saved
from toyicl.cli.console import InterruptHandler, TerminalConsole, print_verdicts, report_note
from toyicl.cli.options import RUNS, Demo, Departures, Run
from toyicl.core.errors import BadInput
from toyicl.harness import experiment

if TYPE_CHECKING:
    from toyicl.harness import runner

PLACE_OPTIONS = (
    "--out",
    "--coordinator",
    "--processes",
    "--rank",
    "--patience",
    "--checkpoint-every",
)
"""Options with a value that have no effect on results: where and how a run is made."""
PLACE_FLAGS = ("--fresh", "--distributed", "--no-lock", "--lock")
"""Options without a value that have none."""


def prepare_devices() -> None:
    """Configure JAX's devices and cache of compiled programs.

    Before any experiment file is loaded, because such a file may make arrays.
    """
    from toyicl.training import compilation_cache, distributed

    compilation_cache.keep_compiled()
    distributed.use_all_cores()


def run(
    command: Run,
    words: Sequence[str],
    interrupts: InterruptHandler,
    known: experiment.Experiment | None,
) -> int:
    """Run experiments; 1 if a training diverged.

    Of several experiments, those whose results are finished are left out, and one that cannot be run
    does not keep the others from it; see `job.run_each`. Of `all`, those are left out that need
    something which is not installed. `known` is the experiment if there is a single one, loaded, so
    that its file is executed once.
    """
    seeds = _checked_seeds(command)
    prepare_devices()
    chosen = saved.chosen(command.experiments)
    loaded = [known or experiment.load(listing) for listing in chosen]
    grids = [grid_of(command, one) for one in loaded]
    members = [
        job.Member(listing, one, grid, experiment.place(command.out, listing))
        for listing, one, grid in zip(chosen, loaded, grids, strict=True)
    ]
    if "all" in command.experiments:
        members = job.with_prerequisites(members)
    job.require_own_folders(members)
    # Of a cluster, process 0 alone may see the files.
    job.require_free_names(members, read=not command.distributed)
    if command.dry_run and len(members) > 1:
        return job.print_table(command, seeds, members)
    if command.dry_run:
        return _print_plan(command, seeds, members[0])
    _connect(command)
    run_one = partial(_run_one, command, words, seeds, interrupts)
    return (
        job.run_each(command, seeds, members, run_one) if len(members) > 1 else run_one(members[0])
    )


def _run_one(
    command: Run,
    words: Sequence[str],
    seeds: range,
    interrupts: InterruptHandler,
    member: job.Member,
) -> int:
    """Run one experiment; 1 if a training diverged."""
    from toyicl.harness import runner
    from toyicl.training.placement import AcrossBatch, AcrossRuns

    job.require_prerequisites(member)
    former = saved.former_place(command.out, member.listing)
    if former is not None:
        report_note(f"{former} holds a run of an earlier version, which is left as it is")
    outcome = runner.run(
        member.experiment,
        member.grid,
        member.folder,
        seeds=seeds,
        quick=command.quick,
        command=command_of_results(member.experiment.name, command.experiments, words),
        fresh=command.fresh,
        checkpoint_every=command.checkpoint_every,
        lock=command.lock,
        spread=AcrossRuns() if command.shard == "run" else AcrossBatch(),
        console=TerminalConsole(interrupts),
    )
    return print_outcome(outcome, command.quick)


def _checked_seeds(command: Run) -> range:
    """The seeds to run; raises BadInput that names one of the options of `run` if it is not allowed."""
    from toyicl.core.config import require_not_negative, require_positive

    seeds = parsing.parse_seeds(command.seeds)
    if command.checkpoint_every is not None:
        require_not_negative("checkpoint_every", command.checkpoint_every)
    require_positive("patience", command.patience)
    given = (command.coordinator, command.processes, command.rank)
    if not command.distributed and given != (None, None, None):
        raise BadInput("coordinator, processes and rank need --distributed")
    return seeds


def _connect(command: Run) -> None:
    """Join the other processes of a cluster, if there are any."""
    from toyicl.training import distributed

    if command.distributed:
        distributed.connect(
            command.coordinator, command.processes, command.rank, patience=command.patience
        )


def grid_of(command: Run, loaded: experiment.Experiment) -> "runner.Grid":
    """The settings to run: the experiment's, or those given, at each point of the sweep."""
    from toyicl.harness import runner, sweeps

    base = getattr(command, "settings", loaded.quick if command.quick else loaded.full)
    sweep = parsing.parse_sweep(base, command.sweep)
    points = [parsing.with_values(base, values) for values in sweeps.grid(sweep)]
    return runner.Grid(base, sweep, points)


def _print_plan(command: Run, seeds: range, member: job.Member) -> int:
    """Print what would be trained by one experiment; nothing is trained or written."""
    from toyicl.harness import dry_run, runner

    plan = runner.plan(
        member.experiment,
        member.grid,
        member.folder,
        seeds=seeds,
        quick=command.quick,
        fresh=command.fresh,
        warn=report_note,
    )
    print("\n".join(dry_run.lines(plan)))
    return 0


def command_of_results(name: str, names: Sequence[str], words: Sequence[str]) -> str:
    """The command that reproduces one experiment's results.

    It has the options that were given, except for those that only set where and how to run, and no
    other experiment's name. An experiment given by its path keeps the path.
    """
    paths = [word for word in names if word.endswith(".py") and experiment.find(word).name == name]
    options = [word for word in words[1:] if word not in names]
    return shlex.join(["toyicl", "run", *(paths[:1] or [name]), *_without_place(options)])


def _without_place(words: Sequence[str]) -> list[str]:
    """The words of a command without the options that only say where and how it is run."""
    left, kept = list(words), []
    while left:
        word = left.pop(0)
        option, equals, _ = word.replace("_", "-").partition("=")
        if option in PLACE_OPTIONS:
            if not equals:
                left.pop(0)
        elif option not in PLACE_FLAGS:
            kept.append(word)
    return kept


def print_outcome(outcome: "runner.Outcome", quick: bool) -> int:
    """Print verdicts, files and diverged seeds of a run; 1 if a training diverged."""
    print_verdicts(outcome.verdicts)
    if quick and outcome.verdicts:
        print(f"Quick settings; these verdicts are indicative. {outcome.cut}".rstrip())
    for path in outcome.files:
        print(f"wrote {path}")
    for sentence in outcome.diverged:
        report_note(sentence)
    return int(bool(outcome.diverged))


def departures(command: Departures, words: Sequence[str], interrupts: InterruptHandler) -> int:
    """Train and measure along one factor, or over two; 1 if a training diverged."""
    from toyicl.core.config import require_size
    from toyicl.harness import runner
    from toyicl.training.placement import AcrossRuns

    require_size("seeds", command.seeds)
    if len(command.factor) not in (1, 2) or len(command.values) > len(command.factor):
        raise BadInput(
            "departures must have one factor or two, and at most as many lists of values, "
            f"got {len(command.factor)} and {len(command.values)}"
        )
    prepare_devices()
    along = [parsing.parse_values(text) for text in command.values]
    given: dict[str, Any] = dict(zip(("factor", "second_factor"), command.factor, strict=False))
    given |= dict(zip(("values", "second_values"), along, strict=False))
    one = experiment.load(experiment.find("departure_map"))
    changes = {"second_factor": None, "values": (), "second_values": (), **given}
    full, quick = (
        dataclasses.replace(settings, **changes, tolerance=command.tolerance)
        for settings in (one.full, one.quick)
    )
    one, base = dataclasses.replace(one, full=full), quick if command.quick else full
    outcome = runner.run(
        one,
        runner.Grid(base, {}, [base]),
        command.out / "-".join(["departures", *command.factor]),
        seeds=command.seeds,
        quick=command.quick,
        command=shlex.join(["toyicl", *_without_place(words)]),
        fresh=command.fresh,
        lock=command.lock,
        spread=AcrossRuns(),
        console=TerminalConsole(interrupts),
    )
    return print_outcome(outcome, command.quick)


def demo(command: Demo, interrupts: InterruptHandler) -> int:
    """Write the teaching page, train what it shows if there is no run of it, and open it."""
    from toyicl.demo.build import CLASSROOM, QUICK_SEEDS, place, require_place, write

    require_place(command.out)
    folder = place(RUNS)
    if folder is None:
        folder = RUNS / CLASSROOM
        report_note(f"there is no run to show; training quick settings into {folder}")
        _train_quick(CLASSROOM, QUICK_SEEDS, folder, interrupts, lock=command.lock)
    page = write(command.out, folder)
    print(f"wrote {page}")
    if command.open and not webbrowser.open(page.resolve().as_uri()):
        print("toyicl: no browser was found; open the file in one", file=sys.stderr)
    return 0


def _train_quick(
    name: str, seeds: int, folder: Path, interrupts: InterruptHandler, *, lock: bool
) -> None:
    """Run an experiment with its quick settings, into a folder."""
    from toyicl.harness import runner
    from toyicl.training.placement import AcrossRuns

    prepare_devices()
    one = experiment.load(experiment.find(name))
    runner.run(
        one,
        runner.Grid(one.quick, {}, [one.quick]),
        folder,
        seeds=seeds,
        quick=True,
        command=f"toyicl run {name} --quick --seeds {seeds}",
        lock=lock,
        spread=AcrossRuns(),
        console=TerminalConsole(interrupts),
    )
