"""Parsing: words become values of the kind a setting has, or one clear line."""

from dataclasses import dataclass

import pytest

from toyicl.cli.parsing import (
    name_as_given,
    parse_command,
    parse_sweep,
    parse_values,
    with_values,
)
from toyicl.core.config import require_positive, settings
from toyicl.core.errors import BadInput, BadSetting


@settings
class Inner:
    """Settings within settings."""

    rate: float = 0.1
    kind: str = "a"
    maybe: float | None = None


@dataclass(frozen=True)
class Outer:
    """Settings."""

    inner: Inner = Inner()
    size: int = 3
    on: bool = False
    values: tuple[int, ...] = (1, 2)


def test_words_become_values_of_the_setting_s_kind():
    words = ["inner.rate=1,1e-3", "settings.size=1", "on=True,False", "inner.maybe=None,0.5"]
    sweep = parse_sweep(Outer(), words)
    assert sweep == {
        "inner.rate": [1.0, 1e-3],
        "size": [1],
        "on": [True, False],
        "inner.maybe": [None, 0.5],
    }
    assert with_values(Outer(), {"inner.rate": 1.0, "size": 9}) == Outer(
        inner=Inner(rate=1.0), size=9
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inner.rtae=1"], r"must name a setting, got 'inner.rtae'; did you mean inner.rate\?"),
        (["nonsense=1"], "must name a setting, got 'nonsense'$"),
        (["inner.rate.more=1"], "must name a setting"),
        (["inner=1"], "must name a single value, got inner, which holds several"),
        (["values=1"], "must name a single value, got values, which holds several"),
        (
            ["inner.rate="],
            "must be SETTING=VALUE,VALUE,... or SETTING=FIRST:LAST:COUNT, got 'inner.rate='",
        ),
        (["inner.rate"], "must be SETTING=VALUE"),
        (["inner.rate=1,,2"], "sweep of inner.rate must be a number, got ''"),
        (["inner.rate=0:1"], "sweep of inner.rate: values must be FIRST:LAST:COUNT"),
        (["inner.rate=1,1.0"], "must have values that differ, got 1.0 twice"),
        (["size=1.5"], "sweep of size must be a whole number, got '1.5'"),
        (["inner.maybe=None,x"], "sweep of inner.maybe must be a number or None, got 'x'"),
        (["size=1:2:3"], "sweep of size must be a whole number, got '1.5', from 1:2:3"),
        (["size=1", "size=2"], "must name a setting once, got size again"),
    ],
)
def test_bad_sweeps_are_named(words, message):
    with pytest.raises(BadInput, match=message):
        parse_sweep(Outer(), words)


def test_evenly_spaced_numbers_are_swept_as_well():
    words = ["inner.rate=0:0.3:4", "size=2:2000000000000:2", "inner.maybe=1:-1:3"]
    assert parse_sweep(Outer(), words) == {
        "inner.rate": [0.0, 0.1, 0.2, 0.3],
        "size": [2, 2_000_000_000_000],
        "inner.maybe": [1.0, 0.0, -1.0],
    }


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0:1:2", (0.0, 1.0)),
        ("0:0.3:4", (0.0, 0.1, 0.2, 0.3)),
        ("1:-1:3", (1.0, 0.0, -1.0)),
        ("2:2:1", (2.0,)),
        ("3", (3.0,)),
        ("0.1, 1,1e2", (0.1, 1.0, 100.0)),
        ("1e-13,2e-13", (1e-13, 2e-13)),
    ],
)
def test_values_are_a_range_with_both_ends_or_a_list(text, values):
    assert parse_values(text) == values


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "1,,2",
        "0:1",
        "0:1:1",
        "0:1:2:3",
        "0:1:0",
        "0:1:-2",
        "0:1:2.5",
        "0:inf:3",
        "nan",
        "1,inf",
    ],
)
def test_bad_values_are_named(text):
    with pytest.raises(BadInput, match=r"^values must be FIRST:LAST:COUNT, .*, got") as caught:
        parse_values(text)
    assert repr(text) in str(caught.value)


@dataclass(frozen=True)
class Command:
    """A command."""

    number: int = 1


def test_a_command_is_parsed():
    kinds = {"one": Command, "two": Outer}
    assert parse_command(kinds, ["one", "--number", "3"]) == Command(number=3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", "--number", "x"], "invalid literal for int() with base 10: 'x'"),
        (["one", "--nmber=1"], "--nmber"),
        (["three"], "three"),
        ([], "one, two"),
    ],
)
def test_a_bad_command_is_reported_in_tyro_s_words_without_its_frame(words, message):
    with pytest.raises(BadInput) as caught:
        parse_command({"one": Command, "two": Outer}, words)
    assert message in str(caught.value)
    assert str(caught.value).count("\n") < 3
    assert "\u2502" not in str(caught.value)


def test_options_are_suggested_without_their_help_texts():
    with pytest.raises(BadInput) as caught:
        parse_command({"two": Outer}, ["two", "--inner.rte=1"])
    message = str(caught.value).splitlines()
    assert message[0] == "Unrecognized options: --inner.rte=1"
    assert message[1].startswith("Perhaps you meant: --inner.rate FLOAT")
    assert message[2] == "For full helptext, run toyicl two --help"
    assert all(len(line) < 100 and "default" not in line for line in message)


@settings
class Rate:
    """A checked number."""

    rate: float = 0.1

    def __post_init__(self):
        require_positive("rate", self.rate)


@dataclass(frozen=True)
class TwoRates:
    """Two settings of one class."""

    first: Rate = Rate()
    second: Rate = Rate()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--settings.second.rate=0"], "second.rate"),
        (["--settings.first.rate", "0"], "first.rate"),
        ([], "Rate.rate"),
    ],
)
def test_a_setting_is_named_as_the_user_wrote_it(words, name):
    with pytest.raises(BadSetting) as caught:
        Rate(rate=0.0)
    message = name_as_given(caught.value, TwoRates(), words)
    assert message == f"{name} must be a finite number above 0, got 0.0"


def test_a_swept_setting_is_named_by_its_path():
    with pytest.raises(BadInput, match=r"^second\.rate must be a finite number above 0, got 0\.0$"):
        with_values(TwoRates(), {"second.rate": 0.0})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inner.rate=0:1:1000000000000"], "COUNT of at most 10000, got '0:1:1000000000000'"),
        (
            ["inner.rate=0:1:200", "size=1:100:100"],
            "sweep must have at most 10000 points, got 20000",
        ),
    ],
)
def test_more_points_than_can_be_run_are_refused(words, message):
    with pytest.raises(BadInput, match=message):
        parse_sweep(Outer(), words)


def test_values_are_not_made_before_they_are_counted():
    with pytest.raises(BadInput, match="values must have a COUNT of at most"):
        parse_values("0:1:1000000000000000")
