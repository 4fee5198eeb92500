"""Similarity of two changes of a model: in answers, in attention outputs and in attention maps.

The measures of Dai et al. (2022) and of Deutch et al. (2024). A change that is 0 has no direction; its
cosine is NaN, not 0, and such changes are counted. Leading axes are tasks, queries, ...
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.core.config import require_positive

ROUNDINGS = 32
"""Number of roundings, relative to the norm, by which two computations of one output may differ."""


class Recovery(NamedTuple):
    """Rec2FTP: recovery by in-context learning of the answers that finetuning newly gets right."""

    score: jax.Array
    """Fraction of these answers that are right in context, too; NaN if there are none."""
    chance: jax.Array
    """Fraction of all answers wrong zero-shot that are right in context; NaN if there are none."""
    gained: jax.Array
    """Number of answers that finetuning newly gets right: the denominator of the score."""
    missed: jax.Array
    """Number of answers wrong zero-shot: the denominator of the chance level."""


def recovery(zero_shot: jax.Array, in_context: jax.Array, finetuned: jax.Array) -> Recovery:
    """Rec2FTP and its chance level; the arguments state which answers are right, in one shape.

    |(FT and ICL) minus ZSL| / |FT minus ZSL|; Dai et al. (2022), section 4.3. The chance level is
    P(ICL right | ZSL wrong), the expected value if gains by finetuning are independent of ICL.
    """
    gained, missed = finetuned & ~zero_shot, ~zero_shot
    counts = jnp.sum(gained), jnp.sum(missed)
    score, chance = (
        jnp.where(count > 0, jnp.sum(part & in_context) / jnp.maximum(count, 1), jnp.nan)
        for part, count in zip((gained, missed), counts, strict=True)
    )
    return Recovery(score, chance, *counts)


def cosine(one: jax.Array, other: jax.Array) -> jax.Array:
    """Cosine along the last axis; NaN where one of the vectors is 0."""
    norms = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(other, axis=-1)
    products = jnp.sum(one * other, axis=-1)
    return jnp.where(norms > 0, products / jnp.where(norms > 0, norms, 1), jnp.nan)


def updates(after: jax.Array, before: jax.Array, *, normalised: bool) -> jax.Array:
    """Changes of attention outputs (..., width), scaled to norm 1 before subtraction if `normalised`.

    Dai et al. (2022) normalise, Deutch et al. (2024) do not; the results can differ in sign. A change
    by rounding errors only is set to 0. The change is NaN where a norm is not finite.
    """
    return _change(_unit(after), _unit(before)) if normalised else _change(after, before)


def _change(after: jax.Array, before: jax.Array) -> jax.Array:
    """Differences of rows; 0 where they are rounding errors, NaN where a norm is not finite."""
    size, *norms = (_norms(rows) for rows in (after - before, after, before))
    rounding = ROUNDINGS * jnp.finfo(size.dtype).eps * jnp.maximum(*norms)
    change = jnp.where(size <= rounding, 0, after - before)
    return jnp.where(jnp.isfinite(rounding), change, jnp.nan)


def _unit(rows: jax.Array) -> jax.Array:
    """Rows scaled to norm 1; rows of zeros are kept, and rows whose norm is not finite are NaN."""
    norms = _norms(rows)
    return jnp.where(jnp.isfinite(norms), rows / jnp.where(norms > 0, norms, 1), jnp.nan)


def _norms(rows: jax.Array) -> jax.Array:
    return jnp.linalg.norm(rows, axis=-1, keepdims=True)


def centred(changes: jax.Array) -> jax.Array:
    """Changes (tasks, queries, ..., width) minus the mean of the finite ones over tasks and queries.

    This removes what all queries have in common, such as the effect of demonstrations on the query's
    position, which does not depend on what is learned from them.
    """
    finite = jnp.all(jnp.isfinite(changes), axis=-1, keepdims=True)
    total = jnp.sum(jnp.where(finite, changes, 0), axis=(0, 1), keepdims=True)
    count = jnp.sum(finite, axis=(0, 1), keepdims=True)
    return changes - total / jnp.maximum(count, 1)


class MeanCosine(NamedTuple):
    """Mean cosine of two changes over tasks and queries, and the numbers of changes without one."""

    mean: jax.Array
    """Mean of the cosines that exist; NaN if there are none."""
    unmoved: jax.Array
    """Number of tasks and queries where a change is 0."""
    diverged: jax.Array
    """Number of those where a change is not finite."""


def mean_cosine(one: jax.Array, other: jax.Array) -> MeanCosine:
    """Mean cosine of changes (tasks, queries, ..., width) over tasks and queries.

    For changes of attention outputs this is SimAOU.
    """
    values = cosine(one, other)
    finite = jnp.all(jnp.isfinite(one) & jnp.isfinite(other), axis=-1)
    defined = jnp.isfinite(values)
    count = jnp.sum(defined, axis=(0, 1))
    total = jnp.sum(jnp.where(defined, values, 0), axis=(0, 1))
    mean = jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
    unmoved, diverged = finite & ~defined, ~finite
    return MeanCosine(mean, jnp.sum(unmoved, axis=(0, 1)), jnp.sum(diverged, axis=(0, 1)))


class MapSimilarity(NamedTuple):
    """SimAM: mean cosines of attention maps over tasks, queries and heads, (layer,)."""

    before: jax.Array
    """Between the maps in context and zero-shot."""
    after: jax.Array
    """Between the maps in context and after finetuning."""
    delta: jax.Array
    """Between the two changes, where both are not 0; NaN if there are no such maps."""
    unmoved: jax.Array
    """Number of maps for which one of the two changes is 0."""
    diverged: jax.Array
    """Number of maps for which one of the changes is not finite."""


def map_similarity(
    zero_shot: jax.Array, in_context: jax.Array, finetuned: jax.Array
) -> MapSimilarity:
    """SimAM of scores before the softmax, (tasks, queries, layer, heads, L), over a query's OWN tokens.

    Demonstrations and BOS are excluded, as in Dai et al. (2022). For maps of length L = 1 the cosine is
    only a sign.
    """
    zero, context, tuned = (_heads_as_queries(maps) for maps in (zero_shot, in_context, finetuned))
    before, after = mean_cosine(context, zero).mean, mean_cosine(context, tuned).mean
    changes = mean_cosine(_change(context, zero), _change(tuned, zero))
    return MapSimilarity(before, after, changes.mean, changes.unmoved, changes.diverged)


def _heads_as_queries(maps: jax.Array) -> jax.Array:
    """Reshape maps (tasks, queries, layer, heads, L) to (tasks, queries x heads, layer, L)."""
    moved = jnp.moveaxis(maps, 3, 2)
    return moved.reshape(moved.shape[0], -1, *moved.shape[3:])


def kendall(one: jax.Array, other: jax.Array) -> jax.Array:
    """Kendall's rank correlation tau-b along the last axis; NaN where all values are tied."""

    def order(values: jax.Array) -> jax.Array:
        return jnp.sign(values[..., :, None] - values[..., None, :])

    first, second = order(one), order(other)
    agreeing = jnp.sum(first * second, axis=(-2, -1))
    untied = jnp.sum(first**2, axis=(-2, -1)) * jnp.sum(second**2, axis=(-2, -1))
    return jnp.where(untied > 0, agreeing / jnp.sqrt(jnp.maximum(untied, 1)), jnp.nan)


def noise_limit(ratio: float) -> float:
    """Normalised similarity of two independent noises r added to one output z, |r|^2 = ratio |z|^2.

    (1 - s)^2 / (ratio + (1 - s)^2) with s = sqrt(1 + ratio), in the limit of many dimensions. Both
    changes shrink z and therefore have a common direction: noise alone gives .25 at ratio 3. Raises
    BadInput unless `ratio` is positive.
    """
    require_positive("ratio", ratio)
    shrunk = (1 - (1 + ratio) ** 0.5) ** 2
    return shrunk / (ratio + shrunk)


def noise_similarity(
    key: jax.Array, ratio: float, width: int, pairs: int
) -> tuple[jax.Array, jax.Array]:
    """Mean cosine of changes by independent noises, normalised and not; see `noise_limit`."""
    output, one, other = jax.random.normal(key, (3, pairs, width))
    noises = [output + jnp.sqrt(ratio) * noise for noise in (one, other)]

    def mean(normalised: bool) -> jax.Array:
        first, second = (updates(noise, output, normalised=normalised) for noise in noises)
        return jnp.mean(cosine(first, second))

    return mean(True), mean(False)
