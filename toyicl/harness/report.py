"""The report on all experiments: every claim with its verdict, every figure with its command."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from markdown_it import MarkdownIt

from toyicl.harness import atomic_files
from toyicl.harness.claims import band_in_words
from toyicl.harness.experiment import Listing
from toyicl.harness.results import FIGURE

MARKDOWN = "README.md"
PAGE = "report.html"
RECORDS = "verdicts.json"
MARKS = {"holds": "holds", "fails": "**fails**", "not run": "not run"}
FAILURES = {
    "exact": "Analytical: independent of training",
    "full": "Measured at full settings",
    "cut": "Measured at less than full settings: more steps, larger batches or more seeds may matter",
}
"""What a verdict is based on."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #8886; padding: 0.3rem 0.6rem; }
th, td { text-align: left; vertical-align: top; }
img { max-width: 100%; background: white; }
pre, code { font-size: 0.85rem; overflow-x: auto; }
:root { color-scheme: light dark; }
"""


class Chapter(NamedTuple):
    """The part of the report about one experiment."""

    listing: Listing
    results: xr.Dataset | None
    """None if it has not been run."""
    folder: Path
    """Folder of its results and its figure."""
    verdicts: Sequence[Mapping[str, Any]]


def write(chapters: Sequence[Chapter], folder: Path, *, html: bool = False) -> list[Path]:
    """Write the report into a folder, with links to the figures.

    README.md, which code hosts render where the folder is opened; verdicts.json, what the teaching page
    shows of it; and with `html` the same report as report.html.
    """
    text = markdown(chapters, folder)
    plain = json.dumps(records(chapters), indent=1, allow_nan=False) + "\n"
    contents = {MARKDOWN: text, RECORDS: plain}
    if html:
        contents[PAGE] = page(text)
    atomic_files.prepare_folder(folder)
    return [atomic_files.save_text(content, folder / name) for name, content in contents.items()]


def page(text: str) -> str:
    """The report as an HTML page that refers to nothing but the figures."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>toyicl: verdicts</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )


def records(chapters: Sequence[Chapter]) -> list[dict[str, Any]]:
    """The verdicts by experiment, as plain data; numbers that are not finite are None."""
    found = []
    for chapter in chapters:
        attributes = {} if chapter.results is None else chapter.results.attrs
        shown = [
            {name: record[name] for name in ("id", "statement", "verdict", "kind", "note")}
            | {name: _finite(record[name]) for name in ("measured", "spread", "band")}
            for record in chapter.verdicts
        ]
        found.append(
            {
                "experiment": chapter.listing.name,
                "claim": chapter.listing.claim,
                "command": attributes.get("command", f"toyicl run {chapter.listing.name}"),
                "cut": attributes.get("cut", ""),
                "records": shown,
            }
        )
    return found


def _finite(value: Any) -> Any:
    """A number, or each of some, with None where it is not finite."""
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if value is None or math.isfinite(value) else None


def markdown(chapters: Sequence[Chapter], folder: Path) -> str:
    """The report as Markdown, with links relative to the folder that it is written into."""
    parts = [_head(chapters), *(_chapter(chapter, folder) for chapter in chapters)]
    return "\n\n".join(parts) + "\n"


def _head(chapters: Sequence[Chapter]) -> str:
    records = [record for chapter in chapters for record in chapter.verdicts]
    counts = {
        verdict: sum(record["verdict"] == verdict for record in records)
        for verdict in ("holds", "fails", "not run")
    }
    statements = {"-".join(str(record["id"]).split("-")[:3]) for record in records}
    quick = sum(_level(chapter) == "quick" for chapter in chapters)
    lines = [
        "# Claims and verdicts",
        f"{len(statements)} statements, judged by {len(records)} values: {counts['holds']} hold, "
        f"{counts['fails']} fail, {counts['not run']} were not run. A claim holds if its value is in "
        "the allowed band for every seed; seeds that are still on their plateau are named and left "
        "out. *By construction* marks claims that are independent of training, *cosine* those that "
        "are based on a cosine similarity alone: they are shown with the norm ratio and the cosine "
        "of the untrained model. `toyicl verify --out figures` writes this report.",
        f"{quick} experiments were run at quick settings; their verdicts are indicative."
        if quick
        else "",
        *_failures(chapters),
    ]
    return "\n\n".join(filter(None, lines))


