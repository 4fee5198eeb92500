"""Every algorithm that `toyicl.algorithms` exports, and every model, satisfies the contracts."""

import importlib
import inspect
import pkgutil

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import CONTEXT_SIZE, DIM, LEARNER_CONTRACTS, OUTPUTS, RunLearner
from flax import nnx

import toyicl
from toyicl import algorithms, models
from toyicl.models.attention import AttentionSettings
from toyicl.models.attention_mlp import AttentionMLP
from toyicl.models.causal import CausalArchitecture
from toyicl.models.construction import gradient_descent_transformer, softmax_heads
from toyicl.models.diagonal import DiagonalArchitecture
from toyicl.models.feature_descent import MetaLearner
from toyicl.models.recurrent import RecurrentArchitecture
from toyicl.models.reduced_attention import ReducedAttention
from toyicl.models.transformer import Architecture, Transformer
from toyicl.tasks import LinearRegression

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
    "LabelDescent": lambda cls: cls(0.05, (0.1, -0.2, 0.3), 3),
    "NadarayaWatson": lambda cls: cls(0.3),
    "PoolPosterior": lambda cls: cls(np.random.default_rng(1).normal(size=(OUTPUTS, DIM, 5)), 0.5),
    "PreconditionedGradientDescent": lambda cls: cls(np.eye(DIM) * 0.2, 2),
    "Ridge": lambda cls: cls(0.1),
    "TokenDescent": lambda cls: cls(0.05, 0.01, 3, token_clip=1.5),
}
"""How to construct the algorithms that need arguments; the others are constructed without any."""
EPISODE = ["x", "y", "x_query"]
"""Arguments of a learner."""
TASK = LinearRegression(dim=DIM, outputs=OUTPUTS, context_size=CONTEXT_SIZE)


def algorithm(name):
    cls = getattr(algorithms, name)
    return lambda: CONSTRUCTED.get(name, lambda cls: cls())(cls)


def model(build):
    return lambda: build(TASK, jax.random.key(0))


LEARNERS = {
    **{name: algorithm(name) for name in algorithms.__all__},
    "linear transformer": model(Architecture(init_scale=1.0)),
    "trained initial guess": model(Architecture(initial_guess="trained", init_scale=1.0)),
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
    "LSTM": model(RecurrentArchitecture(width=4)),
    "gated linear recurrence": model(RecurrentArchitecture(cell="linear", width=4)),
    "diagonal layers": model(DiagonalArchitecture(depth=2, init_scale=0.1)),
    "feature descent": model(MetaLearner(width=4, hidden=5)),
    "attention then MLP": model(
        AttentionMLP(attention=AttentionSettings(init_scale=1.0), mlp_size=5)
    ),
    "reduced attention": lambda: ReducedAttention(np.eye(DIM + 1, DIM) / 3, 0.5),
    "constructed transformer": lambda: gradient_descent_transformer(
        0.2, CONTEXT_SIZE, DIM, OUTPUTS, depth=2
    ),
    "constructed softmax heads": lambda: softmax_heads([0.5, -0.5], [1.0, -1.0], DIM, OUTPUTS),
}
CASES = {name: RunLearner(make) for name, make in LEARNERS.items()}


