"""Reading pretrained decoders from GGUF and safetensors files, without a network.

Files are memory-mapped, and each array is converted to float32 when it is read. Whatever a file lacks,
or has that the decoder cannot do, is one error that names it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toyicl.core.errors import BadInput
from toyicl.language import tokens
from toyicl.language.decoder import Decoder, DecoderArchitecture
from toyicl.language.extra import optional

Array = np.ndarray[Any, Any]
SUFFIXES = (".gguf", ".safetensors")
"""Suffixes of the files that can be read."""
ATTENTION = ("attention_norm", "query", "key", "value", "output")
"""Weights of the attention layers, as `Decoder` names them."""
GGUF_NAMES = {
    "embedding": "token_embd.weight",
    "attention_norm": "blk.{}.attn_norm.weight",
    "query": "blk.{}.attn_q.weight",
    "key": "blk.{}.attn_k.weight",
    "value": "blk.{}.attn_v.weight",
    "output": "blk.{}.attn_output.weight",
    "mlp_norm": "blk.{}.ffn_norm.weight",
    "gate": "blk.{}.ffn_gate.weight",
    "up": "blk.{}.ffn_up.weight",
    "down": "blk.{}.ffn_down.weight",
    "norm": "output_norm.weight",
    "unembedding": "output.weight",
}
"""Names of the arrays in GGUF files; {} is the layer."""
SAFETENSORS_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "attention_norm": "model.layers.{}.input_layernorm.weight",
    "query": "model.layers.{}.self_attn.q_proj.weight",
    "key": "model.layers.{}.self_attn.k_proj.weight",
    "value": "model.layers.{}.self_attn.v_proj.weight",
    "output": "model.layers.{}.self_attn.o_proj.weight",
    "mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight",
    "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
    "norm": "model.norm.weight",
    "unembedding": "lm_head.weight",
}
"""Names of the arrays in safetensors files."""


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A file of a decoder: its architecture, and access to its arrays and its tokenizer."""

    path: Path
    architecture: DecoderArchitecture
    names: Mapping[str, str]
    """Names of the arrays in the file, by `Decoder`'s names; {} is the layer."""
    array: Callable[[str], Array]
    """An array of the file by its name, float32; raises BadInput."""
    tokenizer: Callable[[], tokens.Tokenizer]
    """Reads the tokenizer; raises BadInput."""
    beginning: tuple[int, ...]
    """Tokens with which every text begins."""
    paired_halves: bool
    """Whether rotary positions rotate the pairs (j, j + k / 2) instead of (2j, 2j + 1)."""

    def weights(self, names: tuple[str, ...] | None = None) -> dict[str, Array]:
        """Weights in the shapes of `DecoderArchitecture.shapes`: all of them, or those named."""
        shapes = self.architecture.shapes()
        return {name: self._weight(name, shapes[name]) for name in names or shapes}

    def decoder(self) -> Decoder:
        """The decoder with all its weights."""
        return Decoder(self.architecture, self.weights())

    def _weight(self, name: str, shape: tuple[int, ...]) -> Array:
        stored = self.names[name]
        if "{}" not in stored:
            return self._checked(stored, shape, self.array(stored))
        layers = [self._layer(name, stored.format(layer), shape[1:]) for layer in range(shape[0])]
        return np.stack(layers)

    def _layer(self, name: str, stored: str, shape: tuple[int, ...]) -> Array:
        """One layer's array, with an axis for heads where `Decoder` has one."""
        values = self.array(stored)
        if name == "output":
            heads, width, size = shape
            values = self._checked(stored, (width, heads * size), values)
            return values.reshape(width, heads, size).transpose(1, 0, 2)
        if name in ("query", "key", "value"):
            heads, size, width = shape
            values = self._checked(stored, (heads * size, width), values).reshape(shape)
            if self.paired_halves and name != "value":
                halves = values.reshape(heads, 2, size // 2, width)
                values = halves.transpose(0, 2, 1, 3).reshape(shape)
            return values
        return self._checked(stored, shape, values)

    def _checked(self, stored: str, shape: tuple[int, ...], values: Array) -> Array:
        if values.shape != shape:
            raise BadInput(
                f"array {stored} must have shape {shape}, got {values.shape} in {self.path}"
            )
        return values


def open_model(path: Path) -> ModelFile:
    """Open a GGUF file, a safetensors file, or a folder with one of them.

    A safetensors file needs `config.json`, and `tokenizer.json` for texts, in its folder. Raises
    BadInput if there is no such file, it is damaged, or its architecture is not supported.
    """
    if path.is_dir():
        found = sorted(file for suffix in SUFFIXES for file in path.glob(f"*{suffix}"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise BadInput(f"model must be a folder with one model file, got {names} in {path}")
        (path,) = found
    if path.suffix not in SUFFIXES or not path.is_file():
        kinds = " or ".join(SUFFIXES)
        raise BadInput(f"model must be an existing file with suffix {kinds}, got {path}")
    return open_gguf(path) if path.suffix == ".gguf" else open_safetensors(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Reports whatever the readers of file formats raise on a damaged file as BadInput."""
    try:
        yield
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # the readers raise errors of many types on damaged files
        raise BadInput(f"model must be an undamaged file, got {path}: {error}") from None


def open_gguf(path: Path) -> ModelFile:
    """Open a GGUF file; see `open_model`."""
    library = optional("gguf")
    with reading(path):
        reader = library.GGUFReader(path)
        fields = {name: field.contents() for name, field in _small_fields(reader)}
        arrays = {tensor.name: tensor for tensor in reader.tensors}
        kind = fields.get("general.architecture")
        _require_llama(path, kind)
        size = path.stat().st_size
        short = [t.name for t in reader.tensors if t.data_offset + t.n_bytes > size]
        if short:
            raise BadInput(f"model must be a whole file, got {path}, which ends before {short[0]}")
        _refuse_scaled_positions(path, fields, arrays)
        architecture = _gguf_architecture(path, fields, tied="output.weight" not in arrays)

    def array(name: str) -> Array:
        if name not in arrays:
            raise BadInput(f"model must have an array {name}, which {path} lacks")
        tensor = arrays[name]
        with reading(path):
            try:
                values = library.dequantize(tensor.data, tensor.tensor_type)
            except NotImplementedError:
                kind = tensor.tensor_type.name
                raise BadInput(
                    f"quantisation of {name} must be one that gguf can read, got {kind} in {path}"
                ) from None
            return np.asarray(values, np.float32)

    def tokenizer() -> tokens.Tokenizer:
        with reading(path):
            stored = {
                name: reader.fields[f"tokenizer.ggml.{name}"].contents()
                for name in ("model", "tokens", "merges", "pre")
                if f"tokenizer.ggml.{name}" in reader.fields
            }
            if stored.get("model") != "gpt2" or "merges" not in stored:
                raise BadInput(
                    f"tokenizer of the model must be byte-level (gpt2), got "
                    f"{stored.get('model')!r} in {path}"
                )
            pre = str(stored.get("pre", "default"))
            return tokens.from_vocabulary(stored["tokens"], stored["merges"], pre)

    begins = fields.get("tokenizer.ggml.add_bos_token", False)
    return ModelFile(
        path=path,
        architecture=architecture,
        names=GGUF_NAMES,
        array=array,
        tokenizer=tokenizer,
        beginning=(int(fields["tokenizer.ggml.bos_token_id"]),) if begins else (),
        paired_halves=False,
    )


def _small_fields(reader: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a GGUF file other than the vocabulary, which takes seconds to convert."""
    for name, field in reader.fields.items():
        if not name.startswith("tokenizer.") or name.endswith(("_id", "_token")):
            yield name, field


def _require_llama(path: Path, kind: Any) -> None:
    if kind != "llama":
        raise BadInput(f"architecture of the model must be llama, got {kind} in {path}")


def _refuse_scaled_positions(
    path: Path, fields: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    scaled = fields.get("llama.rope.scaling.type", "none") != "none"
    if scaled or "rope_freqs.weight" in arrays:
        raise BadInput(f"rotary positions of the model must not be scaled, got {path}")


def _gguf_architecture(path: Path, fields: Mapping[str, Any], *, tied: bool) -> DecoderArchitecture:
    def get(name: str) -> Any:
        if f"llama.{name}" not in fields:
            raise BadInput(f"model must have a field llama.{name}, which {path} lacks")
        return fields[f"llama.{name}"]

    heads, width = get("attention.head_count"), get("embedding_length")
    key_size = fields.get("llama.attention.key_length", width // heads)
    rotated = fields.get("llama.rope.dimension_count", key_size)
    if rotated != key_size:
        raise BadInput(
            f"rotary positions must rotate all {key_size} entries of a key, got {rotated} in {path}"
        )
    return DecoderArchitecture(
        layers=get("block_count"),
        width=width,
        heads=heads,
        key_value_heads=fields.get("llama.attention.head_count_kv", heads),
        key_size=key_size,
        mlp_size=get("feed_forward_length"),
        vocabulary=get("vocab_size"),
        epsilon=get("attention.layer_norm_rms_epsilon"),
        rotary_base=fields.get("llama.rope.freq_base", 10_000.0),
        tied=tied,
    )


def open_safetensors(path: Path) -> ModelFile:
    """Open a safetensors file with a `config.json` next to it; see `open_model`."""
    library = optional("safetensors")
    config = _config(path)
    _require_llama(path, config.get("model_type"))
    if config.get("rope_scaling"):
        raise BadInput(f"rotary positions of the model must not be scaled, got {path}")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise BadInput(f"layers of the model must have no biases, got {path}")
    with reading(path):
        stored = library.safe_open(path, framework="numpy")
        names = set(stored.keys())

    def array(name: str) -> Array:
        if name not in names:
            raise BadInput(f"model must have an array {name}, which {path} lacks")
        with reading(path):
            return np.asarray(stored.get_tensor(name), np.float32)

    def tokenizer() -> tokens.Tokenizer:
        return tokens.from_file(path.with_name("tokenizer.json"))

    return ModelFile(
        path=path,
        architecture=_safetensors_architecture(path, config, names),
        names=SAFETENSORS_NAMES,
        array=array,
        tokenizer=tokenizer,
        beginning=(),
        paired_halves=True,
    )


def _config(path: Path) -> dict[str, Any]:
    """The `config.json` next to a safetensors file."""
    file = path.with_name("config.json")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} must have a config.json next to it: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file} must hold a JSON object, got {type(found).__name__}")
    return found


def _safetensors_architecture(
    path: Path, config: Mapping[str, Any], names: set[str]
) -> DecoderArchitecture:
    def get(name: str) -> Any:
        if name not in config:
            raise BadInput(f"config.json must have {name}, which that of {path} lacks")
        return config[name]

    heads, width = get("num_attention_heads"), get("hidden_size")
    return DecoderArchitecture(
        layers=get("num_hidden_layers"),
        width=width,
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        key_size=config.get("head_dim") or width // heads,
        mlp_size=get("intermediate_size"),
        vocabulary=get("vocab_size"),
        epsilon=get("rms_norm_eps"),
        rotary_base=config.get("rope_theta", 10_000.0),
        tied=bool(config.get("tie_word_embeddings", SAFETENSORS_NAMES["unembedding"] not in names)),
    )
