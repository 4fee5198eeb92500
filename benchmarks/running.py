"""Cost of checkpoints, compilation and sweeps, and peak memory, each relative to a baseline.

    python benchmarks/running.py [--out FILE]

- memory: peak memory of a process that fits a model, for 1,000 and 10,000 steps with ten snapshots each
- start: compile time of the first start of a short run of Figure 2, divided by that of the second
- sweep: time of a 5 x 4 grid of traced settings with 4 seeds, divided by that of one fit of 80 seeds;
  and the number of trainings that the grid compiles
- checkpoints: time of the five seeds of Figure 2 with checkpoints at the default interval, divided by
  the time without; and the largest fraction of the time that was spent on saving
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from toyicl.core import strict_json

REPEATS = 3
COMPILING = "/jax/core/compile/backend_compile_duration"
SHORT = [
    "--seeds=2",
    "--settings.training.steps=100",
    "--settings.size-training.steps=100",
    "--settings.size-training.snapshot-every=50",
    "--settings.sizes=5",
]


def checkpoints() -> dict[str, float]:
    """Time of a fit with checkpoints relative to one without, and the fraction spent on saving."""
    from toyicl import Architecture, LinearRegression, Training
    from toyicl.harness.checkpoint_manager import CheckpointManager
    from toyicl.harness.checkpoints import Checkpoint
    from toyicl.training.loop import Job, NoCheckpoints, fit_all

    job = Job(Architecture(), LinearRegression(), Training())
    fit_all([job._replace(training=Training(steps=100))], 5)
    times: dict[str, list[float]] = {"with": [], "without": []}
    saving = []
    for _ in range(REPEATS):
        for name, own in times.items():
            with tempfile.TemporaryDirectory() as folder:
                first = Checkpoint({}, [], {})
                manager = CheckpointManager(
                    Path(folder), first, every=None, stop=lambda: False, warn=print
                )
                begin = time.perf_counter()
                checkpointer = manager.of(["fit"]) if name == "with" else NoCheckpoints()
                fit_all([job], 5, checkpointer=checkpointer)
                if name == "with":
                    manager.save()
                own.append(time.perf_counter() - begin)
            if name == "with":
                saving.append(manager.seconds / own[-1])
    best = {name: min(own) for name, own in times.items()}
    return {"with_over_without": best["with"] / best["without"], "fraction_saving": max(saving)}


def start() -> dict[str, float]:
    """Compile time of a first start relative to a second, which reads the programs from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        seconds = []
        for out in ("first", "second"):
            command = [sys.executable, __file__, "--compiling", f"{folder}/{out}"]
            answer = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env=environment
            )
            seconds.append(float(answer.stdout.splitlines()[-1]))
    return {"first_over_second": seconds[0] / seconds[1]}


def print_compiling(out: str) -> None:
    """Run a short Figure 2; print the seconds spent on compiling, or on reading programs back."""
    from jax import monitoring

    from toyicl.cli.main import main

    spent = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILING:
            spent.append(duration_secs)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        main(["run", "fig02_one_step", "--out", out, *SHORT])
    except SystemExit as end:
        if end.code:
            raise
    print(sum(spent))


def sweep() -> dict[str, float]:
    """Time of a grid relative to one fit of as many runs, and the grid's compilations."""
    from toyicl import Architecture, LinearRegression, Training
    from toyicl.training.loop import Job, fit_all
    from toyicl.training.step import advance

    def job(width: float, rate: float) -> Job:
        settings = Training(steps=200, learning_rate=rate)
        return Job(Architecture(), LinearRegression(input_range=width), settings)

    compiled: Any = advance  # JAX counts its compilations, but not in its public interface
    before = compiled._cache_size()
    widths, rates = (0.5, 0.75, 1.0, 1.5, 2.0), (5e-4, 1e-3, 2e-3, 4e-3)
    cases = {
        "grid": ([job(width, rate) for width in widths for rate in rates], 4),
        "seeds": ([job(1.0, 1e-3)], 80),
    }
    fit_all(*cases["grid"])
    compilations = compiled._cache_size() - before
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(REPEATS):
        for name, (jobs, seeds) in cases.items():
            begin = time.perf_counter()
            fit_all(jobs, seeds)
            times[name].append(time.perf_counter() - begin)
    ratio = min(times["grid"]) / min(times["seeds"])
    return {"grid_over_seeds": ratio, "compilations": compilations}


def memory() -> dict[str, float]:
    """Peak memory in MiB of a process that fits a model, for 1,000 and 10,000 steps."""
    peaks = {}
    for steps in (1000, 10_000):
        command = [sys.executable, __file__, "--memory", str(steps)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[f"mib_of_{steps}_steps"] = float(answer.stdout)
    return peaks


def print_memory(steps: int) -> None:
    """Fit a model with ten snapshots and print the peak memory of the process in MiB."""
    import resource

    from toyicl import Architecture, LinearRegression, Training, fit

    fit(Architecture(), LinearRegression(), Training(steps=steps, snapshot_every=steps // 10))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/running.json"))
    parser.add_argument("--compiling", help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compiling:
        return print_compiling(options.compiling)
    if options.memory:
        return print_memory(options.memory)

    from toyicl import use_all_cores

    use_all_cores()
    record: dict[str, object] = {}
    for measure in (memory, start, sweep, checkpoints):
        record[measure.__name__] = measure()
        print(measure.__name__, record[measure.__name__], flush=True)
    cores = len(os.sched_getaffinity(0))
    record["machine"] = f"{cores} CPU cores ({platform.machine()})"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(strict_json.text(record, indent=1) + "\n")
    print(f"wrote {options.out}")
    return None


if __name__ == "__main__":
    main()
