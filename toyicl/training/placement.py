"""How runs are spread over devices: each device its own runs, or all devices on one run's batches."""

from typing import Protocol, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from toyicl.core.config import require
from toyicl.training import distributed
from toyicl.training.step import Run, advance, advance_divided

Tree = TypeVar("Tree")


class Spread(Protocol):
    """How runs are spread over devices."""

    def require_work(self, runs: int) -> None:
        """Raises BadInput if some process would have nothing to do with so many runs."""
        ...

    def at_once(self, runs: int) -> int:
        """How many of so many runs advance together."""
        ...

    def share(self, runs: int) -> range:
        """Which runs this process advances."""
        ...

    def advance(self, runs: list[Run], room: int = 1) -> tuple[list[Run], np.ndarray]:
        """Advance some runs by one chunk; their losses, (run, step).

        `room` is what `at_once` said: fewer runs are the same program, with room for as many.
        """
        ...

    def collect(self, trails: Tree) -> Tree:
        """The trails of the runs of all processes, in every process."""
        ...


class AcrossRuns:
    """Each device takes runs of its own, and no device waits for another."""

    def __init__(self) -> None:
        self.mesh = distributed.own_devices()

    def require_work(self, runs: int) -> None:
        """Raises BadInput for more processes than runs."""
        count = jax.process_count()
        require(count <= runs, "processes", f"at most one for each run ({runs})", count)

    def at_once(self, runs: int) -> int:
        """One run for each CPU core; for any other device, its share of all of them.

        Several runs would leave a core's cache. The others wait their turn instead, so that five runs
        keep two cores busy to the end.
        """
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return self.mesh.size if on_cpu else -(-runs // self.mesh.size) * self.mesh.size

    def share(self, runs: int) -> range:
        """Every so many-th run, for each process."""
        return range(jax.process_index(), runs, jax.process_count())

    def advance(self, runs: list[Run], room: int = 1) -> tuple[list[Run], np.ndarray]:
        """Advance some runs by one chunk; devices that are left over do nothing."""
        length = runs[0].training.snapshot_every
        each = -(-max(room, len(runs)) // self.mesh.size)
        filled = runs + runs[-1:] * (each * self.mesh.size - len(runs))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
        steps = np.where(np.arange(self.mesh.size) * each < len(runs), length, 0)
        placed = jax.device_put((stacked, steps), NamedSharding(self.mesh, PartitionSpec("run")))
        moved, losses = jax.device_get(advance(*placed, length, self.mesh))
        kept = [jax.tree.map(lambda leaf, i=i: leaf[i], moved) for i in range(len(runs))]
        return kept, losses[: len(runs)]

    def collect(self, trails: Tree) -> Tree:
        """Every run's trail, from the process that advances it."""
        return distributed.from_owners(trails)


class AcrossBatch:
    """All devices of all processes work on one run, each on its part of every batch."""

    def __init__(self) -> None:
        self.mesh = distributed.all_devices()

    def require_work(self, runs: int) -> None:
        """Any number of processes has work: each has its part of every batch."""

    def at_once(self, runs: int) -> int:
        """One."""
        return 1

    def share(self, runs: int) -> range:
        """All of them: every process has its part in each."""
        return range(runs)

    def advance(self, runs: list[Run], room: int = 1) -> tuple[list[Run], np.ndarray]:
        """Advance one run by one chunk."""
        (run,) = runs
        length, batch = run.training.snapshot_every, run.training.batch_size
        rule = f"a multiple of the number of devices ({self.mesh.size}) to be divided among them"
        require(batch % self.mesh.size == 0, "training.batch_size", rule, batch)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        placed = jax.device_put((run, np.int32(length)), everywhere)
        moved, losses = jax.device_get(advance_divided(*placed, length, self.mesh))
        return [moved], losses[None]

    def collect(self, trails: Tree) -> Tree:
        """The trails as they are: every process has them all."""
        return trails
