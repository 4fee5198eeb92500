"""The command line: parses a command and carries it out.

Nothing here imports JAX before a command needs it, so that `toyicl list` and help are quick.
"""

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Any

from toyicl.cli import commands, gathering, saved, training
from toyicl.cli.console import InterruptHandler, exit_status, machine_errors
from toyicl.cli.options import Circuits, Demo, Departures, Draw, Floors, Gather, List, Run, Verify
from toyicl.core import strict_json
from toyicl.core.errors import BadInput, BadSetting, Unfinished

ALIASES = {"probe": "departures"}
"""Former names of commands."""


def main(words: Sequence[str] | None = None, interrupts: InterruptHandler | None = None) -> None:
    """Run the program.

    Exits with 0 if done, 1 if a claim failed or a run could not be finished, 2 for bad input.
    """
    words = list(sys.argv[1:] if words is None else words)
    try:
        with machine_errors():
            code = carry_out(words, interrupts or InterruptHandler())
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # the reader of the output has closed it, as `toyicl list | head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (BadInput, Unfinished) as error:
        print(f"toyicl: {error}", file=sys.stderr)
        sys.exit(exit_status(error))


def carry_out(words: Sequence[str], interrupts: InterruptHandler) -> int:
    """Parse the command-line arguments and execute the command; returns the exit status."""
    words = [ALIASES.get(words[0], words[0]), *words[1:]] if words else []
    if words == ["--version"]:
        print(f"toyicl {importlib.metadata.version('toyicl')}")
        return 0
    command, loaded = commands.parse(words)
    match command:
        case List():
            return saved.list_runs(command) if command.runs else saved.list_experiments(command)
        case Run():
            return training.run(command, words, interrupts, loaded)
        case Gather():
            return gathering.gather(command, interrupts)
        case Departures():
            given = command.factor or command.values
            return training.departures(command, words, interrupts) if given else list_factors()
        case Draw():
            return saved.draw(command)
        case Verify():
            return saved.verify(command)
        case Circuits():
            from toyicl.cli.circuits import circuits

            return circuits(command)
        case Demo():
            return training.demo(command, interrupts)
        case _:
            return floors(command)


def list_factors() -> int:
    """Print every factor that `toyicl departures` can vary."""
    from toyicl.studies.departures import FACTORS

    for name, factor in FACTORS.items():
        values = ", ".join(f"{value:g}" for value in factor.values)
        print(f"{name:<22} {factor.meaning}")
        print(f"{'':<22} default values: {values}")
    return 0


def floors(command: Floors) -> int:
    """Print the exact losses and step sizes of the references."""
    import numpy as np
    from tqdm import tqdm

    from toyicl import theory
    from toyicl.cli.console import print_floors, print_json
    from toyicl.core.config import require_size
    from toyicl.tasks.linear import LinearRegression

    try:
        task = LinearRegression(
            dim=command.dim,
            context_size=command.context_size,
            input_range=command.input_range,
            label_noise=command.noise or None,
        )
    except BadSetting as error:
        raise BadInput(error.under(error.field.replace("label_noise", "noise"))) from None
    require_size("steps", command.steps)
    depths = tqdm(range(1, command.steps + 1), unit="step", disable=None, leave=False)
    values: dict[str, Any] = {}
    with contextlib.suppress(OverflowError, ZeroDivisionError), np.errstate(all="ignore"):
        values = theory.floors(task, depths)
    if not values or not strict_json.is_finite(values):
        raise BadInput(
            "input_range and noise must give losses and step sizes that double precision can "
            f"represent, got {command.input_range} and {command.noise}"
        )
    (print_json if command.json else print_floors)(values)
    return 0
