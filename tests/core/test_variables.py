"""State of learners is refused by name, by every function that copies or differentiates a learner."""

import jax
import jax.numpy as jnp
import pytest
from compiled import drawn
from flax import nnx

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis.confidence_set import best_steps, confidence_set, tuned
from toyicl.analysis.metrics import compare, observe, sensitivity
from toyicl.core.errors import BadInput
from toyicl.core.variables import Fixed, require_no_state
from toyicl.finetuning.updates import PARAMETERS, finetune, plain, tangent_steps
from toyicl.models.causal import CausalArchitecture
from toyicl.models.construction import repeated
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.prompts import Classification, cross_entropy
from toyicl.training.loop import fit
from toyicl.training.step import StartFrom, Training

TASK = LinearRegression(dim=2, context_size=3)
PROMPTS = Classification(dim=2, outputs=2, context_size=3)
SHORT = Training(steps=1, batch_size=2, snapshot_every=1)
GD = GradientDescent(1.0)


class Counting(nnx.Module):
    """A learner with a parameter, a fixed number, and a variable of another type."""

    def __init__(self, other):
        self.rate, self.scale = nnx.Param(jnp.ones(())), Fixed(jnp.full((), 2.0))
        self.inner = nnx.Dict(count=other)

    def __call__(self, x, y, x_query):
        return self.rate[...] * self.scale[...] * x_query[:1]


STATEFUL = Counting(nnx.BatchStat(jnp.zeros(3)))


def with_state(model):
    """A model with an additional counter."""
    model.count = nnx.Variable(jnp.zeros(()))
    return model


@pytest.fixture(scope="module")
def episodes():
    return drawn(TASK, 0, 5)


def causal():
    small = CausalArchitecture(depth=1, width=4, heads=1, mlp_size=2)
    return with_state(small(PROMPTS, jax.random.key(0)))


def tune(function, **options):
    demonstrations = drawn(PROMPTS, 0, 1)
    x, y = demonstrations.x[..., 0], demonstrations.y[..., 0]
    function(causal(), x, y, 0.1, which=PARAMETERS["all"], **options)


USES = {
    "training": lambda episodes: fit(StartFrom(learner=STATEFUL), TASK, SHORT),
    "finetuning": lambda episodes: tune(finetune, objective=plain(cross_entropy)),
    "linearised": lambda episodes: tune(tangent_steps, cost=cross_entropy),
    "model": lambda episodes: confidence_set(STATEFUL, {"GD": GD}, episodes),
    "candidate": lambda episodes: confidence_set(GD, {"mine": STATEFUL}, episodes),
    "tuned candidate": lambda episodes: tuned(STATEFUL, GD, episodes, steps=1),
    "tuned to a model": lambda episodes: tuned(GD, STATEFUL, episodes, steps=1),
    "family": lambda episodes: best_steps(GD, {3: STATEFUL}, episodes),
    "sensitivities": lambda episodes: sensitivity(STATEFUL, episodes),
    "comparison": lambda episodes: compare(STATEFUL, GD, episodes),
    "repeated layer": lambda episodes: repeated(
        with_state(Architecture()(TASK, jax.random.key(0))), 2
    ),
}
NAMES = {
    "training": r"learner\.inner\.count",
    "finetuning": r"model\.count",
    "linearised": r"model\.count",
    "model": r"model\.inner\.count",
    "candidate": r"candidate 'mine'\.inner\.count",
    "tuned candidate": r"candidate\.inner\.count",
    "tuned to a model": r"model\.inner\.count",
    "family": r"candidate of 3 steps\.inner\.count",
    "sensitivities": r"learner\.inner\.count",
    "comparison": r"learner\.inner\.count",
    "repeated layer": r"model\.count",
}


@pytest.mark.parametrize("use", USES)
def test_state_is_refused_by_name(use, episodes):
    with pytest.raises(BadInput, match=rf"^{NAMES[use]} must be a flax\.nnx\.Param, .* Fixed"):
        USES[use](episodes)


@pytest.mark.parametrize(
    "learner",
    [
        lambda x, y, x_query: x_query[:1],
        jax.tree_util.Partial(lambda x, y, x_query: x_query[:1]),
        GD,
        Counting(Fixed(jnp.zeros(3))),
        Counting(nnx.Param(jnp.zeros(3))),
    ],
)
def test_learners_without_state_pass(learner, episodes):
    require_no_state(learner)
    assert observe(learner, episodes).predictions.shape == (1, 5)
