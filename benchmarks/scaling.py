"""Cost of a training step as a function of seeds, context size, depth and devices.

    python benchmarks/scaling.py [--out FOLDER]

Writes scaling.json, with the fitted slopes of log cost over log size, and scaling.png. Floating-point
operations are counted in the whole program, before XLA optimises it. The model for the context sizes
has two layers, of which the first updates all tokens. Times are those of the fastest repetition.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.analysis.cost_scaling import operations, slope
from toyicl.core import strict_json
from toyicl.models.attention import AttentionKind
from toyicl.models.transformer import Architecture
from toyicl.plots import figures
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Job, fit_all
from toyicl.training.placement import AcrossRuns
from toyicl.training.step import Training, advance, start

REPEATS = 3
SEEDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (64, 128, 256, 512, 1024, 2048, 4096)
DEPTHS = (1, 2, 4, 8, 16)
EPISODES = 2
"""Batch size for the context sizes: each episode of the largest has 4096 x 4096 attention scores."""


def best_time(program: Callable[[], object]) -> float:
    """Seconds of the fastest repetition, after a call that compiles."""
    program()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        program()
        times.append(time.perf_counter() - begin)
    return min(times)


def over_seeds() -> dict[str, Any]:
    """Seconds of some training steps, for each number of runs that are trained together."""
    training = Training(steps=20, snapshot_every=20, batch_size=256)

    def fit(seeds: int) -> object:
        return fit_all([Job(Architecture(), LinearRegression(), training)], seeds)

    seconds = [best_time(partial(fit, seeds)) for seeds in SEEDS]
    return {"sizes": SEEDS, "seconds": seconds, "slope": slope(SEEDS, seconds, 8)}


def over_context(attention: AttentionKind) -> dict[str, Any]:
    """Operations and seconds of the gradient of the loss of a two-layer model."""

    def run(compiled: Any, *arguments: Any) -> None:
        jax.block_until_ready(compiled(*arguments))

    flops, seconds = [], []
    for size in CONTEXTS:
        task = LinearRegression(context_size=size)
        model = Architecture(attention=attention, depth=2)(task, jax.random.key(0))
        episodes = task.sample(jax.random.key(1), EPISODES)
        gradient = jax.grad(metrics.loss, allow_int=True)
        flops.append(operations(gradient, model, episodes))
        compiled = jax.jit(gradient).lower(model, episodes).compile()
        seconds.append(best_time(partial(run, compiled, model, episodes)))
    return {
        "sizes": CONTEXTS,
        "flops": flops,
        "seconds": seconds,
        "slope": slope(CONTEXTS, flops, 256),
        "measured_slope": slope(CONTEXTS, seconds, 256),
    }


def over_depth() -> dict[str, Any]:
    """Seconds of some training steps of one run, for each number of layers with shared weights."""
    training = Training(steps=10, snapshot_every=10, batch_size=256)
    seconds = []
    for depth in DEPTHS:
        job = Job(Architecture(depth=depth, shared=True), LinearRegression(), training)
        seconds.append(best_time(partial(fit_all, [job])))
    return {"sizes": DEPTHS, "seconds": seconds, "slope": slope(DEPTHS, seconds, 2)}


def over_devices() -> dict[str, Any]:
    """Seconds of some training steps of eight runs, for each number of devices, in its own process."""
    counts = [n for n in (1, 2, 4, 8, 16) if n <= len(os.sched_getaffinity(0))]
    seconds = []
    for count in counts:
        command = [sys.executable, __file__, "--devices", str(count)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds.append(float(answer.stdout.splitlines()[-1]))
    return {"sizes": counts, "seconds": seconds, "slope": slope(counts, seconds)}


def print_with_devices(count: int) -> None:
    """Train eight runs on a number of CPU devices, on as many cores, and print the seconds."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    jax.config.update("jax_num_cpu_devices", count)
    job = Job(Architecture(), LinearRegression(), Training(steps=100))
    print(best_time(lambda: fit_all([job], 8)))


