"""dai_similarity: finetuning on the demonstrations changes attention as having them in context does.

A small causal transformer, trained on in-context classification with a shared prior, answers queries
three ways: without demonstrations, with them in its context, and finetuned on them, one example at a
time, W_K and W_V alone. The measures of Dai et al. (2022), as published and centred, beside other ways
of finetuning, another task's update, random updates of the same norm, the best of many by the loss on
the demonstrations, noise, and the same model before training. A model whose inputs are told in several
tokens has attention maps longer than one; one that was trained on regression shows what is left where
finetuning has nothing to gain.

Expected: similar, as published; but a random update that happens to help is similar, too, and so is
finetuning of an untrained model. Attention maps come no nearer.
Cost: some 7 minutes on one core.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import claims, contrast, metrics, panels, similarity, study
from toyicl.causal import CausalTransformer
from toyicl.classification import Cost, ToldRegression, cross_entropy, half_squared
from toyicl.contrast import KINDS, Trial, Vehicle
from toyicl.experiment import Fit
from toyicl.finetuning import (
    WHICH,
    Objective,
    Which,
    best_random_update,
    layer_causal,
    plain,
    random_update,
)
from toyicl.settings import require_size


@dataclass(frozen=True, kw_only=True)
class Settings(Vehicle):
    """Settings of the vehicle and of its controls."""

    draws: tuple[int, ...] = (64, 1024)
    """Numbers of random updates of which the best is taken."""
    regression: ToldRegression = ToldRegression()
    """The regression on which another model is trained."""
    input_tokens: int = 2
    """Tokens in which a third model is told each input."""
    noise_width: int = 4096
    """Width of the noise whose similarity is known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for count in self.draws:
            require_size("draws", count)
        require_size("noise_width", self.noise_width)


FULL = Settings()
QUICK = Settings(
    training=replace(FULL.training, steps=600),
    tasks=16,
    queries=32,
    rates=(0.01, 0.1, 0.4, 1.6),
    draws=(64,),
    most_seeds=2,
)
VARIANT_SEEDS = 2
"""Seeds of the two models beside the vehicle."""
NOISE_RATIO = 3.0
"""|r|^2 over |z|^2 of the noise."""
KEYS_AND_VALUES = WHICH["keys and values"]
OWN = "keys and values"
PUBLISHED: dict[str, Any] = {"which": KEYS_AND_VALUES, "objective": plain(cross_entropy)}
"""Finetuning as published."""
Found = dict[str, Any]


def _ways(cost: Cost) -> dict[str, tuple[Which, Objective]]:
    """Ways of finetuning: what changes, and by which objective."""
    return {
        OWN: (KEYS_AND_VALUES, plain(cost)),
        "layer-causal": (KEYS_AND_VALUES, layer_causal(cost)),
        "queries": (WHICH["queries"], plain(cost)),
        "MLPs": (WHICH["MLPs"], plain(cost)),
        "all": (WHICH["all"], plain(cost)),
    }


def measure(settings: Settings, fit: Fit) -> xr.Dataset:
    """Train the three models, and compare finetuning with what demonstrations do in each."""
    history = settings.train(fit)
    trials = settings.trials()
    look = partial(_look, settings, _ways(cross_entropy), settings.draws, contrast.accuracy)
    found = contrast.before_and_after(look, history, trials)
    noise = similarity.noise_similarity(
        jax.random.key(0), NOISE_RATIO, settings.noise_width, pairs=64
    )
    arms = [*_ways(cross_entropy), *_controls(settings.draws)]
    rates = found["chosen_rate"][:, -1, 0]
    progress = metrics.over_snapshots(_progress(settings.rates), history.learners, trials)
    return study.dataset(
        {name: (("seed", "model", *DIMS[name]), values) for name, values in found.items()},
        {"untrained_model_cosine": (("seed", "layer"), found["similarity"][:, 0, 0, 0])},
        {"untrained_at_trained_rate": (DIMS_AT_RATE, _untrained_at(rates, history, trials[0]))},
        {"norm_ratio": (("seed", "layer"), found["arm_norm_ratio"][:, 1, 0])},
        {"prediction_difference": ("seed", found["apart"][:, 1])},
        {name: (("seed", "step"), values) for name, values in progress.items()},
        {"noise": ("kind", [*map(float, noise), np.nan, np.nan])},
        _told_in_parts(settings, fit, trials),
        _on_regression(settings, fit),
        {"seed": history.seeds, "step": history.steps},
        map_length=settings.model.input_tokens,
        longer_map_length=settings.input_tokens,
        undemonstrated=int(jnp.sum(jnp.sum(trials[0].y, axis=1) == 0)),
    ).assign_coords(
        model=["untrained", "trained"],
        arm=arms,
        kind=list(KINDS),
        layer=np.arange(1, settings.model.depth + 1),
        rate=list(settings.rates),
        way=arms[: len(_ways(cross_entropy))],
    )


