"""Random contexts, and models with known or changed circuits, for tests of weights."""

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.models.transformer import Architecture, Transformer

CIRCUIT_WEIGHTS = ("query", "key", "value", "output")
answer = jax.jit(lambda learner, x, y, x_query: learner(x, y, x_query))


def random_context(d, m, n):
    draw = np.random.default_rng([d, m, n])
    return draw.normal(size=(n, d)), draw.normal(size=(n, m)), draw.normal(size=d)


def random_model(heads, dim=3, depth=1, seed=0, damping=1.0):
    """A linear model with one output and circuits of order 1."""
    architecture = Architecture(heads=heads, depth=depth, damping=damping, init_scale=4.0 * depth)
    return Transformer(architecture, dim, 1, jax.random.key(seed))


def reweigh(model, change):
    """The model with the weights (query, key, value, output) of each head of each layer changed."""
    copy = jax.tree.map(jnp.asarray, model)
    for block in copy.blocks:
        attention = block.attention
        heads = zip(*(getattr(attention, name)[...] for name in CIRCUIT_WEIGHTS), strict=True)
        changed = [change(index, *head) for index, head in enumerate(heads)]
        for name, weights in zip(CIRCUIT_WEIGHTS, zip(*changed, strict=True), strict=True):
            getattr(attention, name)[...] = jnp.stack(weights)
    return copy


def split_at_random(index, query, key, value, output):
    """Other weights with the same circuits: W_K -> M W_K, W_Q -> M^-T W_Q, and so P and W_V."""
    draw = np.random.default_rng(index)
    mixed, other = (draw.normal(size=(len(key),) * 2) + 3 * np.eye(len(key)) for _ in range(2))
    return np.linalg.inv(mixed).T @ query, mixed @ key, other @ value, output @ np.linalg.inv(other)


def rescale(factor):
    """Circuits times c and 1 / c."""
    return lambda index, query, key, value, output: (factor * query, key, value, output / factor)
