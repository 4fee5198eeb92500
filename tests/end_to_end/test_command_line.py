"""The command line: what it prints, writes and returns, from here or from a process of its own."""

import importlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
from programs import SMALL, SOFTMAX, here, toyicl

from toyicl.cli import job, training
from toyicl.demo import build
from toyicl.harness import experiment, runner
from toyicl.language import extra
from toyicl.studies.departures import FACTORS

TINY = [
    "--seeds=2",
    "--settings.task.dim=3",
    "--settings.task.context-size=4",
    "--settings.training.steps=40",
    "--settings.training.snapshot-every=20",
    "--settings.training.batch-size=64",
    "--settings.size-training.steps=20",
    "--settings.size-training.snapshot-every=10",
    "--settings.size-training.batch-size=32",
    "--settings.sizes=3",
    "--settings.evaluation-episodes=200",
]


NAME = "fig02_one_step"
FIGURES = Path(__file__).parents[2] / "figures"


@pytest.fixture(scope="module")
def fig2(tmp_path_factory):
    """One short run of Figure 2, shared by the tests that read it."""
    out = tmp_path_factory.mktemp("runs")
    return out, toyicl("run", "fig2", "--out", out, *TINY)


def test_list_names_every_experiment_and_whether_it_has_been_run(fig2):
    out, _ = fig2
    answer = here("list", "--out", out)
    assert answer.returncode == 0
    assert "fig2" in answer.stdout
    assert "prop1" in answer.stdout
    assert answer.stdout.count("Has been run.") == 1
    assert answer.stdout.count("Not run yet.") == answer.stdout.count("Cost: ") - 1
    order = [
        answer.stdout.index(f"({alias})") for alias in ("fig2", "fig3b", "fig3a", "fig10", "prop1")
    ]
    assert order == sorted(order)


def test_list_distinguishes_runs_that_were_started(tmp_path):
    (tmp_path / "fig03_two_layers" / "checkpoint").mkdir(parents=True)
    answer = here("list", "--out", tmp_path)
    listed = answer.stdout.split("\nfig03_two_layers (fig3a)")[1].split("\n")[2]
    assert listed.endswith("Incomplete; rerun the same command to resume.")
    assert answer.stdout.count("Incomplete") == 1


def test_the_version_is_that_of_the_package():
    answer = here("--version")
    assert answer.stdout == f"toyicl {importlib.metadata.version('toyicl')}\n"
    assert "--version" in here("--help").stdout


def test_run_writes_results_claims_and_figure(fig2):
    out, answer = fig2
    assert answer.returncode == 0, answer.stderr
    assert "\r" not in answer.stderr, "no progress bar where there is no terminal"
    names = {path.name for path in (out / NAME).iterdir()}
    written = {"results.nc", "results.nc.sha256", "claims.json", "figure.png", "figure.svg"}
    assert names == written | {"checkpoint", ".lock"}
    for name in written - {"results.nc.sha256"}:
        assert f"wrote {out / NAME / name}" in answer.stdout


def test_results_have_the_public_variables_for_each_seed_and_step(fig2):
    out, _ = fig2
    results = xr.load_dataset(out / NAME / "results.nc", engine="h5netcdf")
    for name in (
        "loss",
        "model_cosine",
        "norm_ratio",
        "model_difference",
        "prediction_difference",
    ):
        dims = ("seed", "step") if name == "loss" else ("reference", "seed", "step")
        assert results[name].dims == dims
        assert results[name].shape[-2:] == (2, 3)
    assert results.step.values.tolist() == [0, 20, 40]
    assert results.interpolated_loss.dims == ("seed",)
    assert results.reference_loss.dims == ("reference",)
    settings = json.loads(results.attrs["settings"])
    assert settings["task"]["dim"] == 3
    assert settings["training"]["steps"] == 40
    assert json.loads(results.attrs["versions"])["jax"]
    # Where the results are says nothing about how to make them.
    assert results.attrs["command"] == " ".join([f"toyicl run {NAME}", *TINY])


def test_claims_have_a_verdict_each(fig2):
    out, _ = fig2
    claims = json.loads((out / NAME / "claims.json").read_text())
    keys = {"id", "source", "statement", "paper", "measured", "spread", "floor", "verdict"}
    keys |= {"author", "interval", "reason"}
    assert claims
    for claim in claims:
        assert keys <= set(claim)
        assert claim["verdict"] in (
            "reproduced",
            "not reproduced",
            "inconclusive",
            "holds",
            "fails",
        )


