"""Adds the gallery to the site: a card and a page for each experiment, and a page on the verdicts.

Everything is read when the site is built: the experiments' docstrings, the verdicts in
figures/verdicts.json, the rows of figures, and the attributes of the results. Nothing is written into
the repository.
"""

import ast
import collections
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

from toyicl.core import strict_json
from toyicl.harness import experiment, figure_rows, report, report_tables
from toyicl.harness.claims import OURS
from toyicl.harness.experiment import GROUPS, Listing

ROOT = Path(__file__).parent.parent
FOLDER = "gallery"
"""Folder of the pages in the site."""
KEPT = ("figure.png", "results.nc", "claims.json")
"""Files of a run that the site has."""
TITLES = {
    "von_oswald_2022": "Von Oswald et al. (2022)",
    "objections": "Critics' objections",
    "departures": "Departures from linearity, and candidate algorithms",
    "dai_2022": "Dai et al. (2022), Deutch et al. (2024) and an unfinished report",
    "softmax_context": "Softmax attention in large contexts",
    "task_diversity": "Task diversity: Lu et al. (2025), Raventos et al. (2023)",
    "prior_mean": "Weights with a mean: Xie et al. (2025)",
    "weight_changes": "Changes of the weights by demonstrations",
    "rank_one": "Rank-one updates: Dherin et al. (2025)",
    "recurrent": "Recurrent networks",
    "mixed_noise": "Noise of mixed scales: Vladymyrov et al. (2024)",
    "labels_alone": "Layers that update labels only: Bordelon et al. (2025)",
    "preconditioned_depth": "Several preconditioned layers: Ahn et al. (2023)",
    "language_model": "A pretrained language model",
    "teaching": "Teaching page",
}
"""Headings of the groups of experiments; other groups are shown by the name of their folder."""
CLASSES = {
    "reproduced": "yes",
    "proved": "yes",
    "holds": "yes",
    "objection holds": "yes",
    "not reproduced": "no",
    "refuted": "no",
    "objection refuted": "no",
    "fails": "no",
}
"""Style of a verdict; all others are open."""


class Entry(NamedTuple):
    """What the gallery shows of one experiment."""

    listing: Listing
    folder: Path
    """Folder of its results."""
    attributes: Mapping[str, str]
    """Attributes of its results."""
    verdicts: Mapping[str, Any]
    """Its entry in figures/verdicts.json."""
    rows: Sequence[Mapping[str, Any]]
    """The figures, propositions or questions that it contributes a claim to."""

    def claims(self) -> list[Mapping[str, Any]]:
        """The verdicts on statements of other authors."""
        return [record for record in self.verdicts["records"] if record["author"] != OURS]

    def findings(self) -> list[Mapping[str, Any]]:
        """The verdicts on statements of this project."""
        return [record for record in self.verdicts["records"] if record["author"] == OURS]


