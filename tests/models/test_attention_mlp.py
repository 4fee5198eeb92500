"""Attention followed by an MLP compared with its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.models.attention import AttentionSettings
from toyicl.models.attention_mlp import AttentionMLP
from toyicl.tasks.linear import LinearRegression

DRAW = np.random.default_rng(0)
TASK = LinearRegression(dim=3, outputs=2, context_size=4)
X, Y, QUERY = DRAW.normal(size=(4, 3)), DRAW.normal(size=(4, 2)), DRAW.normal(size=3)


def model(**changes):
    settings = AttentionMLP(attention=AttentionSettings(init_scale=1.0), mlp_size=5, **changes)
    return settings(TASK, jax.random.key(0))


def test_it_is_the_mlp_of_the_attention_output_with_a_residual(close):
    one = model()
    tokens, query = jnp.asarray(np.concatenate([X, Y], 1)), jnp.asarray([*QUERY, 0.0, 0.0])
    key_query, value_output = one.attention.key_query[0], one.attention.value_output[0]
    attended = query + sum(value_output @ token * (token @ key_query @ query) for token in tokens)
    close(one.attended(X, Y, QUERY), attended)
    close(one(X, Y, QUERY), -one.mlp(attended)[-2:])


def test_without_a_context_the_attention_output_is_the_token(close):
    one = model()
    close(one.attended(X[:0], Y[:0], QUERY), one.token(jnp.asarray(QUERY)))


def test_the_scale_of_the_mlp_is_that_of_its_initial_weights(close):
    small, large = (model(mlp_init_scale=scale).mlp.up_proj.kernel[...] for scale in (1.0, 4.0))
    close(2 * small, large)


@pytest.mark.parametrize("bad", [{"mlp_size": 0}, {"mlp_init_scale": 0.0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(BadInput, match=next(iter(bad))):
        AttentionMLP(**bad)
