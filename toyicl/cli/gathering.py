"""The command `gather`: joins the parts of runs that were divided by seed."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from toyicl.cli import commands, job, saved, training
from toyicl.cli.console import InterruptHandler, TerminalConsole, machine_errors, report_note
from toyicl.cli.options import Gather, Run
from toyicl.core.errors import BadInput, Interrupted, Unfinished
from toyicl.harness import experiment


def gather(command: Gather, interrupts: InterruptHandler) -> int:
    """Join the parts of each run, and measure, save, judge and draw it; the highest exit status.

    A run whose parts cannot be joined is reported in one line, and the others are joined. Raises
    BadInput if the folders have no runs, or not the same ones, and Interrupted if the user has
    interrupted a run.
    """
    from toyicl.harness import gathering
    from toyicl.training import compilation_cache

    if not command.parts:
        raise BadInput("parts must be folders of runs, got none")
    parts = [Path(folder) for folder in command.parts]
    for folder in parts:
        saved.require_folder(folder, "parts must be folders of runs")
    training.prepare_devices()
    found = gathering.find(parts)
    codes = []
    for name, folders in found.items():
        try:
            with machine_errors():
                codes.append(_gather_run(command, folders, interrupts))
        except Interrupted:
            raise
        except (BadInput, Unfinished) as error:
            codes.append(job.report_failure(name, error))
        compilation_cache.forget_programs()
    return max(codes)


def _gather_run(command: Gather, folders: Sequence[Path], interrupts: InterruptHandler) -> int:
    """Join the parts of one run, and complete it; 1 if a training diverged."""
    from toyicl.harness import gathering, provenance, runner, trainings
    from toyicl.training.placement import AcrossRuns

    parts = gathering.read(folders, report_note)
    seeds = [seed for part in parts for seed in part.seeds]
    words = _words(gathering.command_of(parts), len(seeds), folders)
    of_run, one = commands.parse(words)
    if not isinstance(of_run, Run) or one is None:
        raise BadInput(f"parts must be runs of `toyicl run`, got {folders[0]}")
    place = experiment.place(command.out, experiment.find(of_run.experiments[0]))
    gathering.require_no_part(place, folders)
    grid = training.grid_of(of_run, one)
    identity = provenance.identity(one.name, grid.base, seeds, grid.sweep)
    declared = trainings.declared(one, grid.points, grid.sweep)
    resumed = training.command_of_results(one.name, of_run.experiments, words)
    joined = gathering.join(parts, declared, identity, resumed)
    gathering.place(joined, place, fresh=command.fresh, warn=report_note, lock=command.lock)
    print(f"{one.name}: joined the seeds 0 to {seeds[-1]} of {', '.join(map(str, folders))}")
    outcome = runner.run(
        one,
        grid,
        place,
        seeds=seeds,
        quick=of_run.quick,
        command=resumed,
        lock=command.lock,
        spread=AcrossRuns(),
        console=TerminalConsole(interrupts),
    )
    return training.print_outcome(outcome, of_run.quick)


def _words(command: str, seeds: int, folders: Sequence[Path]) -> list[str]:
    """The words of a part's command after `toyicl`, with the number of all seeds."""
    name, *words = shlex.split(command)[1:]
    if name != "run":
        raise BadInput(f"parts must be runs of `toyicl run`, got {folders[0]}, made by `{command}`")
    kept: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--seeds":
            words.pop(0)
        elif not word.startswith("--seeds="):
            kept.append(word)
    return [name, *kept, "--seeds", str(seeds)]
