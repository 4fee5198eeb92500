"""The devices of a process, and the processes of a cluster."""

import contextlib
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from toyicl.core.errors import BadInput, Unfinished

Tree = TypeVar("Tree")


FORCED_DEVICES = r"xla_force_host_platform_device_count=(\d+)"
"""How a user sets a number of devices through XLA_FLAGS."""
THREADS = 4
"""Threads of XLA for each core, or for each device if there are more devices than cores."""


def use_all_cores() -> None:
    """Make every CPU core a device, so that runs are distributed over the cores.

    XLA computes small programs such as these on one core otherwise. Must be called before JAX's first
    computation. It changes nothing for a GPU, or if the user has set a number of devices.
    """
    # Not every system can restrict a process to some of the cores.
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cores = len(own) if own else os.cpu_count() or 1
    forced = re.search(FORCED_DEVICES, os.environ.get("XLA_FLAGS", ""))
    given = int(forced[1]) if forced else jax.config.values["jax_num_cpu_devices"]
    if given < 1:
        jax.config.update("jax_num_cpu_devices", cores)
    # XLA has one thread for each core. A linear solve in a device's program waits for one that is free:
    # forever, if such programs of all devices have them all, as in the training of a ridge regression.
    os.environ.setdefault("NPROC", str(THREADS * max(cores, given)))


def connect(
    address: str | None, processes: int | None, rank: int | None, *, patience: float = 60.0
) -> None:
    """Join the other processes of a cluster; must be called before JAX's first computation.

    `address` is HOST:PORT of process 0. Without it, `processes` and `rank`, JAX asks the cluster, which
    may be Slurm, Open MPI, Kubernetes or a TPU pod. Raises BadInput for a rank out of range, if only
    some of the three are given, for a port that process 0 cannot use, if no cluster is found, and if
    JAX has computed something before. If not all processes are connected after `patience` seconds, the
    program ends with a message and status 1.
    """
    given = {"coordinator": address, "processes": processes, "rank": rank}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise BadInput(f"coordinator, processes and rank must be given together; no {missing}")
    if processes is not None and processes < 1:
        raise BadInput(f"processes must be at least 1, got {processes}")
    if processes is not None and rank is not None and rank not in range(processes):
        raise BadInput(f"rank must be between 0 and {processes - 1} (processes - 1), got {rank}")
    if address is not None:
        _require_address(address)
        if rank == 0:
            _require_free_port(address)
    where = address or "the address that the cluster gives"
    message = (
        f"not all processes were connected at {where} within {patience:g} s; is process 0 running "
        "there?"
    )
    try:
        # JAX's preemption service would replace the program's own handler of SIGTERM.
        jax.config.update("jax_enable_preemption_service", False)
        with _at_most(patience, message):
            jax.distributed.initialize(
                address, processes, rank, initialization_timeout=int(patience) + 60
            )
    except (ValueError, RuntimeError) as error:
        if "before any JAX" in str(error):
            raise BadInput(
                "distributed must start before JAX computes anything: an experiment file must not "
                "make arrays while it is loaded"
            ) from error
        if address is None:
            rule = "find a cluster, or be given --coordinator, --processes and --rank"
        else:
            rule = f"start at {address}"
        raise BadInput(f"distributed must {rule}: {error}") from error


def _require_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise BadInput(
            f"coordinator must be HOST:PORT, with a port from 1 to 65535, got {address!r}"
        )


def _require_free_port(address: str) -> None:
    """Raises BadInput if this process cannot use the port; JAX would crash."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    port, both = int(address.rpartition(":")[2]), family == socket.AF_INET6
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise BadInput(
            f"coordinator must be HOST:PORT, with a port that is free, got {address!r} ({reason})"
        ) from error


@contextlib.contextmanager
def _at_most(seconds: float, message: str) -> Iterator[None]:
    """End the program with a message if the block takes longer.

    JAX's own time limit ends the program with a C++ stack trace and no other message.
    """

    def give_up() -> None:
        print(f"toyicl: {message}", file=sys.stderr, flush=True)
        os._exit(1)

    clock = threading.Timer(seconds, give_up)
    clock.daemon = True
    clock.start()
    try:
        yield
    finally:
        clock.cancel()


def is_first() -> bool:
    """Whether this is process 0, which alone writes files."""
    return jax.process_index() == 0


def own_devices() -> Mesh:
    """The devices of this process, as a mesh with the axis "run"."""
    return _mesh(jax.local_devices(), "run")


def all_devices() -> Mesh:
    """The devices of all processes, as a mesh with the axis "batch"."""
    return _mesh(jax.devices(), "batch")


def any_process(*flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process; all processes call this together."""
    if jax.process_count() == 1:
        return list(flags)
    everyones = np.asarray(multihost_utils.process_allgather(np.array(flags)))
    return [bool(everyones[:, index].any()) for index in range(len(flags))]


def fail_together(failure: Exception | None) -> None:
    """Raise a failure of process 0, and Unfinished in the others; all processes call this together."""
    if any(any_process(failure is not None)):
        raise failure or Unfinished("process 0 could not continue; its message has the reason")


def from_first(tree: Tree) -> Tree:
    """The arrays of process 0, in every process; all processes call this together."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(np.array, multihost_utils.broadcast_one_to_all(tree))


def from_owners(tree: Tree, first: int = 0) -> Tree:
    """Arrays whose row i comes from process (first + i) % processes, in every process.

    All processes call this together.
    """
    count = jax.process_count()
    if count == 1:
        return tree
    rows = len(jax.tree.leaves(tree)[0])
    owned = (first + np.arange(rows)) % count
    everyones = multihost_utils.process_allgather(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[owned, np.arange(rows)], everyones)


def _mesh(devices: list[jax.Device], axis: str) -> Mesh:
    return Mesh(np.array(devices), (axis,))
