"""Finetuning on the demonstrations changes attention as having them in context does.

A small causal transformer, trained on in-context classification with a shared prior, answers queries
three ways: without demonstrations, with them in its context, and finetuned on them, one example at a
time, W_K and W_V alone. The measures of Dai et al. (2022), as published and centred, beside other ways
of finetuning, another task's update, random updates of the same norm, the best of many by the loss on
the demonstrations, noise, and the same model before and while it is trained.

Expected: similar, as published; but a random update that happens to help is similar, too, and so is
finetuning of an untrained model. From a third of the training on, the similarity falls, and so does
what finetuning gains.
Alias: dai_similarity
Cost: some 3 minutes on two cores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.analysis import metrics
from toyicl.core.config import require_different, require_size
from toyicl.core.datasets import dataset
from toyicl.finetuning import baselines, evaluation, similarity
from toyicl.finetuning.evaluation import KINDS, EvaluationSet, FinetuningStudy
from toyicl.finetuning.updates import PARAMETERS, Method, layer_causal, plain, published
from toyicl.harness import catalogue, claims
from toyicl.models.causal import CausalTransformer
from toyicl.plots import panels
from toyicl.tasks.prompts import cross_entropy
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuningStudy):
    """Settings of the vehicle and of its controls."""

    draws: tuple[int, ...] = (64, 1024)
    """Numbers of random updates of which the best is taken."""
    noise_width: int = 4096
    """Width of the noise whose similarity is known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for count in self.draws:
            require_size("draws", count)
        require_different("draws", self.draws)
        require_size("noise_width", self.noise_width)


FULL = Settings()
QUICK = FULL.quick(rates=(0.01, 0.1, 0.4, 1.6), draws=(64,), max_seeds=2)
NOISE_RATIO = 3.0
"""|r|^2 over |z|^2 of the noise."""
OWN = "keys and values"
PUBLISHED = published(cross_entropy)
WAYS: dict[str, Method] = {
    OWN: PUBLISHED,
    "layer-causal": {"which": PARAMETERS[OWN], "objective": layer_causal(cross_entropy)},
    "queries": {"which": PARAMETERS["queries"], "objective": plain(cross_entropy)},
    "MLPs": {"which": PARAMETERS["MLPs"], "objective": plain(cross_entropy)},
    "all": {"which": PARAMETERS["all"], "objective": plain(cross_entropy)},
}
"""Ways of finetuning: what changes, and by which objective."""
DIMS: dict[str, tuple[str, ...]] = {
    "zero_shot": (),
    "in_context": (),
    "apart": (),
    "score": ("tuned",),
    "similarity": ("arm", "kind", "layer"),
    "unmoved": ("arm", "kind", "layer"),
    "diverged": ("arm", "kind", "layer"),
    "arm_norm_ratio": ("arm", "layer"),
    "recovered": ("way",),
    "recovered_by_chance": ("way",),
    "gained": ("way",),
    "missed": ("way",),
    "chosen_rate": ("way",),
    "rate_score": ("way", "rate"),
    "rate_diverged": ("way", "rate"),
}
"""Dimensions of what is found of one model."""
Found = dict[str, Any]


