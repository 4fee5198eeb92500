"""Token sensitivities compared with derivatives for each pair of tokens."""

import jax
import jax.numpy as jnp
import numpy as np

from toyicl.analysis.token_jacobian import token_sensitivity
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression


def test_token_sensitivity_is_a_loop_over_pairs_of_tokens(close):
    task = LinearRegression(dim=2, context_size=3)
    model = Architecture(tokens="separate", position_size=2, key_size=4)(task, jax.random.key(0))
    x, y, x_query = np.ones((3, 2)), np.ones((3, 1)), np.ones(2)
    found = token_sensitivity(model, x, y, x_query)
    context, _ = model.arrange(x, y, x_query)
    rows = np.asarray(context)
    slow = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):

            def one(row, i=i, j=j):
                changed = jnp.asarray(rows).at[j].set(row)
                return model.after_first_layer(changed)[i]

            slow[i, j] = np.linalg.norm(jax.jacobian(one)(jnp.asarray(rows[j])))
    close(found.itself, np.mean([slow[i, i] for i in (0, 2, 4)]), 1e-10)
    close(found.following, np.mean([slow[i, i + 1] for i in (0, 2, 4)]), 1e-10)
    others = [np.delete(slow[i], [i, i + 1]).mean() for i in (0, 2, 4)]
    close(found.others, np.mean(others), 1e-10)
