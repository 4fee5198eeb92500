"""How alike two changes of a model are: in answers, in attention outputs, in attention maps.

The measures of Dai et al. (2022) and of Deutch et al. (2024), exactly defined. What has no direction, a
change that is 0, has no cosine: NaN, to be counted, not 0. Leading axes are tasks, queries, ...
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.core.config import require_positive

ROUNDINGS = 32
"""Roundings by which two computations of one attention output may differ, in its norm."""


class Recovery(NamedTuple):
    """Rec2FTP: what in-context learning recovers of the answers that finetuning newly got right."""

    score: jax.Array
    """Share of them that it gets right, too; NaN where there are none."""
    chance: jax.Array
    """Share of all answers that were wrong zero-shot which it gets right; NaN where there are none."""
    gained: jax.Array
    """Number of answers that finetuning newly got right: the denominator of the score."""
    missed: jax.Array
    """Number of answers that were wrong zero-shot: the denominator of the chance level."""


def recovery(zero_shot: jax.Array, in_context: jax.Array, finetuned: jax.Array) -> Recovery:
    """Rec2FTP of which answers are right, three boolean arrays of one shape.

    |(FT and ICL) minus ZSL| / |FT minus ZSL|; Dai et al. (2022), section 4.3. Beside it the chance
    level P(ICL right | ZSL wrong), which it has if what finetuning gains tells nothing of ICL.
    """
    gained, missed = finetuned & ~zero_shot, ~zero_shot
    counts = jnp.sum(gained), jnp.sum(missed)
    score, chance = (
        jnp.where(count > 0, jnp.sum(part & in_context) / jnp.maximum(count, 1), jnp.nan)
        for part, count in zip((gained, missed), counts, strict=True)
    )
    return Recovery(score, chance, *counts)


def cosine(one: jax.Array, other: jax.Array) -> jax.Array:
    """Cosine along the last axis; NaN where one of the two is 0."""
    norms = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(other, axis=-1)
    products = jnp.sum(one * other, axis=-1)
    return jnp.where(norms > 0, products / jnp.where(norms > 0, norms, 1), jnp.nan)


def updates(after: jax.Array, before: jax.Array, *, normalised: bool) -> jax.Array:
    """Changes of attention outputs (..., width); of their directions, |h| = 1, if `normalised`.

    Dai et al. (2022) normalise, their critics do not; the two can differ in sign. What differs by
    rounding alone has not changed: 0, which has no direction. NaN where a norm is not finite.
    """
    return _change(_unit(after), _unit(before)) if normalised else _change(after, before)


def _change(after: jax.Array, before: jax.Array) -> jax.Array:
    """Differences of rows; 0 where they are roundings, NaN where a norm is not finite."""
    size, *norms = (_norms(rows) for rows in (after - before, after, before))
    rounding = ROUNDINGS * jnp.finfo(size.dtype).eps * jnp.maximum(*norms)
    change = jnp.where(size <= rounding, 0, after - before)
    return jnp.where(jnp.isfinite(rounding), change, jnp.nan)


def _unit(rows: jax.Array) -> jax.Array:
    """Rows of norm 1; a row that is 0 stays so, one whose norm is not finite is NaN."""
    norms = _norms(rows)
    return jnp.where(jnp.isfinite(norms), rows / jnp.where(norms > 0, norms, 1), jnp.nan)


def _norms(rows: jax.Array) -> jax.Array:
    return jnp.linalg.norm(rows, axis=-1, keepdims=True)


def centred(changes: jax.Array) -> jax.Array:
    """Changes (tasks, queries, ..., width) minus their mean over tasks and queries, of finite ones.

    What all queries share, such as that demonstrations move the query to another position, is no
    likeness of what was learned from them.
    """
    finite = jnp.all(jnp.isfinite(changes), axis=-1, keepdims=True)
    total = jnp.sum(jnp.where(finite, changes, 0), axis=(0, 1), keepdims=True)
    count = jnp.sum(finite, axis=(0, 1), keepdims=True)
    return changes - total / jnp.maximum(count, 1)


class MeanCosine(NamedTuple):
    """Mean cosine of two changes over tasks and queries, and of how many it is not."""

    mean: jax.Array
    """Of those that have one; NaN where none has."""
    unmoved: jax.Array
    """Number of tasks and queries where a change is 0."""
    diverged: jax.Array
    """Number of those where a change is not finite."""


def mean_cosine(one: jax.Array, other: jax.Array) -> MeanCosine:
    """Mean cosine of changes (tasks, queries, ..., width) over tasks and queries.

    SimAOU, if the changes are those of attention outputs.
    """
    values = cosine(one, other)
    finite = jnp.all(jnp.isfinite(one) & jnp.isfinite(other), axis=-1)
    able = jnp.isfinite(values)
    count = jnp.sum(able, axis=(0, 1))
    total = jnp.sum(jnp.where(able, values, 0), axis=(0, 1))
    mean = jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
    lost = finite & ~able, ~finite
    return MeanCosine(mean, *(jnp.sum(where, axis=(0, 1)) for where in lost))


class MapSimilarity(NamedTuple):
    """SimAM: cosines of attention maps, means over tasks, queries and heads, (layer,)."""

    before: jax.Array
    """In context beside zero-shot."""
    after: jax.Array
    """In context beside finetuned."""
    delta: jax.Array
    """Of the two changes, where both maps move; NaN where none does."""
    unmoved: jax.Array
    """Number of maps of which one of the two changes is 0."""
    diverged: jax.Array
    """Number of those of which one is not finite."""


def map_similarity(
    zero_shot: jax.Array, in_context: jax.Array, finetuned: jax.Array
) -> MapSimilarity:
    """SimAM of scores before the softmax, (tasks, queries, layer, heads, L), over a query's OWN tokens.

    Demonstrations and BOS are left out, as in Dai et al. (2022). Of a map of L = 1 the cosine is a
    sign, which says next to nothing.
    """
    zero, told, tuned = (_heads_as_queries(maps) for maps in (zero_shot, in_context, finetuned))
    before, after = mean_cosine(told, zero).mean, mean_cosine(told, tuned).mean
    changes = mean_cosine(_change(told, zero), _change(tuned, zero))
    return MapSimilarity(before, after, changes.mean, changes.unmoved, changes.diverged)


def _heads_as_queries(maps: jax.Array) -> jax.Array:
    """Maps (tasks, queries, layer, heads, L) as (tasks, queries x heads, layer, L)."""
    moved = jnp.moveaxis(maps, 3, 2)
    return moved.reshape(moved.shape[0], -1, *moved.shape[3:])


def kendall(one: jax.Array, other: jax.Array) -> jax.Array:
    """Kendall's rank correlation along the last axis, with ties (tau-b); NaN where all are tied."""

    def order(values: jax.Array) -> jax.Array:
        return jnp.sign(values[..., :, None] - values[..., None, :])

    first, second = order(one), order(other)
    agreeing = jnp.sum(first * second, axis=(-2, -1))
    untied = jnp.sum(first**2, axis=(-2, -1)) * jnp.sum(second**2, axis=(-2, -1))
    return jnp.where(untied > 0, agreeing / jnp.sqrt(jnp.maximum(untied, 1)), jnp.nan)


def noise_limit(ratio: float) -> float:
    """Normalised similarity of two independent noises r on one output z, |r|^2 = ratio |z|^2.

    (1 - s)^2 / (ratio + (1 - s)^2) with s = sqrt(1 + ratio), in the limit of many dimensions: both
    changes shrink z, and so point the same way; .25 at ratio 3, from noise alone.
    """
    require_positive("ratio", ratio)
    shrunk = (1 - (1 + ratio) ** 0.5) ** 2
    return shrunk / (ratio + shrunk)


def noise_similarity(
    key: jax.Array, ratio: float, width: int, pairs: int
) -> tuple[jax.Array, jax.Array]:
    """Mean cosine of the changes by independent noises, normalised and raw; see `noise_limit`."""
    output, one, other = jax.random.normal(key, (3, pairs, width))
    noises = [output + jnp.sqrt(ratio) * noise for noise in (one, other)]

    def mean(normalised: bool) -> jax.Array:
        first, second = (updates(noise, output, normalised=normalised) for noise in noises)
        return jnp.mean(cosine(first, second))

    return mean(True), mean(False)
