"""Products of small matrices and their derivatives, alone and in batches, compared with einsum."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core import products
from toyicl.core.errors import BadInput
from toyicl.core.products import broadcast_last, contract, reshape

SUBSCRIPTS = {(1, 0): "ik,kj->ij", (0, 0): "ki,kj->ij", (1, 1): "ik,jk->ij", (0, 1): "ki,jk->ij"}
BATCHED = [(-1, -1), (-1, None), (None, -1), (0, 1)]
"""Axes of the episodes in both matrices; None is a matrix that all episodes share."""


def slow(a, b, axes=(1, 0)):
    return jnp.einsum(SUBSCRIPTS[axes], a, b)


def drawn(axes, batched=(None, None), *, episodes=17, seed=0):
    """A 3 x 4 and a 4 x 2 matrix, transposed and with a batch axis as asked for."""
    draw = np.random.default_rng(seed)
    pair = []
    for free, axis, where in zip((3, 2), axes, batched, strict=True):
        shape = [4, 4]
        shape[1 - axis] = free
        if where is not None:
            shape.insert(len(shape) if where == -1 else where, episodes)
        pair.append(jnp.asarray(draw.normal(size=shape)))
    return pair


def curved(product, axes):
    """A function of two matrices with derivatives of all orders."""
    return lambda a, b: jnp.sum(jnp.sin(product(a, b, axes)))


def same(one, other, tolerance=1e-12):
    for own, expected in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(own, expected, rtol=0, atol=tolerance)


DERIVATIVES = {
    "reverse": lambda f: jax.grad(f, (0, 1)),
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f, 0), 1),
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f, 1), 0),
    "forward": lambda f: jax.jacfwd(f, (0, 1)),
}


@pytest.mark.parametrize("axes", SUBSCRIPTS)
@pytest.mark.parametrize("order", DERIVATIVES)
def test_one_product_and_its_derivatives(axes, order):
    a, b = drawn(axes)
    same(contract(a, b, axes), slow(a, b, axes))
    derive = DERIVATIVES[order]
    same(*(jax.jit(derive(curved(product, axes)))(a, b) for product in (contract, slow)))


@pytest.mark.parametrize("axes", SUBSCRIPTS)
@pytest.mark.parametrize("batched", BATCHED)
def test_a_batch_and_its_derivatives(axes, batched):
    """Derivatives of a batch, as in training, and a batch of derivatives, as in sensitivities."""
    a, b = drawn(axes, batched)

    def total(product):
        each = jax.vmap(lambda a, b: product(a, b, axes), in_axes=batched, out_axes=-1)
        return lambda a, b: jnp.sum(jnp.sin(each(a, b)))

    for derive in DERIVATIVES.values():
        same(*(jax.jit(derive(total(product)))(a, b) for product in (contract, slow)))
    for order in ("reverse", "forward over reverse"):
        one, other = (
            jax.vmap(DERIVATIVES[order](curved(product, axes)), in_axes=batched)
            for product in (contract, slow)
        )
        same(jax.jit(one)(a, b), jax.jit(other)(a, b))


@pytest.mark.parametrize("axes", SUBSCRIPTS)
@pytest.mark.parametrize(
    ("inner", "outer"),
    list(itertools.product(BATCHED[:3], [(0, 0), (0, None), (None, 0)])),
)
def test_a_batch_of_batches(axes, inner, outer):
    """Such as runs of one device, each with its own weights and episodes."""
    a, b = drawn(axes, inner)
    if outer[0] == 0:
        a = jnp.stack([a, 2 * a, a**2])
    if outer[1] == 0:
        b = jnp.stack([b, b - 1, b**2])

    def gradients(product):
        each = jax.vmap(lambda a, b: product(a, b, axes), in_axes=inner, out_axes=-1)
        return jax.vmap(jax.grad(lambda a, b: jnp.sum(jnp.sin(each(a, b))), (0, 1)), outer)

    same(*(jax.jit(gradients(product))(a, b) for product in (contract, slow)))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_vector_is_a_matrix_of_one_row(axis):
    (_, b), vector = drawn((1, axis)), jnp.arange(4.0)
    expected = slow(vector[None], b, (1, axis))[0]
    same(contract(vector, b, (1, axis)), expected)
    many = jnp.stack([vector, -vector, vector**2], axis=-1)
    found = jax.jit(jax.vmap(lambda v: contract(v, b, (1, axis)), -1, -1))(many)
    same(found, slow(many.T, b, (1, axis)).T)
    both = (lambda v, b: contract(v, b, (1, axis)), lambda v, b: slow(v[None], b, (1, axis))[0])
    same(*(jax.jit(jax.jacobian(product, (0, 1)))(vector, b) for product in both))


@pytest.mark.parametrize("length", [0, 1, products.LONGEST_SUM, products.LONGEST_SUM + 1])
def test_sums_of_every_length(length):
    draw = np.random.default_rng(1)
    a, b = (jnp.asarray(draw.normal(size=shape)) for shape in ((2, length, 20), (length, 3, 20)))
    found = jax.jit(jax.vmap(contract, in_axes=-1, out_axes=-1))(a, b)
    same(found, jnp.einsum("ike,kje->ije", a, b), 1e-11)


def test_single_precision_is_exact_to_its_rounding():
    with jax.enable_x64(False):
        a, b = (array.astype("float32") for array in drawn((1, 0), (-1, -1)))
        found = jax.jit(jax.vmap(contract, in_axes=-1, out_axes=-1))(a, b)
        assert found.dtype == jnp.float32
        expected = jnp.einsum("ike,kje->ije", a, b)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_factors_of_different_types_have_their_common_type():
    a, b = drawn((1, 0))
    assert contract(a.astype("float32"), b).dtype == jnp.float64
    assert contract(jnp.ones((2, 4), int), b).dtype == jnp.float64


def test_not_finite_episodes_stay_apart():
    """Episodes with NaN do not change the others."""
    a, b = drawn((1, 0), (-1, -1))
    found = jax.jit(jax.vmap(contract, in_axes=-1, out_axes=-1))(a.at[0, 0, 0].set(jnp.nan), b)
    assert np.isnan(found[..., 0]).any()
    same(found[..., 1:], jnp.einsum("ike,kje->ije", a, b)[..., 1:])


@pytest.mark.parametrize("episodes", [1, products.FEWEST_EPISODES - 1, products.FEWEST_EPISODES])
@pytest.mark.parametrize("axes", SUBSCRIPTS)
def test_batches_of_every_size(axes, episodes):
    a, b = drawn(axes, (-1, -1), episodes=episodes)
    found = jax.jit(jax.vmap(lambda a, b: contract(a, b, axes), -1, -1))(a, b)
    same(found, jax.jit(jax.vmap(lambda a, b: slow(a, b, axes), -1, -1))(a, b))


def test_large_batches_are_sums_and_small_ones_products():
    """The program for a CPU has a condition with a written-out sum, and no matrix product."""
    each = jax.jit(jax.vmap(contract, in_axes=-1, out_axes=-1))
    large = each.lower(*drawn((1, 0), (-1, -1), episodes=16)).as_text()
    small = each.lower(*drawn((1, 0), (-1, -1), episodes=15)).as_text()
    assert "dot_general" in small
    assert "dot_general" not in large
    assert "stablehlo.case" in large


@pytest.mark.parametrize(
    ("shapes", "axes", "message"),
    [
        (((2, 3), (4, 2)), (1, 0), r"^b must be of size 3 along axis 0, like the left factor"),
        (((3, 2), (4, 2)), (0, 0), r"^b must be of size 3 along axis 0"),
        (((2, 3), (3,)), (1, 0), r"^b must be a matrix, got \(3,\)"),
        (((3,), (3, 2)), (0, 0), r"^a must be a matrix, or a vector summed over axis 1"),
        (((2, 3, 4), (3, 2)), (1, 0), r"^a must be a matrix"),
        (((2, 3), (3, 2)), (2, 0), r"^axes must be 0 or 1 for each matrix"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, axes, message):
    """At the call, also where nothing is computed yet."""
    with pytest.raises(BadInput, match=message):
        jax.eval_shape(lambda a, b: contract(a, b, axes), *map(jnp.ones, shapes))


def test_reshaping_to_another_size_is_refused():
    with pytest.raises(BadInput, match=r"^shape must be of 6 entries"):
        reshape(jnp.ones((2, 3)), (7,))


def test_a_batch_on_the_last_axis_is_not_moved():
    """Products of a batch must not copy it to another layout, which takes longer than the products."""
    a, b = drawn((1, 0), (-1, -1))
    each = jax.make_jaxpr(jax.vmap(contract, in_axes=-1, out_axes=-1))(a, b)
    assert [equation.primitive.name for equation in each.eqns] == ["contract_each"]
    shared = jax.vmap(contract, in_axes=(-1, None), out_axes=-1)
    each = jax.make_jaxpr(shared)(a, b[..., 0])
    assert [equation.primitive.name for equation in each.eqns] == ["contract_shared"]


OTHERS = {
    "reshape": (lambda a: reshape(a, (6, 2)), lambda a: jnp.reshape(a, (6, 2))),
    "broadcast_last": (
        lambda a: broadcast_last(a, 3),
        lambda a: jnp.repeat(a[..., None], 3, axis=-1),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_reshaped_and_repeated_arrays_and_their_derivatives(name):
    fast, plain = OTHERS[name]
    one = jnp.arange(12.0).reshape(3, 4)
    same(fast(one), plain(one))
    batch = jnp.stack([one, one**2, -one], axis=-1)

    def gradients(function):
        each = jax.vmap(function, in_axes=-1, out_axes=-1)
        return jax.grad(lambda batch: jnp.sum(jnp.sin(each(batch))))

    def curvatures(function):
        return jax.vmap(jax.hessian(lambda a: jnp.sum(jnp.sin(function(a)))), -1)

    slow_gradients = jax.jit(gradients(plain))
    same(jax.jit(gradients(fast))(batch), slow_gradients(batch))
    same(*(jax.jit(curvatures(function))(batch) for function in (fast, plain)))
    again = jax.jit(jax.vmap(gradients(fast)))(jnp.stack([batch, 2 * batch]))
    same(again, jnp.stack([slow_gradients(batch), slow_gradients(2 * batch)]))
    names = [e.primitive.name for e in jax.make_jaxpr(jax.vmap(fast, -1, -1))(batch).eqns]
    assert "transpose" not in names