def test_verify_agrees_with_the_run_and_fails_when_a_claim_does(fig2):
    out, _ = fig2
    answer = here("verify", "fig2", "--json", "--out", out)
    verdicts = json.loads(answer.stdout)
    assert verdicts == json.loads((out / NAME / "claims.json").read_text())
    # Forty steps cannot be enough: some finding fails, and the exit code says so. Claims are open.
    assert "fails" in {record["verdict"] for record in verdicts}
    assert answer.returncode == 1
    open_claims = [record for record in verdicts if record["author"] == "paper"]
    assert {record["verdict"] for record in open_claims} <= {"inconclusive", "reproduced"}


def test_a_dry_run_lists_trainings_and_trains_nothing(tmp_path):
    answer = here("run", "fig2", "--dry-run", "--quick", "--seeds", "3", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "5,000" not in answer.stdout  # quick settings
    for size in (5, 10, 20):
        assert f"N = {size}" in answer.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_reports_that_nothing_is_trained(tmp_path):
    answer = here("run", "prop1", "--dry-run", cwd=tmp_path)
    assert answer.returncode == 0
    assert answer.stdout
    assert not list(tmp_path.iterdir())


def test_verify_reports_what_has_not_been_run(tmp_path):
    answer = here("verify", "--json", "--out", tmp_path)
    records = json.loads(answer.stdout)
    assert {record["verdict"] for record in records} == {"not run"}
    assert answer.returncode == 0
    printed = here("verify", "--out", tmp_path).stdout
    ours = sum(record["author"] == "toyicl" for record in records)
    count = f"{len(records) - ours} claims: not run {len(records) - ours}"
    assert printed.splitlines()[-1] == (
        f"{count}; {ours} findings: not run {ours}; `toyicl run fig2 --quick` makes first results"
    )
    assert "Figure 16" in printed


@pytest.mark.parametrize("lock", [True, False])
@pytest.mark.parametrize("words", [SOFTMAX, ["demo", "--no-open"]])
def test_every_command_that_trains_can_do_without_a_lock(tmp_path, monkeypatch, words, lock):
    asked = []

    def run(*arguments, lock=True, **options):
        asked.append(lock)
        return runner.Outcome([], [], [])

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(build, "place", lambda runs: None)
    monkeypatch.setattr(build, "write", lambda out, folder: out)
    answer = here(*words, *([] if lock else ["--no-lock"]), cwd=tmp_path)
    assert (answer.returncode, asked) == (0, [lock]), answer.stderr


@pytest.mark.parametrize("words", [[], ["fig2"], ["--json"], ["--figures"]])
def test_verify_writes_nothing_unless_asked(tmp_path, words):
    assert here("verify", *words, cwd=tmp_path).returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.fixture
def read_only(tmp_path):
    """A folder on a file system that can only be read, with a part of the checked-in results."""
    place = tmp_path / "runs"
    shutil.copytree(FIGURES / "von_oswald_2022" / NAME, place / NAME)
    bind = ["mount", "--bind", str(place), str(place)]
    try:
        subprocess.run(bind, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting takes root")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_can_only_be_read_is_verified(read_only):
    answer = here("verify", "--out", read_only, "--json")
    assert answer.returncode == 0, answer.stderr
    verdicts = {record["id"]: record["verdict"] for record in json.loads(answer.stdout)}
    assert verdicts["VO-2a-1"] == "reproduced"
    (note,) = answer.stderr.splitlines()
    assert note.startswith(
        "toyicl: no report was written: out must be a folder that can be written"
    )
    assert here("verify", "fig2", "--out", read_only).returncode == 0
    for words in (["verify", "--html"], ["run", "fig2"], ["draw", "fig2"]):
        wrong = here(*words, "--out", read_only)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "out must be a folder that can be written" in wrong.stderr


def test_verify_prints_the_tables_of_figures_alone(tmp_path):
    answer = here("verify", "--figures", "--out", tmp_path)
    lines = [line for line in answer.stdout.splitlines() if line]
    assert {line[0] for line in lines} == {"#", "|"}
    assert (tmp_path / "README.md").read_text().count(answer.stdout.strip()) == 1
    for words in (["fig2"], ["--json"]):
        wrong = here("verify", "--figures", *words)
        assert (wrong.returncode, wrong.stdout) == (2, "")


def test_draw_repeats_the_figure_to_the_byte(fig2):
    out, _ = fig2
    before = {kind: (out / NAME / f"figure.{kind}").read_bytes() for kind in ("png", "svg")}
    for kind in before:
        (out / NAME / f"figure.{kind}").unlink()
    answer = here("draw", "fig2", "--out", out)
    assert answer.returncode == 0, answer.stderr
    for kind, bytes_before in before.items():
        assert (out / NAME / f"figure.{kind}").read_bytes() == bytes_before


def test_prop1_holds_through_the_program(tmp_path):
    answer = toyicl("run", "prop1", "--out", tmp_path)
    assert answer.returncode == 0, answer.stderr
    claims = json.loads((tmp_path / "prop1_equivalence" / "claims.json").read_text())
    assert {claim["verdict"] for claim in claims} <= {"proved", "holds"}


def test_float64_works_throughout(tmp_path):
    answer = toyicl("run", SMALL, "--out", tmp_path, JAX_ENABLE_X64="1")
    assert answer.returncode == 0, answer.stderr
    results = xr.load_dataset(tmp_path / "small" / "results.nc", engine="h5netcdf")
    assert results.loss.dtype == "float64"


def test_floors_prints_one_json_document():
    answer = here("floors", "--context-size=5", "--steps=1", "--json")
    floors = json.loads(answer.stdout)
    assert answer.stderr == ""
    assert floors["gd_shared"][0]["loss"] == pytest.approx(0.2759009, rel=1e-6)
    assert floors["bayes"] == pytest.approx(5 / 24, rel=1e-6)
    assert set(floors) == {
        "predict_zero",
        "gd_shared",
        "gd_per_step",
        "gdpp_shared",
        "bayes",
        "ridge",
        "saddles",
    }


def test_circuits_scores_the_heads_of_a_run_next_to_controls(tmp_path):
    assert here("run", SMALL, "--out", tmp_path).returncode == 0
    answer = here("circuits", "--run", tmp_path / "small", "--json")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    control = found.pop("constructed step of gradient descent")
    # Inputs and labels are ten dimensions each of twenty: z = sqrt(10) sqrt(20).
    for circuit in ("key_query", "value_output"):
        assert abs(control["sources"]["model"][circuit]["median_z"]) == pytest.approx(200**0.5)
        assert control["sources"]["rotated"][circuit]["largest_z"] < 5
    assert control["heads_beyond"][0]["head"] == 0
    assert found
    assert all(set(one["sources"]) >= {"model", "rotated", "untrained"} for one in found.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=x.gguf", "--run=y"], "run must not be given with model"),
        (["--model=missing.gguf"], "model must be an existing file with suffix .gguf or"),
        (["--run=missing"], "run must be the folder of a run with a checkpoint, got missing"),
        (["--model=x.gguf", "--out=x.pdf"], "out must be a file with suffix .png or .svg"),
    ],
)
def test_circuits_refuses_what_is_no_model_in_one_line(words, message):
    answer = here("circuits", *words)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.fixture
def without_extra(monkeypatch):
    """The packages of the extra `lm` cannot be imported, whether or not they are installed."""
    import_module = importlib.import_module

    def missing(name, package=None):
        if name in extra.PACKAGES:
            raise ImportError(name)
        return import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)