@pytest.mark.parametrize("contract", LEARNER_CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("name", CASES)
def test_learner(name, contract):
    contract(CASES[name])


def test_a_function_without_parameters_is_a_learner():
    """It satisfies all contracts but one: it cannot be an argument of a compiled function."""
    case = RunLearner(lambda: lambda x, y, x_query: x_query @ x.T @ y)
    for contract in LEARNER_CONTRACTS:
        if contract is not contracts.learner_is_a_pytree:
            contract(case)


def learner_classes(package):
    """The public classes of a package whose instances are called with an episode, by name."""
    found = {}
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for name, cls in vars(importlib.import_module(module.name)).items():
            own = inspect.isclass(cls) and cls.__module__ == module.name
            if own and not name.startswith("_") and takes_an_episode(cls):
                found[name] = cls
    return found


def takes_an_episode(cls):
    called = any("__call__" in vars(base) for base in cls.__mro__)
    return called and list(inspect.signature(cls.__call__).parameters)[1:] == EPISODE


def test_every_algorithm_is_exported():
    """Also by `toyicl` itself. One that `toyicl.algorithms` does not export would not be tested."""
    classes = learner_classes(algorithms)
    assert set(classes) == set(algorithms.__all__)
    assert all(getattr(toyicl, name) is cls for name, cls in classes.items())


def test_every_model_is_among_the_learners():
    classes = set(learner_classes(models).values())
    assert Transformer in classes
    assert classes <= {type(case.learner) for case in CASES.values()}


def wrong_shape(x, y, x_query):
    return jnp.sum(y)[None]


def single_precision(x, y, x_query):
    return jnp.mean(y, axis=0).astype("float32")


def gradient_not_finite(x, y, x_query):
    return jnp.sqrt(jnp.mean(y, axis=0) * 0)


def gradient_not_finite_for_labels_0(x, y, x_query):
    return jnp.sqrt(jnp.sum(y**2, axis=0))


def not_traceable(x, y, x_query):
    return jnp.mean(y, axis=0) if float(x_query[0]) > 0 else y[0]


def depends_on_the_batch(x, y, x_query):
    return jnp.mean(y, axis=0) / jax.lax.axis_size("episode")


def random_numbers(x, y, x_query):
    return jnp.mean(y, axis=0) * np.random.default_rng().normal()


class Counting:
    """A learner whose predictions depend on how many learners were made."""

    made = 0

    def __init__(self):
        Counting.made += 1
        self.count = Counting.made

    def __call__(self, x, y, x_query):
        return self.count * jnp.mean(y, axis=0)


class Scaled(nnx.Module):
    """A learner with one parameter, stored as it is given."""

    def __init__(self, scale):
        self.scale = nnx.Param(scale)

    def __call__(self, x, y, x_query):
        return jnp.sqrt(self.scale[...]) * jnp.mean(y, axis=0)


class Branching(Scaled):
    """A learner whose code depends on the value of its parameter, so that it cannot be traced."""

    def __call__(self, x, y, x_query):
        return jnp.mean(y, axis=0) if self.scale[...] > 0 else y[0]


def function(learner):
    return lambda: learner


@pytest.mark.parametrize(
    ("make", "contract", "error"),
    [
        (function(wrong_shape), contracts.learner_has_shapes_and_dtypes, AssertionError),
        (function(single_precision), contracts.learner_has_shapes_and_dtypes, AssertionError),
        (
            lambda: Scaled(jnp.ones((), "float16")),
            contracts.learner_has_shapes_and_dtypes,
            AssertionError,
        ),
        (
            function(not_traceable),
            contracts.learner_is_a_function_of_one_episode,
            jax.errors.ConcretizationTypeError,
        ),
        (function(depends_on_the_batch), contracts.learner_is_a_function_of_one_episode, NameError),
        (function(random_numbers), contracts.learner_is_a_function_of_one_episode, AssertionError),
        (Counting, contracts.learner_is_a_function_of_one_episode, AssertionError),
        (function(gradient_not_finite), contracts.learner_has_finite_gradients, AssertionError),
        (
            function(gradient_not_finite_for_labels_0),
            contracts.learner_has_finite_gradients,
            AssertionError,
        ),
        (lambda: Scaled(jnp.zeros(())), contracts.learner_has_finite_gradients, AssertionError),
        (Counting, contracts.learner_is_a_pytree, AssertionError),
        (
            lambda: Branching(jnp.ones(())),
            contracts.learner_is_a_pytree,
            jax.errors.TracerBoolConversionError,
        ),
    ],
)
def test_a_learner_that_violates_a_contract_is_noticed(make, contract, error):
    with pytest.raises(error):
        contract(RunLearner(make))


def test_each_contract_of_learners_is_violated_by_some_learner():
    marks = test_a_learner_that_violates_a_contract_is_noticed.pytestmark
    violated = [contract for _, contract, _ in marks[0].args[1]]
    assert set(violated) == set(LEARNER_CONTRACTS)
