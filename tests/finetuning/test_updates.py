"""Finetuning compared with loops over gradients; linearised finetuning; the choice of rates."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn
from flax import nnx
from jax.flatten_util import ravel_pytree

from toyicl.core.errors import BadInput
from toyicl.finetuning import updates
from toyicl.finetuning.updates import (
    PARAMETERS,
    finetune,
    layer_causal,
    linearised_activations,
    parts,
    plain,
    published,
    search,
    tangent_steps,
)
from toyicl.models.causal import CausalArchitecture
from toyicl.tasks.prompts import Classification, cross_entropy

TASK = Classification(dim=4, outputs=3, context_size=5)
OBJECTIVES = {"plain": plain(cross_entropy), "layer-causal": layer_causal(cross_entropy)}
CHANGED = {
    "keys and values": {"key", "value"},
    "queries": {"query"},
    "MLPs": {"kernel", "bias"},
}


@pytest.fixture(scope="module")
def model():
    return CausalArchitecture(width=8, heads=2, mlp_size=6)(TASK, jax.random.key(1))


@pytest.fixture(scope="module")
def examples():
    episode = drawn(TASK, 0, 1)
    return episode.x[..., 0], episode.y[..., 0], episode.x_query[..., 0]


def flat(model):
    return {path: np.asarray(v[...]) for path, v in nnx.to_flat_state(nnx.state(model))}


@partial(jax.jit, static_argnames=("which", "objective"))
def tune(model, examples, rate, which="keys and values", objective="plain"):
    return finetune(
        model, *examples[:2], rate, which=PARAMETERS[which], objective=OBJECTIVES[objective]
    )


@pytest.mark.parametrize("which", CHANGED)
def test_parameters_that_are_not_chosen_keep_their_bits(model, examples, which):
    before, after = flat(model), flat(tune(model, examples, 0.3, which))
    part = "mlp" if which == "MLPs" else "attention"
    for path, value in before.items():
        chosen = part in path and path[-1] in CHANGED[which]
        assert (value.tobytes() == after[path].tobytes()) != chosen, path


def test_finetuning_takes_one_example_at_a_time_in_order(close, model, examples):
    x, y, _ = examples
    divided = parts(model, PARAMETERS["keys and values"])
    chosen = divided.chosen

    @jax.jit
    @jax.grad
    def slope_of(chosen, row, label):
        no_y = jnp.zeros((0, 3))
        logits = divided.model(chosen)(jnp.zeros((0, 4)), no_y, row)
        return jnp.log(jnp.sum(jnp.exp(logits))) - logits @ label

    for row, label in zip(x, y, strict=True):
        slope = slope_of(chosen, row, label)
        chosen = jax.tree.map(lambda a, b: a - 0.3 * b, chosen, slope)
    expected, found = flat(divided.model(chosen)), flat(tune(model, examples, 0.3))
    for path, value in expected.items():
        close(found[path], value, 1e-9)


def test_tasks_are_a_vmap(close, model):
    episodes = drawn(TASK, 3, 4)

    def answer(x, y, x_query):
        return tune(model, (x, y), 0.2).zero_shot(x_query).logits

    together = jax.jit(jax.vmap(answer, in_axes=-1))(*episodes[:3])
    for index in range(4):
        alone = answer(*(field[..., index] for field in episodes[:3]))
        close(together[index], alone, 1e-9)


def test_layer_causal_finetuning_trains_each_layer_by_its_own_logits(close, model, examples):
    """The gradient of a layer is that of its early logits, with the other layers constant."""
    x, y = examples[0][:1], examples[1][:1]
    after = flat(tune(model, (x, y), 1.0, objective="layer-causal"))
    before = flat(model)
    tokens = model.query_tokens(x[0])
    for layer, name in product(range(2), ("key", "value")):

        def cost(weights, layer=layer, name=name):
            changed = nnx.clone(model)
            getattr(changed.blocks[layer].attention, name)[...] = weights
            rows = tokens
            for index in range(layer):
                seen = _advance(model, index, rows)
                rows = jax.lax.stop_gradient(seen)
            rows = _advance(changed, layer, rows)
            logits = (changed.norm(rows) @ changed.unembedding[...])[-1]
            return -y[0] @ jax.nn.log_softmax(logits)

        weights = getattr(model.blocks[layer].attention, name)[...]
        path = next(p for p in before if p[-1] == name and p[1] == layer)
        slope = jax.jit(jax.grad(cost))(weights)
        assert np.abs(slope).max() > 1e-6
        close(after[path], weights - slope, 1e-9)
    path = next(p for p in before if p[-1] == "value" and p[1] == 0)
    assert np.abs(flat(tune(model, (x, y), 1.0))[path] - after[path]).max() > 1e-6


def _advance(model, index, tokens):
    from toyicl.models.causal import attend_causally

    block = model.blocks[index]
    rows = tokens + attend_causally(block.attention, block.attention_norm(tokens))[0]
    return rows + block.mlp(block.mlp_norm(rows))


# Linearised.


@jax.jit
def lin(model, examples, rate):
    which = PARAMETERS["keys and values"]
    return tangent_steps(model, *examples[:2], rate, which=which, cost=cross_entropy)


@jax.jit
def jacobian(model, row):
    """Of the logits, in the flattened keys and values."""
    divided = parts(model, PARAMETERS["keys and values"])
    start, unravel = ravel_pytree(divided.chosen)
    return jax.jacrev(lambda v: divided.model(unravel(v)).zero_shot(row).logits)(start)


shown = jax.jit(lambda model, row: model.zero_shot(row))
logits_of = jax.jit(lambda model, row: model.zero_shot(row).logits)
linearised = jax.jit(partial(linearised_activations, which=PARAMETERS["keys and values"]))


def test_a_linearised_model_without_a_change_equals_the_model(model, examples):
    still = jax.tree.map(jnp.zeros_like, parts(model, PARAMETERS["keys and values"]).chosen)
    seen = linearised_activations(model, still, examples[2], which=PARAMETERS["keys and values"])
    assert jax.tree.all(jax.tree.map(np.array_equal, seen, model.zero_shot(examples[2])))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_one_linearised_step_is_the_jacobian_times_the_error(close, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        model = CausalArchitecture(width=8, heads=2, mlp_size=6)(TASK, jax.random.key(1))
        episode = drawn(TASK, 0, 1)
        x, y = episode.x[:1, :, 0], episode.y[:1, :, 0]
        change = ravel_pytree(lin(model, (x, y), 0.25))[0]
        slopes, logits = jacobian(model, x[0]).T, logits_of(model, x[0])
        error = jax.nn.softmax(logits) - y[0]
        close(change, -0.25 * slopes @ error, tolerance)
        label_step = jax.jit(partial(updates.label_step, which=PARAMETERS["keys and values"]))
        gradient, simplified = label_step(model, x[0], y[0])
        close(ravel_pytree(gradient)[0], slopes @ error, tolerance)
        weighted = y[0] * jax.nn.log_softmax(logits)
        close(ravel_pytree(simplified)[0], slopes @ weighted, tolerance)


def test_several_linearised_steps_are_a_loop_with_the_jacobians(close, model, examples):
    x, y, x_query = examples
    change = np.zeros(jacobian(model, x_query).shape[1])
    for row, label in zip(x, y, strict=True):
        slopes = jacobian(model, row)
        logits = logits_of(model, row) + slopes @ change
        change = change - 0.3 * slopes.T @ (jax.nn.softmax(logits) - label)
    found = lin(model, examples, 0.3)
    close(ravel_pytree(found)[0], change, 1e-10)
    seen = linearised(model, found, x_query)
    close(seen.logits, logits_of(model, x_query) + jacobian(model, x_query) @ change, 1e-10)
    moved = seen.attended - shown(model, x_query).attended
    assert np.abs(np.asarray(moved)).max() > 0, "attention outputs change, too"


def test_finetuning_approaches_its_linearisation_for_small_rates(model, examples):
    gaps = []
    for rate in (0.1, 0.01):
        seen = linearised(model, lin(model, examples, rate), examples[2])
        real = logits_of(tune(model, examples, rate), examples[2])
        moved = real - logits_of(model, examples[2])
        gaps.append(np.linalg.norm(seen.logits - real) / np.linalg.norm(moved))
    assert gaps[0] > 4 * gaps[1]


# Rates.


def test_the_best_rate_has_the_highest_score_and_is_the_smallest_of_ties(close):
    found = search(
        (1.0, 0.5, 2.0, 3.0),
        lambda rate: (jnp.where(rate < 3, 2.0, 5.0), rate < 2.5),
    )
    close(found.best, 0.5)
    assert found.diverged.tolist() == [False, False, False, True]
    close(found.scores, [2.0, 2.0, 2.0, 5.0])


def test_the_best_rate_is_nan_if_all_diverge():
    found = search((1.0, 2.0), lambda rate: (rate, rate < 0))
    assert np.isnan(found.best)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((), "rates must be one value or more, each once"),
        ((0.1, 0.1), "rates must be one value or more, each once"),
        ((0.1, -1.0), "rate must be a finite number above 0, got -1.0"),
    ],
)
def test_bad_rates_are_named(rates, message):
    with pytest.raises(BadInput, match=message):
        search(rates, lambda rate: (rate, rate > 0))


def test_a_rate_that_diverges_is_not_an_error(model, examples):
    tuned = tune(model, examples, 1e300)
    assert not np.isfinite(logits_of(tuned, examples[2])).all()


def test_a_filter_that_chooses_no_parameter_is_refused(model, examples):
    with pytest.raises(BadInput, match="parameters to finetune must be one value or more"):
        finetune(
            model,
            *examples[:2],
            0.1,
            which=lambda path, value: False,
            objective=OBJECTIVES["plain"],
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes(dtype):
    with jax.enable_x64(dtype == "float64"):
        model = CausalArchitecture(width=8, heads=2, mlp_size=6)(TASK, jax.random.key(1))
        episode = drawn(TASK, 0, 1)
        tuned = tune(model, (episode.x[..., 0], episode.y[..., 0]), jnp.asarray(0.1))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(tuned)} == {dtype}


def test_published_finetuning_is_plain_and_changes_keys_and_values_only(model, examples):
    found = flat(finetune(model, *examples[:2], 0.3, **published(cross_entropy)))
    expected = flat(tune(model, examples, 0.3, "keys and values", "plain"))
    assert all(np.array_equal(found[path], value) for path, value in expected.items())