DIMS: dict[str, tuple[str, ...]] = {
    "zero_shot": (),
    "in_context": (),
    "apart": (),
    "score": ("arm",),
    "similarity": ("arm", "kind", "layer"),
    "unmoved": ("arm", "kind", "layer"),
    "diverged": ("arm", "kind", "layer"),
    "arm_norm_ratio": ("arm", "layer"),
    "recovered": ("way",),
    "recovered_by_chance": ("way",),
    "gained": ("way",),
    "missed": ("way",),
    "map_before": ("layer",),
    "map_after": ("layer",),
    "map_delta": ("layer",),
    "map_unmoved": ("layer",),
    "kendall": ("layer",),
    "chosen_rate": ("way",),
    "rate_score": ("way", "rate"),
    "rate_diverged": ("way", "rate"),
}
"""Dimensions of what is found of one model."""


def _progress(rates: tuple[float, ...]) -> Callable[..., Found]:
    """What becomes, as training goes on, of both ways' gains and of their similarity."""

    def look(model: CausalTransformer, trials: tuple[Trial, Trial]) -> Found:
        trial, held_out = trials
        rate = contrast.choose_rate(model, held_out, rates, **PUBLISHED).best
        ways = contrast.three_ways(model, trial, rate, **PUBLISHED)
        alike = contrast.likeness(*(seen.attended for seen in ways)).similarity[:, -1]
        zero, told, after = (contrast.accuracy(seen.logits, trial.labels) for seen in ways)
        return {
            "similarity_then": alike[KINDS.index("normalised")],
            "centred_similarity_then": alike[KINDS.index("centred")],
            "gain_in_context": told - zero,
            "gain_of_finetuning": after - zero,
        }

    return look


DIMS_AT_RATE = ("seed", "kind", "layer")


def _untrained_at(rates: np.ndarray, history: Any, trial: Trial) -> np.ndarray:
    """Similarity of each seed's model before training, at the rate that was chosen for it trained.

    Rates of untrained models are chosen among accuracies at chance, and so are any rates.
    """

    def look(model: CausalTransformer, rate: jax.Array) -> jax.Array:
        ways = contrast.three_ways(model, trial, rate, **PUBLISHED)
        return contrast.likeness(*(seen.attended for seen in ways)).similarity

    starts = jax.tree.map(lambda leaf: leaf[:, 0], history.learners)
    each = jax.jit(partial(jax.lax.map, lambda pair: look(*pair)))
    return jax.device_get(each((starts, rates)))


def _controls(draws: tuple[int, ...]) -> list[str]:
    best = [f"best of {count} random" for count in draws]
    return ["another task's", "random", *best, "Gaussian noise", "uniform noise"]


