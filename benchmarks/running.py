"""What it costs that runs survive, start again and sweep: four ratios, measured side by side.

    python benchmarks/running.py [--out FILE]

Memory: the most that a process needs for a fit, with ten times the steps and as many snapshots.
Start: seconds of compiling in a first start of a short Figure 2, over those in a second.
Sweep: time of a 5 x 4 grid of traced settings with 4 seeds, over that of one fit with as many seeds;
and how often the grid compiled a training.
Checkpoints: time of Figure 2's five seeds with checkpoints at the default interval, over that without.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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
    """Time of a fit that is kept over one that is not, and the share of its time spent on saving."""
    from toyicl import Architecture, LinearRegression, Training
    from toyicl.harness.checkpoint_manager import CheckpointManager
    from toyicl.harness.checkpoints import Checkpoint
    from toyicl.training.loop import Job, NoCheckpoints, fit_all

    job = Job(Architecture(), LinearRegression(), Training())
    fit_all([job._replace(training=Training(steps=100))], 5)
    times: dict[str, list[float]] = {"kept": [], "not kept": []}
    saving = []
    for _ in range(REPEATS):
        for name, own in times.items():
            with tempfile.TemporaryDirectory() as folder:
                begun = Checkpoint({}, [], {})
                manager = CheckpointManager(
                    Path(folder), begun, every=None, stop=lambda: False, warn=print
                )
                begin = time.perf_counter()
                kept = manager.of(["fit"]) if name == "kept" else NoCheckpoints()
                fit_all([job], 5, checkpointer=kept)
                if name == "kept":
                    manager.save()
                own.append(time.perf_counter() - begin)
            if name == "kept":
                saving.append(manager.seconds / own[-1])
    best = {name: min(own) for name, own in times.items()}
    return {"kept_over_not_kept": best["kept"] / best["not kept"], "share_saving": max(saving)}


def start() -> dict[str, float]:
    """Seconds of compiling in a first start over those in a second."""
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
    """Run a short Figure 2 and print the seconds that went into compiling, or reading it back."""
    from jax import monitoring

    from toyicl.cli.main import main

    spent = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILING:
            spent.append(duration_secs)

    monitoring.register_event_duration_secs_listener(listen)
    with contextlib.suppress(SystemExit):
        main(["run", "fig2", "--out", out, *SHORT])
    print(sum(spent))


def sweep() -> dict[str, float]:
    """Seconds a run in a grid over those in a plain fit, and the grid's compilations."""
    from toyicl import Architecture, LinearRegression, Training
    from toyicl.training.loop import Job, fit_all
    from toyicl.training.step import advance

    def job(width: float, rate: float) -> Job:
        settings = Training(steps=200, learning_rate=rate)
        return Job(Architecture(), LinearRegression(input_range=width), settings)

    compiled: Any = advance  # whose count of compilations JAX keeps to itself
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
    """MiB that a process needs at most for a fit, for 1 and 10 times the steps."""
    peaks = {}
    for steps in (1000, 10_000):
        command = [sys.executable, __file__, "--memory", str(steps)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[f"mib_of_{steps}_steps"] = float(answer.stdout)
    return peaks


def print_memory(steps: int) -> None:
    """Fit with ten snapshots and print the most memory the process had, in MiB."""
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
    record["machine"] = f"{cores} cores of a {platform.machine()} cpu"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {options.out}")
    return None


if __name__ == "__main__":
    main()