@pytest.mark.usefixtures("without_extra")
def test_an_experiment_whose_extra_is_not_installed_is_refused_at_once_in_one_line(tmp_path):
    answer = here("run", "pretrained_model", "--out", tmp_path)
    assert answer.returncode == 2
    (line,) = answer.stderr.strip().splitlines()
    assert "need the package gguf: pip install 'toyicl[lm]'" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_extra")
def test_all_experiments_are_those_whose_extras_are_installed(capsys):
    listings = [experiment.find(name) for name in ("prop1", "pretrained_model")]
    loaded = [experiment.load(listing) for listing in listings]
    grids = [runner.Grid(one.quick, {}, [one.quick]) for one in loaded]
    members = [job.Member(*each, Path()) for each in zip(listings, loaded, grids, strict=True)]
    assert job.with_prerequisites(members) == members[:1]
    assert "pretrained_model is left out: language models need" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run fig2 --seeds=3 --out x", "toyicl run fig2 --seeds=3"),
        ("run --seeds 3 fig2", "toyicl run fig2 --seeds 3"),
        ("run --quick prop1 fig2", "toyicl run fig2 --quick"),
        ("run fig2 prop1 --checkpoint_every 3 --shard batch", "toyicl run fig2 --shard batch"),
    ],
)
def test_the_command_of_results_makes_them_again(words, expected):
    names = [word for word in words.split() if word in ("fig2", "prop1")]
    assert training.command_of_results("fig2", names, words.split()) == expected