def memory() -> dict[str, float]:
    """Memory of one more run in KiB: on the device during training, and on the host per snapshot."""
    training, mesh = Training(), AcrossRuns().mesh
    run = jax.device_get(start(Architecture(), LinearRegression(), training, 0))

    def on_device(runs: int) -> int:
        stacked = jax.tree.map(lambda leaf: np.stack([leaf] * runs * mesh.size), run)
        steps = np.full(mesh.size, training.snapshot_every)
        compiled = advance.lower(stacked, steps, training.snapshot_every, mesh).compile()
        found: Any = compiled.memory_analysis()
        return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes

    learner = sum(leaf.nbytes for leaf in jax.tree.leaves(run.learner))
    # These sizes are those of one device, to which one run is added.
    return {
        "device_kib_per_run": (on_device(2) - on_device(1)) / 1024,
        "host_kib_per_snapshot": learner / 1024,
    }


def draw(record: dict[str, Any]) -> Figure:
    """Cost as a function of each size, on logarithmic axes, with the slopes."""
    figure = figures.panels(2, 2)
    seeds, context, depth, count = figure.axes
    linear, softmax = record["context, linear"], record["context, softmax"]
    for axes, name, label in (
        (seeds, "seeds", "runs trained together"),
        (depth, "depth", "layers, shared weights"),
        (count, "devices", "CPU cores as devices, eight runs"),
    ):
        own = record[name]
        costs = np.array(own["seconds"]) / own["seconds"][0]
        axes.loglog(
            own["sizes"], costs, "o-", color=figures.MODEL, label=f"slope {own['slope']:.2f}"
        )
        axes.set(xlabel=label, ylabel="time relative to the first")
        axes.set_xticks(own["sizes"], map(str, own["sizes"]))
        axes.minorticks_off()
    for own, name, color, style in (
        (linear, "linear", figures.MODEL, "o-"),
        (softmax, "softmax", figures.REFERENCE, "s--"),
    ):
        flops, times = np.array(own["flops"]), np.array(own["seconds"])
        label = f"{name}: operations, slope {own['slope']:.2f}"
        context.loglog(own["sizes"], flops / linear["flops"][0], style, color=color, label=label)
        label = f"{name}: time, slope {own['measured_slope']:.2f}"
        times = times / linear["seconds"][0]
        context.loglog(own["sizes"], times, ":", color=color, label=label, alpha=0.7)
    context.set(xlabel="context size N", ylabel="cost relative to linear, smallest N")
    context.set_xticks(CONTEXTS, map(str, CONTEXTS))
    context.minorticks_off()
    for index, (axes, text) in enumerate(
        zip(figure.axes, ("seeds", "context size", "depth", "devices"), strict=True)
    ):
        figures.title(axes, index, text)
        axes.legend(fontsize=7)
    figures.caption(
        figure,
        [
            "Relative cost of a training step on logarithmic axes. Slopes are fitted from 8 runs in",
            "(a), from N = 256 in (b), which has two layers and ten inputs, and from 2 layers in (c).",
            f"Measured on {record['machine']}.",
            "Command: python benchmarks/scaling.py",
        ],
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.devices:
        return print_with_devices(options.devices)

    record: dict[str, Any] = {"devices": over_devices()}
    from toyicl import use_all_cores

    use_all_cores()
    record |= {
        "seeds": over_seeds(),
        "context, linear": over_context("linear"),
        "context, softmax": over_context("softmax"),
        "depth": over_depth(),
        "memory": memory(),
    }
    kind = jax.devices()[0].device_kind
    record["machine"] = f"{jax.device_count()} {kind} devices ({platform.machine()})"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scaling.json").write_text(strict_json.text(record, indent=1) + "\n")
    with figures.style():
        draw(record).savefig(options.out / "scaling.png", metadata={"Software": None})
    for name, own in record.items():
        print(name, own)
    return None


if __name__ == "__main__":
    main()
