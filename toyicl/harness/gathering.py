"""Parts of a run that was divided by seed, and the checkpoint of the whole run that they make up."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toyicl.core.errors import BadInput, Unfinished
from toyicl.harness import atomic_files, checkpoints, descriptions, provenance, resuming
from toyicl.harness.checkpoints import Checkpoint, NamedArrays
from toyicl.harness.environment import moved_since_any
from toyicl.harness.experiment import CHECKPOINT
from toyicl.harness.provenance import changed_since_any
from toyicl.harness.trainings import Declared


class Part(NamedTuple):
    """A run with some of the seeds."""

    folder: Path
    checkpoint: Checkpoint

    @property
    def seeds(self) -> list[int]:
        """Its seeds."""
        return self.checkpoint.identity["seeds"]


def find(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """The folders of the runs that have the same name in some folders of runs, by that name.

    A folder of runs may group them as `figures` does, and may be the folder of a single run. Raises
    BadInput for a folder without runs, and for one without a run that another folder has: the seeds
    of that part would be missing from the joined run.
    """
    found: dict[str, list[Path]] = {}
    names: dict[Path, set[str]] = {}
    for folder in folders:
        places = [folder / CHECKPOINT] if (folder / CHECKPOINT).is_dir() else []
        places += [path for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{CHECKPOINT}")]
        if not places:
            raise BadInput(f"parts must be folders of runs with checkpoints, got {folder}")
        names[folder] = {path.parent.name for path in places}
        for path in sorted(places):
            found.setdefault(path.parent.name, []).append(path.parent)
    for folder, own in names.items():
        missing = [name for name in found if name not in own]
        if missing:
            raise BadInput(
                f"parts must be folders with the same runs, got {folder} without "
                f"{', '.join(missing)}; another part of {missing[0]} is {found[missing[0]][0]}"
            )
    return found


def read(folders: Sequence[Path], warn: Callable[[str], None]) -> list[Part]:
    """The parts in some folders, ordered by their first seeds.

    `warn` is called with a sentence for each damaged checkpoint, and where parts come from different
    programs or environments. Raises Damaged where no undamaged checkpoint is left, and BadInput if the
    parts are not those of one run: if anything but their seeds differs, or if the seeds of all parts
    together are not 0, 1, ..., each once.
    """
    parts = []
    for folder in folders:
        kept = checkpoints.load(folder, warn)
        if kept is None:
            raise BadInput(f"{folder} must hold a checkpoint")
        identity = provenance.completed(kept.identity)
        parts.append(Part(folder, kept._replace(identity=identity)))
    parts.sort(key=lambda part: part.seeds)
    _require_same(parts)
    _require_all_seeds(parts)
    _compare_origins(parts, warn)
    return parts


def require_no_part(folder: Path, parts: Sequence[Path]) -> None:
    """Raises BadInput if a folder is one of the parts, which the joined run would overwrite."""
    if folder.exists() and any(folder.samefile(part) for part in parts):
        raise BadInput(
            f"out must be another folder than those of the parts, got {folder.parent}: the joined run "
            f"would overwrite {folder}"
        )


def join(
    parts: Sequence[Part],
    declared: Sequence[Declared],
    identity: dict[str, Any],
    command: str,
) -> Checkpoint:
    """The checkpoint of a run with the seeds of all parts, as if it had trained them itself.

    `declared` are the trainings of the run with this identity, and `command` is what reproduces it.
    Raises BadInput if the parts were trained with other settings than those of the run, and
    Unfinished if a training of a part is not finished, with the steps that are done, or if the states
    of a training have other arrays in one part than in another.
    """
    there = parts[0].checkpoint.identity | {"seeds": identity["seeds"]}
    found = provenance.differences(there, identity)
    if found:
        raise BadInput(
            f"parts must have the settings that `{command}` has in this version of the program and "
            f"of the experiment, got {parts[0].folder} with other {', '.join(found)}"
        )
    seconds = [part.checkpoint.seconds for part in parts]
    states = {}
    for one in declared:
        with_runs = [part for part in parts if one.job.seeds(part.seeds)]
        states[one.full_name] = _stacked(one, with_runs)
    return Checkpoint(
        identity=identity,
        origins=[origin for part in parts for origin in part.checkpoint.origins],
        states=states,
        command=command,
        descriptions=descriptions.describe(declared, identity["seeds"]),
        seconds=None if None in seconds else sum(filter(None, seconds)),
    )


def place(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    fresh: bool,
    warn: Callable[[str], None],
    lock: bool = True,
) -> None:
    """Save a joined checkpoint in a folder, so that a run there resumes from it.

    A folder that holds a run with the same settings and seeds is left as it is if all its trainings
    are finished; otherwise the joined checkpoint replaces that run's. Raises BadInput if the folder
    cannot be written or is in use, or if it holds another run and `fresh` is not set.
    """
    atomic_files.prepare_folder(folder)
    with atomic_files.locked(folder, warn, lock=lock):
        kept = resuming.earlier(
            folder,
            checkpoint.identity,
            checkpoint.descriptions,
            quick=True,
            fresh=fresh,
            warn=warn,
        )
        if kept is None:
            checkpoints.discard(folder)
        elif _has_all_steps(kept, checkpoint):
            return
        try:
            checkpoints.save(folder, checkpoint)
        except Exception as error:  # Orbax and TensorStore raise various errors if a disk is full
            raise Unfinished(
                f"no checkpoint could be saved in {folder} ({checkpoints.reason(error)})"
            ) from error


def _has_all_steps(kept: Checkpoint, joined: Checkpoint) -> bool:
    """Whether a checkpoint has the seeds and the steps of a joined one, whose runs are finished."""
    seeds = [checkpoint.identity["seeds"] for checkpoint in (kept, joined)]
    return (
        bool(kept.origins)
        and seeds[0] == seeds[1]
        and all(
            np.array_equal(kept.states.get(name, {}).get("step", np.zeros(0)), arrays["step"])
            for name, arrays in joined.states.items()
        )
    )


def command_of(parts: Sequence[Part]) -> str:
    """The command of the first part that states one; parts trained by earlier versions do not.

    Raises BadInput if no part does.
    """
    for part in parts:
        if part.checkpoint.command:
            return part.checkpoint.command
    folders = ", ".join(str(part.folder) for part in parts)
    raise BadInput(
        f"one of the parts must state its command, got none in {folders}, which an earlier version "
        "wrote; rerun the command of one of them"
    )


def _require_same(parts: Sequence[Part]) -> None:
    """Raises BadInput unless parts differ in their seeds alone."""
    first = parts[0]
    for part in parts[1:]:
        there, here = (p.checkpoint.identity | {"seeds": []} for p in (first, part))
        found = provenance.differences(there, here)
        if found:
            raise BadInput(
                f"parts must be of one experiment with the same settings, got {first.folder} and "
                f"{part.folder} with other {', '.join(found)}"
            )


def _require_all_seeds(parts: Sequence[Part]) -> None:
    """Raises BadInput unless the seeds of all parts are 0, 1, ..., each once."""
    for one, other in pairwise(parts):
        twice = sorted({*one.seeds} & {*other.seeds})
        if twice:
            raise BadInput(
                f"parts must have different seeds, got {_named(twice)} in {one.folder} and in "
                f"{other.folder}"
            )
    seeds = {seed for part in parts for seed in part.seeds}
    missing = sorted({*range(max(seeds) + 1)} - seeds)
    if missing:
        raise BadInput(
            f"parts must have all seeds from 0 to {max(seeds)}, got none with {_named(missing)}: "
            f"{', '.join(str(part.folder) for part in parts)}"
        )


def _compare_origins(parts: Sequence[Part], warn: Callable[[str], None]) -> None:
    """Report parts that another program trained than the first one, or in another environment."""
    first = parts[0]
    for part in parts[1:]:
        before, own = first.checkpoint.origins, part.checkpoint.origins
        if any(changed_since_any(before, now) for now in own):
            warn(f"{first.folder} and {part.folder} were trained by different programs")
        moved = "; ".join(dict.fromkeys(filter(None, (moved_since_any(before, o) for o in own))))
        if moved:
            warn(
                f"{first.folder} and {part.folder} were trained in different environments ({moved}): "
                "the results may differ in the last digits from those of one run"
            )


def _finished(part: Part, training: Declared) -> NamedArrays:
    """The state of a training in a part, with a row for each of its seeds.

    Raises Unfinished unless all runs have done all steps, and if an array has other rows.
    """
    seeds, steps = training.job.seeds(part.seeds), int(training.job.training.steps)
    arrays = part.checkpoint.states.get(training.full_name, {})
    reached = arrays.get("step", np.zeros(0, np.int32))[: len(seeds)]
    done = np.zeros(len(seeds), int)
    done[: len(reached)] = reached
    if (done < steps).any():
        row = int(np.argmax(done < steps))
        raise Unfinished(
            f"{part.folder} is not finished: {training.full_name}, seed {seeds[row]}, has done "
            f"{done[row]:,} of {steps:,} steps; rerun the command of this part to resume it"
        )
    wrong = [name for name, array in arrays.items() if np.shape(array)[:1] != (len(seeds),)]
    if wrong:
        raise Unfinished(
            f"the checkpoint of {training.full_name!r} in {part.folder} was made by another program "
            f"({', '.join(wrong)} must have a row for each of {len(seeds)} runs); rerun the command "
            "of this part with --fresh"
        )
    return arrays


def _stacked(training: Declared, parts: Sequence[Part]) -> NamedArrays:
    """The states of a training in all parts as one, with a row for each seed.

    Raises Unfinished if a part is not finished, and unless the arrays of all parts have the same
    names, types and shapes of a row.
    """
    states = [_finished(part, training) for part in parts]
    first, *others = ({name: _row(array) for name, array in one.items()} for one in states)
    for part, rows in zip(parts[1:], others, strict=True):
        wrong = [name for name in sorted({*first, *rows}) if first.get(name) != rows.get(name)]
        if wrong:
            raise Unfinished(
                f"the checkpoints of {training.full_name!r} in {parts[0].folder} and {part.folder} "
                f"were made by different programs: {wrong[0]} has rows {first.get(wrong[0])} and "
                f"{rows.get(wrong[0])}; rerun the command of one of these parts with --fresh"
            )
    return {name: np.concatenate([arrays[name] for arrays in states]) for name in first}


def _row(array: np.ndarray) -> tuple[tuple[int, ...], str]:
    """Shape and type of a row."""
    return array.shape[1:], array.dtype.name


def _named(seeds: Sequence[int]) -> str:
    """Seeds in words."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