def _look(
    settings: Settings,
    ways: dict[str, tuple[Which, Objective]],
    draws: tuple[int, ...],
    score: contrast.Score,
    model: CausalTransformer,
    trial: Trial,
    held_out: Trial,
) -> Found:
    """All measures of one model."""
    zero, told = contrast.zero_shot(model, trial), contrast.in_context(model, trial)
    searches, tuned = {}, {}
    for name, (which, objective) in ways.items():
        searches[name] = contrast.choose_rate(
            model, held_out, settings.rates, which=which, objective=objective, score=score
        )
        rate = searches[name].best
        tuned[name] = contrast.finetuned(model, trial, rate, which=which, objective=objective)
    others = _other_updates(model, tuned[OWN], trial, ways[OWN][1], draws) if draws else {}
    seen = {name: contrast.with_models(models, trial) for name, models in (tuned | others).items()}
    alike = [contrast.likeness(zero.attended, told.attended, one.attended) for one in seen.values()]
    if draws:
        alike += _noise(zero.attended, told.attended)
    right, in_context = (contrast.right(one.logits, trial.labels) for one in (zero, told))
    recoveries = [
        similarity.recovery(right, in_context, contrast.right(seen[name].logits, trial.labels))
        for name in ways
    ]
    likenesses: contrast.Likeness = jax.tree.map(lambda *parts: jnp.stack(parts), *alike)
    recovery: similarity.Recovery = jax.tree.map(lambda *parts: jnp.stack(parts), *recoveries)
    search = jax.tree.map(lambda *parts: jnp.stack(parts), *searches.values())
    maps = similarity.map_similarity(
        *(contrast.own_scores(model, one) for one in (zero, told, seen[OWN]))
    )
    scores = [score(one.logits, trial.labels) for one in seen.values()]
    ranks = contrast.demonstrations_ranked(model, tuned[OWN], trial)
    return {
        "zero_shot": score(zero.logits, trial.labels),
        "in_context": score(told.logits, trial.labels),
        "apart": jnp.mean(jnp.linalg.norm(seen[OWN].logits - told.logits, axis=-1)),
        "score": jnp.stack(scores + [jnp.asarray(jnp.nan)] * (len(alike) - len(seen))),
        "similarity": likenesses.similarity,
        "unmoved": likenesses.unmoved,
        "diverged": likenesses.diverged,
        "arm_norm_ratio": likenesses.norm_ratio,
        "recovered": recovery.score,
        "recovered_by_chance": recovery.chance,
        "gained": recovery.gained,
        "missed": recovery.missed,
        **{f"map_{name}": values for name, values in maps._asdict().items()},
        "kendall": jnp.nanmean(similarity.kendall(*ranks), axis=(0, 1)),
        "chosen_rate": search.best,
        "rate_score": search.scores,
        "rate_diverged": search.diverged,
    }


def _other_updates(
    model: CausalTransformer,
    tuned: Any,
    trial: Trial,
    objective: Objective,
    draws: tuple[int, ...],
) -> dict[str, Any]:
    """Models of every task after another task's update, a random one, and the best of many."""
    one_key, best_key = jax.random.split(jax.random.key(1))
    one_keys, best_keys = (jax.random.split(key, len(trial.x)) for key in (one_key, best_key))

    def random(key: jax.Array, tuned: CausalTransformer) -> CausalTransformer:
        return random_update(key, model, tuned, which=KEYS_AND_VALUES)

    def best(count: int, key: jax.Array, tuned: Any, x: jax.Array, y: jax.Array) -> Any:
        return best_random_update(
            key, model, tuned, x, y, count=count, which=KEYS_AND_VALUES, objective=objective
        )

    updates = [contrast.shifted_by_one(tuned), jax.vmap(random)(one_keys, tuned)]
    for count in draws:  # the first of the same draws
        task = (best_keys, tuned, trial.x, trial.y)
        updates.append(jax.lax.map(lambda task, count=count: best(count, *task), task))
    return dict(zip(_controls(draws), updates, strict=False))


def _noise(before: jax.Array, told: jax.Array) -> list[contrast.Likeness]:
    """How alike noise is: Gaussian, and U[0, 1) as published, which is not centred."""
    gaussian_key, uniform_key = jax.random.split(jax.random.key(2))
    gaussian = jax.random.normal(gaussian_key, told.shape, told.dtype)
    uniform = jax.random.uniform(uniform_key, told.shape, told.dtype)
    return [contrast.noise_alike(before, told, noise) for noise in (gaussian, uniform)]


