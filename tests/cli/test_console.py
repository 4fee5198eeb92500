"""Errors of the machine as errors of one line."""

import errno

import pytest

from toyicl.cli.console import exit_status, machine_errors
from toyicl.core.errors import BadInput, Unfinished


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), 1),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating\n9 bytes\n" + "x" * 999), 1),
        (OSError(errno.ENOSPC, "No space left on device", "results.nc"), 1),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "results.nc"), 2),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "results.nc"), 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "results.nc"), 2),
    ],
)
def test_an_error_of_the_machine_is_one_line(error, status):
    with pytest.raises((BadInput, Unfinished)) as caught, machine_errors():
        raise error
    assert exit_status(caught.value) == status
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert not isinstance(error, OSError) or "results.nc" in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), BrokenPipeError()])
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as caught, machine_errors():
        raise error
    assert caught.value is error
