"""The causal transformer: compared with NumPy loops; masking, momentum attention and its control."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn

from toyicl.core.errors import BadInput
from toyicl.models.attention import Attention, AttentionSettings, read_linear
from toyicl.models.causal import CausalArchitecture, attend_causally
from toyicl.tasks.prompts import Classification
from toyicl.training.loop import Job, fit, fit_all
from toyicl.training.step import Training, advance

TASK = Classification(dim=4, outputs=3, context_size=3)
SMALL = CausalArchitecture(width=8, heads=2, mlp_size=6)


def built(**changes):
    return replace(SMALL, **changes)(TASK, jax.random.key(1))


def prompt():
    episode = drawn(TASK, 0, 1)
    return tuple(jnp.asarray(field[..., 0]) for field in episode[:3])


def normalised(norm, rows):
    centred = rows - rows.mean(axis=1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    return unit * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def attended_by_loops(block, rows, kind, weight_of=lambda back: 0.0):
    """Attention outputs, computed for each head, token and value in turn."""
    names = ("query", "key", "value", "output")
    query, key, value, output = (np.asarray(getattr(block.attention, n)[...]) for n in names)
    found = np.zeros_like(rows)
    for head in range(query.shape[0]):
        q, k, v = (rows @ matrix[head].T for matrix in (query, key, value))
        for t in range(len(rows)):
            scores = np.array([q[t] @ k[i] for i in range(t + 1)]) / np.sqrt(q.shape[1])
            weights = np.exp(scores) / np.exp(scores).sum() if kind == "softmax" else scores
            read = sum(weights[i] * v[i] for i in range(t + 1))
            for i in range(t):
                read = read + weight_of(t - i) * v[i]
            found[t] += output[head] @ read
    return found


def gelu(z):
    return np.asarray(jax.nn.gelu(z))


def by_loops(model, x, y, x_query, kind, weight_of=lambda back: 0.0):
    """Logits of all tokens and attention outputs of all layers, by NumPy."""
    rows = [np.asarray(model.beginning[...])]
    pieces = model.input_tokens
    for point, label in zip([*x, x_query], [*y, None], strict=True):
        rows += [
            part @ np.asarray(model.inputs[...]) for part in np.split(np.asarray(point), pieces)
        ]
        if label is not None:
            rows.append(np.asarray(label) @ np.asarray(model.labels[...]))
    rows = np.array(rows) + np.asarray(model.positions[...])[: len(rows)]
    outputs = []
    for block in model.blocks:
        attended = attended_by_loops(block, normalised(block.attention_norm, rows), kind, weight_of)
        rows = rows + attended
        hidden = normalised(block.mlp_norm, rows) @ block.mlp.up_proj.kernel[...]
        hidden = gelu(np.asarray(hidden) + np.asarray(block.mlp.up_proj.bias[...]))
        rows = rows + hidden @ np.asarray(block.mlp.down_proj.kernel[...])
        rows = rows + np.asarray(block.mlp.down_proj.bias[...])
        outputs.append(attended)
    return normalised(model.norm, rows) @ np.asarray(model.unembedding[...]), np.array(outputs)


WEIGHTS = {
    None: lambda back: 0.0,
    "momentum": lambda back: 0.5**back,
    "previous": lambda back: 0.5 * (back == 1),
}


@pytest.mark.parametrize("kind", ["softmax", "linear"])
@pytest.mark.parametrize("memory", [None, "momentum", "previous"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_matches_loops(close, kind, memory, pieces):
    model = built(attention=kind, memory=memory, eta=0.5, input_tokens=pieces)
    x, y, x_query = prompt()
    seen = model.activations(model.arrange(x, y, x_query))
    logits, attended = by_loops(model, x, y, x_query, kind, WEIGHTS[memory])
    close(seen.logits, logits, 1e-10)
    close(seen.attended, attended, 1e-10)
    close(model.answers(x, y, x_query), logits[pieces :: pieces + 1], 1e-10)
    close(model(x, y, x_query), logits[-1], 1e-10)
    last = model.in_context(x, y, x_query)
    close(last.attended, attended[:, -1], 1e-10)
    close(last.early_logits[-1], logits[-1], 1e-10)


def layer_and_rows(kind, heads=2, width=6, count=5):
    """A layer whose scores are of order 1, and rows that it attends to."""
    draw = np.random.default_rng(3)
    chosen = AttentionSettings(kind=kind, heads=heads, key_size=width // heads)
    shapes = jax.eval_shape(lambda: Attention(width, jax.random.key(0), chosen))
    layer = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape) / 2), shapes)
    layer.temperature[...] = jnp.ones(())
    return layer, jnp.asarray(draw.normal(size=(count, width)))


def test_causal_linear_attention_is_a_double_loop_over_tokens(close):
    """update_t = sum_h P_h sum_{i <= t} (q_t . k_i / sqrt(k)) v_i: neither normalised nor averaged."""
    layer, rows = layer_and_rows("linear")
    weights = (layer.query, layer.key, layer.value, layer.output)
    heads = list(zip(*(np.asarray(each[...]) for each in weights), strict=True))
    expected = np.zeros(rows.shape)
    for t in range(len(rows)):
        for i in range(t + 1):
            for query, key, value, output in heads:
                score = (query @ rows[t]) @ (key @ rows[i]) / np.sqrt(3)
                expected[t] += output @ value @ rows[i] * score
    update, scores, queries = attend_causally(layer, rows)
    close(update, expected)
    assert scores.shape == (2, 5, 5)
    assert queries.shape == (2, 5, 3)


@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_each_token_reads_what_unmasked_attention_reads_from_its_prefix(close, kind):
    """By the layer of the transformer that is not causal, whose linear scores are not divided."""
    layer, rows = layer_and_rows(kind)
    update = attend_causally(layer, rows)[0]
    divisor = np.sqrt(3) if kind == "linear" else 1.0
    for t in range(len(rows)):
        alone = layer(rows[t], rows[: t + 1])
        close(update[t], alone / divisor)


def test_causal_linear_attention_is_linear_reading_of_the_prefix(close):
    layer, rows = layer_and_rows("linear", heads=1)
    query, key, value, output = (
        weights[...][0] for weights in (layer.query, layer.key, layer.value, layer.output)
    )
    update = attend_causally(layer, rows)[0]
    for t in range(len(rows)):
        prefix = rows[: t + 1]
        read = read_linear(query @ rows[t], prefix @ key.T, prefix @ value.T)
        close(update[t], output @ read / np.sqrt(6))


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_momentum_of_decay_0_is_plain_attention_bit_for_bit(kind):
    episodes = drawn(TASK, 0, 20)

    @jax.jit
    def answers(model):
        return jax.vmap(model.answers, -1, -1)(*episodes[:3])

    plain = np.asarray(answers(built(attention=kind)))
    for memory in ("momentum", "previous"):
        without = np.asarray(answers(built(attention=kind, memory=memory, eta=0.0)))
        assert without.tobytes() == plain.tobytes()
        changed = answers(built(attention=kind, memory=memory, eta=0.5))
        assert np.abs(np.asarray(changed) - plain).max() > 1e-3


def test_answers_do_not_depend_on_later_tokens(close):
    model = built()
    x, y, x_query = prompt()
    answers = model.answers(x, y, x_query)
    close(model.answers(x, y.at[2].set(jnp.roll(y[2], 1)), 2 * x_query)[:3], answers[:3])
    changed = model.answers(x, y.at[0].set(jnp.roll(y[0], 1)), x_query)
    close(changed[0], answers[0])
    assert np.abs(np.asarray(changed - answers)[1:]).max() > 1e-6


def test_zero_shot_is_the_first_answer(close):
    model = built(input_tokens=2)
    x, y, x_query = prompt()
    close(model.zero_shot(x[0]).logits, model.answers(x, y, x_query)[0])
    scores = model.zero_shot(x_query).scores
    assert scores.shape == (2, 2, 3)


def test_stop_gradient_between_layers_keeps_values_and_removes_gradients(close):
    model = built()
    tokens = model.arrange(*prompt())
    stopped = model.activations(tokens, jax.lax.stop_gradient)
    close(stopped.early_logits, model.activations(tokens).early_logits)

    def through(tokens, between):
        return jnp.sum(model.activations(tokens, between).logits ** 2)

    cut = jax.grad(through)(tokens, jax.lax.stop_gradient)
    assert not np.asarray(cut).any()
    assert np.asarray(jax.grad(through)(tokens, lambda rows: rows)).any()


def test_more_demonstrations_than_positions_are_refused():
    x, y, x_query = prompt()
    with pytest.raises(BadInput, match="demonstrations must be at most 3, for the context, got 4"):
        built()(jnp.concatenate([x, x[:1]]), jnp.concatenate([y, y[:1]]), x_query)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"attention": "mixed"},
            "attention must be one of softmax, linear, got 'mixed'",
        ),
        ({"heads": 3}, r"CausalArchitecture.heads must be a divisor of width \(8\), got 3"),
        ({"depth": 0}, "CausalArchitecture.depth must be a whole number of at least 1"),
        (
            {"memory": "none"},
            "CausalArchitecture.memory must be one of momentum, previous or None, got 'none'",
        ),
        ({"eta": -0.5}, "CausalArchitecture.eta must be a finite number of at least 0, got -0.5"),
        ({"init_scale": 0.0}, "CausalArchitecture.init_scale must be a finite number above 0"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(BadInput, match=message):
        replace(SMALL, **bad)


def test_the_number_of_tokens_per_input_divides_the_dimension():
    with pytest.raises(BadInput, match=r"input_tokens must be a divisor of .*\(4\), got 3"):
        built(input_tokens=3)


def test_training_lowers_the_cross_entropy_of_all_answers():
    settings = Training(
        steps=60, batch_size=32, snapshot_every=20, learning_rate=1e-2, clip_norm=1.0
    )
    history = fit(SMALL, Classification(dim=4, outputs=3, context_size=3), settings, seeds=2)
    losses = history.training_loss
    assert np.all(losses[:, -1] < losses[:, 0] - 0.03)
    again = fit(SMALL, Classification(dim=4, outputs=3, context_size=3), settings, seeds=[1])
    one = jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], again.final))
    other = jax.tree.leaves(jax.tree.map(lambda leaf: leaf[1], history.final))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_models_of_several_momentum_decays_train_as_one_program(close):
    """eta is traced: a sweep gives what each decay gives alone, and eta = 0 is plain attention."""
    settings = Training(steps=4, batch_size=8, snapshot_every=4, learning_rate=1e-2, clip_norm=1.0)
    plain = fit(SMALL, TASK, settings).final
    models = [replace(SMALL, memory="momentum", eta=eta) for eta in (0.0, 0.5)]
    before = advance._cache_size()
    together = fit_all([Job(model, TASK, settings) for model in models])
    assert advance._cache_size() == before + 1
    alone = [plain, fit(models[1], TASK, settings).final]
    for history, model in zip(together, alone, strict=True):
        close(history.final.inputs[...], model.inputs[...], 1e-9)
    assert np.abs(alone[0].inputs[...] - alone[1].inputs[...]).max() > 1e-4
