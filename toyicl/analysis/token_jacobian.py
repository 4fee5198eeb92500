"""Jacobian of a transformer's first layer: the dependence of tokens after it on tokens before it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.models.transformer import Transformer


class TokenSensitivity(NamedTuple):
    """Mean norms of derivatives of tokens after the first layer with respect to tokens before it."""

    itself: jax.Array
    """With respect to the same token."""
    following: jax.Array
    """With respect to the next token, which is its label."""
    others: jax.Array
    """With respect to the other tokens, a mean over them."""


def token_sensitivity(
    model: Transformer, x: jax.Array, y: jax.Array, x_query: jax.Array
) -> TokenSensitivity:
    """Dependence of an input's token after the first layer on the tokens before it, on one episode.

    For a transformer on separate tokens, with shapes (N, d), (N, m), (d,): Frobenius norms of the
    derivative of token e_j with respect to itself, to the next token e_(j+1), and to the others, as
    means over the N inputs; von Oswald et al. (2022), Figure 5.
    """
    context, _ = model.arrange(x, y, x_query)
    derivatives = jax.jacobian(model.after_first_layer)(context)
    norms = jnp.sqrt(jnp.sum(derivatives**2, axis=(1, 3)))[::2]
    own = jnp.arange(0, norms.shape[1], 2)
    rows = jnp.arange(len(own))
    itself, following = norms[rows, own], norms[rows, own + 1]
    others = (jnp.sum(norms, axis=1) - itself - following) / (norms.shape[1] - 2)
    return TokenSensitivity(jnp.mean(itself), jnp.mean(following), jnp.mean(others))
