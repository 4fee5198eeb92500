"""Model files, written by the libraries that read them; skipped without the extra `lm`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.language import files
from toyicl.language.decoder import DecoderArchitecture

gguf = pytest.importorskip("gguf")
safetensors_numpy = pytest.importorskip("safetensors.numpy")
SMALL = DecoderArchitecture(
    layers=2,
    width=32,
    heads=4,
    key_value_heads=2,
    key_size=8,
    mlp_size=64,
    vocabulary=40,
    epsilon=2.0**-17,  # a number of single precision, which GGUF files hold
)
TEXT = jnp.array([1, 5, 39, 5, 0])


@pytest.fixture(scope="module")
def model():
    drawn = SMALL(jax.random.key(3))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), drawn)


def stored(model, names):
    """The arrays of a file by name, with the axes that files have."""
    found = {}
    for name, values in ((n, np.asarray(getattr(model, n)[...])) for n in SMALL.shapes()):
        if "{}" not in names[name]:
            found[names[name]] = values
            continue
        for layer, own in enumerate(values):
            if name == "output":
                own = own.transpose(1, 0, 2).reshape(SMALL.width, -1)
            if name in ("query", "key", "value"):
                own = own.reshape(-1, SMALL.width)
            found[names[name].format(layer)] = np.ascontiguousarray(own)
    return found


def write_gguf(path, arrays, *, architecture="llama", leave_out=(), kind=None):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(SMALL.layers)
    writer.add_embedding_length(SMALL.width)
    writer.add_feed_forward_length(SMALL.mlp_size)
    writer.add_head_count(SMALL.heads)
    writer.add_head_count_kv(SMALL.key_value_heads)
    writer.add_layer_norm_rms_eps(SMALL.epsilon)
    writer.add_vocab_size(SMALL.vocabulary)
    for name, values in arrays.items():
        if name in leave_out:
            continue
        if kind is not None and name == "blk.0.attn_q.weight":
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def halves(values, heads):
    """Rows of a query or key in the layout of safetensors files: pairs (j, j + k / 2)."""
    per_head = values.reshape(heads, -1, 2, values.shape[-1])
    return per_head.transpose(0, 2, 1, 3).reshape(values.shape)


def write_safetensors(folder, model, **changes):
    folder.mkdir(exist_ok=True)
    arrays = stored(model, files.SAFETENSORS_NAMES)
    for name, values in arrays.items():
        heads = {"q_proj": SMALL.heads, "k_proj": SMALL.key_value_heads}
        for part, count in heads.items():
            if part in name:
                arrays[name] = np.ascontiguousarray(halves(values, count))
    safetensors_numpy.save_file(arrays, folder / "model.safetensors")
    config = {
        "model_type": "llama",
        "num_hidden_layers": SMALL.layers,
        "hidden_size": SMALL.width,
        "intermediate_size": SMALL.mlp_size,
        "num_attention_heads": SMALL.heads,
        "num_key_value_heads": SMALL.key_value_heads,
        "rms_norm_eps": SMALL.epsilon,
        "vocab_size": SMALL.vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_a_gguf_file_gives_the_model_that_was_written(model, tmp_path):
    path = write_gguf(tmp_path / "model.gguf", stored(model, files.GGUF_NAMES))
    opened = files.open_model(path)
    assert opened.architecture == SMALL
    np.testing.assert_array_equal(opened.decoder()(TEXT), model(TEXT))


def test_a_safetensors_folder_gives_the_same_model(model, tmp_path):
    opened = files.open_model(write_safetensors(tmp_path / "model", model))
    assert opened.architecture == SMALL
    np.testing.assert_array_equal(opened.decoder()(TEXT), model(TEXT))


def test_quantised_weights_are_near_those_that_were_written(model, tmp_path):
    arrays = stored(model, files.GGUF_NAMES)
    kind = gguf.GGMLQuantizationType.Q8_0
    path = write_gguf(tmp_path / "model.gguf", arrays, kind=kind)
    found = files.open_model(path).weights(("query",))["query"]
    error = np.abs(found[0] - np.asarray(model.query[...])[0]).max()
    assert 0 < error < 0.01
    np.testing.assert_array_equal(found[1], np.asarray(model.query[...])[1])


def test_another_architecture_is_named(model, tmp_path):
    arrays = stored(model, files.GGUF_NAMES)
    path = write_gguf(tmp_path / "model.gguf", arrays, architecture="gptneox")
    with pytest.raises(BadInput, match="architecture of the model must be llama, got gptneox"):
        files.open_model(path)
    folder = write_safetensors(tmp_path / "other", model, model_type="opt")
    with pytest.raises(BadInput, match="must be llama, got opt"):
        files.open_model(folder)


def test_a_missing_array_is_named(model, tmp_path):
    arrays = stored(model, files.GGUF_NAMES)
    path = write_gguf(tmp_path / "model.gguf", arrays, leave_out=("blk.1.ffn_up.weight",))
    with pytest.raises(BadInput, match=r"an array blk.1.ffn_up.weight, which .* lacks"):
        files.open_model(path).decoder()


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused_in_one_line(model, tmp_path, kept):
    whole = write_gguf(tmp_path / "whole.gguf", stored(model, files.GGUF_NAMES)).read_bytes()
    path = tmp_path / "model.gguf"
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(BadInput, match=r"model must be") as error:
        files.open_model(path).decoder()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_safetensors_file_is_refused(model, tmp_path, kept):
    folder = write_safetensors(tmp_path / "model", model)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(BadInput, match="model must be an undamaged file"):
        files.open_model(folder).decoder()


def test_places_without_a_model_are_named(model, tmp_path):
    with pytest.raises(BadInput, match="one model file, got none"):
        files.open_model(tmp_path)
    with pytest.raises(BadInput, match=r"suffix .gguf or .safetensors, got .*nowhere.gguf"):
        files.open_model(tmp_path / "nowhere.gguf")
    folder = write_safetensors(tmp_path / "model", model)
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"config.json next to it"):
        files.open_model(folder)


def test_scaled_positions_and_biases_are_refused(model, tmp_path):
    for changes, message in (
        ({"rope_scaling": {"factor": 8.0}}, "must not be scaled"),
        ({"attention_bias": True}, "must have no biases"),
    ):
        folder = write_safetensors(tmp_path / "model", model, **changes)
        with pytest.raises(BadInput, match=message):
            files.open_model(folder)
