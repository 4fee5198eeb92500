"""Command lines that cannot be carried out: one clear line, and nothing is written."""

from pathlib import Path

import pytest
from programs import SMALL, SOFTMAX, here, toyicl


def test_the_program_exits_with_what_went_wrong(tmp_path):
    """What the other tests of bad input take from this process, from one of its own."""
    answer = toyicl("run", "fig2", "--settings.task.dim=0", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    expected = "task.dim must be a whole number of at least 1, got 0"
    assert answer.stderr == f"toyicl: {expected}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "fug2"], "did you mean fig2?"),
        (["run", "nowhere.py"], "a Python file that exists, got 'nowhere.py'"),
        (["run"], "experiment must be named"),
        (["run", "fig2", "--settings.task.dmi=3"], "--settings.task.dim"),
        (["run", "fig2", "--settings.task.dim=0"], "task.dim must be a whole number of at least 1"),
        (["run", "fig2", "--settings.task.context-size=0"], "task.context_size must be"),
        (["run", "fig2", "--settings.model.key-size=0"], "model.key_size must be a whole number"),
        (["run", "fig2", "--settings.model.heads=-1"], "model.heads must be a whole number"),
        (
            ["run", "fig2", "--settings.training.steps=150"],
            "training.steps must be a multiple of snapshot_every",
        ),
        (["run", "fig2", "--settings.task.input-range=0"], "task.input_range must be a finite"),
        (["run", "fig2", "--settings.task.input-range=nan"], "got nan"),
        (["run", "fig2", "--settings.task.distractors=11"], "and context_size (10), got 11"),
        (
            [
                "run",
                "fig2",
                "--settings.task.dim=2",
                "--settings.task.covariance",
                "1",
                "2",
                "2",
                "1",
            ],
            "symmetric positive definite 2 x 2",
        ),
        (["run", "fig2", "--seeds=0"], "seeds must be a whole number of at least 1, or FIRST:END"),
        (["run", "prop1", "--out=/proc/nowhere"], "out must be a folder that can be written"),
        (["verify", "--out=nowhere"], "out must be a folder of runs, got nowhere"),
        (["list", "--runs", "--out=nowhere"], "out must be a folder of runs, got nowhere"),
        (
            ["run", "fig2", "--checkpoint-every=-1"],
            "checkpoint_every must be a finite number of at",
        ),
        (["draw", "fig2", "--out=nowhere"], "which has no results.nc"),
        (["floors", "--dim=x"], "--dim: invalid literal for int() with base 10: 'x'"),
        (
            ["run", "fig2", "--settings.training.learning-rate=fast"],
            "--settings.training.learning-rate: could not convert string to float: 'fast'",
        ),
        (
            ["run", "fig1", "fig2", "--settings.task.dim=3"],
            "--settings.task.dim=3 needs exactly one experiment, got fig1, fig2",
        ),
        (["run", "--quick", "--settings.task.dim=3"], "exactly one experiment, got none"),
        (["run", "--quick", "fig2", "--settings.task.dim=0"], "task.dim must be a whole number"),
        (
            ["run", "fig2", "--settings.size-training.learning-rate=0"],
            "toyicl: size_training.learning_rate must be a finite number above 0, got 0.0",
        ),
        (
            ["run", "fig2", "--sweep", "size_training.learning_rate=0,1"],
            "toyicl: size_training.learning_rate must be a finite number above 0, got 0.0",
        ),
        (
            ["run", "fig2", "--settings.training.clip-norm=fast"],
            "--settings.training.clip-norm",
        ),
        (["floors", "--steps=0"], "steps must be a whole number of at least 1, got 0"),
        (
            ["floors", "--input-range=1e200", "--json"],
            "input_range and noise must give losses and step sizes that double precision can",
        ),
        (["floors", "--input-range=1e-200", "--json"], "can represent, got 1e-200 and 0.0"),
        (["floors", "--noise=1e200", "--json"], "can represent, got 1.0 and 1e+200"),
        (["probe", "--axis=attention.softmx"], "factor must be one of attention.softmax, "),
        (["flors"], "list, run, gather, departures, draw, verify, floors"),
        ([], "list, run, gather, departures, draw, verify, floors"),
    ],
)
def test_bad_input_is_one_clear_line(words, expected, tmp_path):
    answer = here(*words, cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert expected in answer.stderr
    assert answer.stderr.startswith("toyicl: ")
    assert answer.stderr.count("\n") <= 3
    assert not list(Path(tmp_path).iterdir())  # nothing half-written


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["departures", "--values=0,1"], "as many lists of values, got 0 and 1"),
        ([*SOFTMAX, "--values=0,1", "--values=0,1"], "as many lists of values, got 1 and 2"),
        ([*SOFTMAX, "--axis=mlp.gate", "--axis=norm.gate"], "one factor or two"),
        ([*SOFTMAX, *SOFTMAX[1:]], "second_factor must be different from factor"),
        (
            [*SOFTMAX, "--values=0:1"],
            "values must be FIRST:LAST:COUNT, with a COUNT of at least 2, or",
        ),
        ([*SOFTMAX, "--values=0,0"], "values must be in increasing order, each once"),
        (
            [*SOFTMAX, "--values=0:2:3"],
            "attention.softmax cannot be 2 here: Architecture.softmax",
        ),
        (
            ["departures", "--factor=model.depth", "--values=1.5"],
            "whole numbers for model.depth, got 1.5",
        ),
        ([*SOFTMAX, "--tolerance=0"], "tolerance must be a finite number above 0, got 0.0"),
        ([*SOFTMAX, "--seeds=0"], "seeds must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_departures_are_one_clear_line(words, expected, tmp_path):
    answer = here(*words, "--out", tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert expected in answer.stderr
    assert answer.stderr.startswith("toyicl: ")
    assert answer.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def refused(*words, **options):
    """What is written to standard error by a command that is refused in one line."""
    answer = here(*words, **options)
    assert answer.returncode == 2
    assert answer.stderr.startswith("toyicl: ")
    assert answer.stderr.count("\n") == 1
    return answer.stderr


FILES = ["results.nc", "results.nc.sha256", "claims.json", "figure.png", "figure.svg"]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_computed(name, tmp_path):
    place = tmp_path / "small" / name
    place.mkdir(parents=True)
    expected = f"{place} must be a file, got a folder"
    for option in ("--fresh", "--dry-run", "--quick"):
        assert expected in refused("run", SMALL, "--out", tmp_path, option)
    if name != "results.nc":
        (tmp_path / "small" / "results.nc").touch()
    assert expected in refused("draw", SMALL, "--out", tmp_path)
    assert not any(place.iterdir())
    assert not (tmp_path / "small" / "checkpoint").exists()


def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_computed(tmp_path):
    checkpoint = tmp_path / "small" / "checkpoint"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    for option in ("--fresh", "--dry-run", "--quick"):
        wrong = refused("run", SMALL, "--out", tmp_path, option)
        assert f"{checkpoint} must be a folder, got a file" in wrong
        assert "out must be a folder" in refused("run", SMALL, "--out", checkpoint, option)
    for words in (["verify"], ["verify", SMALL], ["list"], ["list", "--runs"]):
        wrong = refused(*words, "--out", checkpoint)
        assert f"got {checkpoint}, which is a file" in wrong
    assert f"got {checkpoint}, which is a file" in refused("gather", checkpoint)
    assert "out must be a file in a folder" in refused("demo", "--out", checkpoint / "page.html")
    assert "which is a folder" in refused("demo", "--out", tmp_path)
    assert "a Python file that exists" in refused("run", tmp_path / "a.py")


@pytest.mark.parametrize("name", ["README.md", "verdicts.json", "report.html"])
def test_a_folder_in_the_place_of_a_report_is_refused_before_anything_is_judged(name, tmp_path):
    (tmp_path / name).mkdir()
    answer = refused("verify", "--out", tmp_path)
    assert f"{tmp_path / name} must be a file, got a folder" in answer


def test_files_that_an_experiment_of_ones_own_cannot_use_are_named(tmp_path):
    mine = tmp_path / "mine.py"
    text = '"""A claim.\n\nCost: none.\n"""\n'
    mine.write_text(f"{text}open({str(tmp_path)!r})\n")
    assert f"{tmp_path} cannot be used (Is a directory)" in refused("run", mine)
    catalogue = "from pathlib import Path\nfrom toyicl.harness import catalogue\ncatalogue.read"
    for place, reason in ((tmp_path, "Is a directory"), (tmp_path / "no", "No such file")):
        mine.write_text(f"{text}{catalogue}(Path({str(place)!r}), {{}})\n")
        assert f"{place} must be a file of claims, got {reason}" in refused("run", mine)
