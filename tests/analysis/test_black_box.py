"""Reading a model from outside: what closed forms say of the learners that have one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.ridge import Ridge
from toyicl.analysis.black_box import implicit_weights, residual_polynomial
from toyicl.analysis.weights import circuit_scores, random_circuit_score
from toyicl.models.construction import as_transformer, gradient_descent_transformer
from toyicl.models.transformer import Architecture, Transformer
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.step_search import residuals

pytestmark = pytest.mark.usefixtures("plain_compiler")

DIM, COUNT, STEPS = 3, 6, 2
TASK = LinearRegression(dim=DIM, context_size=COUNT, input_range=2.0)
ETA, GAMMA = 0.8, 0.05
read = jax.jit(residual_polynomial)
weigh = jax.jit(implicit_weights)
answer = jax.jit(Transformer.__call__)


@pytest.fixture(scope="module")
def contexts():
    """Contexts of 20 episodes, float64."""
    return np.asarray(TASK.sample(jax.random.key(0), 20).x)


def descended(values, curvature=0.0):
    """The residual of GD++, GD if it has no curvature, from a recursion on eigenvalues."""
    *_, (left, _) = residuals(values, np.full(STEPS, ETA / COUNT), np.full(STEPS, curvature))
    return left


LEARNERS = {
    "gradient descent": (
        lambda: as_transformer(GradientDescent(ETA, STEPS), COUNT, DIM),
        lambda s: (1 - ETA * s / COUNT) ** STEPS,
    ),
    "GD++": (
        lambda: as_transformer(GradientDescentPlusPlus(ETA, GAMMA, STEPS), COUNT, DIM),
        lambda s: descended(s, GAMMA),
    ),
    "ridge": (lambda: Ridge(0.3), lambda s: 0.3 / (s + 0.3)),
}


@pytest.mark.parametrize(("wide", "tolerance"), [(True, 1e-10), (False, 1e-5)])
@pytest.mark.parametrize("name", LEARNERS)
def test_the_residual_polynomial_is_the_one_of_theory(name, wide, tolerance, contexts):
    build, expected = LEARNERS[name]
    with jax.enable_x64(wide):
        found = read(build(), jnp.asarray(contexts, float))
        assert found.residuals.dtype == ("float64" if wide else "float32")
    values = np.linalg.eigvalsh(np.einsum("nae,nbe->eab", contexts, contexts)).T
    np.testing.assert_allclose(found.eigenvalues, values, atol=tolerance * values.max())
    np.testing.assert_allclose(found.residuals, expected(values), atol=tolerance)
    assert np.ptp(expected(values)) > 0.3, "spectra that tell"
    assert np.abs(descended(values, GAMMA) - descended(values)).max() > 0.05


def test_size_matters_to_a_learner_that_is_not_linear(contexts):
    descent, model = as_transformer(GradientDescent(ETA), COUNT, DIM), _softmax()
    for learner, apart in ((descent, False), (model, True)):
        one, other = (
            read(learner, contexts, weight=weight, query=query).residuals
            for weight, query in ((1.0, 0.5), (3.0, 2.0))
        )
        assert (np.abs(one - other).max() > 1e-3) == apart


def test_contexts_of_another_shape_are_named(contexts):
    with pytest.raises(ValueError, match=r"^x must be contexts of shape .* got \(6, 3\)$"):
        residual_polynomial(Ridge(1.0), contexts[..., 0])


def _softmax():
    return Architecture(attention="softmax", init_scale=3.0)(TASK, jax.random.key(1))


@pytest.fixture(scope="module")
def context(contexts):
    draw = np.random.default_rng(0)
    return contexts[..., 0], draw.normal(size=(COUNT, 2)), draw.normal(size=(9, DIM))


def test_implicit_weights_of_descent_are_its_weights(close, context):
    x, y, queries = context
    weights, left = weigh(GradientDescent(ETA, STEPS), x, y, queries)
    close(weights, GradientDescent(ETA, STEPS).weights(x, y), 1e-10)
    assert weights.shape == (2, DIM)
    assert left < 1e-20


def test_implicit_weights_leave_what_a_softmax_layer_bends(close, context):
    x, y, queries = context
    model = _softmax()
    weights, left = weigh(model, x, y[:, :1], queries)
    answers = np.array([answer(model, x, y[:, :1], query) for query in queries])
    expected, (squares,), *_ = np.linalg.lstsq(queries, answers)
    close(weights, expected.T, 1e-8)
    close(left, squares / (answers**2).sum(), 1e-8)
    assert left > 1e-3


def test_too_few_queries_are_named(context):
    x, y, queries = context
    with pytest.raises(
        ValueError, match=r"^queries must be more than there are inputs \(3\), got 3"
    ):
        implicit_weights(Ridge(1.0), x, y, queries[:3])


def test_circuit_scores_are_0_for_the_construction():
    model = gradient_descent_transformer(ETA, COUNT, DIM, 2, depth=2, curvature=GAMMA)
    for layer in range(2):
        scores = circuit_scores(model, DIM, layer)
        assert scores.key_query.shape == scores.value_output.shape == (1,)
        assert max(*scores.key_query, *scores.value_output) < 1e-12


def test_a_circuit_score_is_a_distance_from_the_identity(close):
    """A rotation by a right angle is as far as can be; what else a circuit holds does not count."""
    model = gradient_descent_transformer(ETA, COUNT, 2)
    attention = model.blocks[0].attention
    turned = jnp.array([[0.0, -1, 7], [1, 0, 7], [7, 7, 7]])
    for share in (0.0, 0.6, 1.0):
        mixed = share * turned + jnp.sqrt(1 - share**2) * jnp.eye(3)
        attention.query[...] = mixed[None]
        close(circuit_scores(model, 2).key_query, np.array([share]), 1e-12)
    assert circuit_scores(model, 2).value_output == 0, "one output"


def test_random_weights_score_as_random_weights_do():
    """In root mean square over 400 heads; for keys that are wide, entries are independent."""
    dim = outputs = 4
    task = LinearRegression(dim=dim, outputs=outputs)
    model = Architecture(heads=400, key_size=30)(task, jax.random.key(0))
    expected = random_circuit_score(dim)
    for scores in circuit_scores(model, dim):
        assert scores.shape == (400,)
        error = np.std(scores**2) / 20
        assert abs(np.mean(scores**2) - expected**2) < 4 * error
        assert 0 < error < 0.01
    assert expected == pytest.approx(np.sqrt(15 / 16))


@pytest.mark.parametrize("changes", [{"embedding_size": 7}, {"tokens": "separate"}])
def test_circuits_need_joint_tokens(changes):
    model = Architecture(**changes)(TASK, jax.random.key(0))
    with pytest.raises(ValueError, match=r"^token size must be that of a model on joint tokens"):
        circuit_scores(model, DIM)