trainings = FinetuningStudy.trainings


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Train the vehicle, and compare finetuning with what demonstrations do in it."""
    history = histories["model"]
    trials = settings.evaluation_sets()
    found = evaluation.before_and_after(partial(_look, settings), history, trials)
    rates = found["chosen_rate"][:, -1, 0]
    progress = metrics.over_snapshots(_progress(settings.rates), history.learners, trials)
    noise = similarity.noise_similarity(
        jax.random.key(0), NOISE_RATIO, settings.noise_width, pairs=64
    )
    best = [f"best of {count} random" for count in settings.draws]
    tuned = [*WAYS, "another task's", "random", *best]
    return dataset(
        {name: (("seed", "model", *DIMS[name]), values) for name, values in found.items()},
        {name: (("seed", "step"), values) for name, values in progress.items()},
        {
            "untrained_at_trained_rate": (
                ("seed", "kind", "layer"),
                evaluation.untrained_with(_alike_at, history, rates, trials[:1]),
            ),
            "model_cosine": (("seed", "stage", "layer"), found["similarity"][:, :, 0, 0]),
            "norm_ratio": (("seed", "stage", "layer"), found["arm_norm_ratio"][:, :, 0]),
            "prediction_difference": (("seed", "stage"), found["apart"]),
            "noise": ("kind", [*map(float, noise), np.nan, np.nan]),
        },
        {"seed": history.seeds, "step": history.steps},
        undemonstrated=int(jnp.sum(jnp.sum(trials[0].y, axis=1) == 0)),
    ).assign_coords(
        model=["untrained", "trained"],
        stage=["untrained", "trained"],
        way=list(WAYS),
        tuned=tuned,
        arm=[*tuned, "Gaussian noise", "uniform noise"],
        kind=list(KINDS),
        layer=np.arange(1, settings.model.depth + 1),
        rate=list(settings.rates),
    )


def _look(
    settings: Settings, model: CausalTransformer, trial: EvaluationSet, held_out: EvaluationSet
) -> Found:
    """All measures of one model."""
    zero, told = evaluation.zero_shot(model, trial), evaluation.in_context(model, trial)
    searches, models = [], {}
    for name, way in WAYS.items():
        searches.append(evaluation.choose_rate(model, held_out, settings.rates, **way))
        models[name] = evaluation.finetuned(model, trial, searches[-1].best, **way)
    models |= baselines.weight_baselines(
        jax.random.key(1), model, models[OWN], trial, draws=settings.draws, **PUBLISHED
    )
    seen = {name: evaluation.zero_shot_per_task(each, trial) for name, each in models.items()}
    alike = {
        name: evaluation.update_similarity(zero.attended, told.attended, one.attended)
        for name, one in seen.items()
    } | baselines.output_baselines(jax.random.key(2), zero.attended, told.attended)
    right = {
        name: evaluation.correct(one.logits, trial.labels)
        for name, one in ({"zero": zero, "told": told} | seen).items()
    }
    recoveries = [similarity.recovery(right["zero"], right["told"], right[name]) for name in WAYS]
    likenesses: evaluation.UpdateSimilarity = _stacked(alike.values())
    recovery: similarity.Recovery = _stacked(recoveries)
    search = _stacked(searches)
    return {
        "zero_shot": jnp.mean(right["zero"]),
        "in_context": jnp.mean(right["told"]),
        "apart": jnp.mean(jnp.linalg.norm(seen[OWN].logits - told.logits, axis=-1)),
        "score": jnp.stack([jnp.mean(right[name]) for name in seen]),
        "similarity": likenesses.similarity,
        "unmoved": likenesses.unmoved,
        "diverged": likenesses.diverged,
        "arm_norm_ratio": likenesses.norm_ratio,
        "recovered": recovery.score,
        "recovered_by_chance": recovery.chance,
        "gained": recovery.gained,
        "missed": recovery.missed,
        "chosen_rate": search.best,
        "rate_score": search.scores,
        "rate_diverged": search.diverged,
    }


def _stacked(parts: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def _progress(rates: tuple[float, ...]) -> Callable[..., Found]:
    """What becomes, as training goes on, of both ways' gains and of their similarity."""

    def look(model: CausalTransformer, trials: tuple[EvaluationSet, EvaluationSet]) -> Found:
        trial, held_out = trials
        rate = evaluation.choose_rate(model, held_out, rates, **PUBLISHED).best
        ways = evaluation.three_ways(model, trial, rate, **PUBLISHED)
        alike = evaluation.update_similarity(*(seen.attended for seen in ways)).similarity[:, -1]
        zero, told, after = (evaluation.accuracy(seen.logits, trial.labels) for seen in ways)
        return {
            "similarity_then": alike[KINDS.index("normalised")],
            "centred_similarity_then": alike[KINDS.index("centred")],
            "gain_in_context": told - zero,
            "gain_of_finetuning": after - zero,
        }

    return look


def _alike_at(model: CausalTransformer, rate: jax.Array, trial: EvaluationSet) -> jax.Array:
    """Similarities at a given rate; untrained models choose 2 to 40 times that of trained ones."""
    ways = evaluation.three_ways(model, trial, rate, **PUBLISHED)
    return evaluation.update_similarity(*(seen.attended for seen in ways)).similarity


def _alike(model: str, kind: str) -> claims.Value:
    """SimAOU at the last layer, (arm, seed)."""
    return lambda results: (
        results.similarity.sel(model=model, kind=kind).isel(layer=-1).transpose("arm", "seed")
    )


