"""A context as a rank-one update of the first matrix of the MLP that follows attention.

Let A(x) be a query's token after attention without a context, and A(x) + dA that with a context.
Then W (A(x) + dA) = (W + dW) A(x) for

    dW = (W dA) A(x)^T / |A(x)|^2,

so that an MLP with first matrix W answers with the context as one with W + dW does without it (Dherin
et al., 2025, arXiv 2507.16003). dW depends on the query, through A(x), and divides by |A(x)|^2: it is
not finite where A(x) is 0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.errors import BadInput
from toyicl.finetuning.similarity import cosine
from toyicl.models.layers import MLP, Block


def rank_one_update(weights: jax.Array, before: jax.Array, after: jax.Array) -> jax.Array:
    """The update dW of W (hidden, size), for attention outputs without and with context, (size,)."""
    return jnp.outer(weights @ (after - before), before) / jnp.vdot(before, before)


def first_matrix(mlp: MLP) -> jax.Array:
    """The matrix W of the first layer of an MLP, (hidden, size)."""
    return mlp.up_proj.kernel[...].T


def with_first_matrix(mlp: MLP, weights: jax.Array) -> MLP:
    """A copy of an MLP with another first matrix W, (hidden, size)."""
    changed = nnx.clone(mlp)
    changed.up_proj.kernel[...] = weights.T
    return changed


def with_context(mlp: MLP, before: jax.Array, after: jax.Array) -> MLP:
    """The MLP whose output at `before` is that of the given one at `after`; both (size,)."""
    weights = first_matrix(mlp)
    return with_first_matrix(mlp, weights + rank_one_update(weights, before, after))


def block_with_context(block: Block, query: jax.Array, context: jax.Array) -> Block:
    """The block that makes of a query's token alone what the given one makes of it with a context.

    Tokens have the shapes (size,) and (N, size), and `apply_mlp(query)` of the result is the output.
    The residual connection around the MLP passes on what attention added, dA, which becomes a change of
    the last bias. Where the MLP reads normalised tokens, A is the normalised attention output. Raises
    BadInput for a block without an MLP.
    """
    mlp = block.mlp
    if mlp is None:
        raise BadInput("block must have an MLP, got one without")
    after = query + block.attend(query, context)
    updated = with_context(mlp, block.read_by_mlp(query), block.read_by_mlp(after))
    bias: Any = updated.down_proj.bias  # None is allowed by its type, but not used here
    bias[...] = bias[...] + (after - query) / block.mlp_gate[...]
    changed = nnx.clone(block)
    changed.mlp = updated
    return changed


def best_rank_one_cosine(gradient: jax.Array, before: jax.Array) -> jax.Array:
    """Largest cosine of -G, (hidden, size), with any u A(x)^T, for A(x) (size,): |G A| / (|G| |A|)."""
    norms = jnp.linalg.norm(gradient) * jnp.linalg.norm(before)
    return jnp.linalg.norm(gradient @ before) / norms


def matrix_cosine(one: jax.Array, other: jax.Array) -> jax.Array:
    """Cosine of two matrices of one shape as vectors; NaN where one of them is 0."""
    return cosine(one.ravel(), other.ravel())


def demonstration_gradient(
    answer: Callable[[MLP, jax.Array], jax.Array], mlp: MLP, tokens: jax.Array, y: jax.Array
) -> jax.Array:
    """Gradient of the loss of demonstrations by the first matrix of an MLP, (hidden, size).

    The loss is half the squared error of `answer(mlp, token)`, which has no context, in the mean over
    demonstrations, with tokens (N, size) and labels y (N, m).
    """

    def loss(weights: jax.Array) -> jax.Array:
        changed = with_first_matrix(mlp, weights)
        answers = jax.vmap(answer, (None, 0))(changed, tokens)
        return 0.5 * jnp.mean(jnp.sum((answers - y) ** 2, axis=1))

    return jax.grad(loss)(first_matrix(mlp))
