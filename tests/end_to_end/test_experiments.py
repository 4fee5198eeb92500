"""Every experiment: run with very short settings through the command line, and redrawn."""

import json
from dataclasses import replace

import pytest
import xarray as xr
from programs import here, toyicl

from toyicl.core.errors import BadInput
from toyicl.harness import experiment, trainings
from toyicl.harness.verdicts import VERDICTS
from toyicl.models.causal import CausalArchitecture
from toyicl.models.transformer import Architecture

FEW = "--settings.evaluation-episodes=50"
SHORT = (
    "--settings.training.steps=4 --settings.training.snapshot-every=2"
    " --settings.training.batch-size=8"
)


def short(*names: str) -> str:
    """Options with which further trainings, the fields of the settings, are as short as the first."""
    return " ".join(
        f"--settings.{name}.{option}"
        for name in names
        for option in ("steps=2", "snapshot-every=2", "batch-size=8")
    )


FEW_TASKS = "--settings.tasks=3 --settings.queries=4"
OPTIONS = {
    "attention_pools": f"{SHORT} --settings.episodes=50 --settings.pools 3 --settings.plenty 4",
    "attention_cost": "--settings.episodes=50",
    "classroom": f"{SHORT} {FEW} --settings.softmax-fractions 0 1 --settings.depth=2"
    " --settings.two-layer-training.steps=2 --settings.two-layer-training.snapshot-every=2"
    " --settings.two-layer-training.batch-size=8 --settings.mixed-training.steps=2"
    " --settings.mixed-training.snapshot-every=2 --settings.mixed-training.batch-size=8",
    "context_order": "--settings.episodes=20 --settings.joint-training.steps=2"
    " --settings.joint-training.snapshot-every=2 --settings.joint-training.batch-size=8"
    " --settings.separate-training.steps=4 --settings.separate-training.snapshot-every=2"
    " --settings.separate-training.batch-size=8",
    "context_sizes": f"{SHORT} {FEW}",
    "cosine_blindness": "--settings.episodes=50 --settings.depth=2",
    "attention_maps": f"{SHORT} {FEW_TASKS}",
    "momentum_attention": f"{SHORT} {FEW}",
    "regression_finetuning": f"{SHORT} {FEW_TASKS}",
    "update_similarity": f"{SHORT} {FEW_TASKS}",
    "single_factors": " ".join(
        f"--settings.departure.{option}"
        for option in (
            "training.steps=4",
            "training.snapshot-every=2",
            "training.batch-size=8",
            "evaluation-episodes=50",
        )
    ),
    "dual_form": "--settings.episodes=5 --settings.epochs=2",
    "confidence_sets": f"{SHORT} {FEW}",
    "false_labels": f"{SHORT} {FEW_TASKS} --settings.fractions 0 1",
    "fig01_roll_out": f"{SHORT} {FEW} --settings.depth=3",
    "fig02_one_step": f"{SHORT} {FEW} --settings.sizes 3 4 --settings.size-training.steps=2"
    " --settings.size-training.snapshot-every=2 --settings.size-training.batch-size=8",
    "fig03_two_layers": f"{SHORT} {FEW} {short('gdpp-training')}",
    "fig03_five_layers": f"{SHORT} {FEW} --settings.robust-episodes=50 --settings.model.depth=3"
    f" {short('gdpp-training', 'released-training')}",
    "fig04_sine": f"{SHORT} {FEW} --settings.reference-training.steps=4"
    " --settings.reference-training.snapshot-every=2 --settings.reference-training.batch-size=8",
    "fig05_separate_tokens": f"{SHORT} {FEW} --settings.sensitivity-episodes=2"
    " --settings.joint-training.steps=2 --settings.joint-training.snapshot-every=2"
    f" --settings.joint-training.batch-size=8 {short('released-training')}",
    "fig06_shifts": f"{SHORT} {FEW} --settings.deep-model.depth=3"
    f" {short('deep-training', 'gdpp-training', 'deep-gdpp-training')}",
    "fig07_ten_layers": f"{SHORT} {FEW} --settings.model.depth=6"
    f" {short('released-training', 'gdpp-training')}",
    "fig08_twelve_blocks": f"{SHORT} {FEW} --settings.model.depth=3 {short('gdpp-training')}",
    "fig09_weights": f"{SHORT} {FEW} --settings.most-heads=2 --settings.random-layers=3",
    "fig10_damping": f"{SHORT} {FEW} --settings.many-episodes=50",
    "fig11_two_heads": f"{SHORT} {FEW}",
    "fig12_softmax": f"{SHORT} {FEW} --settings.limit-episodes=50 --settings.two-head-training.steps=6"
    " --settings.two-head-training.snapshot-every=2 --settings.two-head-training.batch-size=8",
    "fig13_curvature": f"{SHORT} {FEW} --settings.spectrum-tasks=100 {short('gdpp-training')}",
    "fig14_layer_norm": f"{SHORT} {FEW} {short('gdpp-training')}",
    "fig15_plateaus": f"{SHORT} {FEW} --settings.block-tasks=16 --settings.block-training.batch-size=16"
    " --settings.block-training.steps=2 --settings.block-training.snapshot-every=2"
    " --settings.escape-training.steps=2 --settings.escape-training.snapshot-every=2"
    " --settings.escape-training.batch-size=8 --settings.escape-min-seeds=3",
    "fig16_fixed_tasks": f"--settings.training.steps=4 --settings.training.snapshot-every=2 {FEW}",
    "noisy_labels": f"{SHORT} {FEW}",
    "head_circuits": f"{SHORT} {FEW}",
    "initial_guess": f"{SHORT} {FEW}",
    "linearised_finetuning": f"{SHORT} {FEW_TASKS} --settings.factors 1 0.1 0.01",
    "mlp_update": f"{SHORT} {FEW} --settings.step-sizes 0.5 1",
    "noise_table": f"{SHORT} {FEW} {short('two-layer-training')}",
    "pool_prior": f"{SHORT} {FEW} --settings.points=1",
    "preconditioned": f"{SHORT} {FEW}",
    "departure_map": f"{SHORT} {FEW} --settings.values 0 1 --settings.second-values 0 1",
    "linear_limit": "--settings.points=20000 --settings.episodes=200 --settings.best-sizes 10 640",
    "growing_context": f"{SHORT} {FEW} --settings.sizes 10 640",
    "recurrent_learners": f"{SHORT} {FEW} {short('long-training')} --settings.sizes 3"
    " --settings.deep.depth=2",
    "pretrained_model": "--settings.tasks=3 --settings.queries=4 --settings.demonstrations=4"
    " --settings.counts 2 --settings.rates 0.01 --settings.draws=2"
    " --settings.further-tasks=2",
    "prop1_equivalence": "",
    "prop2_features": "--settings.episodes=5",
    "prop3_copying": "",
    "softmax_identities": "--settings.episodes=5 --settings.depth=2",
    "softmax_candidates": f"{SHORT} {FEW} --settings.candidate-training.steps=2"
    " --settings.candidate-training.snapshot-every=2 --settings.candidate-training.batch-size=8",
    "other_tasks": f"{SHORT} {FEW}",
    "labels_and_inputs": f"{SHORT} {FEW}",
    "rotated_inputs": f"{SHORT} {FEW}",
    "one_to_four_layers": f"{SHORT} {FEW}",
    "token_clip": f"{SHORT} {FEW} --settings.depths 2 3 --settings.clips 1 10",
    "zero_shot_weights": f"{SHORT} {FEW_TASKS}",
    "views": "--settings.episodes=5 --settings.steps=3",
}
UNJUDGED = {
    "noise_table": {
        f"MIX-{row}-{noise}" for row in ("one", "constant", "adaptive", "tuned") for noise in (1, 7)
    },
    "update_similarity": {"CR-10-1024"},
    "fig06_shifts": {"VO-6-2"},
    "attention_pools": {
        f"LU-{kind}-{size}" for kind in ("theory", "simulation") for size in (6, 20)
    },
    "pool_prior": {"RAV-ridge-4", "RAV-ridge-8"},
    "token_clip": {"CLIP-binds"},
    "labels_and_inputs": {
        f"{name}-K5" for name in ("BLP-steps", "LAB-below", "LAB-descent", "LAB-scores")
    },
    "one_to_four_layers": {
        *(f"AHN-{name}-{depth}" for name in ("gd", "pgd") for depth in (3, 4)),
        *(f"PRE-{name}-{depth}" for name in ("layers", "steps", "scores") for depth in (3, 4)),
    },
    "fig13_curvature": {"VO-13-1-N50", "VO-13-1-N100"},
}
"""Claims that are not judged in runs as short as these."""
IN_EVERY_RUN = "fig01_roll_out"
"""The experiment that the default tests run; of the others they measure and draw all (see
`test_measures` and `test_figures`)."""
NAMES = [
    name if name == IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow) for name in OPTIONS
]


