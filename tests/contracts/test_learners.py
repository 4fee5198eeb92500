"""Every algorithm that `toyicl.algorithms` exports, and every model, satisfies the contracts."""

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import CONTEXT_SIZE, DIM, LEARNER_CONTRACTS, OUTPUTS

from toyicl import algorithms
from toyicl.models.causal import CausalArchitecture
from toyicl.models.construction import gradient_descent_transformer, softmax_heads
from toyicl.models.feature_descent import MetaLearner
from toyicl.models.transformer import Architecture
from toyicl.tasks import LinearRegression

pytestmark = pytest.mark.usefixtures("plain_compiler")
CONSTRUCTED = {
    "CentredDescent": lambda cls: cls(0.5),
    "Chebyshev": lambda cls: cls(0.5, 8.0, 3),
    "ConjugateGradients": lambda cls: cls(2),
    "FunctionalDescent": lambda cls: cls(0.3, 0.5, 2),
    "GradientDescent": lambda cls: cls(0.2, 3),
    "GradientDescentPlusPlus": lambda cls: cls(0.2, 0.01, 3),
    "HeavyBall": lambda cls: cls(0.2, 0.3, 3),
    "IterativeNewton": lambda cls: cls(0.05, 3),
    "KernelRidge": lambda cls: cls(0.3, 0.1),
    "NadarayaWatson": lambda cls: cls(0.3),
    "PreconditionedGradientDescent": lambda cls: cls(np.eye(DIM) * 0.2, 2),
    "Ridge": lambda cls: cls(0.1),
}
"""How algorithms are constructed that need arguments; the others are constructed without any."""
TASK = LinearRegression(dim=DIM, outputs=OUTPUTS, context_size=CONTEXT_SIZE)


def algorithm(name):
    cls = getattr(algorithms, name)
    return lambda: CONSTRUCTED.get(name, lambda cls: cls())(cls)


def model(build):
    return lambda: build(TASK, jax.random.key(0))


LEARNERS = {
    **{name: algorithm(name) for name in algorithms.__all__},
    "linear transformer": model(Architecture(init_scale=1.0)),
    "recurrent transformer": model(Architecture(depth=3, shared=True, init_scale=1.0)),
    "transformer with everything": model(
        Architecture(
            attention="softmax",
            depth=2,
            heads=2,
            mlp_size=5,
            layer_norm=True,
            token_clip=10.0,
            embedding_size=4,
            embedding_mlp_size=3,
        )
    ),
    "separate tokens": model(Architecture(tokens="separate", depth=2, init_scale=1.0)),
    "causal transformer": model(CausalArchitecture(width=8, heads=2, mlp_size=5)),
    "linear causal transformer": model(CausalArchitecture(attention="linear", width=8, heads=2)),
    "feature descent": model(MetaLearner(width=4, hidden=5)),
    "constructed transformer": lambda: gradient_descent_transformer(
        0.2, CONTEXT_SIZE, DIM, OUTPUTS, depth=2
    ),
    "constructed softmax heads": lambda: softmax_heads([0.5, -0.5], [1.0, -1.0], DIM, OUTPUTS),
}


FOR_PYTREES = (contracts.learner_is_a_pytree, contracts.learner_can_be_compiled)
"""Contracts of learners that are arguments of compiled functions, which plain functions are not."""


@pytest.mark.parametrize("contract", LEARNER_CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("name", LEARNERS)
def test_learner(name, contract):
    contract(LEARNERS[name])


@pytest.mark.parametrize(
    "contract",
    [contract for contract in LEARNER_CONTRACTS if contract not in FOR_PYTREES],
    ids=lambda contract: contract.__name__,
)
def test_a_function_is_a_learner(contract):
    contract(lambda: lambda x, y, x_query: x_query @ x.T @ y)


def test_all_algorithms_are_found():
    assert {"GradientDescent", "Ridge", "NadarayaWatson"} <= LEARNERS.keys()
    assert set(CONSTRUCTED) <= set(algorithms.__all__)


def wrong_shape(x, y, x_query):
    return jnp.sum(y)[None]


def single_precision(x, y, x_query):
    return jnp.mean(y, axis=0).astype("float32")


def not_finite(x, y, x_query):
    return jnp.sqrt(jnp.mean(y, axis=0) * 0)  # finite itself, but not its gradient


def not_traceable(x, y, x_query):
    return jnp.mean(y, axis=0) if float(x_query[0]) > 0 else y[0]


class Counting:
    """A learner whose answers depend on how often it was asked."""

    def __init__(self):
        self.count = 0

    def __call__(self, x, y, x_query):
        self.count += 1
        return self.count * jnp.mean(y, axis=0)


@pytest.mark.parametrize(
    ("make", "contract"),
    [
        (lambda: wrong_shape, contracts.learner_has_shape_and_dtype),
        (lambda: single_precision, contracts.learner_has_shape_and_dtype),
        (lambda: not_traceable, contracts.learner_predicts_a_batch_like_each_episode),
        (lambda: not_traceable, contracts.learner_can_be_compiled),
        (Counting, contracts.learner_depends_on_its_arguments_alone),
        (lambda: not_finite, contracts.learner_has_finite_gradients),
        (Counting, contracts.learner_is_a_pytree),
    ],
)
def test_a_learner_that_breaks_a_contract_is_noticed(make, contract):
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever shows the fault)
        contract(make)
