"""Every task that `toyicl.tasks` exports satisfies the contracts, and each contract can fail."""

import inspect

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import TASK_CONTRACTS

import toyicl.tasks
from toyicl.core.config import require_size, settings, static
from toyicl.core.episode import Episode
from toyicl.tasks import LinearRegression

pytestmark = pytest.mark.usefixtures("plain_compiler")
ABSTRACT = ("Task", "DerivedTask")
TASKS = [
    getattr(toyicl.tasks, name)
    for name in toyicl.tasks.__all__
    if inspect.isclass(getattr(toyicl.tasks, name)) and name not in ABSTRACT
]


@pytest.mark.parametrize("contract", TASK_CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_task(task, contract):
    contract(task())


def test_all_tasks_are_found():
    assert LinearRegression in TASKS
    assert len(TASKS) >= 9


@settings
class Small:
    """A task that satisfies all contracts but those that a subclass breaks."""

    dim: int = static(default=2)
    outputs: int = static(default=1)
    context_size: int = static(default=3)
    scale: float = 1.0

    def __post_init__(self):
        for name in ("dim", "outputs", "context_size"):
            require_size(name, getattr(self, name))

    def sample(self, key, episodes):
        require_size("episodes", episodes)
        return self.drawn(key, episodes)

    def drawn(self, key, episodes):
        shapes = ((self.context_size, self.dim), (self.context_size, 1), (self.dim,), (1,))
        dtype = jnp.result_type(float)
        return Episode(
            *(self.scale * jax.random.normal(key, (*s, episodes), dtype) for s in shapes)
        )


@pytest.mark.parametrize("contract", TASK_CONTRACTS, ids=lambda contract: contract.__name__)
def test_a_task_that_is_right_passes(contract):
    contract(Small())


@settings
class EpisodesFirst(Small):
    def drawn(self, key, episodes):
        return Episode(*(jnp.moveaxis(part, -1, 0) for part in Small.drawn(self, key, episodes)))


@settings
class SinglePrecision(Small):
    def drawn(self, key, episodes):
        return Episode(*(part.astype("float32") for part in Small.drawn(self, key, episodes)))


@settings
class NotPure(Small):
    def drawn(self, key, episodes):
        return Small.drawn(self, jax.random.key(np.random.default_rng().integers(2**31)), episodes)


@settings
class OneKey(Small):
    def drawn(self, key, episodes):
        return Small.drawn(self, jax.random.key(0), episodes)


@settings
class Unchecked(Small):
    def __post_init__(self):
        pass


@settings
class AcceptsNone(Small):
    def sample(self, key, episodes):
        return self.drawn(key, episodes)


@settings
class NotTraceable(Small):
    def drawn(self, key, episodes):
        assert float(self.scale) > 0
        return Small.drawn(self, key, episodes)


@pytest.mark.parametrize(
    ("task", "contract"),
    [
        (EpisodesFirst, contracts.task_has_shapes),
        (SinglePrecision, contracts.task_has_the_precision_s_dtype),
        (NotPure, contracts.task_is_a_function_of_the_key),
        (OneKey, contracts.task_is_a_function_of_the_key),
        (Unchecked, contracts.task_refuses_bad_sizes),
        (AcceptsNone, contracts.task_refuses_no_episodes),
        (NotTraceable, contracts.task_can_be_mapped_over_its_settings),
        (NotTraceable, contracts.task_can_be_compiled),
    ],
)
def test_a_task_that_breaks_a_contract_is_noticed(task, contract):
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever shows the fault)
        contract(task())
