"""The Makefile reproduces every figure that is checked in, or its caption states what was reduced."""

import itertools
import re
import shlex
from pathlib import Path

import h5py

from toyicl.harness import experiment

ROOT = Path(__file__).parents[2]


def commands():
    """The options with which the target `figures` runs each experiment for the first time."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (recipe,) = re.findall(r"^figures:.*\n((?:\t.*\n)+)", text, re.M)
    found = {}
    for line in re.findall(r"toyicl run (.*)", recipe):
        words = shlex.split(line.replace("--out $(OUT)", ""))
        names = list(itertools.takewhile(lambda word: not word.startswith("--"), words))
        options = words[len(names) :]
        if names == ["all"]:
            names = [one.name for one in experiment.listings() if one.name not in found]
        for name in names:
            assert name not in found
            found[name] = options
    return found


def recorded():
    """The options with which the results of each experiment were computed, and what was reduced."""
    found = {}
    for path in ROOT.glob("figures/*/*/results.nc"):
        with h5py.File(path) as file:
            toyicl, run, name, *options = shlex.split(file.attrs["command"])
            found[name] = options, file.attrs["cut"]
        assert (toyicl, run, name) == ("toyicl", "run", path.parent.name)
    return found


def test_figures_are_reproduced_by_the_commands_that_computed_them_or_state_what_was_reduced():
    expected, made = commands(), recorded()
    assert set(made) == set(expected)
    assert not any(made["fig02_one_step"])
    for name, (options, reduced) in made.items():
        assert options == expected[name] or reduced, name
