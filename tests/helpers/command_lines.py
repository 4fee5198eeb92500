"""Command lines drawn at random: of all commands, with valid and invalid values of all their options.

No line that is accepted trains for long. Lines of `run` are dry runs, except for those of a small
experiment, whose sizes are given at the end of the line, where they replace what was drawn. The paths
are those of a working folder that `furnish` fills.
"""

import dataclasses
import functools
import shutil
import typing

from hypothesis import strategies as st
from programs import SMALL

from toyicl.cli.commands import COMMANDS
from toyicl.core.nesting import nested
from toyicl.harness import experiment

split = str.split

SHORT = [
    "--settings.training.steps=4",
    "--settings.training.batch-size=4",
    "--settings.training.snapshot-every=2",
    "--settings.task.dim=2",
    "--settings.task.context-size=2",
    "--settings.model.depth=1",
    "--settings.model.heads=1",
    "--settings.model.mlp-size=None",
    "--settings.evaluation-episodes=5",
    "--seeds=1",
]
"""Sizes with which the small experiment takes little more than its compilation."""
EXPERIMENTS = [
    *split("fig2 fig4 fig5 fig9 fig15 prop1 prop2 prop3 probe dials untaught clip dai_maps"),
    *split("dai_regression dual_form views attention_cost context_order softmax_identities"),
    str(SMALL),
]
"""Experiments that are planned: among them they have all kinds of settings."""
NO_PATHS = [
    *split(". .. missing missing/below file.txt file.txt/below folder loop file.py binary.py"),
    *split("broken.py folder.py unnamed.py /proc/nowhere runs damaged nested -- - ~"),
    *("", "x" * 300, "a\nb", "\u00fc \u2603"),
]
"""Paths of the working folder, few of which are what an option expects."""
NAMES = ["fig2", "fig02_one_step", "fig22", "prop3", "small", "all?", "FIG2", str(SMALL), *NO_PATHS]
WHOLE = split("1 2 3 4 7 8 +2 1_0")
NUMBERS = [*WHOLE, *split("0.5 1.0 1e-3 .1 2. 1e3")]
HUGE = [
    *split("100000 1000000 1000000000 2147483647 2147483648 9999999999999999999"),
    *("9" * 40, "9" * 5000),
]
WRONG = [
    *split("0 -1 -0 nan inf -inf 1e400 -1e-400 1e308 5e-324 0x10 None True false x"),
    *split("1,2 1:2 ' {} %s -- - = \u0663 \u00b2 \u2603 \U0001f600"),
    *("", " ", "1 2", "a\nb", "1" * 400),
]
RANGES = [
    *split("0:1:3 0:1:2 1:2:1 0:1:1000000000000 0:1:20000 0:inf:3 1:0:-1 :: a:b:c"),
    *split("1,2 1,1 0,0.5,1 nan,1 1,,2 , 1e300,1e308 -1e308:1e308:3 1;2"),
]


def furnish(folder, finished):
    """Fill a working folder; `finished` is the folder of a finished run, which is copied."""
    shutil.copytree(finished, folder / "runs" / "small")
    shutil.copytree(finished, folder / "damaged" / "small")
    (folder / "damaged" / "small" / "results.nc").write_bytes(b"no results")
    (folder / "nested" / "small" / "results.nc").mkdir(parents=True)
    (folder / "nested" / "small" / "checkpoint").write_text("no folder")
    (folder / "folder").mkdir()
    (folder / "folder.py").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "file.txt").write_text("text")
    (folder / "file.py").write_text('"""A claim.\n\nCost: none.\n"""\n')
    (folder / "unnamed.py").write_text("x = 1\n")
    (folder / "broken.py").write_text('"""A claim.\n\nCost: none.\n"""\nif:\n')
    (folder / "binary.py").write_bytes(b"\xff\x00\x01")


def one_of(*pools):
    return st.one_of(*map(st.sampled_from, pools))


ANYTHING = st.one_of(
    one_of(NUMBERS, HUGE, WRONG),
    # All characters that UTF-8 has, but for NUL. Hypothesis takes seconds to try them as its default.
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)
"""A value that may be of any kind."""


def value_of(kind):
    """Values for an option of a type, many of which are allowed."""
    parts = {kind, *typing.get_args(kind)}
    if typing.get_origin(kind) is typing.Literal:
        return st.one_of(st.sampled_from(typing.get_args(kind)), ANYTHING)
    for known, pools in ((int, (WHOLE, WHOLE, HUGE, WRONG)), (float, (NUMBERS, NUMBERS, WRONG))):
        if known in parts or str(known.__name__) in str(kind):
            return st.one_of(one_of(*pools), ANYTHING)
    return ANYTHING


def written(name, value):
    """An option with a value, written in one of the ways of tyro."""
    dashed = name.replace("_", "-")
    return st.sampled_from([[f"--{dashed}={value}"], [f"--{name}", value], [f"--{dashed}", value]])


def option(name, kind):
    """An option of a type, with a value or, as a switch, without one."""
    if kind is bool:
        dashed = name.replace("_", "-")
        return st.sampled_from([[f"--{dashed}"], [f"--no-{dashed}"], [f"--{dashed}=1"]])
    return value_of(kind).flatmap(lambda value: written(name, value))


@functools.cache
def full_settings(name):
    return experiment.load(experiment.find(name)).full


