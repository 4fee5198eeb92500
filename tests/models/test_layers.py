"""LayerNorm in float32, MLPs and layers compared with NumPy, and the settings of a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from toyicl.models.attention import AttentionSettings
from toyicl.models.layers import MLP, Block, LayerNorm, LayerSettings

KEY = jax.random.key(0)


def normalised(rows):
    """LayerNorm without gain and shift, in float64."""
    rows = np.asarray(rows, float)
    centred = rows - rows.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("mean", [0, 10, 100, 1000])
def test_layer_norm_does_not_depend_on_the_mean_in_float32(mean):
    """Rows c + 1e-3 * [0, ..., 15]; the tolerance is what rounding of the rows themselves costs."""
    with jax.enable_x64(False):
        rows = jnp.asarray(mean + 1e-3 * np.arange(16), jnp.float32)
        found = jax.jit(LayerNorm(16, nnx.Rngs(0)).__call__)(rows)
        assert found.dtype == jnp.float32
    assert abs(float(found[0]) + 1.58999) < 3e-4
    np.testing.assert_allclose(found, normalised(rows), atol=2e-6)


def test_layer_norm_of_an_outlier_is_accurate_in_float32():
    """The entry that is subtracted from the others may be the largest by far."""
    with jax.enable_x64(False):
        rows = jnp.asarray([[1e4, 1.0, 2.0, 3.0], [2.0, 1e4, 1.0, 3.0]], jnp.float32)
        found = LayerNorm(4, nnx.Rngs(0))(rows)
    np.testing.assert_allclose(found, normalised(rows), atol=2e-6)


def test_layer_norm_of_equal_entries_is_0_with_a_finite_gradient():
    norm = LayerNorm(3, nnx.Rngs(0))
    rows = jnp.full((2, 3), 7.0)
    assert np.all(norm(rows) == 0)
    assert np.isfinite(jax.grad(lambda rows: jnp.sum(norm(rows) ** 2))(rows)).all()


@pytest.mark.parametrize("size", [1e200, np.inf, np.nan])
def test_layer_norm_of_rows_that_overflow_is_not_finite(size):
    rows = jnp.array([[1.0, 2.0, 3.0], [1.0, size, 3.0]])
    found = np.isfinite(LayerNorm(3, nnx.Rngs(0))(rows))
    assert found.tolist() == [[True] * 3, [False] * 3]


def test_layer_norm_has_a_gain_and_a_shift(close):
    norm, rows = LayerNorm(4, nnx.Rngs(0)), jax.random.normal(KEY, (5, 4))
    norm.scale[...], norm.bias[...] = jnp.arange(1.0, 5.0), jnp.arange(4.0)
    close(norm(rows), normalised(rows) * np.arange(1, 5) + np.arange(4), 1e-12)


def test_an_mlp_is_two_linear_maps_with_a_gelu_between(close):
    mlp, rows = MLP(3, 5, 1.0, nnx.Rngs(0)), jax.random.normal(KEY, (2, 3))
    hidden = jax.nn.gelu(rows @ mlp.up_proj.kernel[...] + mlp.up_proj.bias[...][None])
    close(mlp(rows), hidden @ mlp.down_proj.kernel[...] + mlp.down_proj.bias[...][None])


def test_a_block_without_mlp_and_norm_is_its_attention(close):
    block = Block(5, KEY, LayerSettings())
    tokens = jax.random.normal(KEY, (4, 5))
    assert block.mlp is None
    assert block.attention_norm is block.mlp_norm is None
    assert block.apply_mlp(tokens) is tokens
    close(block.attend(tokens, tokens), block.attention(tokens, tokens))


def test_the_initial_scale_of_attention_is_that_of_the_mlp():
    small, large = (
        Block(5, KEY, LayerSettings(attention=AttentionSettings(init_scale=scale), mlp_size=7))
        for scale in (1.0, 4.0)
    )
    for name in ("up_proj", "down_proj"):
        kernels = [getattr(block.mlp, name).kernel[...] for block in (small, large)]
        np.testing.assert_allclose(kernels[1], 2 * kernels[0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"mlp_size": 0}, r"^LayerSettings\.mlp_size must be a whole number of at least 1, got 0"),
        ({"mlp_gate": -1.0}, r"^LayerSettings\.mlp_gate must be a finite number of at least 0"),
        ({"norm_gate": 1.5}, r"^LayerSettings\.norm_gate must be between 0 and 1, got 1\.5"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        LayerSettings(**bad)


def test_settings_are_a_pytree_whose_scales_may_be_traced():
    chosen = LayerSettings(mlp_gate=0.5, norm_gate=0.25)
    assert jax.tree.leaves(chosen) == [1.0, 0.0, 0.002, 0.5, 0.25]
    assert jax.tree.structure(chosen) != jax.tree.structure(LayerSettings(layer_norm=True))
