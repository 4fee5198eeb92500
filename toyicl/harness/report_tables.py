"""Tables of the report, in Markdown: figures, numbers of verdicts, margins, claims and findings."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toyicl.harness import figure_rows, verdicts
from toyicl.harness.claims import AUTHORS
from toyicl.harness.figure_rows import Row
from toyicl.harness.margins import MARGINS

Record = Mapping[str, Any]
NEGATIVE = (*verdicts.FAILURES, "objection refuted")
"""Verdicts in bold."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, with columns without any content left out."""
    kept = [list(row) for row in rows]
    columns = [i for i in range(len(head)) if any(row[i] for row in kept)]
    lines = [_line([head[i] for i in columns]), "|" + "---|" * len(columns)]
    return "\n".join(lines + [_line([row[i] for i in columns]) for row in kept])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def figures(
    rows: Sequence[Row], records: Mapping[str, Sequence[Record]], costs: Mapping[str, str]
) -> str:
    """A line for each figure: its claim, its verdict, our number and the claimed one, seeds, and cost.

    `records` are the verdicts by id of the claim, and `costs` those of the experiments that evaluate
    the claims, also by id.
    """
    head = ("figure", "claim", "verdict", "quantity", "ours", "claimed", "seeds", "cost")
    return table(head, (_figure_row(row, records, costs) for row in rows))


def _figure_row(
    row: Row, records: Mapping[str, Sequence[Record]], costs: Mapping[str, str]
) -> list[str]:
    shown = figure_rows.shown(row, records)
    return [
        row.figure,
        row.claims,
        _marked(figure_rows.verdict(row, records)),
        quantity(shown),
        ours(shown),
        shown["paper"],
        seeds(shown),
        costs[shown["id"]].split(";")[0].rstrip("."),
    ]


def counts(records: Sequence[Record]) -> str:
    """Numbers of claims by author and verdict."""
    shown = [
        one for one in verdicts.VERDICTS if any(record["verdict"] == one for record in records)
    ]
    rows = []
    for author in AUTHORS:
        own = [record["verdict"] for record in records if record["author"] == author]
        if own:
            rows.append([author, *(str(own.count(one)) for one in shown), str(len(own))])
    return table(("author", *shown, "claims"), rows)


def margins() -> str:
    """The margin of each quantity, with its reason."""
    return table(
        ("quantity", "margin", "reason"),
        ([name, f"±{margin}", margin.why] for name, margin in MARGINS.items()),
    )


def claims(records: Sequence[Record]) -> str:
    """The claims of an experiment."""
    head = (
        "verdict", "claim", "claimed", "ours (95% interval)", "each seed", "exact", "compared with",
        "shown with it",
    )  # fmt: skip
    return table(
        head,
        (
            [
                _marked(verdict_on(record)) + _because(record),
                _statement(record) + _plateau(record),
                record["paper"],
                ours(record),
                values(record),
                number(record["floor"]),
                record["criterion"],
                _shown_with(record),
            ]
            for record in records
        ),
    )


def findings(records: Sequence[tuple[str, Record]]) -> str:
    """The findings of toyicl, each with the name of its experiment."""
    head = (
        "verdict",
        "experiment",
        "finding",
        "measured (range over seeds)",
        "band",
        "shown with it",
    )
    return table(
        head,
        (
            [
                _marked(record["verdict"]) + _because(record),
                name,
                _statement(record) + _plateau(record),
                ours(record),
                record["criterion"],
                _shown_with(record),
            ]
            for name, record in records
        ),
    )


def verdict_on(record: Record) -> str:
    """The verdict on a claim in words: a critic's claim is an objection, which holds or is refuted."""
    if record["author"] == "critic":
        words = {
            verdicts.REPRODUCED: "objection holds",
            verdicts.PROVED: "objection holds",
            verdicts.NOT_REPRODUCED: "objection refuted",
            verdicts.REFUTED: "objection refuted",
        }
        return words.get(str(record["verdict"]), str(record["verdict"]))
    return str(record["verdict"])


def ours(record: Record) -> str:
    """Our value: the mean with its interval, or with its range where there is none."""
    if record["measured"] is None:
        return ""
    mean = number(record["measured"])
    if record["interval"] is not None:
        low, high = record["interval"]
        return f"{mean} [{number(low)}, {number(high)}]"
    low, high = record["spread"]
    return mean + (f" ({number(low)} to {number(high)})" if high > low else "")


def quantity(record: Record) -> str:
    """The measured quantity: what a statement has in parentheses at its end."""
    found = re.search(r"\(([^()]*)\)$", record["statement"])
    return found[1] if found else ""


def seeds(record: Record) -> str:
    """How many seeds count, of how many; the dimensions of a sample of something else."""
    if record["seeds"] is None:
        return ""
    counted, total = record["seeds"]
    over = f" ({', '.join(record['over'])})" if record.get("over") else ""
    return (str(total) if counted == total else f"{counted} of {total}") + over


def values(record: Record) -> str:
    """The value of each seed that counts; the range if there are several values for each seed."""
    each = record["values"]
    if each is not None:
        return ", ".join("not finite" if value is None else number(value) for value in each)
    if record["seeds"] is None or record["measured"] is None:
        return ""
    low, high = record["spread"]
    return f"{number(low)} to {number(high)} over {seeds(record)} seeds each"


def plateau(record: Record) -> str:
    """The seeds that do not count, with their loss."""
    losses = record["plateau_losses"] or [None] * len(record["plateau_seeds"])
    names = [
        (f"seed {seed}" if isinstance(seed, int) else str(seed))
        + (f" (loss {number(loss)})" if loss is not None else "")
        for seed, loss in zip(record["plateau_seeds"], losses, strict=True)
    ]
    return f"Left out because still on the plateau: {'; '.join(names)}." if names else ""


def number(value: float | None) -> str:
    """A number with four digits; empty for None."""
    return "" if value is None else f"{value:.4g}"


def _marked(verdict: str) -> str:
    return f"**{verdict}**" if verdict.startswith(NEGATIVE) else verdict


def _because(record: Record) -> str:
    """The reason of a verdict, and the place that decides it."""
    reasons = [record["reason"], record["place"] and f"at {record['place']}"]
    text = ", ".join(filter(None, reasons))
    return f": {text}" if text else ""


def _statement(record: Record) -> str:
    """The statement with its id, the point of a sweep, what it is based on, and remarks."""
    point = ", ".join(f"{name} = {value}" for name, value in record.get("point", {}).items())
    bases = [
        "analytical" if record["analytical"] else "",
        "cosine" if record["kind"] == "cosine" else "",
    ]
    basis = ", ".join(filter(None, bases))
    parts = [
        f"{record['id']}:",
        point and f"({point})",
        "Critic:" if record["author"] == "critic" else "",
        f"{record['statement']}.",
        basis and f"*({basis})*",
        "Found: not so." if verdict_on(record) == "objection refuted" else "",
        record["note"],
    ]
    return " ".join(filter(None, parts))


def _plateau(record: Record) -> str:
    text = plateau(record)
    return f" {text}" if text else ""


def _shown_with(record: Record) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in record["shown_with"].items())
