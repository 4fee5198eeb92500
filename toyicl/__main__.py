"""The program: handles interrupts before anything slow is imported, then runs the command line."""

from toyicl.cli.console import InterruptHandler


def main() -> None:
    """Entry point of `toyicl` and `python -m toyicl`."""
    interrupts = InterruptHandler()
    from toyicl.cli import main as command_line  # slow; Ctrl-C meanwhile would print a traceback

    command_line.main(interrupts=interrupts)


if __name__ == "__main__":
    main()
