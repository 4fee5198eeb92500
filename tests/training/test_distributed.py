"""Devices and processes: one device, four, or two processes of two devices train the same runs."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import xarray as xr
from programs import SMALL, begin, environment, toyicl

from toyicl.core.errors import BadInput
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training import distributed
from toyicl.training.loop import Job, fit_all
from toyicl.training.placement import AcrossRuns
from toyicl.training.step import Training, advance

RIDGE = """
from toyicl.training import distributed
distributed.use_all_cores()
import jax
from toyicl.algorithms.ridge import TunedAdaptiveRidge
from toyicl.tasks.mixed_noise import MixedNoise
from toyicl.training.loop import fit
from toyicl.training.step import StartFrom, Training
build = StartFrom(learner=TunedAdaptiveRidge(1.0, 3.0))
training = Training(steps=2, batch_size=128, snapshot_every=1)
history = fit(build, MixedNoise(largest_noise=3.0), training, seeds=jax.device_count())
print(history.training_loss.shape)
"""
"""A program that trains a learner with linear solves, one on each device."""
WORDS = ["--seeds=3", "--settings.training.steps=60", "--settings.second"]


def results(out):
    return xr.load_dataset(out / "small" / "results.nc", engine="h5netcdf")


def assert_close(one, other):
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-6, err_msg=name)


def free_address():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def start_two_processes(*words):
    """Start the program in two processes of two devices that form a cluster."""
    cluster = ["--distributed", f"--coordinator={free_address()}", "--processes=2"]
    return [begin(*words, *cluster, f"--rank={rank}", JAX_NUM_CPU_DEVICES=2) for rank in range(2)]


def two_processes(*words):
    """Output, errors and status of two processes that run to their end."""
    started = start_two_processes(*words)
    return [(*process.communicate(timeout=200), process.returncode) for process in started]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    answer = toyicl("run", SMALL, "--out", out, *WORDS, JAX_NUM_CPU_DEVICES=1)
    assert answer.returncode == 0, answer.stderr
    assert results(out).attrs["device"] == "1 x cpu"
    return results(out)


@pytest.mark.parametrize(
    "forced",
    [
        {"JAX_NUM_CPU_DEVICES": 4},
        {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
        },
    ],
)
def test_four_devices_train_the_same_runs(one_device, tmp_path, forced):
    answer = toyicl("run", SMALL, "--out", tmp_path, *WORDS, **forced)
    assert answer.returncode == 0, answer.stderr
    assert results(tmp_path).attrs["device"] == "4 x cpu"
    assert_close(results(tmp_path), one_device)


def test_linear_solves_on_all_devices_do_not_wait_for_each_other():
    """With one of XLA's threads for each device they would, and the program would not end."""
    answer = subprocess.run(
        [sys.executable, "-c", RIDGE],
        capture_output=True,
        text=True,
        env={
            name: value
            for name, value in environment(JAX_NUM_CPU_DEVICES=4).items()
            if name != "NPROC"
        },
        timeout=120,
        check=False,
    )
    assert answer.stdout == "(4, 2)\n", answer.stderr


@pytest.mark.parametrize("shard", [pytest.param("run", marks=pytest.mark.slow), "batch"])
def test_two_processes_train_the_same_runs_and_only_the_first_writes(one_device, tmp_path, shard):
    words = ["run", SMALL, "--out", tmp_path, *WORDS, f"--shard={shard}", "--checkpoint-every=0"]
    (first, errors, code), (second, more_errors, other_code) = two_processes(*words)
    assert (code, other_code) == (0, 0), errors + more_errors
    assert "wrote" in first
    assert "wrote" not in second
    assert results(tmp_path).attrs["device"] == "4 x cpu"
    assert_close(results(tmp_path), one_device)


def test_one_batch_divided_among_four_devices_trains_the_same_run(one_device, tmp_path):
    words = ["run", SMALL, "--out", tmp_path, *WORDS, "--shard=batch"]
    answer = toyicl(*words, JAX_NUM_CPU_DEVICES=4)
    assert answer.returncode == 0, answer.stderr
    assert_close(results(tmp_path), one_device)


@pytest.mark.slow
def test_two_processes_are_interrupted_together_and_one_resumes(tmp_path):
    """Any of them may receive the signal; the checkpoint has the runs of both."""
    long = ["--seeds=3", "--settings.training.steps=6000"]
    words = ["run", SMALL, "--out", tmp_path / "two", *long]
    started = start_two_processes(*words, "--checkpoint-every=0")
    while not (tmp_path / "two" / "small" / "checkpoint" / "00000003").exists():
        assert started[0].poll() is None
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors
        assert "interrupted while training 'first', after" in errors
    assert toyicl(*words).returncode == 0
    assert toyicl("run", SMALL, "--out", tmp_path / "one", *long).returncode == 0
    assert_close(results(tmp_path / "two"), results(tmp_path / "one"))
    assert len(json.loads(results(tmp_path / "two").attrs["origins"])) == 2


