"""Throughput of five seeds on all cores, relative to one seed on one core.

Each measurement runs in its own process, because the number of JAX's devices cannot be changed within
a process. The two cases alternate, and the fastest repetition of each counts. Prints the ratio of the
throughputs and writes it as JSON.

    python benchmarks/cores.py [--out FILE]
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from toyicl.core import strict_json

STEPS, CHUNK, WARM, REPEATS = 1000, 100, 2, 3


def measure(cores: int, seeds: int) -> None:
    """Print the seconds per training step and run, without compilation."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from toyicl import Architecture, LinearRegression, Training, fit, use_all_cores

    use_all_cores()
    moments: list[tuple[int, float]] = []
    settings = Training(steps=STEPS, snapshot_every=CHUNK)
    fit(
        Architecture(),
        LinearRegression(),
        settings,
        seeds=seeds,
        progress=lambda done, _: moments.append((done, time.perf_counter())),
    )
    warm = WARM * CHUNK * seeds
    first, begin = next(moment for moment in moments if moment[0] >= warm)
    last, end = moments[-1]
    print((end - begin) / (last - first))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/cores.json"))
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure)

    cores = len(os.sched_getaffinity(0))
    cases = {"one": (1, 1), "all": (cores, 5)}
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(REPEATS):
        for name, case in cases.items():
            command = [sys.executable, __file__, "--measure", *map(str, case)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            times[name].append(float(answer.stdout))
    ratio = min(times["one"]) / min(times["all"])
    print(f"five seeds on {cores} cores: {ratio:.2f} times the throughput of one seed on one core")
    record = {"cores": cores, "throughput_ratio": ratio, "machine": platform.machine()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(strict_json.text(record, indent=1) + "\n")
    print(f"wrote {options.out}")
    return None


if __name__ == "__main__":
    main()
