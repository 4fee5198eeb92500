"""Training: one compiled program that advances many runs at once.

`fit` trains any learner, a transformer or the step size of gradient descent, on fresh episodes every
step. Its inner program scans over steps and maps over runs; Python only counts chunks, shows progress
and keeps snapshots.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from toyicl.episode import Episode, Learner
from toyicl.metrics import loss
from toyicl.settings import (
    NUMBERS,
    require,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.tasks import Task

Build = Callable[[Any, jax.Array], Any]
"""Makes a learner for a task from a key; a pytree, such as an `Architecture` or `StartFrom`."""


@settings
class Training:
    """Settings of a training run: Adam on fresh batches, after clipping the gradient's global norm.

    The defaults are the released code of von Oswald et al. (2022) for at most two layers; beyond two
    it takes learning_rate 5e-4 and clip_norm 10 (their text has b2 .999 and clip_norm 10 throughout).

    Raises ValueError, at construction, for a setting out of its bounds.
    """

    steps: int = 5000
    """Number of training steps; only counted, so another number compiles nothing."""
    batch_size: int = static(default=2048)
    """Fresh episodes in each step."""
    snapshot_every: int = static(default=100)
    """Steps between two kept snapshots of the parameters; also the length of a compiled chunk."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    clip_norm: float | None = 1e-3
    """Bound on the gradient's global norm; None leaves it as it is."""
    b1: float = 0.9
    """Adam's decay of the first moment."""
    b2: float = 0.98
    """Adam's decay of the second moment."""

    def __post_init__(self) -> None:
        require_size("training.batch_size", self.batch_size)
        require_size("training.snapshot_every", self.snapshot_every)
        if isinstance(self.steps, NUMBERS):
            require_size("training.steps", self.steps)
            rule = f"a multiple of training.snapshot_every ({self.snapshot_every})"
            require(self.steps % self.snapshot_every == 0, "training.steps", rule, self.steps)
        require_positive("training.learning_rate", self.learning_rate)
        require_positive("training.clip_norm", self.clip_norm)
        for name in ("b1", "b2"):
            value = getattr(self, name)
            if isinstance(value, float):
                require(0 <= value < 1, f"training.{name}", "at least 0 and below 1", value)

    def optimiser(self) -> optax.GradientTransformation:
        """Adam after clipping; its numbers may be traced."""
        bound = self.clip_norm
        clip = optax.identity() if bound is None else optax.clip_by_global_norm(bound)
        adam = optax.scale_by_adam(b1=self.b1, b2=self.b2)
        return optax.chain(clip, adam, optax.scale_by_learning_rate(self.learning_rate))


@settings
class StartFrom:
    """A builder that starts every run from the same learner, such as one step of gradient descent."""

    learner: Learner

    def __call__(self, task: Task, key: jax.Array) -> Learner:
        """The learner itself, whatever the task and the key."""
        return self.learner


class History(NamedTuple):
    """What `fit` returns: the learners of all runs at every snapshot, on the host."""

    learners: Any
    """One learner with leading axes (seed, snapshot) on every leaf."""
    steps: np.ndarray
    """Training steps done at each snapshot, (snapshot,), from 0."""
    seeds: np.ndarray
    """Seed of each run, (seed,)."""
    training_loss: np.ndarray
    """Mean training loss since the last snapshot, (seed, snapshot - 1)."""
    diverged_at: np.ndarray
    """Step at which a seed's loss first was not finite, (seed,); -1 where it always was."""

    @property
    def final(self) -> Any:
        """The trained learners, with a leading seed axis on every leaf."""
        return jax.tree.map(lambda leaf: leaf[:, -1], self.learners)


class Run(NamedTuple):
    """All that one run is between two chunks, on the host; small, since episodes are drawn anew."""

    learner: Learner
    optimiser: optax.OptState
    step: int | jax.Array
    """Training steps done."""
    key: jax.Array
    """What the run's episodes are drawn from, as key data, (2,)."""
    task: Task
    training: Training


def fit(
    build: Build,
    task: Task,
    training: Training,
    *,
    seeds: int | Sequence[int] = 1,
    progress: Callable[[int, np.ndarray], None] | None = None,
) -> History:
    """Train one learner for each seed, on fresh episodes every step.

    `seeds` is a count, for seeds 0, 1, ..., or the seeds themselves. A run depends on its own seed
    alone: the episodes of a step are drawn from (seed, step). Runs are spread over the devices of the
    process (see `use_all_cores`). `progress(steps, losses)` is called after every chunk with the
    steps done by all runs together and each run's latest mean training loss. A run that diverges
    leaves the others as they are; see `History.diverged_at`.
    """
    chosen = np.arange(seeds) if isinstance(seeds, int) else np.asarray(seeds)
    require(chosen.size > 0, "seeds", "at least 1, or a list of at least one seed", seeds)
    runs = [jax.device_get(start(build, task, training, int(seed))) for seed in chosen]
    snapshots = [[run.learner] for run in runs]
    losses: list[list[np.ndarray]] = [[] for _ in runs]

    mesh = all_devices()
    waiting = deque(range(len(runs))) if training.steps else deque()
    while waiting:
        turn = [waiting.popleft() for _ in range(min(len(waiting), _at_once(len(runs), mesh)))]
        moved, chunk_losses = advance_together([runs[i] for i in turn], mesh)
        for index, run, chunk in zip(turn, moved, chunk_losses, strict=True):
            runs[index] = run
            snapshots[index].append(run.learner)
            losses[index].append(chunk)
            if run.step < training.steps:
                waiting.append(index)
        if progress is not None:
            latest = [chunks[-1].mean() if chunks else np.nan for chunks in losses]
            progress(sum(int(run.step) for run in runs), np.array(latest))

    stacked = [jax.tree.map(lambda *leaves: np.stack(leaves), *kept) for kept in snapshots]
    by_step = np.array([np.concatenate(chunks) for chunks in losses])
    return History(
        learners=jax.tree.map(lambda *leaves: np.stack(leaves), *stacked),
        steps=np.arange(0, training.steps + 1, training.snapshot_every),
        seeds=chosen,
        training_loss=by_step.reshape(len(runs), -1, training.snapshot_every).mean(axis=-1),
        diverged_at=_first_not_finite(by_step),
    )


