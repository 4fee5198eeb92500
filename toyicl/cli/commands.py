"""The commands by name, and the parsing of one, with the settings of its experiment."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from toyicl.cli import parsing, training
from toyicl.cli.options import Circuits, Demo, Departures, Draw, Floors, Gather, List, Run, Verify
from toyicl.core.errors import BadInput, BadSetting
from toyicl.harness import experiment

COMMANDS: dict[str, type] = {
    "list": List,
    "run": Run,
    "gather": Gather,
    "departures": Departures,
    "draw": Draw,
    "verify": Verify,
    "floors": Floors,
    "circuits": Circuits,
    "demo": Demo,
}


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
    except parsing.BadUsage as error:  # the help without a name does not list the settings
        message = str(error).replace("toyicl run --help", f"toyicl run {loaded.name} --help")
        raise parsing.BadUsage(message) from None


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
