"""Products of the small matrices of one episode, fast for a batch of episodes on a CPU.

Models are written for one episode, and a batch is `jax.vmap` over a last axis. It turns a plain matrix
product into many small products that are interleaved in memory, which XLA computes slowly on a CPU.
`contract` is a product of two matrices that `jax.vmap` treats better:

*   Where both matrices belong to an episode, it is written out as a sum of elementwise products, which
    are vectorised over the axis of episodes. The sum is not fused with what uses it.
*   Where one matrix is shared by all episodes, such as a weight, it is a product of large matrices.

On other devices it is a plain product. Derivatives are products of the same kinds, or, for a shared
matrix, a sum over episodes. `reshape` and `broadcast_last` are the other operations of attention that
keep the axis of episodes last; `jax.vmap` of `jnp.reshape` or `jnp.repeat` would move it to the front.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from toyicl.core.config import require
from toyicl.core.fusion import not_fused

LONGEST_SUM = 128
"""Longest sum that is written out; a longer one is left to XLA's matrix product."""
FEWEST_EPISODES = 16
"""Fewest episodes of such a sum, which is fast only if their axis fills vector registers."""

Axes = tuple[int, int]
"""The axis of each matrix over which a product sums."""


def contract(a: jax.Array, b: jax.Array, axes: Axes = (1, 0)) -> jax.Array:
    """The product of two matrices, summed over an axis of each: (1, 0) is a @ b.

    (0, 0) is a.T @ b, (1, 1) is a @ b.T, and (0, 1) is a.T @ b.T. The left factor may be a vector, as a
    matrix with one row, and the result is then a vector: contract(v, b, (1, 1)) is b @ v.

    Raises BadInput for other axes or ranks, and for sizes that do not fit.
    """
    allowed = a.ndim == 2 or (a.ndim == 1 and axes[0] == 1)
    require(allowed, "a", "a matrix, or a vector summed over axis 1", (a.shape, axes))
    require(b.ndim == 2, "b", "a matrix", b.shape)
    require(axes[0] in (0, 1) and axes[1] in (0, 1), "axes", "0 or 1 for each matrix", axes)
    summed = a.shape[axes[0] if a.ndim == 2 else 0]
    rule = f"of size {summed} along axis {axes[1]}, like the left factor"
    require(b.shape[axes[1]] == summed, "b", rule, b.shape)
    if axes == (0, 1):
        return contract(b, a).T
    return _one.bind(*_same_type(a, b), axes=axes)