def test_the_command_of_a_departure_has_no_place_of_its_run(monkeypatch, tmp_path):
    """The training is left out: what a run is called with is recorded."""
    called = {}

    def run(one, grid, folder, **options):
        called.update(options, folder=folder)
        return runner.Outcome([], [], [])

    monkeypatch.setattr(runner, "run", run)
    words = [*SOFTMAX, "--values=0,1", "--seeds", "2", "--quick"]
    assert here(*words, "--out", tmp_path, "--fresh").returncode == 0
    assert called["folder"] == tmp_path / "departures-attention.softmax"
    assert called["fresh"]
    assert called["command"] == " ".join(["toyicl", *words])


def test_a_diverged_seed_is_named_and_the_results_are_kept(tmp_path):
    options = ["--settings.training.clip-norm=None", "--settings.training.learning-rate=1e30"]
    answer = toyicl("run", SMALL, "--out", tmp_path, "--seeds=2", *options)
    assert answer.returncode == 1
    assert "first: seed 0 diverged, its loss is not finite at step" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert (tmp_path / "small" / "results.nc").exists()


@pytest.mark.parametrize("command", ["departures", "probe"])
def test_departures_without_a_factor_lists_all_factors(command):
    answer = here(command)
    lines = answer.stdout.splitlines()
    assert answer.returncode == 0
    assert len(lines) == 2 * len(FACTORS)
    for name, line, values in zip(FACTORS, lines[::2], lines[1::2], strict=True):
        assert line.split()[0] == name
        assert FACTORS[name].meaning in line
        assert float(values.split(", ")[-1]) == FACTORS[name].values[-1]


@pytest.mark.slow
def test_departures_trains_measures_and_draws(tmp_path):
    """Quick: 2,000 steps at each of two values."""
    answer = toyicl(*SOFTMAX, "--values=0:1:2", "--seeds=1", "--quick", "--out", tmp_path)
    assert answer.returncode == 0, answer.stderr
    folder = tmp_path / "departures-attention.softmax"
    for name in ("results.nc", "claims.json", "figure.png", "figure.svg"):
        assert f"wrote {folder / name}" in answer.stdout
        assert (folder / name).stat().st_size > 0
    results = xr.load_dataset(folder / "results.nc", engine="h5netcdf")
    assert dict(results.sizes) == {"factor": 1, "value": 2, "stage": 2, "seed": 1}
    assert abs(results.excess.sel(stage="untrained") - 1).max() < 0.03
    trained = results.sel(stage="trained")
    linear, softmax = (trained.sel(value=value) for value in (0.0, 1.0))
    assert (linear.loss / linear.reference_loss).min() > 0.98
    assert (linear.loss / linear.reference_loss).max() < 1.03
    assert softmax.excess.min() > 5 * linear.excess.max(), (
        "softmax attention is not gradient descent"
    )
    drawn = (folder / "figure.png").read_bytes()
    (folder / "figure.png").unlink()
    assert here("draw", folder).returncode == 0
    assert (folder / "figure.png").read_bytes() == drawn


def test_a_reader_who_has_seen_enough_gets_no_traceback():
    """More lines than a pipe holds are not needed: the reader has gone before the first."""
    program = [sys.executable, "-m", "toyicl", "list"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 1


def test_importing_the_command_line_is_quick():
    code = (
        "import sys, toyicl.cli; print(sorted({'jax', 'xarray', 'matplotlib'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_verify_reports_a_quick_run_that_it_ignores(tmp_path):
    short = [SMALL, "--settings.training.steps=40", "--seeds=1"]
    assert here("run", *short, "--out", "figures", cwd=tmp_path).returncode == 0
    alone = here("verify", SMALL, cwd=tmp_path)
    quick = here("run", *short, "--quick", cwd=tmp_path)
    assert quick.returncode == 0
    assert "training.steps 40 instead of 200" in quick.stdout
    beside = here("verify", SMALL, cwd=tmp_path)
    assert alone.stderr == ""
    passed = "runs/small is a quick run, which --out runs judges"
    assert beside.stderr == f"toyicl: small: judged figures/small; {passed}\n"
    assert beside.stdout == alone.stdout


def test_a_limit_on_seeds_may_be_any_number(tmp_path):
    words = ["run", "fig2", "--quick", "--dry-run", "--seeds=1", "--settings.sizes=5"]
    answer = here(*words, "--settings.size-max-seeds=2000000000", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