def settings_of(name):
    """Options of the settings of an experiment."""
    found = []
    for path, value in nested(full_settings(name)):
        for part in dataclasses.fields(value):
            if not dataclasses.is_dataclass(getattr(value, part.name)):
                kind = typing.get_type_hints(type(value))[part.name]
                found.append((f"settings.{path}{part.name}", kind))
    return st.sampled_from(found).flatmap(lambda one: option(*one))


def sweep_of(name):
    """A sweep over a setting of an experiment."""
    paths = [
        f"{path}{part.name}"
        for path, value in nested(full_settings(name))
        for part in dataclasses.fields(value)
    ]
    values = st.one_of(st.sampled_from(RANGES), ANYTHING)
    return st.builds(lambda path, text: [f"--sweep={path}={text}"], st.sampled_from(paths), values)


OF_KIND = {
    "out": st.sampled_from(NO_PATHS).map(lambda path: [f"--out={path}"]),
    "seeds": one_of(("1", "2", "1:3"), HUGE, WRONG, RANGES).map(lambda text: [f"--seeds={text}"]),
    "values": one_of(RANGES, WRONG).map(lambda text: [f"--values={text}"]),
    "factor": one_of(
        ("attention.softmax", "mlp.gate", "model.depth", "task.sine", "task.dim"), WRONG
    ).map(lambda text: [f"--factor={text}"]),
    "sweep": one_of(("training.steps=1", "x=1"), RANGES, WRONG).map(
        lambda text: [f"--sweep={text}"]
    ),
}
"""Options whose values are of no type that has its own rule."""
NEVER = ("experiments", "parts", "open")
"""Arguments that are no options, and the option that opens a browser."""


def options_of(command, without=()):
    """Options of a command itself."""
    kinds = typing.get_type_hints(COMMANDS[command])
    names = [name for name in kinds if name not in (*NEVER, *without)]
    each = [OF_KIND[name] if name in OF_KIND else option(name, kinds[name]) for name in names]
    return st.one_of(each)


def joined(*parts):
    """Lists of words, one after another."""
    return st.tuples(*parts).map(lambda lists: [word for words in lists for word in words])


def some(words, most, least=0):
    return st.lists(words, min_size=least, max_size=most).map(
        lambda lists: [w for one in lists for w in one]
    )


def names(most, pool=NAMES):
    return st.lists(st.sampled_from(pool), max_size=most)


def planned(name):
    """A dry run of an experiment with some of its settings."""
    own = st.one_of(settings_of(name), settings_of(name), sweep_of(name), options_of("run"))
    return joined(st.just(["run", name]), some(own, 4, least=1), st.just(["--quick", "--dry-run"]))


SMALL_RUN = joined(
    st.just(["run", str(SMALL)]),
    some(st.one_of(settings_of(str(SMALL)), options_of("run", without=["distributed"])), 3),
    st.just(SHORT),
)
"""A run of the small experiment, to its end if it is accepted."""
SOME_RUNS = joined(
    st.just(["run"]), names(3), some(options_of("run"), 2), st.just(["--quick", "--dry-run"])
)
FLOORS = joined(
    st.just(["floors", "--dim=2", "--context-size=3"]),  # spectra of larger tasks take seconds
    some(options_of("floors"), 3),
    st.sampled_from([["--steps=1"], ["--steps=0"]]),
)
DEPARTURES = joined(
    st.sampled_from([["departures"], ["probe"]]),
    some(options_of("departures"), 3),
    st.sampled_from(
        [["--seeds=0"], ["--seeds=x"], ["--tolerance=0"], ["--values=0,0"], ["--axis=x"]]
    ),
)
"""Sweeps of departures, which are not accepted, since there is no dry run of them."""
PLAIN = st.sampled_from(("list", "gather", "draw", "verify", "demo", "circuits")).flatmap(
    lambda name: joined(
        st.just([name]),
        names(0 if name in ("list", "demo", "circuits") else 2),
        some(options_of(name), 2),
        st.just(["--no-open"] if name == "demo" else []),
    )
)
UNKNOWN = st.lists(
    st.one_of(st.sampled_from([*COMMANDS, "--help", "--version", "-h"]), ANYTHING), max_size=3
)
"""Words in any order. A help text may be among them."""


def is_cheap(words):
    """Whether a line neither trains for long nor lists all experiments."""
    command = words[0] if words else ""
    alone = [word for word in words[1:] if not word.startswith("-")]
    if command in ("run", "departures", "probe", "demo"):
        return len(words) > 1 and (command != "demo" or "--no-open" in words)
    return command != "verify" or bool(alone)


LINES = st.one_of(
    st.sampled_from(EXPERIMENTS).flatmap(planned),
    st.sampled_from(EXPERIMENTS).flatmap(planned),
    SMALL_RUN,
    SOME_RUNS,
    FLOORS,
    DEPARTURES,
    PLAIN,
    PLAIN,
    UNKNOWN.filter(is_cheap),
)
"""Command lines."""
LINES_OF_PROCESSES = st.one_of(PLAIN, FLOORS, DEPARTURES, UNKNOWN.filter(is_cheap), SOME_RUNS)
"""Command lines of which a process of its own takes seconds."""


def named(words):
    """How many experiments or folders a line may name."""
    return sum(not word.startswith("-") for word in words[1:])
