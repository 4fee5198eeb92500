"""Speed and compile time of training steps, relative to a plain implementation and to the hardware.

    python benchmarks/training_step.py [--out FILE] [--only NAME ...] [--record]

Runs on one core. All times are measured in one process: the programs alternate, and a ratio is the
median of the ratios of the repetitions. Printed first: time of drawing as many uniform numbers
(`uniform / ours`) and of the same batch with JAX's random numbers (`jax.random / ours`), relative to
drawing a batch. For each model:

- plain / ours: time of a step of a plain implementation, relative to the library's. The plain one
  samples episodes one by one, has them on the first axis, updates all tokens in every layer, and calls
  two compiled functions for each step from Python. Its loss is compared with the library's first.
- ours / data: time of a step relative to drawing its data alone with the functions of `jax.random`.
- ours / limit: time of a step relative to the time that the floating-point operations of its gradient,
  as XLA counts them, take at the speed of a product of large matrices in this process.
- evaluation: time, estimated from two snapshots, of comparing 101 snapshots of a run with gradient
  descent on 10,000 episodes, relative to that of the run's 5,000 training steps.
- compile: seconds by which the first call of the library's program exceeds the fastest later one.

Each ratio is printed next to its change against `benchmarks/recorded/training_step.json`, which
`--record` replaces. Results are written to `runs/benchmarks/training_step.json`. `--only` measures some
of the models.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.analysis.cost_scaling import operations
from toyicl.core import strict_json
from toyicl.core.episode import Episode
from toyicl.core.random_numbers import efficient_key
from toyicl.models.tokens import sinusoids
from toyicl.models.transformer import Architecture, Transformer
from toyicl.tasks.linear import LinearRegression
from toyicl.training.placement import AcrossRuns
from toyicl.training.step import Training, start

RECORDED = Path(__file__).parent / "recorded" / "training_step.json"
MODELS: dict[str, tuple[Architecture, int]] = {
    "1 layer": (Architecture(), 100),
    "1 layer, softmax, 1 head": (Architecture(attention="softmax"), 100),
    "1 layer, softmax, 2 heads": (Architecture(attention="softmax", heads=2), 100),
    "2 shared layers": (Architecture(depth=2, shared=True), 50),
    "2 layers, separate tokens": (Architecture(depth=2, tokens="separate"), 20),
    "5 layers": (Architecture(depth=5, token_clip=10.0), 20),
    "10 shared layers": (Architecture(depth=10, shared=True, token_clip=10.0), 10),
    "12 blocks, 4 heads, MLP": (Architecture(depth=12, heads=4, mlp_size=40, token_clip=10.0), 2),
}
"""Each model with the number of steps of a repetition."""
REPEATS = 7
TASK = LinearRegression()
BATCH = Training().batch_size
DRAWS, PRODUCTS = 50, 10
SIZE = 1024
"""Size of the large matrices whose product is the measure of the hardware."""
RATIOS = ("plain / ours", "ours / data", "ours / limit", "evaluation")
EVALUATED, SNAPSHOTS, EPISODES, RUN_STEPS = 2, 101, 10_000, 5000
"""Snapshots that are compared here, and the size of a whole run and of its evaluation."""
Program = Callable[[], object]


def settings_for(steps: int) -> Training:
    """Settings of so many training steps, which are one chunk."""
    return Training(steps=steps, snapshot_every=steps)


def library(architecture: Architecture, steps: int) -> Program:
    """The training steps that `fit` takes between two snapshots, for one seed."""
    run = jax.device_get(start(architecture, TASK, settings_for(steps), 0))
    placement = AcrossRuns()
    return lambda: placement.advance([run])


def repeated(draw: Callable[[jax.Array], Any]) -> Program:
    """Draw for `DRAWS` keys; each result replaces the one before."""
    key = jax.random.key(0)

    @jax.jit
    def draw_all(first: jax.Array) -> Any:
        def again(step: jax.Array, _: Any) -> Any:
            return draw(jax.random.fold_in(key, first + step))

        return jax.lax.fori_loop(1, DRAWS, again, draw(key))

    return lambda: jax.block_until_ready(draw_all(jnp.int32(0)))


def drawing() -> dict[str, Program]:
    """A batch with the library's random numbers, one with JAX's, and as many numbers alone."""
    numbers = TASK.context_size * TASK.dim + 2 * TASK.dim

    def uniform(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (numbers, BATCH))

    return {
        "ours": repeated(lambda key: TASK.sample(efficient_key(key), BATCH)),
        "jax.random": repeated(lambda key: TASK.sample(key, BATCH)),
        "uniform": repeated(uniform),
    }


def matrix_product() -> Program:
    """`PRODUCTS` products of large matrices, one after the other."""
    matrix = jnp.ones((SIZE, SIZE)) / SIZE

    @jax.jit
    def product(matrix: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, PRODUCTS, lambda _, power: power @ matrix, matrix)

    return lambda: jax.block_until_ready(product(matrix))


def plain_weights(model: Transformer) -> list[dict[str, jax.Array]]:
    """The weights of each layer of a transformer; shared layers have one set."""
    found = []
    for block in model.blocks:
        names = ("query", "key", "value", "output")
        weights = {name: getattr(block.attention, name)[...] for name in names}
        if block.mlp is not None:
            layers: Any = {"up": block.mlp.up_proj, "down": block.mlp.down_proj}
            for name, layer in layers.items():
                weights |= {name: layer.kernel[...], f"{name}_bias": layer.bias[...]}
        found.append(weights)
    return found


def plain_tokens(architecture: Architecture, x: Any, y: Any, x_query: Any) -> jax.Array:
    """Tokens of one episode, the query's last."""
    if architecture.tokens == "joint":
        query = jnp.concatenate([x_query, jnp.zeros(1)])
        return jnp.concatenate([jnp.concatenate([x, y[:, None]], axis=1), query[None]])
    labels = jnp.pad(y[:, None], ((0, 0), (0, TASK.dim - 1)))
    content = jnp.stack([x, labels], axis=1).reshape(-1, TASK.dim)
    content = jnp.concatenate([content, x_query[None]])
    return jnp.concatenate([content, sinusoids(len(content), 10, content.dtype)], axis=1)


