"""Experiment files of one's own through the command line."""

import json

import pytest
import xarray as xr
from programs import here, toyicl

from toyicl.harness import atomic_files

MINE = (
    '"""Two is two.\n\nCost: nothing.\n"""\n'
    "from dataclasses import dataclass\n"
    "import xarray as xr\n"
    "from toyicl.plots import figures\n"
    "from toyicl.harness.claims import Claim, Finding\n"
    "@dataclass(frozen=True)\n"
    "class Settings:\n"
    '    """Mine."""\n'
    "    two: float = 2.0\n"
    "FULL = QUICK = Settings()\n"
    "def measure(settings, histories):\n"
    '    return xr.Dataset({"two": settings.two})\n'
    "def draw(results):\n"
    "    return figures.panels(1, 1)\n"
    'CLAIMS = (Finding(id="M", source="me", statement="two", paper="2",\n'
    "                value=lambda results: results.two, band=(2, 2)),)\n"
)


CLAIMED = (
    'Claim("M", "two", lambda results: results.two, relation="equals", quantity="loss",\n'
    '      reference=2.0, source="me", paper="2")'
)
FOUND = 'Finding("M", "two", lambda results: results.two, (2, 2), source="me")'


@pytest.mark.parametrize(
    ("statement", "right", "wrong"),
    [
        (CLAIMED, "reproduced", "not reproduced"),
        (CLAIMED.replace('paper="2"', 'paper="2", analytical=True'), "proved", "refuted"),
        (FOUND, "holds", "fails"),
    ],
)
def test_verify_exits_with_1_if_a_claim_is_not_reproduced_or_a_finding_fails(
    tmp_path, statement, right, wrong
):
    path = tmp_path / "mine.py"
    path.write_text(MINE[: MINE.index("CLAIMS")] + f"CLAIMS = ({statement},)\n")
    for two, verdict, code in ((2, right, 0), (3, wrong, 1)):
        assert (
            here("run", path, f"--settings.two={two}", "--out", tmp_path, "--fresh").returncode == 0
        )
        answer = here("verify", path, "--out", tmp_path, "--json")
        (record,) = json.loads(answer.stdout, parse_constant=pytest.fail)
        assert (record["verdict"], answer.returncode) == (verdict, code)


def test_an_inconclusive_claim_is_no_failure(tmp_path):
    """Two seeds are too few for an interval."""
    path = tmp_path / "mine.py"
    seeded = MINE.replace("settings.two}", '("seed", [settings.two, settings.two])}')
    path.write_text(seeded[: seeded.index("CLAIMS")] + f"CLAIMS = ({CLAIMED},)\n")
    assert here("run", path, "--out", tmp_path).returncode == 0
    answer = here("verify", path, "--out", tmp_path)
    assert answer.returncode == 0
    assert "too few seeds" in answer.stdout


def test_an_experiment_file_of_ones_own_runs_by_its_path(tmp_path):
    """It may make arrays when it is loaded; the command of its results names the path."""
    path = tmp_path / "mine.py"
    path.write_text(MINE + "import jax.numpy as jnp\nARRAY = jnp.ones(2)\n")
    right = toyicl("run", path, "--out", tmp_path)
    assert right.returncode == 0, right.stderr
    results = xr.load_dataset(tmp_path / "mine" / "results.nc", engine="h5netcdf")
    assert results.attrs["command"] == f"toyicl run {path}"
    wrong = here("run", path, "--settings.two=3", "--out", tmp_path, "--fresh")
    assert "fails" in wrong.stdout


EXECUTED_ONCE = """
from pathlib import Path

with Path(__file__).with_suffix(".executions").open("a") as file:
    file.write("x")


def trainings(settings):
    assert isinstance(settings, Settings), type(settings)
    return {}


measure_settings = measure


def measure(settings, histories):
    assert isinstance(settings, Settings), type(settings)
    return measure_settings(settings, histories)
"""


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--quick", "--settings.two=3"],
        ["--sweep=three=1,2"],
        ["--dry-run"],
        ["prop1", "--dry-run"],
        ["{path}"],
    ],
)
def test_an_experiment_file_is_executed_once_and_gets_settings_of_its_own_class(tmp_path, words):
    path = tmp_path / "mine.py"
    more = MINE.replace("    two: float = 2.0\n", "    two: float = 2.0\n    three: float = 3.0\n")
    path.write_text(more + EXECUTED_ONCE)
    answer = here("run", path, *(word.format(path=path) for word in words), "--out", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert path.with_suffix(".executions").read_text() == "x"


def test_two_experiments_with_one_folder_are_refused(tmp_path):
    paths = [tmp_path / folder / "mine.py" for folder in ("one", "other")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(MINE)
    answer = here("run", *paths, "--out", tmp_path / "runs")
    assert answer.returncode == 2
    assert f"must have different names, so that each has a folder of its own, got {paths[0]}" in (
        answer.stderr
    )
    assert not (tmp_path / "runs").exists()


def test_a_changed_experiment_file_is_reported_and_a_figure_in_use_is_kept(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    assert here("run", path, "--out", tmp_path).returncode == 0
    path.write_text(MINE + "# another line\n")
    changed = here("run", path, "--out", tmp_path)
    assert changed.returncode == 0
    sentence = "resuming a run that another version of the experiment file started"
    assert changed.stderr == f"toyicl: {sentence}; --fresh starts over\n"
    with atomic_files.locked(tmp_path / "mine", print):
        answer = here("draw", path, "--out", tmp_path)
    assert answer.returncode == 2
    assert "no other process is using" in answer.stderr
