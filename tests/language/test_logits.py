"""Logits of a real model, against those of an independent implementation that are recorded.

`benchmarks/logits_oracle.py` records them. Skipped without the extra `lm` and the default model.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.studies import language_model

ORACLE = json.loads((Path(__file__).parents[1] / "helpers" / "logits.json").read_text())
TOLERANCE = 1e-3
"""Largest absolute difference of a logit."""


@pytest.fixture(scope="module")
def pretrained():
    try:
        language_model.require_model()
    except BadInput as error:
        pytest.skip(str(error))
    return language_model.load()


def test_ten_prompts_with_their_largest_logits_and_hundreds_of_others_are_recorded():
    assert len(ORACLE["records"]) == 10
    for record in ORACLE["records"]:
        assert len(record["top"]) == len(record["top_logits"]) == 5
        assert len(set(record["sampled"])) == len(record["sampled_logits"]) >= 300
        assert record["top_logits"] == sorted(record["top_logits"], reverse=True)


@pytest.mark.slow
def test_tokens_and_logits_are_those_of_the_independent_implementation(pretrained):
    assert pretrained.name == ORACLE["model"]
    with jax.enable_x64(False):
        logits_of = jax.jit(lambda model, tokens: model(tokens)[-1])
        for record in ORACLE["records"]:
            assert pretrained.tokenizer.encode(record["prompt"]) == record["tokens"]
            tokens = jnp.asarray(record["tokens"])
            logits = np.asarray(logits_of(pretrained.model, tokens), float)
            assert np.argsort(-logits)[:5].tolist() == record["top"]
            for places, values in (("top", "top_logits"), ("sampled", "sampled_logits")):
                np.testing.assert_allclose(
                    logits[record[places]], record[values], rtol=0, atol=TOLERANCE
                )
