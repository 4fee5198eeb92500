"""A tiny language model with random weights, and a tokenizer of words, which need no extra."""

import re

import jax
import jax.numpy as jnp

from toyicl.analysis import head_circuits
from toyicl.language.decoder import DecoderArchitecture
from toyicl.language.heads import ModelHeads
from toyicl.studies.language_model import Pretrained

VOCABULARY = 256


class Words:
    """A tokenizer with a token for each word or sign, numbered in the order of their first use."""

    def __init__(self):
        self.numbers = {}

    def encode(self, text):
        parts = re.findall(r" ?\w+|[^\w]", text)
        return [self.numbers.setdefault(part.strip(" "), len(self.numbers)) for part in parts]

    def decode(self, tokens):
        names = {number: part for part, number in self.numbers.items()}
        return " ".join(names[int(token)] for token in tokens)


def tiny_model():
    sizes = {"layers": 2, "width": 16, "heads": 4, "key_value_heads": 2, "key_size": 4}
    return DecoderArchitecture(mlp_size=16, vocabulary=VOCABULARY, **sizes)(jax.random.key(0))


def load_tiny(path=""):
    """In place of `language_model.load`."""
    return Pretrained("tiny", tiny_model(), Words(), ())


def tiny_heads(path=""):
    """In place of `language_model.load_heads`."""
    model = tiny_model()
    query, key, value, output = (
        getattr(model, name)[...] for name in ("query", "key", "value", "output")
    )
    key, value = (jnp.repeat(weights, 2, axis=1) for weights in (key, value))
    found = head_circuits.circuits(query, key, value, output)
    return ModelHeads("tiny", found, model.architecture)
