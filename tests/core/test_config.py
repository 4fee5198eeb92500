"""Settings: what is static, what can be traced, and how bad input is named."""

import re
from dataclasses import FrozenInstanceError, dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toyicl.core.config import (
    named_in_errors,
    require,
    require_choice,
    require_fraction,
    require_not_negative,
    require_positive,
    require_size,
    settings,
    static,
)
from toyicl.core.errors import BadSetting


@settings
class Oven:
    trays: int = static(default=2)
    heat: float = 180.0
    timer: float | None = None

    def __post_init__(self):
        require_size("trays", self.trays)
        require_positive("heat", self.heat)


def test_cannot_be_changed_after_construction():
    with pytest.raises(FrozenInstanceError):
        Oven().heat = 200.0


def test_takes_keywords_only():
    with pytest.raises(TypeError, match="positional"):
        Oven(3)


def test_scales_are_leaves_and_sizes_structure():
    assert jax.tree.leaves(Oven(trays=5, heat=3.0)) == [3.0]
    assert jax.tree.leaves(Oven(timer=1.0)) == [180.0, 1.0]
    assert jax.tree.structure(Oven(heat=1.0)) == jax.tree.structure(Oven(heat=2.0))
    assert jax.tree.structure(Oven(trays=1)) != jax.tree.structure(Oven(trays=2))


def test_another_scale_compiles_nothing_and_another_size_does():
    traces = []

    @jax.jit
    def bake(oven):
        traces.append(oven)
        return oven.trays * oven.heat

    assert [float(bake(Oven(heat=heat))) for heat in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
    assert len(traces) == 1
    assert float(bake(Oven(trays=3, heat=1.0))) == 3.0
    assert len(traces) == 2


def test_a_sweep_over_a_scale_is_a_vmap():
    ovens = Oven(heat=jnp.array([1.0, 2.0]))
    assert jax.vmap(lambda oven: oven.trays * oven.heat)(ovens).tolist() == [2.0, 4.0]


def test_message_names_setting_rule_and_value():
    with pytest.raises(ValueError, match=r"^oven\.heat must be low, got 'hot'$"):
        require(False, "oven.heat", "low", "hot")
    require(True, "oven.heat", "low", "hot")


def test_an_error_in_a_settings_class_names_class_and_field():
    with pytest.raises(
        BadSetting, match=r"^Oven\.heat must be a finite number above 0, got -1$"
    ) as e:
        Oven(heat=-1)
    assert (e.value.owner, e.value.field, e.value.value) == (Oven, "heat", -1)
    assert e.value.under("kitchen.heat") == "kitchen.heat must be a finite number above 0, got -1"


def test_a_subclass_is_named_by_its_own_name():
    @dataclass(frozen=True, kw_only=True)
    @named_in_errors
    class Base:
        size: int = 1

        def __post_init__(self):
            require_size("size", self.size)

    class Derived(Base):
        pass

    with pytest.raises(BadSetting, match=r"^Derived\.size must be"):
        Derived(size=0)


@pytest.mark.parametrize("value", [None, "hot", True, [1.0]])
def test_what_is_no_number_is_refused_at_construction(value):
    with pytest.raises(BadSetting, match=r"^Oven\.heat must be a number, got "):
        Oven(heat=value)


def test_rebuilding_a_pytree_checks_nothing():
    """JAX puts None, shapes and other placeholders where the leaves are."""
    leaves, structure = jax.tree.flatten(Oven())
    for placeholder in (None, object(), jax.ShapeDtypeStruct((), float), -1.0):
        rebuilt = jax.tree.unflatten(structure, [placeholder] * len(leaves))
        assert rebuilt.heat is placeholder
        assert rebuilt.trays == Oven().trays
    assert jax.tree.map(lambda leaf: leaf, Oven(heat=3.0, timer=1.0)) == Oven(heat=3.0, timer=1.0)


def test_leaves_are_named_by_their_fields():
    paths = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path({"oven": Oven(timer=1.0)})
    ]
    assert paths == ["oven.heat", "oven.timer"]


BAD = [
    (require_size, 0, "a whole number of at least 1"),
    (require_size, -3, "a whole number of at least 1"),
    (require_size, 2.0, "a whole number of at least 1"),
    (require_size, True, "a whole number of at least 1"),
    (require_size, None, "a whole number of at least 1"),
    (require_size, "2", "a whole number of at least 1"),
    (require_positive, 0, "a finite number above 0"),
    (require_positive, -1.0, "a finite number above 0"),
    (require_positive, float("inf"), "a finite number above 0"),
    (require_positive, float("nan"), "a finite number above 0"),
    (require_positive, np.float32(-1), "a finite number above 0"),
    (require_not_negative, -1e-9, "a finite number of at least 0"),
    (require_not_negative, float("inf"), "a finite number of at least 0"),
    (require_not_negative, float("nan"), "a finite number of at least 0"),
    (require_not_negative, np.int64(-1), "a finite number of at least 0"),
    (require_fraction, -1e-9, "between 0 and 1"),
    (require_fraction, 1.001, "between 0 and 1"),
    (require_fraction, float("nan"), "between 0 and 1"),
    (require_fraction, float("inf"), "between 0 and 1"),
    (require_fraction, np.float32(2), "between 0 and 1"),
    (require_fraction, "0.5", "between 0 and 1"),
]


@pytest.mark.parametrize(("check", "value", "rule"), BAD)
def test_refuses(check, value, rule):
    message = f"oven.setting must be {rule}, got {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check("oven.setting", value)


GOOD = [
    (require_size, 1),
    (require_size, np.int64(3)),
    (require_positive, 1e-300),
    (require_positive, 1),
    (require_not_negative, 0),
    (require_not_negative, 0.0),
    (require_fraction, 0),
    (require_fraction, 0.5),
    (require_fraction, np.float32(1)),
]


@pytest.mark.parametrize(("check", "value"), GOOD)
def test_accepts(check, value):
    check("oven.setting", value)


def test_the_least_size_can_be_another():
    require_size("oven.trays", 0, least=0)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        require_size("oven.trays", 1, least=2)


def test_a_choice_is_one_of_those_listed():
    require_choice("oven.mode", "grill", ("grill", "steam"))
    with pytest.raises(ValueError, match=r"^oven\.mode must be one of grill, steam, got 'fan'$"):
        require_choice("oven.mode", "fan", ("grill", "steam"))


@pytest.mark.parametrize("check", [require_positive, require_not_negative, require_fraction])
def test_traced_values_and_arrays_pass_unchecked(check):
    check("oven.heat", jnp.array([-1.0, 1.0]))
    jax.jit(lambda heat: check("oven.heat", heat))(-1.0)