def _failures(chapters: Sequence[Chapter]) -> list[str]:
    """The claims that fail, grouped by what the verdict is based on."""
    groups: dict[str, list[str]] = {title: [] for title in FAILURES.values()}
    for chapter in chapters:
        for record in chapter.verdicts:
            if record["verdict"] == "fails":
                groups[_why(chapter, record)].append(
                    f"- {chapter.listing.name}, {record['id']}: {record['statement']}. "
                    f"Ours: {_ours(record)}; allowed: {_band(record)}; the paper: {record['paper']}."
                    + (f" {record['note']}" if record["note"] else "")
                )
    found = [[f"### {title}", "\n".join(lines)] for title, lines in groups.items() if lines]
    return ["## Claims that fail", *(text for pair in found for text in pair)] if found else []


def _why(chapter: Chapter, record: Mapping[str, Any]) -> str:
    if record["kind"] == "by construction":
        return FAILURES["exact"]
    cut = chapter.results is not None and chapter.results.attrs.get("cut")
    return FAILURES["cut" if cut else "full"]


def _level(chapter: Chapter) -> str:
    return "" if chapter.results is None else str(chapter.results.attrs["level"])


def _band(record: Mapping[str, Any]) -> str:
    return band_in_words(*record["band"])


def _chapter(chapter: Chapter, folder: Path) -> str:
    listing, results = chapter.listing, chapter.results
    lines = [f"## {listing.name}: {listing.claim}"]
    if results is None:
        lines.append(f"Not run yet. Command: `toyicl run {listing.name}`. Cost: {listing.cost}")
    else:
        picture = chapter.folder / f"{FIGURE}.png"
        link = Path(os.path.relpath(picture, folder)).as_posix()
        lines += [f"![{listing.name}]({link})", _origin(listing, results)]
    return "\n\n".join(filter(None, [*lines, _table(chapter.verdicts), _settings(results)]))


def _origin(listing: Listing, results: xr.Dataset) -> str:
    """Command, seeds, cost, revision and machine, and what differs from the full settings."""
    attributes = results.attrs
    cut, level = str(attributes.get("cut", "")), attributes["level"]
    tree = "" if attributes["tree"] == "clean" else f" ({attributes['tree']} tree)"
    facts = [
        f"Command: `{attributes['command']}`",
        f"settings: {'changed' if cut and level == 'full' else level}",
        f"seeds: {attributes['seeds']}",
        f"cost: {listing.cost.rstrip('.')}",
        f"revision {attributes['revision'][:10]}{tree}, {attributes['device']}",
    ]
    return "; ".join(facts) + ". " + cut


def _settings(results: xr.Dataset | None) -> str:
    return "" if results is None else f"All settings: `{results.attrs['settings']}`"


def _table(verdicts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "| verdict | claim | paper | ours (range over seeds) | exact | allowed | shown with it |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in verdicts:
        kind = "" if record["kind"] == "measured" else f" *({record['kind']})*"
        note = f" {record['note']}" if record["note"] else ""
        stuck = _stuck(record["plateau_seeds"])
        point = ", ".join(f"{name} = {value}" for name, value in record.get("point", {}).items())
        cells = [
            MARKS[record["verdict"]],
            f"{record['id']}: {point and f'({point}) '}{record['statement']}.{kind}{note}{stuck}",
            record["paper"],
            _ours(record),
            _number(record["floor"]),
            _band(record),
            ", ".join(f"{name} {_number(value)}" for name, value in record["shown_with"].items()),
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _ours(record: Mapping[str, Any]) -> str:
    if record["measured"] is None:
        return "not run" if record["verdict"] == "not run" else "no seed can be judged"
    low, high = record["spread"]
    spread = f" ({_number(low)}, {_number(high)})" if high > low else ""
    left = f", {record['seeds'][0]} of {record['seeds'][1]} seeds" if record["seeds"] else ""
    return _number(record["measured"]) + spread + left


def _stuck(seeds: Sequence[Any]) -> str:
    names = [f"seed {seed}" if isinstance(seed, int) else str(seed) for seed in seeds]
    return f" Left out because still on the plateau: {'; '.join(names)}." if names else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
