"""The memory of this machine, and sizes that need more of it than there is."""

import os

import pytest

from toyicl.core import memory
from toyicl.core.config import require_memory, require_size
from toyicl.core.errors import BadSetting
from toyicl.models.causal import CausalArchitecture
from toyicl.models.transformer import Architecture
from toyicl.tasks import LinearRegression, SineRegression

HUGE = 2_000_000_000


def test_the_memory_is_at_most_that_of_the_machine():
    assert 0 < memory.available() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(limit), str(tmp_path / "missing")))
    machine = memory.available.__wrapped__()
    for text, expected in (("max\n", machine), ("4096\n", 4096)):
        limit.write_text(text)
        assert memory.available.__wrapped__() == expected


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (12, "12 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (388_400_000_000_288, "388 TB"),
        (10**30, "1.000e+12 EB"),
    ],
)
def test_amounts_have_three_digits(size, text):
    assert memory.amount(size) == text


def test_what_fits_exactly_is_allowed(monkeypatch):
    monkeypatch.setattr("toyicl.core.config.available", lambda: 10 * memory.number_size())
    require_memory("size", 10, 10)
    require_size("size", 10)
    with pytest.raises(BadSetting, match=r"^size must be small enough for memory, .* got 11$"):
        require_size("size", 11)


@pytest.mark.parametrize("make", [Architecture, CausalArchitecture])
def test_a_depth_whose_layers_cannot_be_traced_is_refused(make):
    with pytest.raises(
        BadSetting, match=r"depth must be small enough for memory, which is .* here"
    ):
        make(depth=HUGE)


@pytest.mark.parametrize("task", [LinearRegression(), SineRegression()])
def test_episodes_that_do_not_fit_are_refused_before_they_are_drawn(task):
    with pytest.raises(BadSetting, match=r"episodes must be small enough .* got 2000000000$"):
        task.sample(None, HUGE)  # the key is not looked at