def draw(results: xr.Dataset) -> Figure:
    """Answers, similarities of attention outputs by update, layer and training step, and recovery."""

    def answers(axes: Axes, results: xr.Dataset) -> None:
        shown = results.sel(model="trained")
        for name, style in (("zero_shot", ":"), ("in_context", "--")):
            value = float(shown[name].mean())
            label = f"{name.replace('_', ' ')}: {value:.2f}"
            axes.axvline(value, color="0.3", linestyle=style, label=label)
        panels.rows({"after the update": lambda r: r.score.sel(model="trained")}, "tuned")(
            axes, results
        )
        axes.set(xlabel="accuracy")

    def arms(kind: str) -> panels.Panel:
        sets = {model: _alike(model, kind) for model in ("trained", "untrained")}
        return panels.rows(sets, "arm", levels={"0": 0.0}, xlabel=f"{kind} similarity, last layer")

    def layers(axes: Axes, results: xr.Dataset) -> None:
        own = results.sel(arm=OWN, model="trained")
        sets = {
            f"layer {layer}": partial(lambda r, layer: own.similarity.sel(layer=layer), layer=layer)
            for layer in results.layer.values
        }
        panels.rows(sets, "kind", levels={"0": 0.0}, xlabel="similarity, keys and values")(
            axes, results
        )

    recoveries = {
        "score": lambda r: r.recovered.sel(model="trained"),
        "by chance": lambda r: r.recovered_by_chance.sel(model="trained"),
    }
    drawn: dict[str, panels.Panel] = {
        "answers": answers,
        "similarity, as published": arms("normalised"),
        "similarity, centred": arms("centred"),
        "each layer, each definition": layers,
        "Rec2FTP": panels.rows(recoveries, "way", xlabel="share of answers"),
        "while training, last layer": panels.curves(
            {"similarity_then": "as published", "centred_similarity_then": "centred"},
            ylabel="similarity, keys and values",
        ),
        "while training": panels.curves(
            {"gain_in_context": "in context", "gain_of_finetuning": "finetuned"},
            ylabel="accuracy, over zero-shot",
        ),
    }
    sentence = "Classification in context; an update is what is set beside in-context learning's."
    return panels.figure(results, drawn, sentence, columns=4)


def _of(name: str, **where: Any) -> claims.Value:
    """A variable of trained models, or of others, at some coordinates."""
    return lambda results: results[name].sel({"model": "trained"} | where)


def _similarity(arm: str = OWN, model: str = "trained", kind: str = "normalised") -> claims.Value:
    """SimAOU at the last layer."""
    return lambda results: _alike(model, kind)(results).sel(arm=arm)


def _minus(one: claims.Value, other: claims.Value) -> claims.Value:
    return lambda results: one(results) - other(results)


def _over(one: claims.Value, other: claims.Value) -> claims.Value:
    return lambda results: one(results) / other(results)


def _best(results: xr.Dataset) -> xr.DataArray:
    """Of 64 random controls."""
    return _similarity("best of 64 random")(results)


def _owned(model: str) -> claims.Value:
    """How much more alike a task's own finetuning is than another task's."""
    return _minus(_similarity(model=model), _similarity("another task's", model=model))


def _since_a_third(results: xr.Dataset) -> xr.DataArray:
    """How much the similarity has grown since the snapshot nearest to a third of the training."""
    then, last = results.similarity_then, results.step[-1]
    return then.sel(step=last) - then.sel(step=last / 3, method="nearest")


def _at_trained_rate(results: xr.Dataset) -> xr.DataArray:
    return results.untrained_at_trained_rate.sel(kind="normalised").isel(layer=-1)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "DAI-icl": _minus(_of("in_context"), _of("zero_shot")),
        "DAI-ft": _minus(_of("score", tuned=OWN), _of("zero_shot")),
        "DAI-3": _minus(_of("recovered", way=OWN), _of("recovered_by_chance", way=OWN)),
        "DAI-4": _of("similarity", arm=OWN, kind="normalised"),
        "DAI-4-gaussian": _similarity("Gaussian noise"),
        "DAI-4-other": _over(_similarity("another task's"), _similarity()),
        "DAI-4-untrained": _minus(_similarity(), _similarity(model="untrained")),
        "DAI-4-untrained-rate": _minus(_similarity(), _at_trained_rate),
        "DAI-4-centred": _minus(
            _similarity(kind="centred"), _similarity(model="untrained", kind="centred")
        ),
        "DAI-4-training": _since_a_third,
        "DAI-4-own": _minus(_owned("trained"), _owned("untrained")),
        "DAI-4-raw": _similarity(kind="raw"),
        "DAI-4-causal": _minus(_similarity("layer-causal"), _similarity()),
        "DAI-4-mlps": _minus(_similarity(), _similarity("MLPs")),
        "DAI-4-best": _minus(_similarity(), _best),
    },
) + catalogue.read(
    Path(__file__).parents[1] / "objections" / "claims.toml",
    {
        "CR-10": lambda results: _best(results) - 3 * _similarity("random")(results),
        "CR-10-1024": _minus(_similarity("best of 1024 random"), _best),
        "CR-10-between": _over(
            _minus(_best, _similarity("random")), _minus(_similarity(), _similarity("random"))
        ),
        "CR-10-noise": lambda results: results.noise.sel(kind="normalised"),
        "CR-10-noise-raw": lambda results: abs(results.noise.sel(kind="raw")),
    },
)
