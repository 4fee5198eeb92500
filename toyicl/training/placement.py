"""Where runs are computed: each device has its own runs, or all devices divide one run's batches."""

from typing import Protocol, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from toyicl.core.config import require
from toyicl.training import distributed
from toyicl.training.step import Run, advance, advance_divided

Tree = TypeVar("Tree")


class Spread(Protocol):
    """How runs are distributed over devices and processes."""

    name: str
    """What is divided among the devices: "run" or "batch", as the option `--shard` has it."""

    def require_work(self, runs: int) -> None:
        """Raises BadInput if some process would never have work with so many runs."""
        ...

    def at_once(self, runs: int) -> int:
        """How many of so many runs are advanced together."""
        ...

    def own_runs(self, runs: int) -> range:
        """Indices of the runs that this process advances."""
        ...

    def advance(self, runs: list[Run], room: int = 1) -> tuple[list[Run], np.ndarray]:
        """Advance some runs by one chunk; returns them and their losses, (run, step).

        `room` is the result of `at_once`: fewer runs use the same compiled program.
        """
        ...

    def collect(self, state: Tree, first: int = 0) -> Tree:
        """State of runs `first`, `first` + 1, ..., one row each, with the rows of all processes."""
        ...


class AcrossRuns:
    """Each device advances its own runs, and no device waits for another."""

    name = "run"

    def __init__(self) -> None:
        self.mesh = distributed.own_devices()

    def require_work(self, runs: int) -> None:
        """Raises BadInput for more processes than runs."""
        count = jax.process_count()
        require(count <= runs, "processes", f"at most one for each run ({runs})", count)

    def at_once(self, runs: int) -> int:
        """One run for each CPU core; for other devices all runs, rounded up to equal numbers on each.

        Several runs would not fit the cache of a core. The others wait for their turn, so that five
        runs keep two cores busy to the end.
        """
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return self.mesh.size if on_cpu else -(-runs // self.mesh.size) * self.mesh.size

    def own_runs(self, runs: int) -> range:
        """Process p of P advances runs p, p + P, p + 2 P, ..."""
        return range(jax.process_index(), runs, jax.process_count())

    def advance(self, runs: list[Run], room: int = 1) -> tuple[list[Run], np.ndarray]:
        """Advance some runs by one chunk; devices without a run do nothing."""
        length = runs[0].training.snapshot_every
        each = -(-max(room, len(runs)) // self.mesh.size)
        filled = runs + runs[-1:] * (each * self.mesh.size - len(runs))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
        steps = np.where(np.arange(self.mesh.size) * each < len(runs), length, 0)
        placed = jax.device_put((stacked, steps), NamedSharding(self.mesh, PartitionSpec("run")))
        moved, losses = jax.device_get(advance(*placed, length, self.mesh))
        kept = [jax.tree.map(lambda leaf, i=i: leaf[i], moved) for i in range(len(runs))]
        return kept, losses[: len(runs)]

    def collect(self, state: Tree, first: int = 0) -> Tree:
        """The state with each row from the process that advances its run."""
        return distributed.from_owners(state, first)


class AcrossBatch:
    """All devices of all processes work on one run, each on its part of every batch."""

    name = "batch"

    def __init__(self) -> None:
        self.mesh = distributed.all_devices()

    def require_work(self, runs: int) -> None:
        """Accepts any number of processes: each has a part of every batch."""

    def at_once(self, runs: int) -> int:
        """One."""
        return 1

    def own_runs(self, runs: int) -> range:
        """All runs: every process has a part in each."""
        return range(runs)

    def advance(self, runs: list[Run], room: int = 1) -> tuple[list[Run], np.ndarray]:
        """Advance one run by one chunk.

        Raises BadInput if the batch cannot be divided into equal parts.
        """
        (run,) = runs
        length, batch = run.training.snapshot_every, run.training.batch_size
        rule = f"a multiple of the number of devices ({self.mesh.size}) to be divided among them"
        require(batch % self.mesh.size == 0, "training.batch_size", rule, batch)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        placed = jax.device_put((run, np.int32(length)), everywhere)
        moved, losses = jax.device_get(advance_divided(*placed, length, self.mesh))
        return [moved], losses[None]

    def collect(self, state: Tree, first: int = 0) -> Tree:
        """The state as it is: every process has all of it."""
        return state
