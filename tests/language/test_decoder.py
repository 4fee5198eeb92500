"""The decoder, against a forward pass written with NumPy and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.language.decoder import Decoder, DecoderArchitecture, rotate

SMALL = DecoderArchitecture(layers=3, width=12, heads=4, key_value_heads=2, key_size=6, mlp_size=10)


@pytest.fixture(scope="module")
def model():
    return SMALL(jax.random.key(1))


@pytest.fixture(scope="module")
def text():
    return np.array([3, 1, 30, 7, 7, 0, 12])


def weights_of(model):
    return {name: np.asarray(getattr(model, name)[...], float) for name in SMALL.shapes()}


def slow_norm(row, gain):
    return row / np.sqrt(np.mean(row**2) + SMALL.epsilon) * gain


def slow_rotation(row, position):
    """Rotate each pair of neighbours as a complex number."""
    size, turned = len(row), np.empty(len(row))
    for j in range(0, size, 2):
        angle = position * SMALL.rotary_base ** (-j / size)
        number = complex(row[j], row[j + 1]) * complex(np.cos(angle), np.sin(angle))
        turned[j], turned[j + 1] = number.real, number.imag
    return turned


def slow(weights, text):
    """Logits, attention outputs and scores, one token and one head at a time."""
    stream = [weights["embedding"][token] for token in text]
    group = SMALL.heads // SMALL.key_value_heads
    attended = np.zeros((SMALL.layers, len(text), SMALL.width))
    scores = np.full((SMALL.layers, SMALL.heads, len(text), len(text)), np.nan)
    for layer in range(SMALL.layers):
        rows = [slow_norm(row, weights["attention_norm"][layer]) for row in stream]
        for t in range(len(text)):
            for head in range(SMALL.heads):
                query = slow_rotation(weights["query"][layer, head] @ rows[t], t)
                for i in range(t + 1):
                    key = slow_rotation(weights["key"][layer, head // group] @ rows[i], i)
                    scores[layer, head, t, i] = key @ query / np.sqrt(SMALL.key_size)
                own = scores[layer, head, t, : t + 1]
                shares = np.exp(own - own.max()) / np.exp(own - own.max()).sum()
                values = [weights["value"][layer, head // group] @ rows[i] for i in range(t + 1)]
                attended[layer, t] += weights["output"][layer, head] @ (shares @ np.array(values))
        stream = [row + attended[layer, t] for t, row in enumerate(stream)]
        for t, row in enumerate(stream):
            normed = slow_norm(row, weights["mlp_norm"][layer])
            gate = weights["gate"][layer] @ normed
            inner = gate / (1 + np.exp(-gate)) * (weights["up"][layer] @ normed)
            stream[t] = row + weights["down"][layer] @ inner
    hidden = [slow_norm(row, weights["norm"]) for row in stream]
    return np.array(hidden) @ weights["embedding"].T, attended, scores


def test_all_activations_equal_those_of_a_slow_forward_pass(model, text):
    logits, attended, scores = slow(weights_of(model), text)
    found, _ = model.read(jnp.asarray(text))
    np.testing.assert_allclose(model(jnp.asarray(text)), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.attended, attended, rtol=1e-4, atol=1e-4)
    earlier = np.isfinite(scores)
    np.testing.assert_allclose(
        np.asarray(found.scores)[earlier], scores[earlier], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("split", [1, 3, 6])
def test_a_text_read_in_two_parts_gives_the_activations_of_the_whole(model, text, split):
    whole, past_of_whole = model.read(jnp.asarray(text))
    _, past = model.read(jnp.asarray(text[:split]))
    rest, after = model.read(jnp.asarray(text[split:]), past)
    for one, other in (
        (rest.hidden, whole.hidden[split:]),
        (rest.attended, whole.attended[:, split:]),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rest.scores, whole.scores[:, :, split:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after.keys, past_of_whole.keys, rtol=1e-4, atol=1e-5)


def test_later_tokens_do_not_change_earlier_activations(model, text):
    changed = text.copy()
    changed[-1] = 5
    one, other = (model(jnp.asarray(each)) for each in (text, changed))
    np.testing.assert_array_equal(one[:-1], other[:-1])
    assert np.abs(one[-1] - other[-1]).max() > 1e-3


def test_scores_depend_on_the_distance_of_rotated_rows_alone():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 8))

    def score(at, distance):
        turned = [
            rotate(row, jnp.array([p]), 100.0) for row, p in ((query, at + distance), (key, at))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(0, 3) == pytest.approx(score(11, 3), rel=1e-4)
    assert score(0, 3) != pytest.approx(score(0, 4), rel=1e-2)


def test_weights_that_are_missing_or_of_another_shape_are_named():
    weights = SMALL(jax.random.key(0))
    found = {name: getattr(weights, name)[...] for name in SMALL.shapes()}
    with pytest.raises(BadInput, match="given for gate"):
        Decoder(SMALL, {name: value for name, value in found.items() if name != "gate"})
    with pytest.raises(BadInput, match=r"weights of norm must be of shape \(12,\), got \(11,\)"):
        Decoder(SMALL, found | {"norm": np.ones(11)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key_value_heads": 3}, r"key_value_heads must be a divisor of heads \(4\), got 3"),
        ({"key_size": 5}, "key_size must be even"),
        ({"layers": 0}, "layers must be"),
        ({"epsilon": 0.0}, "epsilon must be"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        DecoderArchitecture(**settings)
