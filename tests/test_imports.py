"""The command line is quick to start, and every public name can be reached."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import toyicl

PACKAGE = Path(toyicl.__file__).parent
HEAVY = {"jax", "jaxlib", "flax", "optax", "scipy", "matplotlib", "xarray"}


def imported_modules(nodes):
    """Full names of the modules, or of the names in them, that statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_once(module):
    """Top-level packages that a module imports when it is imported itself."""
    body = ast.parse((PACKAGE / f"{module}.py").read_text()).body
    return {name.split(".")[0] for name in imported_modules(body)}


def test_modules_are_in_packages():
    assert len(list(PACKAGE.glob("*.py"))) <= 4


MODULES = ["core/errors", "harness/experiment", "cli/console", "cli/parsing", "cli/main"]


@pytest.mark.parametrize("module", MODULES)
def test_modules_of_the_command_line_import_nothing_heavy(module):
    assert not imported_at_once(module) & HEAVY


def loaded_by(program):
    """Which heavy packages a fresh Python has loaded after a program."""
    ending = f"import sys; print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    command = [sys.executable, "-c", f"{program}\n{ending}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stderr.split()


@pytest.mark.parametrize("statement", ["import toyicl", "import toyicl.cli.main"])
def test_importing_loads_nothing_heavy(statement):
    assert loaded_by(statement) == []


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_a_command_that_only_prints_loads_nothing_heavy(words):
    program = f"""
from toyicl.cli.main import main
try:
    main({words!r})
except SystemExit as exit:
    assert not exit.code, exit.code
"""
    assert loaded_by(program) == []


def test_a_heavy_import_would_be_seen():
    assert "jax" in loaded_by("import toyicl; toyicl.predict")


def test_every_noun_of_the_package_can_be_reached():
    for noun in toyicl.__all__:
        assert getattr(toyicl, noun) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        toyicl.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("name", "target"),
    [*toyicl._ALIASES.items(), *((name, name) for name in toyicl._PACKAGES)],
)
def test_every_package_and_earlier_name_of_a_module_is_found(name, target):
    """By `toyicl.__getattr__` itself: a submodule that was imported is an attribute without it."""
    assert toyicl.__getattr__(name) is importlib.import_module(f"toyicl.{target}")
