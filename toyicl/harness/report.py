"""The report on all experiments: a verdict on every figure and every claim, with their commands."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from markdown_it import MarkdownIt

from toyicl.core import strict_json
from toyicl.core.errors import Unfinished
from toyicl.harness import atomic_files, figure_rows, report_tables
from toyicl.harness.claims import OURS
from toyicl.harness.experiment import Listing
from toyicl.harness.figure_rows import Row
from toyicl.harness.results import FIGURE

MARKDOWN = "README.md"
PAGE = "report.html"
RECORDS = "verdicts.json"
KEPT = (
    "id", "author", "statement", "verdict", "reason", "place", "kind", "analytical", "paper",
    "measured", "interval", "spread", "seeds", "criterion", "note",
)  # fmt: skip
"""Entries of a claim's record that the teaching page shows."""
FIGURES = (
    "What was reproduced, by figure, proposition or question. Our number, with its 95% interval, is "
    "the value of one claim of the row: of one that fails, if any does, or else of one that is open. "
    "Sections below list every claim."
)
MARGINS = (
    "A claim that two values are equal is judged by a margin of equivalence that is chosen once for "
    "each kind of quantity. Where a work prints a number, the margin is at least half a unit of its "
    "last digit."
)
VERDICTS = (
    "A claim is *reproduced* if the whole 95% interval of its value lies within the margin of what is "
    "claimed, or on the claimed side of it; *not reproduced* if the whole interval lies outside; and "
    "*inconclusive* otherwise, also with fewer than three seeds, and if the training was cut while the "
    "loss was still falling. The interval is Student's, of the mean over seeds, or Wilson's, of a "
    "fraction of seeds. If there are values at several sizes or of several models, the verdict is on "
    "each of them, and the interval shown contains all of theirs. Analytical claims are independent "
    "of training: they are *proved* or *refuted*, to rounding. Seeds that are still on their plateau "
    "are named and left out. *Cosine* marks claims that are based on a cosine similarity alone: they "
    "are shown with the norm ratio and the cosine of the untrained model."
)
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


def write(
    chapters: Sequence[Chapter], rows: Sequence[Row], folder: Path, *, html: bool = False
) -> list[Path]:
    """Write the report into a folder, with links to the figures.

    README.md, which code hosts render where the folder is opened; verdicts.json, what the teaching page
    shows of it; and with `html` the same report as report.html. `rows` are those of the table of
    figures. Raises BadInput if the folder cannot be written, and Unfinished if there is no room.
    """
    require_places(folder)
    text = markdown(chapters, rows, folder)
    plain = strict_json.text(records(chapters, rows), indent=1) + "\n"
    contents = {MARKDOWN: text, RECORDS: plain}
    if html:
        contents[PAGE] = page(text)
    atomic_files.prepare_folder(folder)
    try:
        return [
            atomic_files.save_text(content, folder / name) for name, content in contents.items()
        ]
    except OSError as error:
        raise Unfinished(
            f"the report could not be saved in {folder} ({error.strerror or error}); rerun the same "
            "command once there is room"
        ) from error


def require_places(folder: Path) -> None:
    """Check that a report can be put into a folder: that none of its files is a folder there.

    Raises BadInput, which names the file; nothing is written.
    """
    atomic_files.require_kinds(folder, [MARKDOWN, RECORDS, PAGE])


def page(text: str) -> str:
    """The report as an HTML page that refers to nothing but the figures."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>toyicl: verdicts</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )


def records(chapters: Sequence[Chapter], rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """The verdicts by figure and by experiment, as plain data without infinities and NaN."""
    by_id = _by_id(chapters)
    figures = [
        {
            "work": by_id[row.headline][0]["work"],
            "figure": row.figure,
            "claims": row.claims,
            "verdict": figure_rows.verdict(row, by_id),
            "ours": report_tables.ours(figure_rows.shown(row, by_id)),
            "paper": figure_rows.shown(row, by_id)["paper"],
        }
        for row in rows
    ]
    experiments = []
    for chapter in chapters:
        attributes = {} if chapter.results is None else chapter.results.attrs
        experiments.append(
            {
                "experiment": chapter.listing.name,
                "claim": chapter.listing.claim,
                "command": attributes.get("command", f"toyicl run {chapter.listing.name}"),
                "cut": attributes.get("cut", ""),
                "records": [{name: record[name] for name in KEPT} for record in chapter.verdicts],
            }
        )
    return {"figures": figures, "experiments": experiments}


def _by_id(chapters: Sequence[Chapter]) -> dict[str, list[Mapping[str, Any]]]:
    """The verdicts on each statement; there are several if its experiment is a sweep."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for chapter in chapters:
        for record in chapter.verdicts:
            found.setdefault(record["id"], []).append(record)
    return found