def _told_in_parts(settings: Settings, fit: Fit, trials: tuple[Trial, Trial]) -> Found:
    """Attention maps of a model whose queries have several tokens of their own."""
    architecture = replace(settings.model, input_tokens=settings.input_tokens)
    history = fit(
        architecture,
        settings.task,
        settings.training,
        label="inputs in several tokens",
        at_most=VARIANT_SEEDS,
    )
    look = partial(_look, settings, _only(cross_entropy), (), contrast.accuracy)
    found = contrast.trained(look, history, trials)
    names = ("map_before", "map_after", "map_delta")
    return {f"longer_{name}": (("variant_seed", "layer"), found[name]) for name in names}


def _on_regression(settings: Settings, fit: Fit) -> Found:
    """Errors and similarity of a model that was trained on regression."""
    task = settings.regression
    history = fit(
        settings.model, task, settings.training, label="regression", at_most=VARIANT_SEEDS
    )
    trials = tuple(
        contrast.draw_trial(task, jax.random.key(k), tasks=settings.tasks, queries=settings.queries)
        for k in (2022, 2023)
    )
    look = partial(_look, settings, _only(half_squared), (), contrast.minus_error)
    found = contrast.trained(look, history, trials)
    return {
        "regression_zero_shot": ("variant_seed", -found["zero_shot"]),
        "regression_in_context": ("variant_seed", -found["in_context"]),
        "regression_finetuned": ("variant_seed", -found["score"][:, 0]),
        "regression_similarity": (("variant_seed", "kind", "layer"), found["similarity"][:, 0]),
    }


def _only(cost: Cost) -> dict[str, tuple[Which, Objective]]:
    return {OWN: _ways(cost)[OWN]}


def _of(name: str, **where: Any) -> claims.Value:
    """A variable at some coordinates."""
    return lambda results: results[name].sel(where) if where else results[name]


def _alike(model: str, kind: str) -> claims.Value:
    """SimAOU at the last layer, (arm, seed)."""
    return lambda results: (
        results.similarity.sel(model=model, kind=kind).isel(layer=-1).transpose("arm", "seed")
    )


def draw(results: xr.Dataset) -> Figure:
    """Answers, similarities of attention outputs by update and by layer, maps, and recovery."""

    def answers(axes: Axes, results: xr.Dataset) -> None:
        shown = results.sel(model="trained", way=OWN)
        for name, style in (("zero_shot", ":"), ("in_context", "--")):
            value = float(shown[name].mean())
            label = f"{name.replace('_', ' ')}: {value:.2f}"
            axes.axvline(value, color="0.3", linestyle=style, label=label)
        kept = results.arm.values[:-2]  # noise gives no answers
        panels.rows({"after the update": lambda r: r.score.sel(model="trained", arm=kept)}, "arm")(
            axes, results
        )
        axes.set(xlabel="accuracy")

    def updates(kind: str) -> panels.Panel:
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

    def maps(axes: Axes, results: xr.Dataset) -> None:
        last = results.isel(layer=-1)
        for number, (prefix, length) in enumerate(
            (("", results.map_length), ("longer_", results.longer_map_length))
        ):
            for row, name in enumerate(("before", "after", "delta")):
                values = last[f"{prefix}map_{name}"]
                values = values.sel(model="trained") if "model" in values.dims else values
                axes.plot(
                    values.values.ravel(),
                    np.full(values.size, row + 0.2 * number),
                    "os"[number],
                    color=panels.LOOKS[number][0],
                    markersize=4,
                    label=f"map of {length}" if row == 0 else None,
                )
        axes.set_yticks(range(3), ["before: ICL, ZSL", "after: ICL, FT", "of the changes"])
        axes.set(ylim=(2.6, -0.5), xlim=(-1.05, 1.05), xlabel="similarity of attention maps")
        axes.legend()

    sets = {
        "score": lambda r: r.recovered.sel(model="trained"),
        "by chance": lambda r: r.recovered_by_chance.sel(model="trained"),
    }
    drawn: dict[str, panels.Panel] = {
        "answers": answers,
        "similarity, as published": updates("normalised"),
        "similarity, centred": updates("centred"),
        "while training, last layer": panels.curves(
            {"similarity_then": "as published", "centred_similarity_then": "centred"},
            ylabel="similarity, keys and values",
        ),
        "each layer, each definition": layers,
        "attention maps": maps,
        "Rec2FTP": panels.rows(sets, "way", xlabel="share of answers"),
        "while training": panels.curves(
            {"gain_in_context": "in context", "gain_of_finetuning": "finetuned"},
            ylabel="accuracy, over zero-shot",
        ),
    }
    ratio = (results.regression_finetuned / results.regression_zero_shot).mean()
    sentence = (
        "Classification in context; an update is what is set beside in-context learning's. On "
        f"regression finetuning leaves {float(ratio):.3f} of the zero-shot error."
    )
    return panels.figure(results, drawn, sentence, columns=4)


