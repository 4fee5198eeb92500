"""Strict arithmetic for all tests: float64, no silent broadcasting between ranks; two devices."""

import gc
import importlib.metadata
import os
import tempfile

# Tests do little but compile, so XLA leaves out most of its optimisations. Single tests of training
# have them: see `full_compiler`.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# Small programs are compiled faster in one part each, and by XLA's older emitters, which take half the
# time. Later versions no longer have these, and abort on a flag that they do not know.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_cpu_parallel_codegen_split_count=1"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax
import numpy as np
import pytest

from toyicl.theory import gram_spectrum
from toyicl.training import compilation_cache

# Programs that tests start share what they compile, but with nobody else.
os.environ["XDG_CACHE_HOME"] = os.path.join(tempfile.gettempdir(), f"toyicl-tests-{os.getuid()}")

compilation_cache.keep_compiled()
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


LONGEST = (
    "test_measures",
    "test_distributed",
    "test_resume",
    "test_command_line",
    "test_gather",
    "test_closed_form",
    "test_page",
    "test_blocks",
    "test_sweeps",
    "test_results",
    "test_same_numbers",
    "test_compilation_cache",
    "test_fuzzed_command_lines",
    "test_bad_command_lines",
)
"""Files of tests that take longest."""


FEW_TASKS = 250_000
"""Sampled tasks of a distribution of eigenvalues, of which the library takes 1,000,000."""


def pytest_configure(config):
    """Fewer sampled eigenvalue problems, which take ten seconds for each size of a task otherwise.

    Tests marked slow have all of them. Tests of what is sampled allow for larger errors.
    """
    if config.getoption("markexpr") == "not slow":
        gram_spectrum.TASKS = FEW_TASKS


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no process waits for another at the end."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish():
    """Search for garbage seldom, and only among what tests make, not in all modules and test items."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture
def full_compiler():
    """XLA with all the optimisations that users have, apart from the newer emitters."""
    compilation_cache.forget_programs()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    compilation_cache.forget_programs()


@pytest.fixture(scope="session")
def close():
    """The one comparison of arrays: relative to the largest entry, so that zeros can be compared."""

    def check(actual, expected, tolerance=1e-12):
        actual, expected = np.asarray(actual), np.asarray(expected)
        assert actual.shape == expected.shape, (actual.shape, expected.shape)
        scale = max(np.abs(expected).max(initial=0), np.finfo(float).tiny)
        np.testing.assert_array_less(np.abs(actual - expected).max(initial=0) / scale, tolerance)

    return check


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Programs of one module's tests are let go of before the next: a process can hold only so many."""
    yield
    compilation_cache.forget_programs()
