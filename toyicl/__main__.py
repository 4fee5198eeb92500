"""The program: handles signals before anything slow is imported, and hands over to the command line."""

from toyicl.terminal import Leaving


def main() -> None:
    """What `toyicl` and `python -m toyicl` call."""
    leaving = Leaving()
    from toyicl import cli  # takes a moment, in which Ctrl-C would be a traceback

    cli.main(leaving=leaving)


if __name__ == "__main__":
    main()
