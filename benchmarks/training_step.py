"""What a training step costs: ours, beside drawing its data alone, beside a version written plainly.

Runs on one core. All times come from one process, each the best of several repetitions that take
turns, so that the ratios mean something on any machine. Prints a table and writes JSON.

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


def ours(architecture: Architecture) -> Callable[[], object]:
    """The chunk that `fit` runs, for one seed."""
    run = jax.device_get(start(architecture, TASK, TRAINING, 0))
    spread = AcrossRuns()
    return lambda: spread.advance([run])


def data_alone() -> Callable[[], object]:
    """Draw the batches of as many steps, and keep each until the next."""
    key = jax.random.key(0)

    def draw(step: jax.Array) -> tuple:
        return TASK.sample(jax.random.fold_in(key, step), TRAINING.batch_size)

    @jax.jit
    def draw_all(first: jax.Array) -> tuple:
        steps = first + jnp.arange(STEPS)
        return jax.lax.scan(lambda _, step: (draw(step), None), draw(first), steps)[0]

    return lambda: jax.block_until_ready(draw_all(jnp.int32(0)))


def plain(architecture: Architecture) -> Callable[[], object]:
    """The same step as one writes it first.

    All tokens in every layer, episodes first, a task drawn for each episode, and two jitted calls for
    each step from Python: one for the data, one for the update.
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
    """Best time of each program in milliseconds a step; the programs take turns."""
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

    makers = {"ours": ours, "plain": plain}
    programs = {"data alone": data_alone()}
    for name, architecture in MODELS.items():
        programs |= {f"{name}: {key}": make(architecture) for key, make in makers.items()}
    times = time_together(programs)

    rows = []
    print(f"{'':<28} {'ours / data alone':>18} {'plain / ours':>14}")
    for name in MODELS:
        own, other = times[f"{name}: ours"], times[f"{name}: plain"]
        row = {
            "model": name,
            "over_data": own / times["data alone"],
            "plain_over_ours": other / own,
        }
        rows.append(row)
        print(f"{name:<28} {row['over_data']:>18.2f} {row['plain_over_ours']:>14.2f}")
    device = jax.devices()[0]
    record = {
        "ratios": rows,
        "batch_size": TRAINING.batch_size,
        "machine": f"one core of a {platform.machine()} {device.platform}",
        "jax": jax.__version__,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
