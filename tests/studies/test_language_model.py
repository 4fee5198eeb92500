"""In-context answers and finetuning of a decoder, with a small model and a tokenizer of words."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core.errors import BadInput
from toyicl.language import answers
from toyicl.language.decoder import DecoderArchitecture
from toyicl.language.prompts import BLAME, PRAISE, draw_prompts, usable_words
from toyicl.studies import language_model

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


@pytest.fixture(scope="module")
def prompts():
    return draw_prompts(Words(), 0, tasks=2, demonstrations=4, queries=6)


@pytest.fixture(scope="module")
def model():
    sizes = {"layers": 2, "width": 16, "heads": 4, "key_value_heads": 2, "key_size": 4}
    return DecoderArchitecture(mlp_size=16, vocabulary=VOCABULARY, **sizes)(jax.random.key(0))


def test_demonstrations_and_queries_have_different_words_and_half_are_praise():
    tokenizer = Words()
    drawn = draw_prompts(tokenizer, 3, tasks=3, demonstrations=8, queries=10)
    for task in range(3):
        shown, asked = (
            [tokenizer.decode(example).split() for example in np.asarray(part[task])]
            for part in (drawn.demonstrations, drawn.queries)
        )
        words = [{w for example in part for w in example} for part in (shown, asked)]
        of_words = [part & {*PRAISE, *BLAME} for part in words]
        assert not of_words[0] & of_words[1]
        assert [len(part & {*PRAISE}) for part in of_words] == [4, 5]
        labels = {w: example[-1] for example in shown for w in example if w in {*PRAISE, *BLAME}}
        meaning = (
            {labels[w] for w in labels if w in PRAISE},
            {labels[w] for w in labels if w in BLAME},
        )
        assert meaning in (({"A"}, {"B"}), ({"B"}, {"A"}))


def test_too_many_examples_and_odd_numbers_are_refused():
    praise, blame = usable_words(Words())
    most = 2 * min(len(praise), len(blame))
    with pytest.raises(BadInput, match=f"at most {most} with the queries"):
        draw_prompts(Words(), 0, tasks=1, demonstrations=most, queries=2)
    with pytest.raises(BadInput, match="queries must be even"):
        draw_prompts(Words(), 0, tasks=1, demonstrations=4, queries=3)


def test_answers_in_context_are_those_of_the_whole_text(model, prompts):
    found = answers.in_context(model, prompts, 1)
    for query in range(6):
        whole = jnp.concatenate([prompts.demonstrations[1].reshape(-1), prompts.queries[1, query]])
        reading = model.read(whole)[0].last()
        np.testing.assert_allclose(found.hidden[query], reading.hidden, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.attended[query], reading.attended, rtol=1e-9, atol=1e-9)


def test_false_labels_exchange_the_labels_of_demonstrations_alone(prompts):
    false = prompts.with_false_labels()
    changed = np.asarray(false.demonstrations != prompts.demonstrations)
    assert changed[..., -2].all()
    assert changed.sum() == changed[..., -2].size
    assert set(np.unique(false.demonstrations[..., -2])) == set(
        np.asarray(prompts.answers).tolist()
    )


@pytest.mark.parametrize("which", list(language_model.PARAMETERS))
def test_finetuning_lowers_the_loss_and_changes_the_chosen_weights_alone(model, prompts, which):
    tuned = language_model.tuned(model, prompts, 0, 0.05, which=which)
    losses = [language_model.demonstration_loss(each, prompts, 0) for each in (model, tuned)]
    assert losses[1] < losses[0]
    names = {"keys and values": {"key", "value"}, "MLPs": {"gate", "up", "down"}}[which]
    for name in model.architecture.shapes():
        same = bool((getattr(model, name)[...] == getattr(tuned, name)[...]).all())
        assert same == (name not in names), name


def test_a_random_update_has_the_norm_of_the_other(model, prompts):
    tuned = language_model.tuned(model, prompts, 0, 0.05, which="keys and values")
    random = language_model.randomly_updated(
        jax.random.key(1), model, tuned, which="keys and values"
    )
    for name in ("key", "value"):
        start = getattr(model, name)[...]
        norms = [float(jnp.linalg.norm(getattr(m, name)[...] - start)) for m in (tuned, random)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-9)


def test_an_untrained_model_has_weights_of_the_same_norms(model):
    found = language_model.untrained(jax.random.key(5), model)
    for name in model.architecture.shapes():
        own, drawn = (getattr(m, name)[...] for m in (model, found))
        assert float(jnp.linalg.norm(drawn)) == pytest.approx(float(jnp.linalg.norm(own)), rel=1e-9)
    assert not jnp.allclose(found.key[...], model.key[...])


def test_similarities_of_equal_opposite_and_independent_changes():
    generator = np.random.default_rng(0)
    before, change, other = generator.normal(size=(3, 2, 40, 3, 64))
    after = before + change
    found = language_model.similarities(
        before, after, {"same": after, "opposite": before - change, "other": before + other}
    )
    np.testing.assert_allclose(found["same"], 1.0, rtol=1e-9)
    np.testing.assert_allclose(found["opposite"][1], -1.0, rtol=1e-9)
    assert abs(found["other"][1]).max() < 0.1
    assert found["same"].shape == (3, 2, 3)


def test_the_rate_with_the_most_right_answers_is_chosen(model, prompts):
    rate, accuracies = language_model.choose_rate(
        model, prompts, (0.01, 0.1), which="keys and values"
    )
    assert accuracies.shape == (2,)
    assert rate == (0.01, 0.1)[int(np.argmax(accuracies))]
