"""Command lines that cannot be carried out: one clear line, and nothing is written."""

import re
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
        (["run", "x" * 300 + ".py"], "File name too long"),
        (["draw", "x" * 300], "File name too long"),
        (["run"], "experiment must be named"),
        (["run", "fig2", "--settings.task.dmi=3"], "--settings.task.dim INT"),
        (["run", "fig2", "--settings.task.dmi=3"], "toyicl run fig02_one_step --help"),
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
        (["floors", "--dim=0"], "toyicl: dim must be a whole number of at least 1, got 0"),
        (["floors", "--noise=-1"], "toyicl: noise must be a finite number of at least 0, got -1"),
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


@pytest.fixture
def machine(monkeypatch):
    """A machine with 8 GB of memory."""
    for module in ("toyicl.core.config", "toyicl.harness.memory"):
        monkeypatch.setattr(f"{module}.available", lambda: 8e9)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fig2", "--settings.training.batch-size=99999999999"], "training.batch_size must be"),
        (["fig2", "--settings.training.batch-size=999999999"], "training.batch_size 999,999,999"),
        (["fig2", "--settings.task.dim=100000"], "with dim 100000 and"),
        (["fig2", "--settings.task.context-size=50000000"], "context_size 50000000"),
        (["fig2", "--settings.model.key-size=2000000000"], "model.key_size must"),
        (
            ["fig2", "--settings.training.snapshot-every=1", "--settings.training.steps=100000000"],
            "",
        ),
        (["fig2", "--settings.evaluation-episodes=2000000000"], "evaluation_episodes must be"),
        (
            ["fig2", "--settings.task.dim=9000", "--settings.evaluation-episodes=1"],
            "task.dim 9,000",
        ),
        (["fig2", "--seeds=1000000000"], "seeds 1,000,000,000"),
        (["fig2", "--seeds=99999999999"], "seeds must be below"),
        (["fig8", "--settings.model.mlp-size=20000000"], "an estimate of"),
        (["fig7", "--settings.model.depth=2000000000"], "model.depth must be"),
        (["fig1", "--settings.depth=2000000000"], "depth must be"),
        (["fig3b", "--settings.robust-episodes=2000000000"], "robust_episodes must be"),
        (["fig4", "--settings.curve-points=2000000000"], "curve_points must be"),
        (["fig9", "--settings.random-layers=2000000000"], "random_layers must be"),
        (["fig10", "--settings.many-episodes=2000000000"], "many_episodes must be"),
        (["fig12", "--settings.limit-episodes=2000000000"], "limit_episodes must be"),
        (["fig13", "--settings.spectrum-tasks=2000000000"], "spectrum_tasks must be"),
        (["fig15", "--settings.block-tasks=2000000000"], "block_tasks must be"),
        (["prop1", "--settings.depth=2000000000"], "depth must be"),
        (["prop2", "--settings.width=2000000"], "width must be"),
        (["prop3", "--settings.tokens=2000000"], "tokens must be"),
        (["attention_cost", "--settings.points=2000000"], "points must be"),
        (["context_order", "--settings.permutations=2000000000"], "permutations must be"),
        (["views", "--settings.steps=2000000000"], "steps must be"),
        (["dual_form", "--settings.epochs=2000000000"], "epochs must be"),
        (["attention_maps", "--settings.queries=2000000000"], "queries must be"),
        (["floors", "--dim=200000", "--context-size=200000"], "context_size must be"),
        (["untaught", "--settings.evaluation-episodes=2000000000"], "evaluation_episodes must be"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_with_an_estimate(
    words, expected, tmp_path, machine
):
    run = [] if words[0] == "floors" else ["run", "--quick"]
    answer = here(*run, *words, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert expected in answer.stderr
    assert answer.stderr.count("\n") == 1
    if "seeds must be below" not in expected:
        assert re.search(r" 8 GB here", answer.stderr)
        assert " or more" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_the_memory_of_a_sweep_is_that_of_all_its_points(tmp_path, machine):
    words = [
        "run",
        "fig2",
        "--dry-run",
        "--settings.training.snapshot-every=1",
        "--settings.sizes=5",
    ]
    large = "--settings.task.dim=40"
    assert here(*words, large, cwd=tmp_path).returncode == 0
    answer = here(*words, large, "--sweep=task.input_range=1:2:40", cwd=tmp_path)
    assert answer.returncode == 2
    assert "must fit into memory" in answer.stderr


@pytest.mark.parametrize("content", [b"\xff\x00", b'"""A claim."""\nif:\n', b"\x00"])
def test_a_file_that_is_not_python_is_one_clear_line(content, tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    answer = here("run", path, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(
        f"toyicl: experiment must be a Python file, got {str(path)!r}: "
    )
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [(["demo", "--no-open", "--out=\udcff.html"], 0), (["run", "\udcff/small.py"], 2)],
)
def test_a_path_that_is_no_text_is_printed(words, code, tmp_path):
    (tmp_path / "\udcff").mkdir()
    (tmp_path / "\udcff" / "small.py").write_bytes(SMALL.read_bytes())
    answer = toyicl(*words, cwd=tmp_path, LC_ALL="C.UTF-8")
    assert answer.returncode == code
    assert "\\udcff" in (answer.stderr if code else answer.stdout)
    assert answer.stderr.count("\n") == (1 if code else 0)
