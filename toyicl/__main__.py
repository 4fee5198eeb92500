"""The program: handles interrupts before anything slow is imported, then runs the command line."""

import io
import sys

from toyicl.cli.console import InterruptHandler


def main() -> None:
    """Entry point of `toyicl` and `python -m toyicl`."""
    interrupts = InterruptHandler()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # neither replaced nor closed
            stream.reconfigure(errors="backslashreplace")  # a path may be no text in any encoding
    from toyicl.cli import main as command_line  # slow; Ctrl-C meanwhile would print a traceback

    command_line.main(interrupts=interrupts)


if __name__ == "__main__":
    main()