def entries(figures: Path = ROOT / "figures") -> list[Entry]:
    """The experiments that have been run, in the order of `toyicl list`."""
    known = json.loads((figures / report.RECORDS).read_text(encoding="utf-8"))
    by_name = {entry["experiment"]: entry for entry in known["experiments"]}
    shown = {(row["figure"], row["claims"]): row for row in known["figures"]}
    parts = [
        (set(row.ids()), shown[row.figure, row.claims])
        for row in figure_rows.read_all(experiment.folder(), GROUPS)
        if (row.figure, row.claims) in shown
    ]
    found = []
    for listing in experiment.listings():
        folder = experiment.place(figures, listing)
        if listing.name not in by_name or not (folder / "results.nc").is_file():
            continue
        with xr.open_dataset(folder / "results.nc", engine="h5netcdf") as results:
            attributes = {str(name): _text(value) for name, value in results.attrs.items()}
            attributes["seeds"] = report.seeds_of(results)
        ids = {record["id"] for record in by_name[listing.name]["records"]}
        rows = [row for names, row in parts if names & ids]
        found.append(Entry(listing, folder, attributes, by_name[listing.name], rows))
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the figures and data that they link to."""
    found = entries()
    pages = {"index": index(found), "verdicts": about_verdicts(found)}
    for number, entry in enumerate(found):
        neighbours = found[number - 1] if number else None, next(iter(found[number + 1 :]), None)
        pages[entry.listing.name] = page(entry, *neighbours)
    for name, text in pages.items():
        level = (
            InclusionLevel.UNDEFINED if name in ("index", "verdicts") else InclusionLevel.NOT_IN_NAV
        )
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=text, inclusion=level))
    for entry in found:
        for name in KEPT:
            path = entry.folder / name
            place = path.relative_to(ROOT).as_posix()
            if path.is_file() and not files.get_file_from_path(place):
                files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def index(found: Sequence[Entry]) -> str:
    """The page with a card for each experiment, by group."""
    parts = [
        "# Gallery of experiments",
        "Each card is one experiment: its figure, its claim, and how many of the statements that it "
        "evaluates have each verdict. The page of an experiment has its command, its cost, every "
        "statement with its interval and margin, its settings, and its data. "
        "[How verdicts are made](verdicts.md) defines the verdicts and lists the margins.",
        _counts(record for entry in found for record in entry.claims()),
    ]
    for group in dict.fromkeys(entry.listing.group for entry in found):
        cards = "".join(_card(entry) for entry in found if entry.listing.group == group)
        title = TITLES.get(group, group.replace("_", " "))
        parts += [f"## {title}", f'<div class="gallery">{cards}</div>']
    return "\n\n".join(parts) + "\n"


def _card(entry: Entry) -> str:
    name = entry.listing.name
    picture = f"../{entry.folder.relative_to(ROOT).as_posix()}/figure.png"
    return (
        f'<a class="card" id="{name}" href="{name}.html">'
        f'<img class="figure" loading="lazy" src="{picture}" alt="Figure of {name}">'
        f'<span class="card-name">{name}</span>'
        f"<span>{html.escape(_claim(entry))}</span>"
        f"{_counts(entry.claims() or entry.findings())}</a>"
    )


def _claim(entry: Entry) -> str:
    return entry.listing.claim.rstrip(".")


def _counts(records: Iterable[Mapping[str, Any]]) -> str:
    """How many statements have each verdict, as HTML."""
    found = collections.Counter(report_tables.verdict_on(record) for record in records)
    order = ("yes", "no", "open")
    listed = sorted(found, key=lambda verdict: order.index(CLASSES.get(verdict, "open")))
    chips = (_chip(verdict, f"{found[verdict]} {verdict}") for verdict in listed)
    return f'<span class="verdicts">{" ".join(chips)}</span>'


def _chip(verdict: str, text: str) -> str:
    return f'<span class="verdict {CLASSES.get(verdict, "open")}">{html.escape(text)}</span>'


def page(entry: Entry, before: Entry | None = None, after: Entry | None = None) -> str:
    """The page of one experiment."""
    picture = f"../{entry.folder.relative_to(ROOT).as_posix()}/figure.png"
    parts = [
        f"# {html.escape(_claim(entry))}",
        _way(entry, before, after),
        f"![Figure of {entry.listing.name}]({picture}){{ .figure }}",
        report_tables.table(("Experiment", f"`{entry.listing.name}`"), _facts(entry)),
        *_description(entry.listing.path),
    ]
    if entry.rows:
        rows = (
            [
                f"{row['work']}, {row['figure']}",
                row["claims"],
                row["verdict"],
                row["ours"],
                row["paper"],
            ]
            for row in entry.rows
        )
        head = ("figure", "claim", "verdict", "ours", "claimed")
        parts += ["## Verdict on the figure { data-search-exclude }", _escaped(head, rows)]
    for title, records in (("Claims", entry.claims()), ("Findings of toyicl", entry.findings())):
        if records:
            parts += [f"## {title} {{ data-search-exclude }}", _statements(records)]
    parts += ["## Settings { data-search-exclude }", _settings(entry.attributes["settings"])]
    return "\n\n".join(filter(None, parts)) + "\n"


def _way(entry: Entry, before: Entry | None, after: Entry | None) -> str:
    """Links to the gallery and to the neighbours."""
    steps = [f"[Gallery](index.md#{entry.listing.name})"]
    if before:
        steps.append(f"[previous: {before.listing.name}]({before.listing.name}.md)")
    if after:
        steps.append(f"[next: {after.listing.name}]({after.listing.name}.md)")
    return " · ".join(steps)


def _facts(entry: Entry) -> list[list[str]]:
    """Command, cost, origin and data, as rows of two cells."""
    listing, attributes = entry.listing, entry.attributes
    place = f"../{entry.folder.relative_to(ROOT).as_posix()}"
    cut = attributes.get("cut", "")
    measured = json.loads(attributes.get("seconds", "{}")).values()
    seconds = 0 if None in measured else sum(measured)
    trained = attributes.get("trainings", "")
    rows = {
        "Command": f"`{attributes['command']}`",
        "Short name": f"`{listing.alias}`" if listing.alias else "",
        "Cost": listing.cost,
        "Time of this run": f"{seconds:,.0f} seconds of training and measuring" if seconds else "",
        "Seeds": attributes["seeds"] if trained else "",
        "Trainings": trained,
        "Reduced": cut,
        "Revision": f"{attributes['revision'][:10]}, {attributes['device']}, "
        f"finished {attributes['finished'][:10]}",
        "Data": f"[results.nc]({place}/results.nc), [claims.json]({place}/claims.json); "
        "[how to read them](../recipes.md#read-results-with-xarray)",
    }
    return [[name, text] for name, text in rows.items() if text]


def _description(path: Path) -> list[str]:
    """The paragraphs of an experiment's docstring after the claim, without the lines for programs."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    lines = [line for line in text.splitlines()[1:] if not line.startswith(("Cost:", "Alias:"))]
    paragraphs = "\n".join(lines).split("\n\n")
    return [f"<p>{html.escape(' '.join(one.split()))}</p>" for one in paragraphs if one.strip()]


