"""The formulas of the teaching page, computed in a browser, compared with JAX on equal inputs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import predict

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.analysis import metrics
from toyicl.analysis.black_box import residual_polynomial
from toyicl.analysis.weights import read_layer
from toyicl.core.datasets import part
from toyicl.demo.build import CLASSROOM, TASKS, shipped
from toyicl.harness.results import load_results
from toyicl.models.construction import gradient_descent_transformer
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression

TASK = LinearRegression()
COUNT = 200
TOLERANCE = 1e-5
"""Documented accuracy of the page; with double precision on both sides the errors are far smaller."""
RUN = shipped() / "teaching" / CLASSROOM


@pytest.fixture(scope="module")
def episodes():
    return TASK.sample(jax.random.key(7), COUNT)


@pytest.fixture(scope="module")
def results():
    return load_results(RUN)


answer = jax.jit(predict)


def as_lists(episodes):
    """Each episode in the format of the page's functions, which have one output."""
    x, y, query = (np.moveaxis(np.asarray(field), -1, 0) for field in episodes[:3])
    parts = zip(x.tolist(), y[:, :, 0].tolist(), query.tolist(), strict=True)
    return [{"x": x, "y": y, "query": query} for x, y, query in parts]


def asked(page, program, given=None):
    """The result of a function in the page; values are passed as JSON text, which is faster."""
    ready = f"(given) => JSON.stringify(({program})(JSON.parse(given)))"
    return json.loads(page.evaluate(ready, json.dumps(given)))


def answers(page, expression, episodes, **more):
    """The page's value of an expression in `e` (x, y, query) and `more`, for each episode."""
    program = (
        f"([all, more]) => {{ const m = window.toyicl; return all.map((e) => {expression}); }}"
    )
    return np.array(asked(page, program, [as_lists(episodes), more]))


def same(actual, expected):
    """Check that two arrays are equal up to an absolute error of 1e-5."""
    expected = np.asarray(expected)
    assert np.shape(actual) == expected.shape
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


def with_circuits(key_query, value_output, **architecture):
    """A JAX transformer with the given circuits, each (head, row, column), in every layer."""
    heads, size, _ = np.shape(key_query)
    model = Architecture(heads=heads, **architecture)(
        LinearRegression(dim=size - 1), jax.random.key(0)
    )
    attention = model.blocks[0].attention
    eye = jnp.broadcast_to(jnp.eye(size), (heads, size, size))
    attention.key[...], attention.query[...] = eye, jnp.asarray(key_query, float)
    attention.value[...], attention.output[...] = eye, jnp.asarray(value_output, float)
    return model


def circuits(results, prefix=""):
    """Both circuits of one saved layer, (head, row, column); a layer with one head has no `head`."""
    found = (results[f"{prefix}{name}"] for name in ("key_query", "value_output"))
    return [np.asarray(v, float).reshape(-1, *v.shape[-2:]) for v in found]


def answers_of_all(key_query, value_output, fractions, episodes):
    """Predictions of many one-layer models with equal numbers of heads, (model, episode).

    They are one batch, because a model for each would take several times as long.
    """
    key_query, value_output = (np.asarray(circuit, float) for circuit in (key_query, value_output))
    model = with_circuits(key_query[0], value_output[0], attention="mixed", softmax_fraction=0.5)
    models = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(key_query)), model)
    attention = models.blocks[0].attention
    attention.query[...], attention.output[...] = jnp.asarray(key_query), jnp.asarray(value_output)
    attention.softmax_fraction[...] = jnp.asarray(fractions, float)
    return jax.vmap(answer, (0, None))(models, episodes)[:, 0]


@pytest.mark.parametrize("rate", [0.5, 6.06])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gradient_descent(page, episodes, rate, steps):
    expected = predict(GradientDescent(rate, steps), episodes)[0]
    here = answers(
        page,
        "m.gradientDescent(e.x, e.y, e.query, more.rate, more.steps)",
        episodes,
        rate=rate,
        steps=steps,
    )
    same(here, expected)


def test_steps_of_their_own_sizes(page, episodes):
    rates = [9.0, 4.0, 2.0]
    expected = predict(GradientDescent(rates, 3), episodes)[0]
    here = answers(
        page, "m.gradientDescent(e.x, e.y, e.query, more.rates, 3)", episodes, rates=rates
    )
    same(here, expected)