def test_every_experiment_is_run():
    names = [listing.name for listing in experiment.listings()]
    assert sorted(names) == sorted(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_trainings_are_declared_for_full_and_quick_settings(name):
    """Each belongs to one group, and is trained with one seed at least."""
    one = experiment.load(experiment.find(name))
    for settings in (one.full, one.quick):
        declared = trainings.declared(one, [settings], {})
        assert all(len(one.job.seeds(1)) == max(one.job.min_seeds, 1) for one in declared)
        assert sum(map(len, trainings.grouped(declared))) == len(declared)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_is_redrawn_from_its_results(tmp_path, name):
    one = experiment.load(experiment.find(name))
    try:
        one.prerequisites(one.quick)
    except BadInput as error:
        pytest.skip(str(error))
    answer = toyicl(
        "run", name, "--quick", "--seeds=2", "--out", tmp_path, *OPTIONS[name].split(), timeout=500
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    results = xr.open_dataset(tmp_path / name / "results.nc", engine="h5netcdf")
    assert results.attrs["level"] == "quick"
    assert results.data_vars
    verdicts = json.loads((tmp_path / name / "claims.json").read_text())
    assert verdicts
    verdict = {record["id"]: record["verdict"] for record in verdicts}
    assert set(verdict.values()) <= set(VERDICTS)
    not_run = {name for name, value in verdict.items() if value == "not run"}
    assert not_run == UNJUDGED.get(name, set())
    figure = tmp_path / name / "figure.png"
    before = figure.read_bytes()
    figure.unlink()
    assert here("draw", name, "--out", tmp_path).returncode == 0
    assert figure.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("update_similarity", {"draws": (64, 64)}, "draws must be one value or more, each once"),
        (
            "attention_maps",
            {"lengths": (1, 3)},
            r"lengths must be divisors of task.dim \(4\), got 3",
        ),
        (
            "attention_maps",
            {"lengths": (0,)},
            "lengths must be a whole number of at least 1, got 0",
        ),
        (
            "attention_maps",
            {"model": CausalArchitecture(input_tokens=2)},
            "model.input_tokens must be 1",
        ),
        *(
            (name, {"model": Architecture()}, "model.depth must be a whole number of at least 2")
            for name in ("fig03_two_layers", "fig07_ten_layers", "fig08_twelve_blocks")
        ),
        ("false_labels", {"fractions": (0.0,)}, "fractions must be two or more, of which"),
        ("pretrained_model", {"fractions": (0.5,)}, "fractions must be one or more above 0, of"),
        ("pretrained_model", {"counts": (24,)}, r"counts must be below demonstrations \(24\)"),
        ("pretrained_model", {"rates": (0.1, 0.01)}, "rates must be"),
        ("pretrained_model", {"factors": ()}, "factors must be"),
    ],
)
def test_settings_out_of_bounds_are_refused_at_construction(name, bad, message):
    settings = experiment.load(experiment.find(name)).full
    with pytest.raises(BadInput, match=message):
        replace(settings, **bad)


def test_a_class_without_examples_is_refused_before_anything_is_measured():
    one = experiment.load(experiment.find("dual_form"))
    few = replace(one.full, task=replace(one.full.task, context_size=2))
    with pytest.raises(BadInput, match=r"task\.context_size must be large enough"):
        one.measure(few, {})


def test_quick_figure_2_changes_steps_batches_and_sizes_alone():
    one = experiment.load(experiment.find("fig2"))
    full, quick = one.full, one.quick
    restored = {
        name: replace(
            getattr(quick, name),
            steps=getattr(full, name).steps,
            batch_size=getattr(full, name).batch_size,
        )
        for name in ("training", "size_training")
    }
    assert replace(quick, **restored, sizes=full.sizes) == full
