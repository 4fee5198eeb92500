"""The byte-level tokenizer of a language model, from its vocabulary and merges, or from a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from toyicl.core.errors import BadInput
from toyicl.language.extra import optional


class Tokenizer(Protocol):
    """What a tokenizer does."""

    def encode(self, text: str) -> list[int]:
        """The numbers of the tokens of a text; nothing is added at its beginning."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""


class BytePairs:
    """A tokenizer of the package `tokenizers`."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """The numbers of the tokens of a text; nothing is added at its beginning."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))


DIGITS = ("smollm",)
"""Pre-tokenizers, by their names in GGUF files, that separate digits before GPT-2's rule."""
PLAIN = ("gpt-2", "gpt2", "default")
"""Pre-tokenizers that are GPT-2's rule alone."""


def from_vocabulary(tokens: Sequence[str], merges: Sequence[str], pre: str) -> Tokenizer:
    """A byte-level tokenizer from the tokens, the merges ("left right") and the pre-tokenizer's name.

    Raises BadInput for a pre-tokenizer that is not known.
    """
    if pre not in DIGITS + PLAIN:
        known = ", ".join(DIGITS + PLAIN)
        raise BadInput(f"the model's pre-tokenizer must be one of {known}, got {pre!r}")
    library = optional("tokenizers")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    made = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=pairs))
    byte_level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    first = [library.pre_tokenizers.Digits(individual_digits=True)] if pre in DIGITS else []
    made.pre_tokenizer = library.pre_tokenizers.Sequence([*first, byte_level])
    made.decoder = library.decoders.ByteLevel()
    return BytePairs(made)


def from_file(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`; raises BadInput if it cannot be read."""
    library = optional("tokenizers")
    try:
        return BytePairs(library.Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises Exception itself
        raise BadInput(
            f"model must have a tokenizer that can be read, got {path}: {error}"
        ) from None