def test_one_step_as_attention_and_as_labels_that_move(page, episodes):
    expected = predict(gradient_descent_transformer(6.06, 10, 10), episodes)[0]
    attention = answers(
        page,
        "m.transformer({layers: [[m.constructedHead(6.06, 10, 10)]], fraction: 0}, e.x, e.y, e.query)",
        episodes,
    )
    same(attention, expected)
    same(answers(page, "-m.movedLabels(e.x, e.y, e.query, 6.06).query", episodes), expected)
    x, y, _, _ = episodes
    weights = jax.vmap(GradientDescent(6.06).weights, in_axes=-1, out_axes=-1)(x, y)
    left = y[:, 0] - jnp.einsum("nde,de->ne", x, weights[0])
    same(answers(page, "m.movedLabels(e.x, e.y, e.query, 6.06).labels", episodes), left.T)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gdpp(page, episodes, steps):
    expected = predict(GradientDescentPlusPlus(13.5, 0.176, steps), episodes)[0]
    here = answers(
        page, "m.gdpp(e.x, e.y, e.query, 13.5, 0.176, more.steps)", episodes, steps=steps
    )
    same(here, expected)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_attention_with_random_circuits(page, episodes, heads, fraction):
    keys = jax.random.split(jax.random.key(3))
    parts = [np.asarray(jax.random.normal(key, (heads, 11, 11))).tolist() for key in keys]
    kind = "softmax" if fraction == 1.0 else "mixed"
    model = with_circuits(*parts, attention=kind, softmax_fraction=fraction)
    more = {"parts": parts, "fraction": fraction}
    build = "m.modelOf(more.parts[0], more.parts[1], more.fraction)"
    here = answers(page, f"m.transformer({build}, e.x, e.y, e.query)", episodes, **more)
    same(here, answer(model, episodes)[0])
    slopes = answers(page, f"m.sensitivity({build}, e.x, e.y, e.query)", episodes, **more)
    same(slopes, metrics.sensitivity(model, episodes)[0].T)


def test_the_trained_layer_at_every_snapshot(page, episodes, results):
    """Uses the weights stored in the page, for every seed."""
    few = jax.tree.map(lambda field: field[..., :20], episodes)
    here = answers(
        page,
        "m.data.learn.keyQuery.map((seed, i) => seed.map((kq, at) =>"
        " m.transformer(m.modelOf(kq, m.data.learn.valueOutput[i][at]), e.x, e.y, e.query)))",
        few,
    )
    stacked = results.stack(model=("seed", "step"))
    parts = [
        stacked[name].transpose("model", "row", "column").values[:, None]
        for name in ("key_query", "value_output")
    ]
    expected = answers_of_all(*parts, np.zeros(len(parts[0])), few)
    same(here.reshape(len(here), -1), expected.T)


def test_the_trained_layer_reads_as_a_step(page, results):
    for seed in range(results.sizes["seed"]):
        model = with_circuits(*circuits(results.isel(seed=seed, step=-1)))
        here = asked(
            page,
            "(seed) => { const m = window.toyicl; const d = m.data.learn; return m.learnedStep("
            "[{keyQuery: d.keyQuery[seed].at(-1)[0], valueOutput: d.valueOutput[seed].at(-1)[0]}]); }",
            seed,
        )
        same(here, read_layer(model, TASK.dim).step)


def test_the_two_trained_layers(page, episodes, results):
    for seed in range(results.sizes["seed"]):
        parts = circuits(results.isel(seed=seed), "two_layers_")
        model = with_circuits(*parts, depth=2, shared=True)
        here = answers(
            page,
            "m.layerwise(m.modelOf(m.data.deep.keyQuery[more.seed],"
            " m.data.deep.valueOutput[more.seed], 0, 2), e.x, e.y, e.query)",
            episodes,
            seed=seed,
        )
        expected = jax.vmap(model.layerwise, in_axes=-1, out_axes=-1)(*episodes[:3])[:, 0]
        same(here, expected.T)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", ["line", "wide"])
