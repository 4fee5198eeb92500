"""In-context answers and finetuning of a decoder, with a small model and a tokenizer of words."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_language import Words, tiny_model

from toyicl.core.errors import BadInput
from toyicl.language import answers
from toyicl.language.decoder import Decoder
from toyicl.language.prompts import BLAME, PRAISE, draw_prompts, usable_words
from toyicl.studies import language_model

LAYERED = ("attention_norm", "query", "key", "value", "output", "mlp_norm", "gate", "up", "down")
"""The weights of a decoder that have a leading axis of layers."""


@pytest.fixture(scope="module")
def prompts():
    return draw_prompts(Words(), 0, tasks=2, demonstrations=4, queries=6)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


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
    read = jax.jit(lambda tokens: model.read(tokens)[0].last())
    for query in range(6):
        whole = jnp.concatenate([prompts.demonstrations[1].reshape(-1), prompts.queries[1, query]])
        reading = read(whole)
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


def test_a_fraction_of_the_labels_is_false_in_every_task(prompts):
    changed = prompts.with_false_labels(0.5).demonstrations != prompts.demonstrations
    np.testing.assert_array_equal(np.asarray(changed).sum(axis=(1, 2)), 2)
    assert not (prompts.with_false_labels(0.0).demonstrations != prompts.demonstrations).any()
    with pytest.raises(BadInput, match="fraction must be"):
        prompts.with_false_labels(1.5)


@pytest.mark.parametrize("method", list(language_model.METHODS))
def test_finetuning_lowers_the_loss_and_changes_the_chosen_weights_alone(model, prompts, method):
    (tuned,) = language_model.tuned(model, prompts, [0], 0.05, method=method)
    losses = [language_model.demonstration_loss(each, prompts, 0) for each in (model, tuned)]
    assert losses[1] < losses[0]
    names = {"gate", "up", "down"} if method == "MLPs" else {"key", "value"}
    for name in model.architecture.shapes():
        same = bool((getattr(model, name)[...] == getattr(tuned, name)[...]).all())
        assert same == (name not in names), name


def test_the_loss_on_demonstrations_is_the_mean_of_that_on_each(model, prompts):
    assert len(prompts.opening) > 0
    losses = [
        answers.example_loss(model, tokens, prompts.beginning)
        for tokens in prompts.demonstrations[1]
    ]
    found = language_model.demonstration_loss(model, prompts, 1)
    assert float(found) == pytest.approx(float(jnp.mean(jnp.stack(losses))), rel=1e-9)


def test_tasks_that_are_finetuned_together_are_finetuned_as_each_alone(model, prompts):
    """And as by a loop of gradient steps on one example after another."""
    names = ("key", "value")

    @jax.jit
    @jax.grad
    def gradient(chosen, others, tokens):
        changed = Decoder(model.architecture, others | chosen)
        return answers.example_loss(changed, tokens, prompts.beginning)

    together = language_model.tuned(model, prompts, [0, 1], 0.05, method="keys and values")
    for task, found in enumerate(together):
        weights = {name: getattr(model, name)[...] for name in model.architecture.shapes()}
        for tokens in prompts.demonstrations[task]:
            by = gradient({name: weights[name] for name in names}, weights, tokens)
            weights |= {name: weights[name] - 0.05 * by[name] for name in names}
        for name in names:
            np.testing.assert_allclose(getattr(found, name)[...], weights[name], rtol=1e-9)


def test_layer_causal_finetuning_updates_each_layer_by_its_own_early_logits(model, prompts):
    """As the last layer of a model without the later ones is updated by plain gradient descent."""
    one = prompts._replace(demonstrations=prompts.demonstrations[:, :1])
    (tuned,) = language_model.tuned(model, one, [0], 0.05, method="layer-causal")
    sizes, tokens = model.architecture, prompts.demonstrations[0, 0]
    weights = {name: getattr(model, name)[...] for name in sizes.shapes()}
    for layer in range(sizes.layers):
        shallow = replace(sizes, layers=layer + 1)
        cut = {n: weights[n][: layer + 1] if n in LAYERED else weights[n] for n in weights}

        def loss(chosen, shallow=shallow, cut=cut):
            return answers.example_loss(Decoder(shallow, cut | chosen), tokens, prompts.beginning)

        by = jax.grad(loss)({name: cut[name] for name in ("key", "value")})
        for name, gradient in by.items():
            expected = cut[name][layer] - 0.05 * gradient[layer]
            assert float(jnp.abs(gradient[layer]).max()) > 1e-6
            np.testing.assert_allclose(getattr(tuned, name)[layer], expected, rtol=1e-9)


def test_another_task_has_the_other_meaning_of_the_labels():
    for seed in range(20):
        drawn = draw_prompts(Words(), seed, tasks=2, demonstrations=2, queries=2)
        assert sorted(drawn.praise.tolist()) == [0, 1]
        assert [drawn.with_other_meaning(task) for task in (0, 1)] == [1, 0]
    drawn = draw_prompts(Words(), 0, tasks=6, demonstrations=2, queries=2)
    for task in range(6):
        other = drawn.with_other_meaning(task)
        assert drawn.praise[other] != drawn.praise[task]
        between = [(task + i) % 6 for i in range(1, (other - task) % 6)]
        assert all(drawn.praise[i] == drawn.praise[task] for i in between)


def test_the_best_of_several_random_updates_has_the_lowest_loss(model, prompts):
    (tuned,) = language_model.tuned(model, prompts, [0], 0.05, method="keys and values")
    key, kept = jax.random.key(2), {"method": "keys and values"}
    best = language_model.best_random_update(key, model, tuned, prompts, 0, count=6, **kept)
    losses = [
        language_model.demonstration_loss(
            language_model.randomly_updated(one, model, tuned, **kept), prompts, 0
        )
        for one in jax.random.split(key, 6)
    ]
    assert len(set(map(float, losses))) == 6
    assert float(language_model.demonstration_loss(best, prompts, 0)) == min(map(float, losses))


def test_the_order_of_demonstrations_is_compared_with_loops(model, prompts):
    from scipy.stats import kendalltau

    way = language_model.answered(model, prompts, 0, context=True)
    found = language_model.order_of_demonstrations(model, prompts, 0, way.queries, way.shown)
    shown = prompts.demonstrations[0]
    size, count = shown.shape[1], len(shown)
    read = jax.jit(lambda tokens: model.read(tokens)[0].last())
    examples = [read(tokens[:-2]).queries for tokens in shown]
    for layer in range(model.architecture.layers):
        ranks = []
        for query in range(prompts.queries.shape[1]):
            whole = jnp.concatenate([shown.reshape(-1), prompts.queries[0, query]])
            scores = read(whole).scores[layer]
            weights = np.asarray(jax.nn.softmax(scores, axis=-1)).sum(axis=0)
            own = [weights[i * size : (i + 1) * size].sum() for i in range(count)]
            products = [float(jnp.sum(e[layer] * way.queries[query, layer])) for e in examples]
            ranks.append(kendalltau(own, products).statistic)
        assert found[layer] == pytest.approx(np.mean(ranks), nan_ok=True)


def test_noise_is_not_similar_and_updates_that_change_nothing_are_counted():
    generator = np.random.default_rng(0)
    before, change = generator.normal(size=(2, 2, 60, 3, 64))
    after = before + change
    found = language_model.noise_similarities(jax.random.key(0), before, after)
    for kind in range(3):
        assert abs(found["Gaussian noise"][kind].mean()) < 0.02
    moved = after.copy()
    moved[0, :5, 1] = before[0, :5, 1]
    np.testing.assert_array_equal(language_model.unmoved(before, moved), [0, 5, 0])
    assert np.isfinite(language_model.similarity_of(before, after, moved)).all()
    np.testing.assert_allclose(language_model.norm_ratio(before, after, before + 2 * change), 2.0)


def test_a_random_update_has_the_norm_of_the_other(model, prompts):
    (tuned,) = language_model.tuned(model, prompts, [0], 0.05, method="keys and values")
    random = language_model.randomly_updated(
        jax.random.key(1), model, tuned, method="keys and values"
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
        model, prompts, (0.01, 0.1), method="keys and values"
    )
    assert accuracies.shape == (2,)
    assert rate == (0.01, 0.1)[int(np.argmax(accuracies))]
