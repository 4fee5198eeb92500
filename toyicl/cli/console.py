"""The terminal: progress bars, warnings, verdicts, and interrupts."""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from toyicl.core import strict_json
from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness.verdicts import FAILURES, NOT_RUN

if TYPE_CHECKING:
    import numpy as np


LABELLED = ("critic", "later paper")
"""Authors that are named before their statements."""
UNUSABLE = tuple(
    getattr(errno, name)
    for name in ("ENOENT", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP", "EACCES", "EPERM", "EROFS")
)
"""Errors of the operating system about a path, which another path would not have."""
MOST_CHARACTERS = 200
"""Length to which the message of an error of another library is cut."""
LINE_EVERY = 30.0
"""Seconds between two lines of progress where standard error is not a terminal."""


class InterruptHandler:
    """Handles Ctrl-C, and SIGTERM as clusters send it.

    During training, the first interrupt is a request, which the run reads after each chunk of steps, so
    that it can save a checkpoint. At other times, and the second time, the program exits at once: XLA
    may be compiling in other threads, where an exception would be lost, and which crash if Python
    exits around them.
    """

    def __init__(self) -> None:
        self.requested = False
        self.training = False
        self.begun = False
        """Whether a training has begun, of which something may have been saved."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Called by Python on a signal."""
        if not self.training or self.requested:
            hint = b"; rerun the same command to resume" if self.begun else b""
            os.write(2, b"toyicl: interrupted" + hint + b"\n")
            os._exit(1)
        self.requested = True
        os.write(2, b"toyicl: stopping after this chunk of steps; press Ctrl-C again to quit now\n")


class TerminalConsole:
    """How a run reports to its user on a terminal, and learns of an interrupt."""

    def __init__(self, interrupts: InterruptHandler) -> None:
        self._interrupts = interrupts

    @contextlib.contextmanager
    def progress(self, label: str, steps: int) -> "Iterator[Callable[[int, np.ndarray], None]]":
        """A progress bar with the losses and the time left; lines now and then without a terminal."""
        from tqdm import tqdm

        self._interrupts.begun = self._interrupts.training = True
        printed = time.monotonic()
        with tqdm(total=steps, desc=label, unit="step", disable=None, file=sys.stderr) as bar:

            def show(done: int, losses: "np.ndarray") -> None:
                nonlocal printed
                shown = " ".join(f"{loss:.4f}" for loss in losses[:8])
                bar.set_postfix_str(f"loss {shown}", refresh=False)
                bar.update(done - bar.n)
                if bar.disable and time.monotonic() - printed > LINE_EVERY:
                    printed = time.monotonic()
                    line = f"{label}: {done} of {steps} steps, loss {shown}"
                    print(line, file=sys.stderr, flush=True)

            yield show
        self._interrupts.training = False

    def warn(self, sentence: str) -> None:
        """Report something that went wrong without ending the run."""
        report_note(sentence)

    def stop(self) -> bool:
        """Whether the user has interrupted the run."""
        return self._interrupts.requested


def report_note(sentence: str) -> None:
    """Print a sentence for the user to standard error."""
    print(f"toyicl: {sentence}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def machine_errors() -> Iterator[None]:
    """Turn errors of the machine into errors of one line each.

    A path that cannot be used is BadInput. Want of memory, and other errors of files, such as a full
    disk, are Unfinished.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise Unfinished(f"a file could not be read or written: {error}") from error
        raise BadInput(f"{error.filename} cannot be used ({error.strerror})") from error
    except Exception as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:MOST_CHARACTERS]
        raise Unfinished(f"there was not enough memory ({reason or 'MemoryError'})") from error


def exit_status(error: BadInput | Unfinished) -> int:
    """The exit status of an error: 2 for bad input, 1 for a run that could not be finished."""
    return 2 if isinstance(error, BadInput) else 1


def print_json(document: Any) -> None:
    """Print one JSON document, without the infinities and NaN that JSON does not have."""
    print(strict_json.text(document, indent=1))


def print_verdicts(records: Sequence[Mapping[str, Any]]) -> None:
    """Print each statement: verdict, the author's value, ours with its interval, the exact one."""
    name_width = max((len(record["id"]) for record in records), default=0)
    width = max((len(record["verdict"]) for record in records), default=0)
    place = None
    for record in records:
        if record.get("point") != place:
            place = record["point"]
            print(", ".join(f"{name} = {value}" for name, value in place.items()))
        name = f"{record['id']:<{name_width}}"
        author = f"{record['author']}: " if record["author"] in LABELLED else ""
        print(f"{record['verdict']:<{width}} {name}  {author}{record['statement']}")
        for line in _details(record):
            print(f"{'':<{width}} {'':<{name_width}}  {line}")


def _details(record: Mapping[str, Any]) -> Iterator[str]:
    """The lines below a statement."""
    exact = "" if record["floor"] is None else f"; exact {record['floor']:.4g}"
    paper = f"paper: {record['paper']}; " if record["paper"] else ""
    yield f"{paper}{_ours(record)}{exact}"
    losses = record["plateau_losses"] or [None] * len(record["plateau_seeds"])
    left_out = [
        (f"seed {seed}" if isinstance(seed, int) else seed)
        + ("" if loss is None else f" (loss {loss:.4g})")
        for seed, loss in zip(record["plateau_seeds"], losses, strict=True)
    ]
    if left_out:
        yield f"left out because still on the plateau: {'; '.join(left_out)}"
    because = ", ".join(
        filter(None, (record["reason"], record["place"] and f"at {record['place']}"))
    )
    if because and record["verdict"] != NOT_RUN:
        yield f"{record['verdict']}: {because}"
    if record["verdict"] in FAILURES and record["note"]:
        yield record["note"]


def _ours(record: Mapping[str, Any]) -> str:
    """Our value with its interval, or its range over seeds, and the values that are accepted."""
    if record["verdict"] == NOT_RUN:
        return f"not run ({record['reason']})"
    if record["measured"] is None:
        return "no seed left its plateau with a finite value"
    low, high = record["interval"] or record["spread"]
    kind = "95% interval" if record["interval"] else "range"
    shown = f" ({kind} {low:.4g} to {high:.4g})" if record["interval"] or high > low else ""
    return f"ours {record['measured']:.4g}{shown}; compared with: {record['criterion']}"


def print_figures(verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Print the verdict on each figure, by work."""
    work = None
    for row in verdicts:
        if row["work"] != work:
            work = row["work"]
            print(f"\n{work}")
        print(f"{row['figure']}: {row['claims']}\n    {row['verdict']}")
    print()


def print_floors(values: dict[str, Any]) -> None:
    """Print the losses of exact references, with their step sizes, a line each."""
    print(f"predict 0               {values['predict_zero']:.6f}")
    for name, title in (
        ("gd_shared", "GD, one shared step"),
        ("gd_per_step", "GD, a step for each"),
        ("gdpp_shared", "GD++, shared"),
    ):
        for row in values[name]:
            rest = {key: value for key, value in row.items() if key not in ("steps", "loss")}
            print(f"{title:<20} {row['steps']:>2} {row['loss']:.6f}  {_as_text(rest)}")
    ridge = values["ridge"]
    print(f"ridge                   {ridge['loss']:.6f}  penalty {ridge['penalty']:.6g}")
    print(f"Bayes                   {values['bayes']:.6f}")
    between = values["saddles"][1:-1]
    if between:
        print(f"one layer, first saddle {between[0]:.6f}")


def _as_text(values: dict[str, Any]) -> str:
    def show(value: Any) -> str:
        return ", ".join(map(show, value)) if isinstance(value, list) else f"{value:.6g}"

    return "; ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in values.items())
