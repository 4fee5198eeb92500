"""What an earlier run left in a folder, and whether a new run resumes it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import checkpoints, outputs, provenance
from toyicl.harness.checkpoints import Checkpoint
from toyicl.harness.descriptions import Description, continues
from toyicl.harness.experiment import RESULTS
from toyicl.harness.results import load_results, require_places


def earlier(
    folder: Path,
    identity: dict[str, Any],
    described: Mapping[str, Description | None],
    *,
    quick: bool,
    fresh: bool,
    warn: Callable[[str], None],
) -> Checkpoint | None:
    """The checkpoint that a run resumes, with the states of no training if there is nothing yet.

    `described` are the run's trainings, by name. None if the run starts over and replaces what the
    folder holds: with `fresh`, or if that is a finished quick run and this one is not quick. A run may
    have more seeds than the earlier one. It may also have other settings, if all trainings of the
    earlier run are trainings of this one: then they are reused, unless a quick run would replace the
    results of one that is not. `warn` is called with a sentence if they are, and for each damaged
    checkpoint. Raises BadInput if the folder holds a run with other settings, or a folder in the place
    of one of a run's files, and Damaged if it holds nothing but damaged checkpoints.
    """
    require_places(folder)
    if fresh:
        return None
    kept = checkpoints.load(folder, warn)
    if kept is None:
        done = (folder / RESULTS).exists()
        there = provenance.identity_of(load_results(folder)) if done else identity
        kept = Checkpoint(there, [], {})
    found = _differences(kept.identity, identity)
    if (
        found
        and _are_reusable(kept, identity, described)
        and not (quick and outputs.is_full(folder))
    ):
        warn(
            f"the trainings in {folder} are reused, and measured with other settings: "
            f"{', '.join(found)}"
        )
        return kept
    if found and not quick and _is_of_quick_run(kept, folder):
        return None
    if found:
        raise BadInput(
            f"settings must be those of the run in {folder}, got other {', '.join(found)}; "
            "another --out keeps both, --fresh starts over"
        )
    return kept


def _are_reusable(
    kept: Checkpoint, identity: dict[str, Any], described: Mapping[str, Description | None]
) -> bool:
    """Whether all trainings of a checkpoint are trainings of another run, and there is at least one."""
    there = provenance.completed(kept.identity)
    if not kept.states or any(
        there[name] != identity[name] for name in ("experiment", "precision", "numerics")
    ):
        return False
    return all(continues(kept.descriptions.get(name), described.get(name)) for name in kept.states)


def _is_of_quick_run(kept: Checkpoint, folder: Path) -> bool:
    """Whether a checkpoint belongs to the finished quick run in a folder, not to one begun after it."""
    if not (folder / RESULTS).exists():
        return False
    try:
        results = load_results(folder)
    except (BadInput, Unfinished):  # the results are not known to be those of a quick run
        return False
    quick = results.attrs.get("level") == "quick"
    return quick and not _differences(provenance.identity_of(results), kept.identity)


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Where two identities differ, as text; more seeds than there are not a difference."""
    there = provenance.completed(there)
    count = len(there["seeds"])
    more = count < len(here["seeds"]) and there["seeds"] == here["seeds"][:count]
    return provenance.differences(there | {"seeds": here["seeds"]} if more else there, here)
