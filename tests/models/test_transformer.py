"""The transformer compared with NumPy loops over concatenated tokens and heads."""

import re
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from toyicl.analysis import metrics
from toyicl.core.episode import Episode
from toyicl.core.errors import BadSetting
from toyicl.models import transformer
from toyicl.models.transformer import UNROLLED, Architecture, Transformer
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression(dim=3, outputs=2, context_size=5, input_range=3.0)
EPISODES = drawn(TASK, 1, 4)
ONE = Episode(*(np.asarray(field[..., 0]) for field in EPISODES))
layerwise, answer = jax.jit(Transformer.layerwise), jax.jit(Transformer.__call__)
EVERYTHING = Architecture(depth=2, heads=2, embedding_size=6, mlp_size=7, layer_norm=True)


FIXED = ("softmax_fraction", "temperature", "mlp_gate", "norm_gate", "damping", "token_clip")


def fixed(path):
    """The setting that a fixed leaf holds; None for a parameter."""
    return next((name for name in FIXED if path.endswith(f".{name}.value")), None)


def build(architecture, seed=0):
    """A model whose parameters, including biases and gains, are random and of order 1."""
    draw = np.random.default_rng(seed)

    def fill(path, leaf):
        name = fixed(jax.tree_util.keystr(path))
        value = draw.normal(size=leaf.shape) / 2 if name is None else getattr(architecture, name)
        return jnp.asarray(value, float)

    shapes = jax.eval_shape(architecture, TASK, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(fill, shapes)


def gelu(z):
    return z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


def normalise(norm, rows, gate):
    if norm is None:
        return rows
    centred = rows - rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    normalised = centred / deviation * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
    return (1 - gate) * rows + gate * normalised


def attend(attention, rows, context, architecture):
    """Update of each row, summed over heads and points."""
    update = np.zeros_like(rows)
    fraction = {"linear": 0, "softmax": 1, "mixed": architecture.softmax_fraction}
    fraction = fraction[architecture.attention]
    for head in range(len(attention.query[...])):
        query, key, value, output = (
            np.asarray(weights[...][head])
            for weights in (attention.query, attention.key, attention.value, attention.output)
        )
        for row, entry in zip(rows, update, strict=True):
            scores = np.array([(key @ point) @ (query @ row) for point in context])
            if fraction > 0:
                weights = np.exp(scores / np.sqrt(len(key)) / architecture.temperature)
                scores = (1 - fraction) * scores + fraction * weights / weights.sum()
            entry += sum(
                s * output @ value @ point for s, point in zip(scores, context, strict=True)
            )
    return update


def oracle(model, architecture, episode, start=None):
    """Predictions after each layer: all tokens are updated, and the query's is never a key."""
    x, y, x_query, _ = (np.asarray(field) for field in episode)
    count, outputs = y.shape
    label = np.zeros(outputs) if start is None else -start @ x_query
    tokens = np.concatenate([np.c_[x, y], np.r_[x_query, label][None]])
    if model.embedding is not None:
        tokens = tokens @ np.asarray(model.embedding.linear[...])
    updated = np.ones_like(tokens)
    if not architecture.update_inputs:
        updated[:, :-outputs] = 0
    predictions = []
    for layer in range(architecture.depth):
        block = model.blocks[0 if architecture.shared else layer]
        seen = normalise(block.attention_norm, tokens, architecture.norm_gate)
        update = attend(block.attention, seen, seen[:count], architecture)
        tokens = tokens + architecture.damping * updated * update
        if block.mlp is not None:
            seen = normalise(block.mlp_norm, tokens, architecture.norm_gate)
            up, down = (
                (np.asarray(part.kernel[...]), np.asarray(part.bias[...]))
                for part in (block.mlp.up_proj, block.mlp.down_proj)
            )
            change = gelu(seen @ up[0] + up[1]) @ down[0] + down[1]
            tokens = tokens + architecture.mlp_gate * updated * change
        if architecture.token_clip is not None:
            tokens = np.clip(tokens, -architecture.token_clip, architecture.token_clip)
        predictions.append(-tokens[-1, -outputs:])
    return np.array(predictions)


ARCHITECTURES = {
    "one layer": Architecture(),
    "two layers": Architecture(depth=2),
    "three layers": Architecture(depth=3),
    "two shared layers": Architecture(depth=2, shared=True),
    "three shared layers": Architecture(depth=3, shared=True),
    "heads": Architecture(depth=2, heads=2, key_size=2),
    "softmax": Architecture(depth=2, attention="softmax", heads=2, key_size=7),
    "damping": Architecture(depth=3, damping=0.4, shared=True),
    "clip": Architecture(depth=3, token_clip=0.7),
    "labels only": Architecture(depth=2, update_inputs=False),
    "labels only, MLP": Architecture(depth=2, update_inputs=False, mlp_size=4),
    "embedding": Architecture(depth=2, embedding_size=6),
    "MLP": Architecture(depth=2, mlp_size=7),
    "LayerNorm": Architecture(depth=2, layer_norm=True),
    "everything": EVERYTHING,
    "all scales": replace(
        EVERYTHING,
        attention="mixed",
        softmax_fraction=0.3,
        temperature=0.6,
        mlp_gate=0.4,
        norm_gate=0.7,
    ),
    "everything, shared": replace(
        EVERYTHING, depth=3, shared=True, attention="softmax", damping=0.5, token_clip=2.0
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_matches_the_oracle_after_every_layer(name, close):
    architecture = ARCHITECTURES[name]
    model = build(architecture)
    layers = layerwise(model, *ONE[:3])
    expected = oracle(model, architecture, ONE)
    assert layers.shape == (architecture.depth, 2)
    for layer in range(architecture.depth):
        close(layers[layer], expected[layer], 1e-10)


DEEP = {
    "shared": Architecture(depth=UNROLLED + 2, shared=True, heads=2, damping=0.1, token_clip=1.0),
    "distinct": Architecture(depth=UNROLLED + 2, damping=0.1, token_clip=1.0),
    "another first layer": Architecture(
        depth=UNROLLED + 2, damping=0.03, first_attention="softmax", mlp_size=4, mlp_gate=0.1
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_loop_over_layers_is_one_layer_after_the_other(name, close, monkeypatch):
    """Values after every layer, and gradients."""
    model = build(DEEP[name])

    def total(model):
        return jnp.sum(jnp.sin(model.layerwise(*ONE[:3])))

    compute = jax.value_and_grad(total, allow_int=True)
    looped, layers = jax.jit(compute)(model), layerwise(model, *ONE[:3])
    if DEEP[name].first_attention is None:  # which the oracle does not have
        close(layers, oracle(model, DEEP[name], ONE), 1e-9)
    monkeypatch.setattr(transformer, "UNROLLED", DEEP[name].depth)
    unrolled = jax.jit(lambda model: compute(model))(model)
    for one, other in zip(jax.tree.leaves(looped), jax.tree.leaves(unrolled), strict=True):
        if one.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shared", [True, False])
def test_the_program_of_deep_models_does_not_grow_with_the_depth(shared):
    """Apart from the stacking of weights, which is a line for each array of a layer."""

    def lines(depth):
        model = build(Architecture(depth=depth, shared=shared))
        batch = jax.jit(lambda model: jax.vmap(model, -1, -1)(*(a[..., None] for a in ONE[:3])))
        text = batch.lower(model).as_text()
        return sum("dot_general" in line or "while" in line for line in text.splitlines())

    assert lines(UNROLLED + 1) == lines(2 * UNROLLED)
    assert lines(UNROLLED) > lines(UNROLLED // 2)


def test_the_settings_of_the_oracle_matter():
    """The oracle gives different predictions for different architectures."""
    answers = [
        np.asarray(oracle(build(ARCHITECTURES[name]), ARCHITECTURES[name], ONE)[-1])
        for name in ("two layers", "two shared layers", "labels only", "labels only, MLP")
    ]
    clipped = replace(ARCHITECTURES["clip"], token_clip=None)
    answers.append(oracle(build(clipped), clipped, ONE)[-1])
    answers.append(oracle(build(clipped), ARCHITECTURES["clip"], ONE)[-1])
    for index, one in enumerate(answers):
        assert all(np.abs(one - other).max() > 1e-3 for other in answers[index + 1 :])


def test_the_query_may_start_from_a_prediction(close):
    start = np.random.default_rng(0).normal(size=(2, 3))
    architecture = Architecture(depth=3, shared=True)
    model = Transformer(architecture, 3, 2, jax.random.key(0), initial_weights=jnp.asarray(start))
    close(layerwise(model, *ONE[:3]), oracle(model, architecture, ONE, start), 1e-10)


@pytest.mark.parametrize("name", ["three layers", "three shared layers"])
def test_the_prediction_is_that_of_the_last_layer(name, close):
    model = build(ARCHITECTURES[name])
    close(answer(model, *ONE[:3]), layerwise(model, *ONE[:3])[-1])


@pytest.mark.parametrize("shared", [True, False])
def test_layers_are_numbered_from_the_first(shared):
    model = build(Architecture(depth=3, shared=shared))
    assert len(model.blocks) == (1 if shared else 3)
    for index in range(3):
        assert model.layer(index) is model.blocks[0 if shared else index]


def test_layers_that_are_not_shared_start_different():
    first, second = Architecture(depth=2)(TASK, jax.random.key(0)).blocks
    assert not np.any(first.attention.value[...] == second.attention.value[...])


@settings(max_examples=6, deadline=None, derandomize=True)
@given(order=st.permutations(range(5)))
def test_the_order_of_the_context_does_not_matter(order, close):
    x, y, x_query, _ = ONE
    model = build(EVERYTHING)
    order = np.array(order)
    close(answer(model, x[order], y[order], x_query), answer(model, x, y, x_query), 1e-9)


def test_predictions_depend_on_the_pairing_of_inputs_and_labels():
    x, y, x_query, _ = ONE
    model = build(Architecture(depth=2))
    assert np.abs(answer(model, x, y[::-1], x_query) - answer(model, x, y, x_query)).max() > 1e-3


@cache
def gradients(name):
    """Gradient of the loss with respect to every parameter of a model, by path."""
    gradient = jax.jit(jax.grad(metrics.loss))(build(ARCHITECTURES[name]), EPISODES)
    named = jax.tree_util.tree_leaves_with_path(gradient)
    paths = [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in named]
    return {path: leaf for path, leaf in paths if fixed(path) is None}


@pytest.mark.parametrize("name", ["two layers", "softmax", "everything"])
def test_every_parameter_has_a_gradient(name):
    for path, gradient in gradients(name).items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


@pytest.mark.parametrize("name", ["two layers", "heads"])
def test_only_label_rows_of_the_last_layer_have_a_gradient(name):
    """Only the label rows of the last value-output circuit affect the prediction."""
    values = gradients(name)
    first, last = (values[f".blocks[{index}].attention.output.value"] for index in (0, 1))
    assert np.all(last[:, :3] == 0)
    assert np.all(last[:, 3:] != 0)
    assert np.all(first != 0)


def test_shared_layers_share_their_gradient(close):
    """The gradient of shared weights is the sum of the gradients of equal, separate weights."""
    shared, apart = (build(Architecture(depth=3, shared=shared)) for shared in (True, False))
    for block in apart.blocks:
        for name in ("query", "key", "value", "output"):
            getattr(block.attention, name)[...] = getattr(shared.blocks[0].attention, name)[...]
    gradient = jax.jit(jax.grad(lambda model: model(*ONE[:3])[0]))
    total = sum(np.asarray(block.attention.value[...]) for block in gradient(apart).blocks)
    close(gradient(shared).blocks[0].attention.value[...], total)


def test_a_sweep_over_damping_and_clip_is_a_vmap_and_compiles_once(close):
    """The prediction of one layer is proportional to the damping, up to the bound."""
    traces = []

    def answer(damping, clip):
        traces.append(damping)
        architecture = Architecture(damping=damping, token_clip=clip)
        return architecture(TASK, jax.random.key(0))(*ONE[:3])

    sweep, loose = jax.jit(jax.vmap(answer)), np.full(2, 1e9)
    whole = np.asarray(sweep(np.ones(2), loose)[0])
    close(sweep(np.array([0.5, 3.0]), loose), np.array([0.5 * whole, 3.0 * whole]))
    close(sweep(np.ones(2), np.array([1e-9, 1e9])), np.array([1e-9 * np.sign(whole), whole]))
    assert len(traces) == 1


LIMITS = {
    "no softmax": (
        Architecture(depth=2, attention="mixed", softmax_fraction=0.0),
        Architecture(depth=2),
    ),
    "softmax only": (
        Architecture(depth=2, attention="mixed", softmax_fraction=1.0, temperature=0.3),
        Architecture(depth=2, attention="softmax", temperature=0.3),
    ),
    "no MLP": (Architecture(depth=2, mlp_size=7, mlp_gate=0.0), Architecture(depth=2)),
    "no norm": (Architecture(depth=2, layer_norm=True, norm_gate=0.0), Architecture(depth=2)),
}


@jax.jit
def fresh(architecture):
    """The prediction of a freshly initialised model."""
    return architecture(TASK, jax.random.key(4))(*ONE[:3])


@pytest.mark.parametrize("name", LIMITS)
def test_a_scale_at_its_limit_gives_the_plainer_architecture(name, close):
    """With the same key, bit for bit: a gate draws no random numbers, and at 0 it adds 0.

    A norm concatenates the blocks of a token, so that products are rounded in another order.
    """
    limit, plain = (np.asarray(fresh(replace(each, init_scale=1.0))) for each in LIMITS[name])
    close(limit, plain, 1e-13)
    if name != "no norm":
        np.testing.assert_array_equal(limit, plain)
    assert np.abs(plain).max() > 0.01


def test_a_temperature_divides_the_scores(close):
    """Dividing the queries by the temperature has the same effect."""
    hot = build(Architecture(attention="softmax", temperature=2.5, heads=2))
    small = build(Architecture(attention="softmax", heads=2))
    plain = answer(small, *ONE[:3])
    (block,) = small.blocks
    block.attention.query[...] = block.attention.query[...] / 2.5
    close(answer(hot, *ONE[:3]), answer(small, *ONE[:3]))
    assert np.abs(answer(hot, *ONE[:3]) - plain).max() > 1e-3


def test_a_sweep_over_the_scales_is_a_vmap(close):
    base = Architecture(attention="mixed", mlp_size=7, layer_norm=True, init_scale=3.0)
    scales = {
        "softmax_fraction": np.array([0.0, 0.4, 1.0]),
        "temperature": np.array([0.5, 1.0, 3.0]),
        "mlp_gate": np.array([0.0, 2.0, 1.0]),
        "norm_gate": np.array([0.3, 0.0, 1.0]),
    }
    sweep = jax.jit(jax.vmap(lambda scales: fresh(replace(base, **scales))))(scales)
    for index in range(3):
        own = {name: float(values[index]) for name, values in scales.items()}
        close(sweep[index], fresh(replace(base, **own)), 1e-10)
    assert np.abs(np.diff(sweep, axis=0)).max() > 0.01


def test_an_architecture_is_a_pytree_of_its_scales():
    scales = {"softmax_fraction": 0.1, "temperature": 0.2, "mlp_gate": 0.3, "norm_gate": 0.4}
    leaves = jax.tree.leaves(Architecture(damping=0.5, token_clip=3.0, **scales))
    assert leaves == [0.1, 0.2, 0.3, 0.4, 0.5, 3.0, 0.002]
    assert jax.tree.structure(Architecture(depth=2)) != jax.tree.structure(Architecture())


def test_initial_deviation_shrinks_with_depth():
    architecture = Architecture(depth=4, shared=True, heads=40, mlp_size=300)
    (block,) = architecture(LinearRegression(), jax.random.key(0)).blocks
    expected = np.sqrt(0.002 / 4 / 11)
    assert abs(np.std(block.attention.value[...]) / expected - 1) < 0.05
    assert abs(np.std(block.mlp.up_proj.kernel[...]) / expected - 1) < 0.05
    assert np.all(block.mlp.up_proj.bias[...] == 0)


def test_an_embedding_starts_at_order_one():
    task = LinearRegression(dim=99)
    model = Architecture(embedding_size=30)(task, jax.random.key(0))
    assert model.embedding.linear[...].shape == (100, 30)
    assert abs(np.std(model.embedding.linear[...]) * np.sqrt(100) - 1) < 0.05


def test_the_same_key_builds_the_same_model():
    make = Architecture(embedding_size=4)
    one, same, other = (make(TASK, jax.random.key(seed)) for seed in (0, 0, 1))
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        assert np.array_equal(first, second)
    assert not np.any(one.embedding.linear[...] == other.embedding.linear[...])
    values = (model.blocks[0].attention.value[...] for model in (one, other))
    assert not np.any(np.equal(*values))


BAD = [
    ("attention", "cosine", "one of linear, softmax, mixed"),
    ("depth", 0, "a whole number of at least 1"),
    ("depth", 1.5, "a whole number"),
    ("heads", 0, "a whole number of at least 1"),
    ("key_size", 0, "a whole number of at least 1"),
    ("embedding_size", -1, "a whole number of at least 1"),
    ("mlp_size", 0, "a whole number of at least 1"),
    ("softmax_fraction", 1.1, "between 0 and 1"),
    ("softmax_fraction", float("nan"), "between 0 and 1"),
    ("temperature", 0.0, "a finite number above 0"),
    ("mlp_gate", -0.1, "a finite number of at least 0"),
    ("norm_gate", -0.1, "between 0 and 1"),
    ("damping", 0.0, "a finite number above 0"),
    ("damping", float("nan"), "a finite number above 0"),
    ("token_clip", -1.0, "a finite number above 0"),
    ("init_scale", 0.0, "a finite number above 0"),
]


@pytest.mark.parametrize(("field", "value", "rule"), BAD)
def test_bad_settings_are_named(field, value, rule):
    message = f"Architecture.{field} must be {rule}, got {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Architecture(**{field: value})


def test_embedded_inputs_cannot_be_left_out_of_updates():
    with pytest.raises(
        ValueError, match=r"^Architecture\.update_inputs must be True except for joint tokens"
    ):
        Architecture(update_inputs=False, embedding_size=4)


def test_a_trained_initial_guess_is_a_parameter_that_starts_at_0(close):
    """The predictions are those of an array as initial weights, which training leaves unchanged."""
    architecture = Architecture(depth=2, initial_guess="trained")
    model = architecture(TASK, jax.random.key(3))
    assert isinstance(model.initial_weights, nnx.Param)
    assert np.all(model.initial_weights[...] == 0)
    start = np.random.default_rng(0).normal(size=model.initial_weights[...].shape)
    model.initial_weights[...] = jnp.asarray(start)
    dim, outputs = TASK.dim, TASK.outputs
    plain = Architecture(depth=2)
    fixed = Transformer(plain, dim, outputs, jax.random.key(3), initial_weights=jnp.asarray(start))
    assert not isinstance(fixed.initial_weights, nnx.Param)
    close(answer(model, *ONE[:3]), answer(fixed, *ONE[:3]))


def test_an_initial_guess_needs_joint_tokens():
    with pytest.raises(BadSetting, match="initial_guess must be zero with separate tokens"):
        Architecture(tokens="separate", initial_guess="trained")