def _last(name: str, **where: Any) -> claims.Value:
    """A variable at the last layer."""
    return lambda results: _of(name, **where)(results).isel(layer=-1)


def _similarity(arm: str = OWN, model: str = "trained", kind: str = "normalised") -> claims.Value:
    return _last("similarity", arm=arm, model=model, kind=kind)


def _minus(one: claims.Value, other: claims.Value) -> claims.Value:
    return lambda results: one(results) - other(results)


def _over(one: claims.Value, other: claims.Value) -> claims.Value:
    return lambda results: one(results) / other(results)


def _best(results: xr.Dataset) -> xr.DataArray:
    """Of 64 random updates."""
    return _similarity("best of 64 random")(results)


def _owned(model: str) -> claims.Value:
    """How much more alike a task's own finetuning is than another task's."""
    return _minus(_similarity(model=model), _similarity("another task's", model=model))


_TRAINED = {"model": "trained"}
_CENTRED = {"kind": "centred"}
CLAIMS = claims.read(
    Path(__file__).with_name("finetuning.toml"),
    {
        "DAI-icl": _minus(_of("in_context", **_TRAINED), _of("zero_shot", **_TRAINED)),
        "DAI-ft": _minus(_of("score", arm=OWN, **_TRAINED), _of("zero_shot", **_TRAINED)),
        "DAI-3": _minus(
            _of("recovered", way=OWN, **_TRAINED), _of("recovered_by_chance", way=OWN, **_TRAINED)
        ),
        "DAI-4": _of("similarity", arm=OWN, kind="normalised", **_TRAINED),
        "DAI-4-gaussian": _similarity("Gaussian noise"),
        "DAI-4-other": _over(_similarity("another task's"), _similarity()),
        "DAI-4-untrained": _minus(_similarity(), _similarity(model="untrained")),
        "DAI-4-untrained-rate": lambda r: (
            _similarity()(r) - r.untrained_at_trained_rate.sel(kind="normalised").isel(layer=-1)
        ),
        "DAI-4-training": lambda r: (
            r.similarity_then.isel(step=-1) - r.similarity_then.isel(step=1)
        ),
        "DAI-4-centred": _minus(
            _similarity(**_CENTRED), _similarity(model="untrained", **_CENTRED)
        ),
        "DAI-4-own": _minus(_owned("trained"), _owned("untrained")),
        "DAI-4-raw": _similarity(kind="raw"),
        "DAI-4-causal": _minus(_similarity("layer-causal"), _similarity()),
        "DAI-4-mlps": _minus(_similarity(), _similarity("MLPs")),
        "DAI-4-best": _minus(_similarity(), _best),
        "DAI-5": _minus(_last("map_after", **_TRAINED), _last("map_before", **_TRAINED)),
        "DAI-5-longer": _minus(_last("longer_map_after"), _last("longer_map_before")),
        "DAI-6": _minus(_last("kendall", **_TRAINED), _last("kendall", model="untrained")),
    },
) + claims.read(
    Path(__file__).with_name("critics.toml"),
    {
        "CR-10": lambda results: _best(results) - 3 * _similarity("random")(results),
        "CR-10-1024": _minus(_similarity("best of 1024 random"), _best),
        "CR-10-between": _over(
            _minus(_best, _similarity("random")), _minus(_similarity(), _similarity("random"))
        ),
        "CR-10-noise": _of("noise", kind="normalised"),
        "CR-10-noise-raw": lambda results: abs(results.noise.sel(kind="raw")),
        "CR-10-regression-icl": _over(_of("regression_in_context"), _of("regression_zero_shot")),
        "CR-10-regression": _over(_of("regression_finetuned"), _of("regression_zero_shot")),
    },
)
