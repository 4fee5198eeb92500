"""Trails: how far runs of one kind have come, as plain arrays; what a checkpoint holds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toyicl.training.step import Run


class TrainingState(NamedTuple):
    """How far runs of one kind have come, and what they left on their way; all that resuming needs.

    Arrays on the host, as long as the finished runs will make them: what is still to come is zeros.
    """

    step: np.ndarray
    """Training steps done, (run,)."""
    optimiser: optax.OptState
    """State of the optimiser, with a leading run axis on every leaf."""
    learners: Any
    """One learner with leading axes (run, snapshot) on every leaf."""
    training_loss: np.ndarray
    """Mean training loss since the last snapshot, (run, snapshot - 1)."""
    diverged_at: np.ndarray
    """Step at which a run's loss first was not finite, (run,); -1 where it always was."""


def empty_state(runs: list[Run]) -> TrainingState:
    """The trails of runs before their first step."""
    first, count = runs[0], len(runs)
    snapshots = 1 + max(int(run.training.steps) // run.training.snapshot_every for run in runs)

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


def at(run: Run, trails: TrainingState, index: int) -> Run:
    """A run where its trail ends."""
    step = trails.step[index]
    snapshot = step // run.training.snapshot_every
    return run._replace(
        learner=jax.tree.map(lambda leaf: leaf[index, snapshot], trails.learners),
        optimiser=jax.tree.map(lambda leaf: leaf[index], trails.optimiser),
        step=step,
    )


def record(trails: TrainingState, index: int, run: Run, losses: np.ndarray) -> None:
    """Write one chunk of a run into its trail."""
    snapshot = int(run.step) // run.training.snapshot_every
    if trails.diverged_at[index] < 0:
        if not np.isfinite(losses).all():
            trails.diverged_at[index] = trails.step[index] + np.isfinite(losses).argmin()
        elif not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.learner)):
            trails.diverged_at[index] = run.step  # by its last update, which no loss has seen yet
    trails.step[index] = run.step
    trails.training_loss[index, snapshot - 1] = losses.mean()

    def write(room: np.ndarray, leaf: np.ndarray, where: Any) -> None:
        room[where] = leaf

    jax.tree.map(lambda room, leaf: write(room, leaf, index), trails.optimiser, run.optimiser)
    jax.tree.map(
        lambda room, leaf: write(room, leaf, (index, snapshot)), trails.learners, run.learner
    )


def latest_losses(trails: TrainingState, every: int) -> np.ndarray:
    """Mean training loss of each run's last chunk of `every` steps; NaN before its first."""
    rows, chunk = np.arange(len(trails.step)), trails.step // every - 1
    return np.where(chunk >= 0, trails.training_loss[rows, chunk], np.nan)


def named_arrays(trails: TrainingState) -> dict[str, np.ndarray]:
    """Every array of the trails by the path that leads to it."""
    leaves = jax.tree_util.tree_leaves_with_path(trails)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def with_arrays(trails: TrainingState, arrays: dict[str, np.ndarray]) -> TrainingState:
    """Trails of the same kind that hold the named arrays.

    Raises ValueError if the names, shapes or types are not those of these trails.
    """
    own = named_arrays(trails)
    for name in own.keys() | arrays.keys():
        here, there = (
            (found[name].shape, found[name].dtype) if name in found else None
            for found in (own, arrays)
        )
        if here != there:
            raise ValueError(f"{name} is {there} there, and {here} here")
    structure = jax.tree.structure(trails)
    return jax.tree.unflatten(structure, [np.array(arrays[name]) for name in own])