def plain_loss(architecture: Architecture, layers: list, tokens: jax.Array, target: Any) -> Any:
    """Loss of a transformer on tokens (episodes, tokens, size), every layer on all tokens."""
    for index in range(architecture.depth):
        weights = layers[index % len(layers)]
        context = tokens[:, :-1]
        queries = jnp.einsum("hka,bna->bhnk", weights["query"], tokens)
        keys = jnp.einsum("hka,bna->bhnk", weights["key"], context)
        values = jnp.einsum("hka,bna->bhnk", weights["value"], context)
        scores = jnp.einsum("bhnk,bhmk->bhnm", queries, keys)
        if architecture.attention == "softmax":
            scores = jax.nn.softmax(scores / jnp.sqrt(float(keys.shape[-1])))
        read = jnp.einsum("bhnm,bhmk->bhnk", scores, values)
        tokens = tokens + jnp.einsum("hak,bhnk->bna", weights["output"], read)
        if "up" in weights:
            hidden = jax.nn.gelu(tokens @ weights["up"] + weights["up_bias"])
            tokens = tokens + hidden @ weights["down"] + weights["down_bias"]
        if architecture.token_clip is not None:
            tokens = jnp.clip(tokens, -architecture.token_clip, architecture.token_clip)
    return 0.5 * jnp.mean((-tokens[:, -1, -1] - target) ** 2)