def reshape(array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`jnp.reshape` to known sizes; `jax.vmap` keeps the axis of episodes last.

    Raises BadInput unless the shape has as many entries as the array.
    """
    require(math.prod(shape) == array.size, "shape", f"of {array.size} entries", shape)
    return _reshape.bind(array, shape=shape)


def broadcast_last(array: jax.Array, size: int) -> jax.Array:
    """Each entry, repeated along a new last axis; `jax.vmap` keeps the axis of episodes after it."""
    return _broadcast.bind(array, size=size)


def _same_type(*arrays: jax.Array) -> list[jax.Array]:
    dtype = jnp.result_type(*arrays)
    return [jnp.asarray(array, dtype) for array in arrays]


def _plain(a: jax.Array, b: jax.Array, axes: Axes) -> jax.Array:
    """The product as XLA computes it, (free axis of a, free axis of b)."""
    if a.ndim == 1:
        axes = (0, axes[1])
    return jax.lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())))


def _each_plain(a: jax.Array, b: jax.Array, axes: Axes) -> jax.Array:
    """The products of matrices with a last axis of episodes, as XLA computes them."""
    return jax.vmap(partial(_plain, axes=axes), in_axes=-1, out_axes=-1)(a, b)


def _each_unrolled(a: jax.Array, b: jax.Array, axes: Axes) -> jax.Array:
    """The products of matrices with a last axis of episodes, as one sum of elementwise products."""
    if not 0 < a.shape[axes[0]] <= LONGEST_SUM or a.shape[-1] < FEWEST_EPISODES:
        return _each_plain(a, b, axes)

    def total(a: jax.Array, b: jax.Array) -> jax.Array:
        a, b = jnp.moveaxis(a, axes[0], 0), jnp.moveaxis(b, axes[1], 0)
        terms = [left[:, None] * right[None] for left, right in zip(a, b, strict=True)]
        return sum(terms[1:], start=terms[0])

    return not_fused(total, a, b)


def _shared_plain(each: jax.Array, shared: jax.Array, axes: Axes, first: bool) -> jax.Array:
    """The product of matrices with a last axis of episodes, and a matrix of all episodes.

    `axes` are those of `each` and `shared`; `first` is whether `each` is the left factor.
    """
    weights = jnp.moveaxis(shared, axes[1], 1)  # (free, summed)
    if axes[0] == 0:
        product = jnp.tensordot(weights, each, 1)  # (free of shared, free of each, episodes)
        return jnp.swapaxes(product, 0, 1) if first else product
    rows = jnp.broadcast_to(weights[None], (each.shape[0], *weights.shape))
    product = jax.lax.dot_general(rows, each, (((2,), (1,)), ((0,), (0,))))
    return product if first else jnp.swapaxes(product, 0, 1)


def _over_episodes(each: jax.Array, other: jax.Array, axes: Axes) -> jax.Array:
    """The sum over episodes of a product, summed over an axis of each matrix too: the free axes."""
    a, b = jnp.moveaxis(each, axes[0], 0), jnp.moveaxis(other, axes[1], 0)
    return jnp.sum(jax.lax.dot_general(a, b, (((2,), (2,)), ((0,), (0,)))), axis=0)


def _shape(a: Any, b: Any, axes: Axes) -> tuple[int, ...]:
    return (a.shape[1 - axes[0]], b.shape[1 - axes[1]])


_one, _each, _shared = (
    Primitive("contract"),
    Primitive("contract_each"),
    Primitive("contract_shared"),
)

_reshape, _broadcast = Primitive("reshape_episode"), Primitive("broadcast_episode")

_one.def_impl(_plain)
_each.def_impl(jax.jit(_each_plain, static_argnames="axes"))
_shared.def_impl(jax.jit(_shared_plain, static_argnames=("axes", "first")))


@_one.def_abstract_eval
def _(a: Any, b: Any, *, axes: Axes) -> Any:
    shape = _shape(a, b, axes) if a.ndim == 2 else (b.shape[1 - axes[1]],)
    return jax.core.ShapedArray(shape, a.dtype)


@_each.def_abstract_eval
def _(a: Any, b: Any, *, axes: Axes) -> Any:
    return jax.core.ShapedArray((*_shape(a, b, axes), a.shape[-1]), a.dtype)


@_shared.def_abstract_eval
def _(each: Any, shared: Any, *, axes: Axes, first: bool) -> Any:
    rows, columns = _shape(each, shared, axes)
    free = (rows, columns) if first else (columns, rows)
    return jax.core.ShapedArray((*free, each.shape[-1]), each.dtype)


mlir.register_lowering(_one, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(_each, mlir.lower_fun(_each_plain, multiple_results=False))
mlir.register_lowering(_each, mlir.lower_fun(_each_unrolled, multiple_results=False), "cpu")
mlir.register_lowering(_shared, mlir.lower_fun(_shared_plain, multiple_results=False))


def _left(product: Primitive, cotangent: jax.Array, b: jax.Array, axes: Axes) -> jax.Array:
    """The cotangent of the left factor of a product."""
    if axes[0] == 1:
        return product.bind(cotangent, b, axes=(1, 1 - axes[1]))
    return product.bind(b, cotangent, axes=(1 - axes[1], 1))


def _right(product: Primitive, cotangent: jax.Array, a: jax.Array, axes: Axes) -> jax.Array:
    """The cotangent of the right factor of a product."""
    if cotangent.ndim == 1:
        a, cotangent, axes = a[None], cotangent[None], (1, axes[1])
    if axes[1] == 0:
        return product.bind(a, cotangent, axes=(1 - axes[0], 0))
    return product.bind(cotangent, a, axes=(0, 1 - axes[0]))


for _product in (_one, _each):
    ad.defbilinear(
        _product,
        lambda ct, a, b, *, axes, product=_product: _left(product, ct, b, axes),
        lambda ct, a, b, *, axes, product=_product: _right(product, ct, a, axes),
    )


def _shared_left(
    cotangent: jax.Array, each: Any, shared: jax.Array, *, axes: Axes, first: bool
) -> jax.Array:
    """The cotangent of the episodes' factor: the same kind of product."""
    own = 1 if first else 0  # the axis of the cotangent that belongs to `shared`
    return _shared.bind(cotangent, shared, axes=(own, 1 - axes[1]), first=axes[0] == 1)


def _shared_right(
    cotangent: jax.Array, each: jax.Array, shared: Any, *, axes: Axes, first: bool
) -> jax.Array:
    """The cotangent of the shared factor: a sum over episodes."""
    rest = 0 if first else 1  # the axis of the cotangent that belongs to `each`
    if axes[1] == 0:
        return _over_episodes(each, cotangent, (1 - axes[0], rest))
    return _over_episodes(cotangent, each, (rest, 1 - axes[0]))


ad.defbilinear(_shared, _shared_left, _shared_right)


def _last(array: jax.Array, axis: Any) -> jax.Array:
    return array if axis is None else jnp.moveaxis(array, axis, -1)


def _batch_one(args: Any, dims: Any, *, axes: Axes) -> tuple[jax.Array, int]:
    a, b = (_last(array, axis) for array, axis in zip(args, dims, strict=True))
    vector = args[0].ndim == (1 if dims[0] is None else 2)
    if vector:
        a = a.reshape(1, *a.shape)
    if None not in dims:
        product = _each.bind(a, b, axes=axes)
    elif dims[1] is None:
        product = _shared.bind(a, b, axes=axes, first=True)
    else:
        product = _shared.bind(b, a, axes=(axes[1], axes[0]), first=False)
    return (product[0], 1) if vector else (product, 2)


def _batch_each(args: Any, dims: Any, *, axes: Axes) -> tuple[jax.Array, int]:
    """A second axis of episodes is merged with the first, the outer one last."""
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    arrays = [
        _last(array, axis)
        if axis is not None
        else jnp.broadcast_to(array[..., None], (*array.shape, size))
        for array, axis in zip(args, dims, strict=True)
    ]
    inner = arrays[0].shape[2:]
    flat = [array.reshape(*array.shape[:2], math.prod(inner)) for array in arrays]
    product = _each.bind(*flat, axes=axes)
    return product.reshape(*product.shape[:2], *inner), 3


def _batch_shared(args: Any, dims: Any, *, axes: Axes, first: bool) -> tuple[jax.Array, int]:
    each, shared = (_last(array, axis) for array, axis in zip(args, dims, strict=True))
    if dims[1] is None:
        flat = each.reshape(*each.shape[:2], math.prod(each.shape[2:]))
        product = _shared.bind(flat, shared, axes=axes, first=first)
        return product.reshape(*product.shape[:2], *each.shape[2:]), 3
    plain = partial(_shared_plain, axes=axes, first=first)
    batched = [None if axis is None else -1 for axis in dims]
    return jax.vmap(plain, in_axes=batched, out_axes=-1)(each, shared), 3


batching.primitive_batchers[_one] = _batch_one
batching.primitive_batchers[_each] = _batch_each
batching.primitive_batchers[_shared] = _batch_shared


def _reshape_batch(args: Any, dims: Any, *, shape: tuple[int, ...]) -> tuple[jax.Array, int]:
    array = _last(args[0], dims[0])
    return array.reshape(*shape, array.shape[-1]), len(shape)


_reshape.def_impl(jnp.reshape)
_reshape.def_abstract_eval(lambda array, *, shape: jax.core.ShapedArray(shape, array.dtype))
mlir.register_lowering(_reshape, mlir.lower_fun(jnp.reshape, multiple_results=False))
ad.deflinear2(_reshape, lambda cotangent, array, *, shape: [reshape(cotangent, array.aval.shape)])
batching.primitive_batchers[_reshape] = _reshape_batch


def _broadcast_plain(array: jax.Array, size: int) -> jax.Array:
    return jnp.broadcast_to(array[..., None], (*array.shape, size))


def _broadcast_batch(args: Any, dims: Any, *, size: int) -> tuple[jax.Array, int]:
    array = _last(args[0], dims[0])
    *shape, episodes = array.shape
    broadcast = jnp.broadcast_to(array[..., None, :], (*shape, size, episodes))
    return broadcast, len(shape) + 1


_broadcast.def_impl(_broadcast_plain)
_broadcast.def_abstract_eval(
    lambda array, *, size: jax.core.ShapedArray((*array.shape, size), array.dtype)
)
mlir.register_lowering(_broadcast, mlir.lower_fun(_broadcast_plain, multiple_results=False))
ad.deflinear2(_broadcast, lambda cotangent, array, *, size: [jnp.sum(cotangent, axis=-1)])
batching.primitive_batchers[_broadcast] = _broadcast_batch
