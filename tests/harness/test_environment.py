"""What differs between the environments of two processes, and what of it is reported."""

import pytest

from toyicl.harness.environment import environment, moved_since, moved_since_any

WITHOUT = ("processor", "compiler", "versions", "shard")
"""What earlier versions did not record."""


def changed(name, value):
    """An environment in which an entry of a nested dictionary is another."""
    now = environment()
    return now | {name: now[name] | value if isinstance(value, dict) else value}


def test_an_environment_differs_in_nothing_from_itself():
    assert moved_since(environment(), environment()) == ""
    assert moved_since(changed("versions", {"python": "3.0", "xarray": "1"}), environment()) == ""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("device", "4 x cpu", "4 x cpu, --shard run there, 2 x cpu, --shard run here"),
        ("processes", 3, "2 x cpu in 3 processes, --shard run there, 2 x cpu, --shard run here"),
        ("shard", "batch", "2 x cpu, --shard batch there, 2 x cpu, --shard run here"),
        ("processor", "another one", "processor another one there, "),
        ("versions", {"jax": "0.9"}, "jax 0.9 there, "),
        ("versions", {"optax": "0.1"}, "optax 0.1 there, "),
        (
            "compiler",
            {"jax_optimization_level": "O3"},
            "jax_optimization_level O3 there, UNKNOWN here",
        ),
        ("compiler", {"NVIDIA_TF32_OVERRIDE": "0"}, "NVIDIA_TF32_OVERRIDE 0 there, unset here"),
    ],
)
def test_what_changes_rounding_is_reported_with_both_values(name, value, message):
    assert moved_since(changed(name, value), environment()).startswith(message)


def test_flags_of_the_compiler_are_recorded_in_any_order_without_those_of_no_effect(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=1 --xla_a=2")
    then = environment()
    count = "--xla_force_host_platform_device_count=2"  # which the number of devices shows
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=2 --xla_dump_to=/tmp {count}  --xla_b=1")
    assert moved_since(then, environment()) == ""
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=3")
    assert moved_since(then, environment()) == "XLA_FLAGS --xla_a=2 --xla_b=1 there, --xla_a=3 here"


def test_what_an_earlier_version_did_not_record_is_not_compared():
    older = {name: value for name, value in environment().items() if name not in WITHOUT}
    assert moved_since(older, environment()) == ""
    assert moved_since(older | {"device": "4 x cpu", "processes": 2}, environment("batch")) == (
        "4 x cpu in 2 processes, --shard run there, 2 x cpu, --shard batch here"
    )


def test_all_earlier_environments_are_compared_and_each_difference_is_stated_once():
    """A run that was resumed elsewhere, and is now resumed where it was resumed last."""
    now, elsewhere = environment(), environment() | {"device": "4 x cpu"}
    assert moved_since_any([], now) == moved_since_any([now, now], now) == ""
    moved = moved_since(elsewhere, now)
    assert "4 x cpu" in moved
    for earlier in ([elsewhere], [elsewhere, now], [elsewhere, now, elsewhere]):
        assert moved_since_any(earlier, now) == moved
    third = now | {"device": "8 x cpu"}
    assert moved_since_any([elsewhere, third], now) == f"{moved}; {moved_since(third, now)}"
