"""What a transformer's first layer looks at: how its tokens depend on those before it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from toyicl.models.tokens import block_sizes, merge, split
from toyicl.models.transformer import Transformer


class TokenSensitivity(NamedTuple):
    """How far a token after the first layer depends on tokens before it: norms of derivatives."""

    itself: jax.Array
    following: jax.Array
    others: jax.Array


def token_sensitivity(
    model: Transformer, x: jax.Array, y: jax.Array, x_query: jax.Array
) -> TokenSensitivity:
    """How far an input's token after the first layer depends on each token before it, on one episode.

    For a transformer on separate tokens: means over the N inputs of the Frobenius norm of the
    derivative of token e_j by itself, by the next, e_(j+1), which is its label, and of the mean norm
    by the others; von Oswald et al. (2022), Figure 5.
    """
    context, _ = model.arrange(x, y, x_query)
    sizes = block_sizes(context)

    def after(rows: jax.Array) -> jax.Array:
        return merge(model.after_first_layer(split(rows, sizes)))

    norms = jnp.sqrt(jnp.sum(jax.jacobian(after)(merge(context)) ** 2, axis=(1, 3)))[::2]
    own = jnp.arange(0, norms.shape[1], 2)
    rows = jnp.arange(len(own))
    itself, following = norms[rows, own], norms[rows, own + 1]
    others = (jnp.sum(norms, axis=1) - itself - following) / (norms.shape[1] - 2)
    return TokenSensitivity(jnp.mean(itself), jnp.mean(following), jnp.mean(others))
