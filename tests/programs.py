"""Starting the real program from tests."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = [sys.executable, "-m", "toyicl"]
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


def begin(*words, **changes):
    """Start the program and leave it running."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**changes),
    )
