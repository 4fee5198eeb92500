"""The program: handles signals before anything slow is imported, and hands over to the command line."""

from toyicl.cli.console import InterruptHandler


def main() -> None:
    """What `toyicl` and `python -m toyicl` call."""
    leaving = InterruptHandler()
    from toyicl.cli import main as cli_main  # takes a moment, in which Ctrl-C would be a traceback

    cli_main.main(leaving=leaving)


if __name__ == "__main__":
    main()
