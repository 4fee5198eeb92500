"""The command line: parses a command and carries it out.

Nothing here imports JAX before a command needs it, so that `toyicl list` and help are quick.
"""

import dataclasses
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from toyicl.cli import parsing, saved, training
from toyicl.cli.console import InterruptHandler
from toyicl.cli.options import Demo, Departures, Draw, Floors, List, Run, Verify
from toyicl.core.errors import BadInput, BadSetting, Unfinished
from toyicl.harness import experiment

COMMANDS: dict[str, type] = {
    "list": List,
    "run": Run,
    "departures": Departures,
    "draw": Draw,
    "verify": Verify,
    "floors": Floors,
    "demo": Demo,
}
ALIASES = {"probe": "departures"}
"""Former names of commands."""


def main(words: Sequence[str] | None = None, interrupts: InterruptHandler | None = None) -> None:
    """Run the program.

    Exits with 0 if done, 1 if a claim failed or a run could not be finished, 2 for bad input.
    """
    words = list(sys.argv[1:] if words is None else words)
    try:
        code = carry_out(words, interrupts or InterruptHandler())
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # the reader of the output has closed it, as `toyicl list | head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (BadInput, Unfinished) as error:
        print(f"toyicl: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 1)


def carry_out(words: Sequence[str], interrupts: InterruptHandler) -> int:
    """Parse the command-line arguments and execute the command; returns the exit status."""
    words = [ALIASES.get(words[0], words[0]), *words[1:]] if words else []
    if words == ["--version"]:
        print(f"toyicl {importlib.metadata.version('toyicl')}")
        return 0
    command, loaded = parse(words)
    match command:
        case List():
            return saved.list_runs(command) if command.runs else saved.list_experiments(command)
        case Run():
            return training.run(command, words, interrupts, loaded)
        case Departures():
            given = command.factor or command.values
            return training.departures(command, words, interrupts) if given else list_factors()
        case Draw():
            return saved.draw(command)
        case Verify():
            return saved.verify(command)
        case Demo():
            return training.demo(command, interrupts)
        case _:
            return floors(command)


def parse(words: Sequence[str]) -> tuple[Any, experiment.Experiment | None]:
    """The command, and its experiment if it is one of `run` with a single one, whose file is loaded.

    In two steps, because the options of `run` depend on the experiment: its own settings are among
    them. Raises BadInput that names a setting as the user wrote it.
    """
    kinds: dict[str, Callable[..., Any]] = dict(COMMANDS)
    loaded = _only_experiment(words[1:]) if words[:1] == ["run"] else None
    if loaded is None:
        return parsing.parse_command(kinds, words), None
    default = loaded.quick if "--quick" in words else loaded.full
    kinds["run"] = dataclasses.make_dataclass(
        "Run",
        [("settings", type(default), default)],
        bases=(Run,),
        frozen=True,
        namespace={"__doc__": Run.__doc__},
    )
    try:
        return parsing.parse_command(kinds, words), loaded
    except BadSetting as error:
        raise BadInput(parsing.name_as_given(error, default, words)) from None


def _only_experiment(words: Sequence[str]) -> experiment.Experiment | None:
    """The experiment of the options of `run`, loaded, if they name a single one.

    Raises BadInput for settings without a single experiment.
    """
    command, unknown = parsing.parse_known(Run, [w for w in words if w not in ("--help", "-h")])
    names = command.experiments
    if len(names) == 1 and names[0] != "all":
        listing = experiment.find(names[0])
        training.prepare_devices()
        return experiment.load(listing)
    settings = [word for word in unknown if word.startswith("--settings")]
    if settings:
        given = ", ".join(names) or "none"
        raise BadInput(f"{settings[0]} needs exactly one experiment, got {given}")
    return None


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
    from tqdm import tqdm

    from toyicl import theory
    from toyicl.cli.console import print_floors, print_json
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
    (print_json if command.json else print_floors)(values)
    return 0