@pytest.mark.slow
def test_two_processes_run_several_experiments(tmp_path):
    """Process 0 alone knows which are finished; one that cannot be run ends neither process."""
    for name in ("one", "other"):
        (tmp_path / f"{name}.py").write_text(SMALL.read_text())
    one, other, out = tmp_path / "one.py", tmp_path / "other.py", tmp_path / "runs"
    short = ["--quick", "--seeds=2", "--out", out]
    assert toyicl("run", SMALL, *short, "--sweep=task.dim=2").returncode == 0
    assert toyicl("run", one, *short).returncode == 0
    before = (out / "one" / "results.nc").read_bytes()
    (_, errors, code), (_, more, other_code) = two_processes("run", one, SMALL, other, *short)
    assert (code, other_code) == (2, 1), errors + more
    assert "toyicl: one is finished, and not run again\n" in errors
    assert "toyicl: small: settings must be those of the run in" in errors
    assert "toyicl: small: process 0 could not continue" in more
    assert "toyicl: other: experiment 3 of 3, 1 finished\n" in errors
    assert (out / "one" / "results.nc").read_bytes() == before
    assert xr.load_dataset(out / "other" / "results.nc", engine="h5netcdf").sizes["seed"] == 2


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path):
    words = ["run", SMALL, "--out", tmp_path, *WORDS, "--shard=batch"]
    answer = toyicl(*words, JAX_NUM_CPU_DEVICES=3)
    assert answer.returncode == 2
    assert "training.batch_size must be a multiple of the number of devices (3)" in answer.stderr


def test_more_processes_than_runs_are_refused_by_all(tmp_path):
    answers = two_processes("run", SMALL, "--out", tmp_path, "--seeds=1")
    for _, errors, code in answers:
        assert code == 2
        assert "processes must be at most one for each run (1), got 2" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_more_processes_than_runs_can_divide_batches(tmp_path):
    words = ["--seeds=1", "--settings.training.steps=20", "--shard=batch"]
    for _, errors, code in two_processes("run", SMALL, "--out", tmp_path, *words):
        assert code == 0, errors
    assert results(tmp_path).sizes["seed"] == 1


@pytest.mark.slow
def test_if_the_first_process_cannot_start_none_does(tmp_path):
    (tmp_path / "small").write_text("in the way")
    first, second = two_processes("run", SMALL, "--out", tmp_path, *WORDS)
    assert first[2] == 2
    assert "out must be a folder that can be written" in first[1]
    assert second[2] == 1
    assert "process 0 could not continue" in second[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_waiting_for_other_processes_is_limited(tmp_path, rank):
    answer = toyicl(
        "run", SMALL, "--out", tmp_path, "--distributed", f"--coordinator={free_address()}",
        "--processes=2", f"--rank={rank}", "--patience=2", timeout=30,
    )  # fmt: skip
    assert answer.returncode == 1
    assert "not all processes were connected at 127.0.0.1:" in answer.stderr
    assert "within 2 s" in answer.stderr
    assert "stack trace" not in answer.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_cluster_is_reported(tmp_path):
    answer = toyicl("run", SMALL, "--out", tmp_path, "--distributed")
    assert answer.returncode == 2
    assert "distributed must find a cluster, or be given --coordinator" in answer.stderr


@pytest.mark.parametrize(
    ("address", "processes", "rank", "message"),
    [
        ("h:1", 2, 2, r"rank must be between 0 and 1 \(processes - 1\), got 2"),
        ("h:1", 2, -1, "rank must be between 0 and 1"),
        ("h:1", 0, 0, "processes must be at least 1, got 0"),
        ("h:1", 2, None, r"must be given together; no \['rank'\]"),
        ("h", 2, 0, "coordinator must be HOST:PORT, with a port from 1 to 65535, got 'h'"),
        ("h:0", 2, 0, "with a port from 1 to 65535, got 'h:0'"),
        ("h:65536", 2, 1, "with a port from 1 to 65535, got 'h:65536'"),
        (":1234", 2, 0, "coordinator must be HOST:PORT"),
    ],
)
def test_inconsistent_options_of_a_cluster_are_refused(address, processes, rank, message):
    with pytest.raises(BadInput, match=message):
        distributed.connect(address, processes, rank, patience=5)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_refused(host):
    with socket.create_server((host, 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        message = f"with a port that is free, got '{address}' (Address already in use)"
        with pytest.raises(BadInput, match=re.escape(message)):
            distributed.connect(address, 2, 0)


def test_an_error_at_a_given_address_is_not_reported_as_a_missing_cluster(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no route")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(BadInput, match=r"distributed must start at 10\.0\.0\.1:1: no route"):
        distributed.connect("10.0.0.1:1", 2, 1)


def test_runs_of_different_lengths_compile_once(monkeypatch):
    """As on a GPU, where all runs of a device are advanced at once: finished runs keep their places."""
    spread = AcrossRuns()
    monkeypatch.setattr(spread, "at_once", lambda runs: -(-runs // 2) * 2)
    jobs = [
        Job(
            Architecture(),
            LinearRegression(dim=2, context_size=3),
            Training(steps=steps, batch_size=4, snapshot_every=2),
        )
        for steps in (2, 4, 6)
    ]
    before = advance._cache_size()
    together = fit_all(jobs, 2, spread=spread)
    assert advance._cache_size() == before + 1
    for own, expected in zip(together, [fit_all([job], 2)[0] for job in jobs], strict=True):
        for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_options_of_a_cluster_need_distributed(tmp_path):
    answer = toyicl("run", SMALL, "--out", tmp_path, "--rank=0")
    assert answer.returncode == 2
    assert "need --distributed" in answer.stderr