def markdown(chapters: Sequence[Chapter], rows: Sequence[Row], folder: Path) -> str:
    """The report as Markdown, with links relative to the folder that it is written into."""
    parts = [
        "# Claims and verdicts",
        FIGURES,
        figure_tables(chapters, rows),
        *_numbers(chapters),
        "## Margins",
        MARGINS,
        report_tables.margins(),
        *(_chapter(chapter, folder) for chapter in chapters),
        *_findings(chapters),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def figure_tables(chapters: Sequence[Chapter], rows: Sequence[Row]) -> str:
    """The tables of figures, as Markdown, one for each work.

    A row's claims must be among those of the chapters.
    """
    by_id = _by_id(chapters)
    costs = {
        record["id"]: chapter.listing.cost for chapter in chapters for record in chapter.verdicts
    }
    works = itertools.groupby(rows, lambda row: str(by_id[row.headline][0]["work"]))
    tables = [
        f"### {work}\n\n{report_tables.figures(list(own), by_id, costs)}" for work, own in works
    ]
    return "\n\n".join(tables)


def _numbers(chapters: Sequence[Chapter]) -> list[str]:
    """How many claims have each verdict, and what the verdicts mean."""
    claims = [record for chapter in chapters for record in _claims(chapter)]
    quick = sum(_level(chapter) == "quick" for chapter in chapters)
    return [
        "## Verdicts",
        VERDICTS,
        report_tables.counts(claims) if claims else "",
        f"{quick} experiments were run at quick settings; their verdicts are indicative."
        if quick
        else "",
        "`toyicl verify --out figures` writes this report.",
    ]


def _claims(chapter: Chapter) -> list[Mapping[str, Any]]:
    return [record for record in chapter.verdicts if record["author"] != OURS]


def _findings(chapters: Sequence[Chapter]) -> list[str]:
    """The section of findings; empty if there are none."""
    found = [
        (chapter.listing.name, record)
        for chapter in chapters
        for record in chapter.verdicts
        if record["author"] == OURS
    ]
    if not found:
        return []
    return [
        "## Findings of toyicl",
        "Statements of this project, which serve as regression tests and are not counted among the "
        "claims. A finding holds if the value of every seed that left its plateau is in its band.",
        report_tables.findings(found),
    ]


def _level(chapter: Chapter) -> str:
    return "" if chapter.results is None else str(chapter.results.attrs["level"])


def _chapter(chapter: Chapter, folder: Path) -> str:
    listing, results = chapter.listing, chapter.results
    lines = [f"## {listing.name}: {listing.claim}"]
    if results is None:
        lines.append(f"Not run yet. Command: `toyicl run {listing.name}`. Cost: {listing.cost}")
    else:
        picture = chapter.folder / f"{FIGURE}.png"
        link = Path(os.path.relpath(picture, folder)).as_posix()
        lines += [f"![{listing.name}]({link})", _origin(listing, results)]
    claims = _claims(chapter)
    lines += [report_tables.claims(claims) if claims else "", _settings(results)]
    return "\n\n".join(filter(None, lines))


def _origin(listing: Listing, results: xr.Dataset) -> str:
    """Command, seeds, cost, revision and machine, and what differs from the full settings."""
    attributes = results.attrs
    cut, level = str(attributes.get("cut", "")), attributes["level"]
    tree = "" if attributes["tree"] == "clean" else f" ({attributes['tree']} tree)"
    facts = [
        f"Command: `{attributes['command']}`",
        f"settings: {'changed' if cut and level == 'full' else level}",
        *([f"seeds: {seeds}"] if (seeds := seeds_of(results)) else []),
        f"cost: {listing.cost.rstrip('.')}",
        *([f"trainings: {attributes['trainings']}"] if attributes.get("trainings") else []),
        f"revision {attributes['revision'][:10]}{tree}, {attributes['device']}",
    ]
    return f"{'; '.join(facts)}. {cut}".rstrip()


def seeds_of(results: xr.Dataset) -> str:
    """The seeds of the trainings, those of trainings with seeds of their own by name."""
    found = {
        str(name).removesuffix("seed").rstrip("_"): _listed(values.values.tolist())
        for name, values in results.coords.items()
        if str(name) == "seed" or str(name).endswith("_seed")
    }
    others = [f"{name} {seeds}" for name, seeds in found.items() if name]
    own = found.get("", "")
    return f"{own} ({', '.join(others)})" if own and others else own or ", ".join(others)


def _listed(seeds: Sequence[int]) -> str:
    """Whole numbers as text; those in a row by the first and the last."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(str(seed) for seed in seeds)


def _settings(results: xr.Dataset | None) -> str:
    return "" if results is None else f"All settings: `{results.attrs['settings']}`"
