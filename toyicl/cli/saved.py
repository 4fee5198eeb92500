"""Commands that read what is saved: `list`, `draw` and `verify`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toyicl.cli.console import print_figures, print_json, print_verdicts, report_note
from toyicl.cli.options import FIGURES, RUNS, Draw, List, Verify
from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import experiment
from toyicl.harness.claims import OURS
from toyicl.harness.experiment import CHECKPOINT, RESULTS, Listing
from toyicl.harness.verdicts import FAILURES, NOT_RUN, VERDICTS

if TYPE_CHECKING:
    from toyicl.harness.figure_rows import Row
    from toyicl.harness.report import Chapter


def list_experiments(command: List) -> int:
    """Print every experiment; imports no JAX."""
    if command.out.exists():
        require_folder(command.out)
    for listing in experiment.listings():
        alias = f" ({listing.alias})" if listing.alias else ""
        print(f"{listing.name}{alias}")
        print(f"    {listing.claim}")
        print(f"    Cost: {listing.cost} {_state(listing, command.out)}")
    return 0


def _state(listing: Listing, out: Path) -> str:
    """Whether an experiment has been run, as a sentence."""
    folder = experiment.place(out, listing)
    if (folder / RESULTS).exists():
        return "Has been run."
    if (folder / CHECKPOINT).exists():
        return "Incomplete; rerun the same command to resume."
    kept = out == RUNS and (experiment.place(FIGURES, listing) / RESULTS).exists()
    return "Results are in figures/." if kept else "Not run yet."


def list_runs(command: List) -> int:
    """Print every run in a folder: what it is, where it comes from, and how far it is."""
    from toyicl.harness.results import describe

    if command.out == RUNS and not RUNS.exists():
        print("No runs yet; `toyicl run fig2 --quick` makes the first.")
        return 0
    require_folder(command.out)
    for folder in sorted(path for path in command.out.iterdir() if path.is_dir()):
        for line in describe(folder):
            print(line)
    return 0


def draw(command: Draw) -> int:
    """Redraw figures and judge the claims again, from saved results; with `all`, from those found."""
    from toyicl.harness import outputs

    folders = [Path(name) for name in command.experiments if outputs.has_results(Path(name))]
    named = [name for name in command.experiments if Path(name) not in folders]
    listings = chosen(named) if named or not folders else []
    drawn = [(listing, place_of_results(command.out, listing)) for listing in listings]
    drawn += [(experiment.find(outputs.experiment_of(folder)), folder) for folder in folders]
    for listing, folder in drawn:
        if "all" in command.experiments and not outputs.has_results(folder):
            report_note(f"{listing.name} has not been run")
            continue
        for path in outputs.redraw(
            experiment.load(listing), folder, report_note, lock=command.lock
        ):
            print(f"wrote {path}")
    return 0


def verify(command: Verify) -> int:
    """Judge claims from saved results, and write a report where one is asked for.

    A folder that can only be read is verified, without a report; `html` asks for one, and such a folder
    is then refused. 1 if a claim is not reproduced or refuted, if a finding fails, or if the results of
    an experiment cannot be read or judged.
    """
    from toyicl.harness import atomic_files, report

    _require_consistent(command)
    if command.out is not None and not command.experiments:
        report.require_places(command.out)
    if command.out is not None and command.html:
        atomic_files.prepare_folder(command.out)
    chapters, unreadable = _chapters(command)
    records = [record for chapter in chapters for record in chapter.verdicts]
    failed = unreadable or any(record["verdict"] in FAILURES for record in records)
    if command.json:
        print_json(records)
    elif command.figures:
        print(report.figure_tables(chapters, _rows()))
    else:
        print_verdicts(records)
    if command.experiments:
        return int(failed)
    if not command.json and not command.figures:
        print_figures(report.records(chapters, _rows())["figures"])
        print(_counted(records))
    if command.out is not None:
        _write_report(command, chapters, command.out)
    return int(failed)


def _write_report(command: Verify, chapters: "Sequence[Chapter]", out: Path) -> None:
    """Write the report; in a folder that can only be read, what was printed has to do."""
    from toyicl.harness import report

    try:
        paths = report.write(chapters, _rows(), out, html=command.html)
    except BadInput as error:
        report_note(f"no report was written: {error}")
        return
    for path in paths:
        report_note(f"wrote {path}")


def _require_consistent(command: Verify) -> None:
    """Raises BadInput for options that exclude each other."""
    if command.out is not None:
        require_folder(command.out)
    if command.html and (command.out is None or command.experiments):
        raise BadInput(
            "html needs --out, the folder that the report is written into, and all experiments, "
            "without names"
        )
    if command.figures and (command.experiments or command.json):
        raise BadInput("figures needs all experiments, without names and without --json")


def _rows() -> "list[Row]":
    """The rows of the table of figures."""
    from toyicl.harness import figure_rows

    return figure_rows.read_all(experiment.folder(), experiment.GROUPS)


def _chapters(command: Verify) -> "tuple[list[Chapter], bool]":
    """The verdicts on each experiment, and whether some of the results could not be read or judged."""
    from toyicl.harness import outputs, report

    chapters, unreadable = [], False
    for listing in chosen(command.experiments or ("all",)):
        results, verdicts = None, None
        one, folder = experiment.load(listing), experiment.place(command.out or RUNS, listing)
        try:
            folder = place_of_results(command.out, listing)
            _note_passed_over(command.out, listing, folder)
            results = outputs.results_of(folder, report_note)
            verdicts = outputs.judge(one, results)
        except (BadInput, Unfinished) as error:  # the others are judged all the same
            report_note(str(error))
            unreadable = True
        judged = outputs.judge(one, None) if verdicts is None else verdicts
        chapters.append(report.Chapter(listing, results, folder, judged))
    return chapters, unreadable


def _note_passed_over(out: Path | None, listing: Listing, folder: Path) -> None:
    """Report a quick run that is not judged because there are full results."""
    from toyicl.harness import outputs

    own = experiment.place(RUNS, listing)
    if out is None and folder != own and outputs.has_results(own):
        report_note(
            f"{listing.name}: judged {folder}; {own} is a quick run, which --out {RUNS} judges"
        )


def _counted(records: Sequence[Mapping[str, Any]]) -> str:
    """How many claims and findings have each verdict, as a line."""
    texts = []
    for kind, ours in (("claims", False), ("findings", True)):
        found = [record["verdict"] for record in records if (record["author"] == OURS) == ours]
        each = [f"{one} {found.count(one)}" for one in VERDICTS if one in found]
        texts.append(f"{len(found)} {kind}: {', '.join(each)}")
    nothing = all(record["verdict"] == NOT_RUN for record in records)
    hint = "; `toyicl run fig2 --quick` makes first results" if nothing else ""
    return "; ".join(texts) + hint


def chosen(names: Sequence[str]) -> list[Listing]:
    """The experiments of some names, each once, or all; raises BadInput if none is named."""
    if "all" in names:
        return experiment.listings()
    if not names:
        raise BadInput("experiment must be named, or all; `toyicl list` shows them")
    return list(dict.fromkeys(experiment.find(name) for name in names))


def place_of_results(out: Path | None, listing: Listing) -> Path:
    """Folder of an experiment's results.

    Without `out`, that in figures/ if the one in runs/ has none, or quick ones only. Raises BadInput if
    there are only results of an earlier version, in the folder of the experiment's former name.
    """
    from toyicl.harness import outputs

    own = experiment.place(out or RUNS, listing)
    former = former_place(out or RUNS, listing)
    if former is not None and not outputs.has_results(own):
        raise BadInput(
            f"{former} holds results of an earlier version of toyicl, which this version cannot "
            f"read; run {listing.name} again"
        )
    if out is not None:
        return own
    shipped = experiment.place(FIGURES, listing)
    return shipped if outputs.has_results(shipped) and not outputs.is_full(own) else own


def former_place(out: Path, listing: Listing) -> Path | None:
    """Folder of results under an experiment's former name; None if there are none."""
    folder = out / listing.alias
    former = bool(listing.alias) and (folder / RESULTS).exists()
    return folder if former and folder != experiment.place(out, listing) else None


def require_folder(out: Path, rule: str = "out must be a folder of runs") -> None:
    """Raises BadInput, with a rule that names the option, for anything but a folder that exists."""
    if not out.is_dir():
        problem = "is a file" if out.exists() else "does not exist"
        raise BadInput(f"{rule}, got {out}, which {problem}")
