"""The Makefile reproduces every figure that is checked in, with the settings of its results."""

import itertools
import re
import shlex
from pathlib import Path

import h5py

ROOT = Path(__file__).parents[2]


def commands():
    """The options with which the target `figures` runs each experiment."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (recipe,) = re.findall(r"^figures:.*\n((?:\t.*\n)+)", text, re.M)
    found = {}
    for line in re.findall(r"toyicl run (.*)", recipe):
        words = shlex.split(line.replace("--out $(OUT)", ""))
        names = list(itertools.takewhile(lambda word: not word.startswith("--"), words))
        for name in names:
            assert name not in found
            found[name] = words[len(names) :]
    return found


def recorded():
    """The options with which the results of each experiment were computed."""
    found = {}
    for path in ROOT.glob("figures/*/*/results.nc"):
        with h5py.File(path) as file:
            toyicl, run, name, *options = shlex.split(file.attrs["command"])
        assert (toyicl, run, name) == ("toyicl", "run", path.parent.name)
        found[name] = options
    return found


def test_figures_are_reproduced_by_the_commands_that_computed_them():
    expected = recorded()
    assert "fig02_one_step" in expected
    assert commands() == expected