def _statements(records: Sequence[Mapping[str, Any]]) -> str:
    """A table of statements, as HTML."""
    head = ("verdict", "statement", "claimed", "ours, with 95% interval", "holds for", "seeds")
    rows = []
    for record in records:
        verdict = report_tables.verdict_on(record)
        reasons = [record["reason"], record["place"] and f"at {record['place']}"]
        basis = {"cosine": "based on a cosine alone"}.get(record["kind"], "")
        notes = ["analytical" if record["analytical"] else "", basis, record["note"]]
        note = "".join(f"<br><small>{html.escape(one)}</small>" for one in filter(None, notes))
        because = "".join(f"<br><small>{html.escape(one)}</small>" for one in filter(None, reasons))
        rows.append(
            [
                _chip(verdict, verdict) + because,
                f"<code>{html.escape(record['id'])}</code> {html.escape(record['statement'])}{note}",
                *map(
                    html.escape,
                    (
                        record["paper"],
                        report_tables.ours(record),
                        record["criterion"],
                        report_tables.seeds(record),
                    ),
                ),
            ]
        )
    return _html_table(head, rows)


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML, without the columns that are empty."""
    kept = [list(row) for row in rows]
    columns = [i for i in range(len(head)) if any(row[i] for row in kept)]
    top = "".join(f"<th>{head[i]}</th>" for i in columns)
    lines = ("".join(f"<td>{row[i]}</td>" for i in columns) for row in kept)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _escaped(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are text, as HTML."""
    return _html_table(head, ([html.escape(cell) for cell in row] for row in rows))


def _settings(text: str) -> str:
    """All settings by the names that the command line gives them, folded."""
    rows = [
        [f"--settings.{name}", strict_json.text(value)] for name, value in _flat(json.loads(text))
    ]
    table = _html_table(
        ("option", "value"),
        ([f"<code>{html.escape(cell)}</code>" for cell in row] for row in rows),
    )
    return f"<details><summary>All {len(rows)} settings of this run</summary>{table}</details>"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def about_verdicts(found: Sequence[Entry]) -> str:
    """The page that defines the verdicts and lists the margins."""
    claims = [record for entry in found for record in entry.claims()]
    parts = [
        "# How verdicts are made",
        report.VERDICTS,
        "A *finding* is a statement of this project. It *holds* if the value of every seed that left "
        "its plateau is in its band; it serves as a regression test and is not counted below.",
        report_tables.counts(claims),
        "## Margins",
        report.MARGINS,
        report_tables.margins(),
        "`toyicl verify` judges saved results again; "
        "[the command line](../command_line.md#verify) describes it.",
    ]
    return "\n\n".join(parts) + "\n"
