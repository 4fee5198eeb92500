"""Every task that `toyicl.tasks` exports satisfies the contracts, and each contract can fail."""

import importlib
import inspect
import pkgutil

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import TASK_CONTRACTS, SampledTask

import toyicl.tasks
from toyicl.core.config import require_positive, require_size, settings, static
from toyicl.core.episode import Episode
from toyicl.tasks import LinearRegression, SineRegression, TeacherRegression

ABSTRACT = ("Task", "PromptTask", "DerivedTask")
"""Protocols and base classes, which are not tasks themselves."""
TASKS = {
    name: getattr(toyicl.tasks, name)
    for name in toyicl.tasks.__all__
    if inspect.isclass(getattr(toyicl.tasks, name)) and name not in ABSTRACT
}
VARIANTS = {
    "linear with noise": lambda: LinearRegression(
        dim=3,
        outputs=2,
        context_size=4,
        input_distribution="frobenius_normal",
        covariance=(1.0, 2.0, 0.5),
        label_noise=0.1,
        distractors=1,
    ),
    "linear with a rotation and a prior": lambda: LinearRegression(
        dim=3,
        outputs=2,
        context_size=4,
        covariance=(1.0, 2.0, 0.5),
        rotated=True,
        weight_covariance=(1.0, 0.5, 2.0),
    ),
    "network": lambda: TeacherRegression(
        base=LinearRegression(dim=3, outputs=2, context_size=4), teacher="network", fraction=0.5
    ),
    "sine with one key": lambda: SineRegression(draws="single_key"),
}
"""Tasks with other settings than the defaults, which use other parts of `sample`."""
CASES = {name: SampledTask(make) for name, make in {**TASKS, **VARIANTS}.items()}


@pytest.mark.parametrize("contract", TASK_CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("name", CASES)
def test_task(name, contract):
    contract(CASES[name])


def test_every_class_that_samples_is_exported():
    """A task that `toyicl.tasks` does not export would not be tested."""
    found = {}
    for module in pkgutil.iter_modules(toyicl.tasks.__path__, "toyicl.tasks."):
        classes = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        found |= {name: cls for name, cls in classes if hasattr(cls, "sample")}
    assert {name: cls for name, cls in found.items() if name not in ABSTRACT} == TASKS


@settings
class Small:
    """A task that satisfies all contracts; subclasses violate one each."""

    dim: int = static(default=2)
    outputs: int = static(default=1)
    context_size: int = static(default=3)
    scale: float = 1.0

    def __post_init__(self):
        for name in ("dim", "outputs", "context_size"):
            require_size(name, getattr(self, name))
        require_positive("scale", self.scale)

    def sample(self, key, episodes):
        require_size("episodes", episodes)
        return self.drawn(key, episodes)

    def drawn(self, key, episodes):
        shapes = ((self.context_size, self.dim), (self.context_size, 1), (self.dim,), (1,))
        dtype = jnp.result_type(float)
        return Episode(
            *(self.scale * jax.random.normal(key, (*s, episodes), dtype) for s in shapes)
        )


def test_a_correct_task_passes():
    case = SampledTask(Small)
    for contract in TASK_CONTRACTS:
        contract(case)


@settings
class EpisodesFirst(Small):
    def drawn(self, key, episodes):
        return Episode(*(jnp.moveaxis(part, -1, 0) for part in Small.drawn(self, key, episodes)))


@settings
class SinglePrecision(Small):
    def drawn(self, key, episodes):
        return Episode(*(part.astype("float32") for part in Small.drawn(self, key, episodes)))


@settings
class DoublePrecision(Small):
    def drawn(self, key, episodes):
        with jax.enable_x64(True):
            return Episode(*(part.astype("float64") for part in Small.drawn(self, key, episodes)))


@settings
class NotPure(Small):
    def drawn(self, key, episodes):
        seed = np.random.default_rng().integers(2**31)
        return Small.drawn(self, jax.random.fold_in(key, seed), episodes)


@settings
class OneKey(Small):
    def drawn(self, key, episodes):
        return Small.drawn(self, jax.random.key(0), episodes)


@settings
class Infinite(Small):
    def drawn(self, key, episodes):
        drawn = Small.drawn(self, key, episodes)
        return drawn._replace(y=1 / jnp.maximum(drawn.y, 0))


@settings
class Unchecked(Small):
    def __post_init__(self):
        pass


@settings
class UncheckedScale(Small):
    def __post_init__(self):
        for name in ("dim", "outputs", "context_size"):
            require_size(name, getattr(self, name))


@settings
class AcceptsNone(Small):
    def sample(self, key, episodes):
        return self.drawn(key, episodes)


@settings
class NotTraceable(Small):
    def drawn(self, key, episodes):
        assert float(self.scale) > 0
        return Small.drawn(self, key, episodes)


class NotPytree(Small):
    """Without the decorator `settings`, which registers a class as a pytree."""


@pytest.mark.parametrize(
    ("task", "contract", "error"),
    [
        (EpisodesFirst, contracts.task_has_shapes_and_dtypes, AssertionError),
        (SinglePrecision, contracts.task_has_shapes_and_dtypes, AssertionError),
        (DoublePrecision, contracts.task_has_shapes_and_dtypes, AssertionError),
        (OneKey, contracts.task_draws_finite_numbers_that_depend_on_the_key, AssertionError),
        (Infinite, contracts.task_draws_finite_numbers_that_depend_on_the_key, AssertionError),
        (NotPure, contracts.task_is_a_function_of_its_settings_and_the_key, AssertionError),
        (
            NotTraceable,
            contracts.task_is_a_function_of_its_settings_and_the_key,
            jax.errors.ConcretizationTypeError,
        ),
        (Unchecked, contracts.task_refuses_bad_settings, AssertionError),
        (UncheckedScale, contracts.task_refuses_bad_settings, AssertionError),
        (AcceptsNone, contracts.task_refuses_bad_numbers_of_episodes, AssertionError),
        (NotPytree, contracts.task_is_a_pytree, AssertionError),
    ],
)
def test_a_task_that_violates_a_contract_is_noticed(task, contract, error):
    with pytest.raises(error):
        contract(SampledTask(task))


def test_each_contract_of_tasks_is_violated_by_some_task():
    marks = test_a_task_that_violates_a_contract_is_noticed.pytestmark
    violated = [contract for _, contract, _ in marks[0].args[1]]
    assert set(violated) == set(TASK_CONTRACTS)
