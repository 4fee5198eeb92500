"""Training state of the runs of a job as plain arrays: what a checkpoint holds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toyicl.training.step import Run


class TrainingState(NamedTuple):
    """State and snapshots of the runs of one job; all that is needed to resume them.

    Arrays on the host, with one row for each run. They have the size that the finished runs need;
    entries that no step has reached yet are zeros.
    """

    step: np.ndarray
    """Training steps done, (run,)."""
    optimiser: optax.OptState
    """State of the optimiser, with a leading run axis on every leaf."""
    learners: Any
    """One learner with leading axes (run, snapshot) on every leaf."""
    training_loss: np.ndarray
    """Mean training loss since the previous snapshot, (run, snapshot - 1)."""
    diverged_at: np.ndarray
    """Step at which the loss of a run was first not finite, (run,); -1 where it always was finite."""


def empty_state(runs: list[Run]) -> TrainingState:
    """State of runs of equal length before their first step."""
    first, count = runs[0], len(runs)
    snapshots = 1 + int(first.training.steps) // first.training.snapshot_every

    def with_room(*leaves: np.ndarray) -> np.ndarray:
        room = np.zeros((count, snapshots, *np.shape(leaves[0])), np.asarray(leaves[0]).dtype)
        room[:, 0] = leaves
        return room

    return TrainingState(
        step=np.zeros(count, np.int32),
        optimiser=jax.tree.map(lambda *leaves: np.stack(leaves), *(run.optimiser for run in runs)),
        learners=jax.tree.map(with_room, first.learner, *(run.learner for run in runs[1:])),
        training_loss=np.zeros((count, snapshots - 1), jnp.result_type(float)),
        diverged_at=np.full(count, -1, np.int32),
    )


def at(run: Run, state: TrainingState, row: int) -> Run:
    """A run at the last step that a row of the state has reached."""
    step = state.step[row]
    snapshot = step // run.training.snapshot_every
    return run._replace(
        learner=jax.tree.map(lambda leaf: leaf[row, snapshot], state.learners),
        optimiser=jax.tree.map(lambda leaf: leaf[row], state.optimiser),
        step=step,
    )


def record(state: TrainingState, row: int, run: Run, losses: np.ndarray) -> None:
    """Write a run after one chunk of steps, and the losses of these steps, into a row of the state."""
    snapshot = int(run.step) // run.training.snapshot_every
    if state.diverged_at[row] < 0:
        if not np.isfinite(losses).all():
            state.diverged_at[row] = state.step[row] + np.isfinite(losses).argmin()
        elif not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.learner)):
            state.diverged_at[row] = run.step  # by its last update, which no loss has seen yet
    state.step[row] = run.step
    state.training_loss[row, snapshot - 1] = losses.mean()

    def write(room: np.ndarray, leaf: np.ndarray, where: Any) -> None:
        room[where] = leaf

    jax.tree.map(lambda room, leaf: write(room, leaf, row), state.optimiser, run.optimiser)
    jax.tree.map(lambda room, leaf: write(room, leaf, (row, snapshot)), state.learners, run.learner)


def latest_losses(state: TrainingState, every: int) -> np.ndarray:
    """Mean training loss of the last chunk of `every` steps of each run, (run,); NaN before it."""
    rows, chunk = np.arange(len(state.step)), state.step // every - 1
    return np.where(chunk >= 0, state.training_loss[rows, chunk], np.nan)


def named_arrays(state: TrainingState) -> dict[str, np.ndarray]:
    """Every array of the state by the path that leads to it."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def with_rows(state: TrainingState, arrays: dict[str, np.ndarray]) -> TrainingState:
    """A state whose first rows are those of the named arrays, and whose other rows are unchanged.

    Raises ValueError if the names, the types, or the shapes of a row differ from those of the state,
    or if there are more rows.
    """
    own = named_arrays(state)
    rows = {name: len(array) for name, array in arrays.items() if np.ndim(array)}
    for name in sorted(own.keys() | arrays.keys()):
        here, there = (
            (found[name].shape[1:], found[name].dtype) if name in found else None
            for found in (own, arrays)
        )
        if here != there:
            raise ValueError(
                f"{name} has rows {there} in the checkpoint, and {here} in this program"
            )
    counts = set(rows.values())
    if len(counts) > 1 or max(counts) > len(state.step):
        raise ValueError(f"it has {sorted(counts)} runs, and this program {len(state.step)}")
    filled = []
    for name, array in own.items():
        filled.append(np.array(array))
        filled[-1][: rows[name]] = arrays[name]
    return jax.tree.unflatten(jax.tree.structure(state), filled)