def test_every_layer_between_linear_and_softmax_attention(page, results, kind, heads):
    task = TASK if kind == "wide" else LinearRegression(dim=1)
    saved = part(results, task=TASKS[kind], heads=heads)
    assert saved.sizes["head"] == heads
    episodes = task.sample(jax.random.key(8), COUNT // 4)
    here = answers(
        page,
        "(({keyQuery, valueOutput}) => keyQuery.map((row, i) => row.map((kq, seed) =>"
        " m.transformer(m.modelOf(kq, valueOutput[i][seed], m.data.softmaxSweep.fractions[i]),"
        " e.x, e.y, e.query))))(m.data.softmaxSweep[more.kind].heads[more.heads])",
        episodes,
        kind=kind,
        heads=str(heads),
    )
    stacked = saved.stack(model=("softmax_fraction", "mixed_seed"))
    dims = ("model", "head", "mixed_row", "mixed_column")
    parts = [
        stacked[name].transpose(*dims).values for name in ("mixed_key_query", "mixed_value_output")
    ]
    expected = answers_of_all(*parts, stacked.softmax_fraction.values, episodes)
    same(here.reshape(len(here), -1), expected.T)


@pytest.mark.parametrize("sharpness", [0.3, 4.0])
def test_a_constructed_softmax_head(page, episodes, sharpness):
    """Its weights are positive and sum to 1, and its answer is the mean label under them."""
    x, y, query, _ = episodes
    weights = jax.nn.softmax(sharpness * jnp.einsum("nde,de->ne", x, query), axis=0)
    here = answers(
        page,
        "m.transformer({layers: [[m.softmaxHead(more.s, 1, 10)]], fraction: 1}, e.x, e.y, e.query)",
        episodes,
        s=sharpness,
    )
    same(here, (weights * y[:, 0]).sum(axis=0))
    assert (here <= y[:, 0].max(axis=0)).all()
    assert (here >= y[:, 0].min(axis=0)).all()
    parts = [
        [np.asarray(circuit) for circuit in pair]
        for pair in zip(*heads(10, sharpness), strict=True)
    ]
    model = with_circuits(*parts, attention="softmax")
    two = answers(
        page,
        "m.transformer(m.softmaxHeads(2, more.s, 1, 10), e.x, e.y, e.query)",
        episodes,
        s=sharpness,
    )
    same(two, answer(model, episodes)[0])


def heads(dim, sharpness):
    """Circuits of two heads of opposite logits; attention divides scores by sqrt(dim + 1)."""
    eye = np.diag([1.0] * dim + [0.0]) * np.sqrt(dim + 1) * sharpness
    value = np.diag([0.0] * dim + [1.0])
    return [(eye, -value), (-eye, value)]


@pytest.mark.parametrize("count", [1, 2])
def test_losses_of_constructed_heads_are_means_over_tasks(page, episodes, count):
    """The answer is v . w for labels x w; v is found from the labels of unit weights."""
    x, _, query, _ = episodes
    parts = [[np.asarray(c) for c in pair[:count]] for pair in zip(*heads(10, 2.0), strict=True)]
    model = with_circuits(*parts, attention="softmax")

    def of_unit(weight):
        labels = jnp.einsum("nde,d->ne", x, weight)[:, None]
        return answer(model, episodes._replace(y=labels))[0]

    vectors = np.stack([of_unit(unit) for unit in np.eye(10)])
    here = answers(page, "m.headVector(more.count, 2, e.x, e.query)", episodes, count=count)
    same(here, vectors.T)
    query = np.asarray(query)
    factor = (vectors * query).sum() / (vectors**2).sum()
    expected = 0.5 * ((factor * vectors - query) ** 2).sum(axis=0).mean()
    found = asked(
        page, "([v, q]) => window.toyicl.meanLoss(v, q)", [here.tolist(), query.T.tolist()]
    )
    same(found["loss"], expected)
    same(found["factor"], factor)


def test_the_vector_of_one_step(page, episodes):
    x, _, query, _ = episodes
    expected = jnp.einsum("nae,nbe,be->ae", x, x, query)
    same(answers(page, "m.stepVector(e.x, e.query)", episodes), expected.T)


def test_the_parabola_of_the_loss(page, episodes):
    x, y = np.asarray(episodes.x)[:, 0], np.asarray(episodes.y)[:, 0]

    def loss(weight):
        return 0.5 * ((weight * x - y) ** 2).mean(axis=0)

    inputs = "e.x.map((row) => row[0]), e.y, 0.7"
    same(answers(page, f"m.lineLoss({inputs})", episodes), loss(0.7))
    same(
        answers(page, f"m.lineSlope({inputs})", episodes),
        jax.vmap(jax.grad(lambda w, x, y: 0.5 * ((w * x - y) ** 2).mean()), (None, 1, 1))(
            0.7, x, y
        ),
    )


@pytest.mark.parametrize("curved", [False, True])
def test_paths_in_the_bowl_are_steps_of_gradient_descent_and_of_gdpp(page, curved):
    """On a context with the bowl's scatter matrix; predictions for unit queries are the weights."""
    values, lowest, steps = [4.0, 0.5], [1.6, 1.2], 3
    program = (
        "([values, lowest, steps, curved]) => { const m = window.toyicl;"
        " const gamma = m.roundingCurvature(values);"
        " return {gamma, ...m.bowlPath(values, lowest, steps, curved ? [gamma] : [])}; }"
    )
    found = asked(page, program, [values, lowest, steps, curved])
    x = np.diag(np.sqrt(values))
    y = x @ lowest
    for count in range(1, steps + 1):
        rates = [2 * h for h in found["rates"][:count]]  # eta / N, with two points
        curvatures = ([found["gamma"] if curved else 0.0] + [0.0] * steps)[:count]
        learner = GradientDescentPlusPlus(rates, curvatures, count)
        weights = [float(learner(x, y[:, None], unit)[0]) for unit in np.eye(2)]
        same(found["points"][count], weights)
    assert (np.ptp(found["seen"]) < 1e-9) == curved
    if curved:
        same(found["points"][2], lowest)


def test_cosine_and_norm_ratio(page, episodes, results):
    model = with_circuits(*circuits(results.isel(seed=0, step=3)))
    descent = GradientDescent(6.06)
    expected = metrics.compare(model, descent, episodes)
    own = answers(
        page,
        "m.sensitivity(m.modelOf(m.data.learn.keyQuery[0][3], m.data.learn.valueOutput[0][3]),"
        " e.x, e.y, e.query)",
        episodes,
    )
    other = answers(page, "m.descentWeights(e.x, e.y, 6.06, 1)", episodes)
    found = asked(page, "([a, b]) => window.toyicl.alignment(a, b)", [own.tolist(), other.tolist()])
    same(found["cosine"], expected.model_cosine)
    same(found["ratio"], expected.norm_ratio)


def test_eigenvalues(page, episodes):
    few = as_lists(episodes)[:50]
    here = asked(
        page,
        "(all) => all.map(({x}) => { const m = window.toyicl; return m.eigen(m.scatter(x)); })",
        few,
    )
    for case, found in zip(few, here, strict=True):
        x = np.array(case["x"])
        values, vectors = np.array(found["values"]), np.array(found["vectors"])
        same(values, np.linalg.eigvalsh(x.T @ x))
        same(vectors @ x.T @ x @ vectors.T, np.diag(values))
        same(vectors @ vectors.T, np.eye(10))


def test_residual_polynomials(page, episodes, results):
    x = episodes.x[..., :20]
    here = answers(
        page,
        "m.residualPolynomial((x, y, q) => m.gradientDescent(x, y, q, 4.0, 3), e.x).residuals",
        jax.tree.map(lambda field: field[..., :20], episodes),
    )
    same(here, residual_polynomial(GradientDescent(4.0, 3), x).residuals.T)


def test_what_the_trained_layers_leave(page, episodes, results):
    """Uses the page's own eigenvectors, because a trained model need not be odd in their sign."""
    few = jax.tree.map(lambda field: field[..., :20], episodes)
    parts = circuits(results.isel(seed=0), "two_layers_")
    model = with_circuits(*parts, depth=2, shared=True)
    here = answers(
        page,
        "m.residualPolynomial((x, y, q) => m.transformer(m.modelOf(m.data.deep.keyQuery[0],"
        " m.data.deep.valueOutput[0], 0, 2), x, y, q), e.x).residuals",
        few,
    )
    vectors = answers(page, "m.eigen(m.scatter(e.x)).vectors", few)

    def left(x, vector):
        return 1 - model(x, (x @ vector)[:, None], 0.5 * vector)[0] / 0.5

    along = jax.vmap(jax.vmap(left, (None, 0)))
    same(here, along(jnp.moveaxis(few.x, -1, 0), jnp.asarray(vectors)))


def test_the_residual_of_gdpp_is_what_gdpp_leaves(page, episodes):
    x = episodes.x[..., :20]
    found = residual_polynomial(GradientDescentPlusPlus(13.5, 0.176, 3), x)
    here = asked(
        page,
        "(all) => all.map((row) => row.map((s) => window.toyicl.residual(s, 1.35, 0.176, 3)))",
        found.eigenvalues.T.tolist(),
    )
    same(here, found.residuals.T)


def test_the_pages_own_episodes_are_the_tasks(page):
    """Inputs from U(-1/2, 1/2) and weights from N(0, 1), checked by their moments."""
    drawn = asked(
        page,
        "() => { const m = window.toyicl; const r = m.generator(1);"
        " return Array.from({length: 2000}, () => m.sampleEpisode(r, 10, 10, 1)); }",
    )
    x = np.array([one["x"] for one in drawn])
    weights = np.array([one["weights"] for one in drawn])
    labels = np.array([one["label"] for one in drawn])
    queries = np.array([one["query"] for one in drawn])
    assert abs(x.mean()) < 0.005
    assert abs(x.var() * 12 - 1) < 0.01
    assert abs(weights.var() - 1) < 0.03
    assert np.abs(x).max() <= 0.5
    same(labels, (weights * queries).sum(axis=1))
