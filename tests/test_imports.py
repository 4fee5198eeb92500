"""Each room imports only from the rooms before it, and the command line is quick to start."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import toyicl

PACKAGE = Path(toyicl.__file__).parent
GUIDE = PACKAGE.parent / "CONTRIBUTING.md"
ROOMS = re.findall(
    r"`(\w+)`", next(line for line in GUIDE.read_text().split("\n\n") if "→" in line)
)
"""In reading order, as the guide for contributors gives it."""
HEAVY = {"jax", "jaxlib", "flax", "optax", "scipy", "matplotlib", "xarray"}


def parse(room):
    return ast.parse((PACKAGE / f"{room}.py").read_text())


def imported_modules(nodes):
    """Full names of the modules, or of the things in them, that statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(room):
    """Rooms that a room imports, wherever in it."""
    names = [name.split(".") for name in imported_modules(ast.walk(parse(room)))]
    return {name[1] for name in names if name[0] == "toyicl" and len(name) > 1}


def imported_at_once(room):
    """Top-level packages that a room's own text imports when it is imported."""
    return {name.split(".")[0] for name in imported_modules(parse(room).body)}


def test_every_room_has_its_place():
    found = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert found == set(ROOMS), "a new room takes its place in CONTRIBUTING.md, in reading order"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_those_before_it(room):
    """Nouns by the room they live in, too: `from toyicl import Architecture` is for users."""
    assert imported_rooms(room) <= set(ROOMS[: ROOMS.index(room)])


def test_closed_forms_know_no_learner():
    assert imported_rooms("theory") <= {
        "errors",
        "settings",
        "episode",
        "tasks",
        "spectrum",
        "descent",
    }


def test_metrics_take_any_reference():
    assert imported_rooms("metrics") <= {"errors", "settings", "episode"}


@pytest.mark.parametrize("room", ["errors", "experiment", "terminal", "parsing", "cli"])
def test_rooms_of_the_command_line_import_nothing_heavy(room):
    assert not imported_at_once(room) & HEAVY


def loaded_by(program):
    """Which heavy packages a fresh Python has loaded after a program."""
    ending = f"import sys; print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    command = [sys.executable, "-c", f"{program}\n{ending}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stderr.split()


@pytest.mark.parametrize("statement", ["import toyicl", "import toyicl.cli"])
def test_importing_loads_nothing_heavy(statement):
    assert loaded_by(statement) == []


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_a_command_that_only_prints_loads_nothing_heavy(words):
    program = f"""
from toyicl.cli import main
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
