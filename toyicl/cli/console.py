"""The terminal: progress bars, warnings, verdicts, and the user's wish to leave."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from toyicl.harness.claims import band_in_words

if TYPE_CHECKING:
    import numpy as np


LINE_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""


class InterruptHandler:
    """Handles Ctrl-C and a cluster's SIGTERM.

    While a run trains, the first is a wish that the run asks for after each chunk of steps, so that it
    can save a checkpoint. Otherwise, and the second time, the program ends at once: XLA's threads may
    be compiling, where an exception would be lost, and crash if Python ends around them.
    """

    def __init__(self) -> None:
        self.wished = False
        self.training = False
        self.begun = False
        """Whether a training has begun, of which something may have been saved."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What Python calls on a signal."""
        if not self.training or self.wished:
            hint = b"; the same command carries on" if self.begun else b""
            os.write(2, b"toyicl: stopped" + hint + b"\n")
            os._exit(1)
        self.wished = True
        os.write(2, b"toyicl: stopping after this chunk of steps; once more stops at once\n")


class TerminalConsole:
    """What a run says to its user, and hears from them."""

    def __init__(self, leaving: InterruptHandler) -> None:
        self._leaving = leaving

    @contextlib.contextmanager
    def progress(self, label: str, steps: int) -> "Iterator[Callable[[int, np.ndarray], None]]":
        """A bar with the losses and the time left on a terminal; a line now and then elsewhere."""
        from tqdm import tqdm

        self._leaving.begun = self._leaving.training = True
        said = time.monotonic()
        with tqdm(total=steps, desc=label, unit="step", disable=None, file=sys.stderr) as bar:

            def show(done: int, losses: "np.ndarray") -> None:
                nonlocal said
                seen = " ".join(f"{loss:.4f}" for loss in losses[:8])
                bar.set_postfix_str(f"loss {seen}", refresh=False)
                bar.update(done - bar.n)
                if bar.disable and time.monotonic() - said > LINE_EVERY:
                    said = time.monotonic()
                    print(
                        f"{label}: {done} of {steps} steps, loss {seen}",
                        file=sys.stderr,
                        flush=True,
                    )

            yield show
        self._leaving.training = False

    def warn(self, sentence: str) -> None:
        """Something went wrong, and the run goes on."""
        print(f"toyicl: {sentence}", file=sys.stderr, flush=True)

    def stop(self) -> bool:
        """Whether the user wants to leave."""
        return self._leaving.wished


def print_verdicts(verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Each claim: its verdict, the paper's value, ours with its range over seeds, the exact one."""
    width = max((len(record["id"]) for record in verdicts), default=0)
    place = None
    for record in verdicts:
        if record.get("point") != place:
            place = record["point"]
            print(", ".join(f"{name} = {value}" for name, value in place.items()))
        print(f"{record['verdict']:<8} {record['id']:<{width}}  {record['statement']}")
        ours = "not run" if record["verdict"] == "not run" else "no seed to judge"
        if record["measured"] is not None:
            low, high = record["spread"]
            ours = f"ours {record['measured']:.4g}"
            ours += f" ({low:.4g} to {high:.4g} over seeds)" if high > low else ""
            ours += f"; allowed: {band_in_words(*record['band'])}"
        exact = "" if record["floor"] is None else f"; exact {record['floor']:.4g}"
        print(f"{'':<8} {'':<{width}}  paper: {record['paper']}; {ours}{exact}")
        if record["plateau_seeds"]:
            seeds = record["plateau_seeds"]
            stuck = "; ".join(f"seed {seed}" if isinstance(seed, int) else seed for seed in seeds)
            print(f"{'':<8} {'':<{width}}  left out, still on its plateau: {stuck}")
        if record["verdict"] == "fails" and record["note"]:
            print(f"{'':<8} {'':<{width}}  {record['note']}")


def print_floors(values: dict[str, Any]) -> None:
    """Exact references, a line each."""
    print(f"predict 0               {values['predict_zero']:.6f}")
    for name, title in (
        ("gd_shared", "GD, one shared step"),
        ("gd_per_step", "GD, a step for each"),
        ("gdpp_shared", "GD++, shared"),
    ):
        for row in values[name]:
            rest = {key: value for key, value in row.items() if key not in ("steps", "loss")}
            print(f"{title:<20} {row['steps']:>2} {row['loss']:.6f}  {_plain(rest)}")
    ridge = values["ridge"]
    print(f"ridge                   {ridge['loss']:.6f}  penalty {ridge['penalty']:.6g}")
    print(f"Bayes                   {values['bayes']:.6f}")


def _plain(values: dict[str, Any]) -> str:
    def show(value: Any) -> str:
        return ", ".join(map(show, value)) if isinstance(value, list) else f"{value:.6g}"

    return "; ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in values.items())