def plain(architecture: Architecture, steps: int) -> Program:
    """The same steps, implemented without optimisations."""

    def episode(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        inputs_key, query_key, weights_key = jax.random.split(key, 3)
        shape = (TASK.context_size, TASK.dim)
        x = jax.random.uniform(inputs_key, shape, minval=-0.5, maxval=0.5)
        x_query = jax.random.uniform(query_key, shape[1:], minval=-0.5, maxval=0.5)
        weights = jax.random.normal(weights_key, shape[1:])
        return plain_tokens(architecture, x, x @ weights, x_query), x_query @ weights

    @jax.jit
    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(episode)(jax.random.split(key, BATCH))

    training = settings_for(steps)
    optimiser = optax.chain(
        optax.clip_by_global_norm(training.clip_norm),
        optax.adam(training.learning_rate, b2=training.b2),
    )

    @jax.jit
    def update(layers: list, state: Any, tokens: jax.Array, target: jax.Array) -> tuple:
        def loss(layers: list) -> jax.Array:
            return plain_loss(architecture, layers, tokens, target)

        updates, state = optimiser.update(jax.grad(loss)(layers), state)
        return optax.apply_updates(layers, updates), state

    first = plain_weights(architecture(TASK, jax.random.key(0)))

    def run() -> None:
        layers, state, key = first, optimiser.init(first), jax.random.key(0)
        for _ in range(steps):
            key, batch_key = jax.random.split(key)
            layers, state = update(layers, state, *draw(batch_key))
        jax.block_until_ready(layers)

    return run


def require_equal_losses(architecture: Architecture) -> None:
    """Both implementations compute the same function, on weights of a size that matters."""
    large = Architecture(**{**vars(architecture), "init_scale": 0.5})
    model, episodes = large(TASK, jax.random.key(1)), TASK.sample(jax.random.key(2), 64)
    x, y, x_query, y_query = Episode(*(jnp.moveaxis(field, -1, 0) for field in episodes))
    tokens = jax.vmap(lambda x, y, q: plain_tokens(large, x, y, q))(x, y[..., 0], x_query)
    own = metrics.loss(model, episodes)
    other = plain_loss(large, plain_weights(model), tokens, y_query[:, 0])
    np.testing.assert_allclose(own, other, rtol=1e-4)


def alternate(programs: dict[str, Program]) -> dict[str, list[float]]:
    """Seconds of each repetition of each program, after a first call; the programs alternate."""
    for program in programs.values():
        program()
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(REPEATS):
        for name, program in programs.items():
            times[name].append(seconds(program))
    return times


def seconds(program: Program) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    program()
    return time.perf_counter() - begin


def ratio(ones: list[float], others: list[float], factor: float = 1.0) -> float:
    """Median of the ratios of two programs' repetitions, times a factor."""
    return factor * statistics.median(a / b for a, b in zip(ones, others, strict=True))


def evaluation(architecture: Architecture) -> Program:
    """Compare some snapshots of a run with a step of gradient descent, as experiments do."""
    model = jax.device_get(architecture(TASK, jax.random.key(0)))
    snapshots = jax.tree.map(lambda leaf: np.stack([leaf] * EVALUATED)[None], model)
    episodes = TASK.sample(jax.random.key(1), EPISODES)
    reference = GradientDescent.shared(TASK)
    return lambda: metrics.over_snapshots(metrics.compare, snapshots, reference, episodes)


def measure(architecture: Architecture, steps: int) -> dict[str, float]:
    """All ratios of a model, and the seconds its program takes to compile."""
    require_equal_losses(architecture)
    ours = library(architecture, steps)
    first = seconds(ours)
    programs = {
        "ours": ours,
        "plain": plain(architecture, steps),
        "data": drawing()["jax.random"],
        "product": matrix_product(),
        "evaluation": evaluation(architecture),
    }
    times = alternate(programs)
    model, episodes = architecture(TASK, jax.random.key(0)), TASK.sample(jax.random.key(1), BATCH)
    counted = operations(jax.grad(metrics.loss, allow_int=True), model, episodes)
    whole = (SNAPSHOTS / EVALUATED) / (RUN_STEPS / steps)
    products = steps * counted / (PRODUCTS * 2 * SIZE**3)
    return {
        "plain / ours": ratio(times["plain"], times["ours"]),
        "ours / data": ratio(times["ours"], times["data"], DRAWS / steps),
        "ours / limit": ratio(times["ours"], times["product"], 1 / products),
        "evaluation": ratio(times["evaluation"], times["ours"], whole),
        "compile": first - min(times["ours"]),
    }


def measure_drawing() -> dict[str, float]:
    """How much faster a batch is drawn than with JAX's random numbers, and than as many numbers."""
    times = alternate(drawing())
    return {
        "uniform / ours": ratio(times["uniform"], times["ours"]),
        "jax.random / ours": ratio(times["jax.random"], times["ours"]),
    }


def with_change(value: float, before: float | None) -> str:
    """A number, with its change against a recorded one in percent."""
    change = "" if before is None else f" ({100 * (value / before - 1):+.0f}%)"
    return f"{value:.2f}{change}"


def processor() -> str:
    """The machine in words."""
    vectors = "no AVX"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8") if cpu.exists() else ""
    for name, flag in (("AVX", " avx "), ("AVX2", " avx2 "), ("AVX-512", " avx512f ")):
        vectors = name if flag in flags else vectors
    return f"one core of a CPU ({platform.machine()}, {vectors})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/training_step.json"))
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--record", action="store_true", help="replace the recorded results")
    options = parser.parse_args()
    if options.record and options.only != list(MODELS):
        parser.error("--record replaces the results of all models, so it does not go with --only")
    jax.config.update("jax_enable_compilation_cache", False)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}

    draws = measure_drawing()
    print(f"{processor()}; changes are against {recorded.get('machine', 'nothing')}")
    for name, value in draws.items():
        print(
            f"drawing a batch, {name}: {with_change(value, recorded.get('drawing', {}).get(name))}"
        )
    print(f"{'':<27}" + "".join(f"{name:>18}" for name in (*RATIOS, "compile")))
    rows = {}
    for name in options.only:
        rows[name] = measure(*MODELS[name])
        before = recorded.get("models", {}).get(name, {})
        cells = [with_change(value, before.get(key)) for key, value in rows[name].items()]
        print(f"{name:<27}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    record = {
        "machine": processor(),
        "jax": jax.__version__,
        "batch_size": BATCH,
        "drawing": draws,
        "models": rows,
    }
    text = strict_json.text(record, indent=1) + "\n"
    for path in (options.out, *([RECORDED] if options.record else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
