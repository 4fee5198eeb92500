"""Residual polynomials and implicit weights, compared with closed forms of known learners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import drawn

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.ridge import Ridge
from toyicl.analysis.black_box import implicit_weights, residual_polynomial
from toyicl.models.construction import as_transformer
from toyicl.models.transformer import Architecture, Transformer
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.step_search import Steps, descent_residual

DIM, COUNT, STEPS = 3, 6, 2
TASK = LinearRegression(dim=DIM, context_size=COUNT, input_range=2.0)
ETA, GAMMA = 0.8, 0.05
read = jax.jit(residual_polynomial)
weigh = jax.jit(implicit_weights)
answer = jax.jit(Transformer.__call__)


@pytest.fixture(scope="module")
def contexts():
    """Contexts of 20 episodes, float64."""
    return np.asarray(drawn(TASK, 0, 20).x)


def descended(values, curvature=0.0):
    """The residual of GD++, or of GD without curvature, from a recursion on eigenvalues."""
    steps = Steps(np.array([ETA / COUNT]), np.array([curvature]))
    return np.asarray(descent_residual(steps, jnp.asarray(values), STEPS))


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
def test_the_residual_polynomial_agrees_with_theory(name, wide, tolerance, contexts):
    build, expected = LEARNERS[name]
    with jax.enable_x64(wide):
        found = read(build(), jnp.asarray(contexts, float))
        assert found.residuals.dtype == ("float64" if wide else "float32")
    values = np.linalg.eigvalsh(np.einsum("nae,nbe->eab", contexts, contexts)).T
    np.testing.assert_allclose(found.eigenvalues, values, atol=tolerance * values.max())
    np.testing.assert_allclose(found.residuals, expected(values), atol=tolerance)
    assert np.ptp(expected(values)) > 0.3, "the spectra distinguish the learners"
    assert np.abs(descended(values, GAMMA) - descended(values)).max() > 0.05


def test_residuals_of_a_nonlinear_learner_depend_on_scale(contexts):
    descent, model = as_transformer(GradientDescent(ETA), COUNT, DIM), _softmax()
    for learner, differs in ((descent, False), (model, True)):
        one, other = (
            read(learner, contexts, weight=weight, query=query).residuals
            for weight, query in ((1.0, 0.5), (3.0, 2.0))
        )
        assert (np.abs(one - other).max() > 1e-3) == differs


def test_contexts_of_another_shape_are_named(contexts):
    with pytest.raises(ValueError, match=r"^x must be contexts of shape .* got \(6, 3\)$"):
        residual_polynomial(Ridge(1.0), contexts[..., 0])


def _softmax():
    return Architecture(attention="softmax", init_scale=3.0)(TASK, jax.random.key(1))


@pytest.fixture(scope="module")
def context(contexts):
    draw = np.random.default_rng(0)
    return contexts[..., 0], draw.normal(size=(COUNT, 2)), draw.normal(size=(9, DIM))


def test_implicit_weights_of_gradient_descent_are_its_weights(close, context):
    x, y, queries = context
    weights, unexplained = weigh(GradientDescent(ETA, STEPS), x, y, queries)
    close(weights, GradientDescent(ETA, STEPS).weights(x, y), 1e-10)
    assert weights.shape == (2, DIM)
    assert unexplained < 1e-20


def test_implicit_weights_of_a_softmax_layer_leave_a_nonlinear_part(close, context):
    x, y, queries = context
    model = _softmax()
    weights, unexplained = weigh(model, x, y[:, :1], queries)
    answers = np.array([answer(model, x, y[:, :1], query) for query in queries])
    expected, (squares,), *_ = np.linalg.lstsq(queries, answers)
    close(weights, expected.T, 1e-8)
    close(unexplained, squares / (answers**2).sum(), 1e-8)
    assert unexplained > 1e-3


def test_too_few_queries_are_named(context):
    x, y, queries = context
    with pytest.raises(
        ValueError, match=r"^queries must be more than the number of inputs \(3\), got 3"
    ):
        implicit_weights(Ridge(1.0), x, y, queries[:3])
