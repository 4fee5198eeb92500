"""Time of a training step, relative to sampling its data alone and to a naive implementation.

Runs on one core. All times are measured in one process; the programs alternate, and the fastest
repetition of each counts, so that the ratios can be compared between machines. Prints a table and
writes JSON.

    python benchmarks/training_step.py [--out FILE]
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training.placement import AcrossRuns
from toyicl.training.step import Training, start

MODELS = {
    "1 layer, linear": Architecture(),
    "2 layers recurrent, linear": Architecture(depth=2, shared=True),
    "1 layer, softmax, 1 head": Architecture(attention="softmax"),
    "1 layer, softmax, 2 heads": Architecture(attention="softmax", heads=2),
}
STEPS, REPEATS = 100, 7
TASK = LinearRegression()
TRAINING = Training(steps=STEPS, snapshot_every=STEPS)


def library(architecture: Architecture) -> Callable[[], object]:
    """The training steps that `fit` takes between two snapshots, for one seed."""
    run = jax.device_get(start(architecture, TASK, TRAINING, 0))
    placement = AcrossRuns()
    return lambda: placement.advance([run])


def data_alone() -> Callable[[], object]:
    """Sample the batches of as many steps; each replaces the previous one."""
    key = jax.random.key(0)

    def draw(step: jax.Array) -> tuple:
        return TASK.sample(jax.random.fold_in(key, step), TRAINING.batch_size)

    @jax.jit
    def draw_all(first: jax.Array) -> tuple:
        steps = first + jnp.arange(STEPS)
        return jax.lax.scan(lambda _, step: (draw(step), None), draw(first), steps)[0]

    return lambda: jax.block_until_ready(draw_all(jnp.int32(0)))


def naive(architecture: Architecture) -> Callable[[], object]:
    """The same steps, implemented without optimisations.

    Every layer updates all tokens, episodes are on the first axis and are sampled one by one, and
    Python calls two compiled functions for each step: one for the data, one for the update.
    """
    d, n, size = TASK.dim, TASK.context_size, TASK.dim + 1
    softmax, depth = architecture.attention == "softmax", architecture.depth

    def episode(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        inputs_key, query_key, weights_key = jax.random.split(key, 3)
        x = jax.random.uniform(inputs_key, (n, d), minval=-0.5, maxval=0.5)
        x_query = jax.random.uniform(query_key, (d,), minval=-0.5, maxval=0.5)
        weights = jax.random.normal(weights_key, (d,))
        context = jnp.concatenate([x, (x @ weights)[:, None]], axis=1)
        query = jnp.concatenate([x_query, jnp.zeros(1)])[None]
        return jnp.concatenate([context, query]), x_query @ weights

    @jax.jit
    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(episode)(jax.random.split(key, TRAINING.batch_size))

    def layer(weights: dict, tokens: jax.Array) -> jax.Array:
        context = tokens[:, :-1]
        queries = jnp.einsum("hka,bna->bhnk", weights["query"], tokens)
        keys = jnp.einsum("hka,bna->bhnk", weights["key"], context)
        values = jnp.einsum("hka,bna->bhnk", weights["value"], context)
        scores = jnp.einsum("bhnk,bhmk->bhnm", queries, keys)
        if softmax:
            scores = jax.nn.softmax(scores / jnp.sqrt(float(size)))
        read = jnp.einsum("bhnm,bhmk->bhnk", scores, values)
        return tokens + jnp.einsum("hak,bhnk->bna", weights["output"], read)

    def loss(weights: dict, tokens: jax.Array, target: jax.Array) -> jax.Array:
        for _ in range(depth):
            tokens = layer(weights, tokens)
        return 0.5 * jnp.mean((-tokens[:, -1, -1] - target) ** 2)

    optimiser = optax.chain(
        optax.clip_by_global_norm(TRAINING.clip_norm), optax.adam(TRAINING.learning_rate, b2=0.98)
    )

    @jax.jit
    def update(weights: dict, state: optax.OptState, batch: tuple) -> tuple:
        gradient = jax.grad(loss)(weights, *batch)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    attention = architecture(TASK, jax.random.key(0)).blocks[0].attention
    names = ("query", "key", "value", "output")
    first = {name: getattr(attention, name)[...] for name in names}

    def steps() -> None:
        weights, state, key = first, optimiser.init(first), jax.random.key(0)
        for _ in range(STEPS):
            key, batch_key = jax.random.split(key)
            weights, state = update(weights, state, draw(batch_key))
        jax.block_until_ready(weights)

    return steps


def time_together(programs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Fastest time of each program in milliseconds per step; the programs alternate."""
    for program in programs.values():
        program()
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(REPEATS):
        for name, program in programs.items():
            begin = time.perf_counter()
            program()
            times[name].append((time.perf_counter() - begin) / STEPS * 1e3)
    return {name: min(own) for name, own in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/training_step.json"))
    out = parser.parse_args().out
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])

    makers = {"library": library, "naive": naive}
    programs = {"data alone": data_alone()}
    for name, architecture in MODELS.items():
        programs |= {f"{name}: {key}": make(architecture) for key, make in makers.items()}
    times = time_together(programs)

    rows = []
    print(f"{'':<28} {'library / data alone':>20} {'naive / library':>16}")
    for name in MODELS:
        own, other = times[f"{name}: library"], times[f"{name}: naive"]
        row = {
            "model": name,
            "over_data": own / times["data alone"],
            "naive_over_library": other / own,
        }
        rows.append(row)
        print(f"{name:<28} {row['over_data']:>20.2f} {row['naive_over_library']:>16.2f}")
    device = jax.devices()[0]
    record = {
        "ratios": rows,
        "batch_size": TRAINING.batch_size,
        "machine": f"one {device.platform} core ({platform.machine()})",
        "jax": jax.__version__,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
