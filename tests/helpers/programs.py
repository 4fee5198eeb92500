"""Starting the program from tests: as a process of its own, or, in seconds less, in this one."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from toyicl.cli import main

PROGRAM = [sys.executable, "-m", "toyicl"]
SOFTMAX = ["departures", "--factor", "attention.softmax"]
"""A departure sweep, without the place of its results."""
SMALL = Path(__file__).with_name("small.py")


def environment(**changes):
    return os.environ | {name: str(value) for name, value in changes.items()}


def toyicl(*words, cwd=None, timeout=300, **changes):
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**changes),
        timeout=timeout,
        check=False,
    )


def here(*words, cwd=None):
    """What `toyicl` answers, from this process: in float64, and on its devices as they are.

    Not for what precision, devices, signals or the order of starting have a part in.
    """
    staying = SimpleNamespace(requested=False, training=False, begun=False)
    said, complained = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or "."),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
    ):
        try:
            main.main([*map(str, words)], staying)
        except SystemExit as left:
            code = left.code
    return SimpleNamespace(returncode=code, stdout=said.getvalue(), stderr=complained.getvalue())


def begin(*words, **changes):
    """Start the program and leave it running."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**changes),
    )