@jax.jit
def start(build: Build, task: Task, training: Training, seed: int | jax.Array) -> Run:
    """The run of a seed, before its first step."""
    weights_key, episodes_key = jax.random.split(jax.random.key(seed))
    learner = build(task, weights_key)
    return Run(
        learner=learner,
        optimiser=training.optimiser().init(nnx.state(learner, nnx.Param)),
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(episodes_key),
        task=task,
        training=training,
    )


@partial(jax.jit, static_argnames=("length", "mesh"), donate_argnames="runs")
def advance(runs: Run, steps: jax.Array, length: int, mesh: Mesh) -> tuple[Run, jax.Array]:
    """Runs, stacked on a leading axis, some steps further; their losses, (run, length).

    `steps`, one number for each device, is `length`, or 0 where a device has nothing to do. Each
    device advances its own runs and speaks to no other: the program holds no collective.
    """

    def advance_own(runs: Run, steps: jax.Array) -> tuple[Run, jax.Array]:
        return jax.vmap(partial(_train, steps=steps[0], length=length))(runs)

    axis = PartitionSpec("run")
    # Nothing is shared between devices, so there is no use in tracking what varies between them.
    spread = jax.shard_map(advance_own, mesh=mesh, in_specs=axis, out_specs=axis, check_vma=False)
    return spread(runs, steps)


def _train(run: Run, steps: jax.Array, length: int) -> tuple[Run, jax.Array]:
    """One run `steps` steps further, and its losses, NaN after those steps.

    Episodes are drawn one step ahead and carried through the loop: what a loop carries is stored,
    whereas XLA would redraw it inside each of its uses, which takes longer than the rest of a step.
    """

    def draw(run: Run) -> Episode:
        key = jax.random.fold_in(jax.random.wrap_key_data(run.key), run.step)
        return run.task.sample(key, run.training.batch_size)

    def step(index: jax.Array, carry: tuple[Run, Episode, jax.Array]) -> tuple:
        run, episodes, losses = carry
        run, value = _step(run, episodes)
        return run, draw(run), losses.at[index].set(value)

    unknown = jnp.full(length, jnp.nan)
    run, _, losses = jax.lax.fori_loop(0, steps, step, (run, draw(run), unknown))
    return run, losses


def _step(run: Run, episodes: Episode) -> tuple[Run, jax.Array]:
    """One optimiser step on the given episodes, and the loss before it."""
    structure, *states = nnx.split(run.learner, nnx.Param, ...)
    parameters, fixed = states

    def objective(parameters: nnx.State) -> jax.Array:
        return loss(nnx.merge(structure, parameters, fixed), episodes)

    value, gradient = jax.value_and_grad(objective)(parameters)
    updates, optimiser = run.training.optimiser().update(gradient, run.optimiser, parameters)
    learner = nnx.merge(structure, optax.apply_updates(parameters, updates), fixed)
    return run._replace(learner=learner, optimiser=optimiser, step=run.step + 1), value


def use_all_cores() -> None:
    """Let every CPU core be a device of its own, so that `fit` spreads its runs over them.

    XLA runs small programs like these on one core otherwise. To be called before JAX's first
    computation; it changes nothing for a GPU.
    """
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


def all_devices() -> Mesh:
    """The mesh of all devices of this process, on which runs are spread."""
    return jax.make_mesh((jax.local_device_count(),), ("run",), devices=jax.local_devices())


def _at_once(runs: int, mesh: Mesh) -> int:
    """How many runs advance together.

    A CPU core takes one at a time: several would leave its cache. The others wait their turn, so
    that five runs keep two cores busy to the end. Any other device takes its share of all at once.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return mesh.size if on_cpu else -(-runs // mesh.size) * mesh.size


def advance_together(runs: list[Run], mesh: Mesh) -> tuple[list[Run], np.ndarray]:
    """Advance some runs by one chunk; devices that are left over do nothing."""
    length = runs[0].training.snapshot_every
    each = -(-len(runs) // mesh.size)
    filled = runs + runs[-1:] * (each * mesh.size - len(runs))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
    steps = np.where(np.arange(mesh.size) * each < len(runs), length, 0)
    placed = jax.device_put((stacked, steps), NamedSharding(mesh, PartitionSpec("run")))
    moved, losses = jax.device_get(advance(placed[0], placed[1], length, mesh))
    kept = [jax.tree.map(lambda leaf, i=i: leaf[i], moved) for i in range(len(runs))]
    return kept, losses[: len(runs)]


def _first_not_finite(losses: np.ndarray) -> np.ndarray:
    """Index of the first loss that is not finite in each row, -1 where all are."""
    broken = ~np.isfinite(losses)
    return np.where(broken.any(axis=1), broken.argmax(axis=1), -1)
