"""Any command line ends with exit status 0, 1 or 2, and with a few lines on standard error."""

import tempfile
from pathlib import Path

import pytest
from command_lines import LINES, LINES_OF_PROCESSES, SHORT, furnish, named
from hypothesis import HealthCheck, Phase, given, settings
from programs import SMALL, here, toyicl

MOST_LINES = 3
"""Most lines on standard error about one experiment. A run of several reports each of them: that it was
refused, and that it begins, how far the whole job is, and how it ended are documented as progress."""
FEW = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""A sample that is the same every time, without shrinking."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of the small experiment."""
    folder = tmp_path_factory.mktemp("finished")
    assert here("run", SMALL, "--quick", *SHORT, "--out", folder).returncode == 0
    return folder / "small"


def check(words, finished, start):
    """Start a line in a fresh working folder, and check how it ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        furnish(folder, finished)
        answer = start(*words, cwd=folder)
    assert answer.returncode in (0, 1, 2), words
    assert "Traceback" not in answer.stderr, words
    lines = answer.stderr.splitlines()
    most = MOST_LINES + 2 * max(named(words) - 1, 0)
    assert len(lines) <= most, (words, answer.stderr)
    if answer.returncode == 2:
        assert lines[0].startswith("toyicl: "), (words, answer.stderr)


@given(LINES)
@FEW
def test_a_sample_of_command_lines_ends_well(finished, words):
    check(words, finished, here)


@pytest.mark.slow
@given(LINES)
@settings(FEW, max_examples=1000, derandomize=False, phases=[Phase.generate, Phase.shrink])
def test_command_lines_end_well(finished, words):
    check(words, finished, here)


@pytest.mark.slow
@given(LINES_OF_PROCESSES)
@settings(FEW, max_examples=36)
def test_processes_of_command_lines_end_well(finished, words):
    check(words, finished, toyicl)
