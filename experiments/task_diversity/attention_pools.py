"""Linear attention fitted to a pool of tasks generalises to new tasks once the pool exceeds the inputs.

Lu et al. (2025) draw the weights of all training contexts from a pool of kappa d weights, and give the
error of linear attention on new weights minus that on the pool, in the limit of many inputs and in
simulations. Layers are fitted by least squares to 10 d^2 contexts of 10 d points each, for pools of
several sizes and several numbers of inputs d. Other layers are trained by gradient descent on fresh
contexts of one pool for each size, and compared with a least-squares fit to many contexts.

Expected: the differences of the theory, .8253, .4385, .1636, .0301 and .0037 for kappa = .2, .6, 1, 2
and 8, as d grows, and at d = 10 those of the published simulation, 1.452 to .0042, within 3% to 16%.
Alias: pools
Cost: 13 minutes on one core; quick: a minute.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl import theory
from toyicl.analysis import metrics
from toyicl.core.config import (
    named_in_errors,
    require,
    require_increasing,
    require_positive,
    require_size,
)
from toyicl.core.datasets import dataset, side_by_side
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels
from toyicl.studies import pool_fits
from toyicl.tasks.pool import PooledRegression
from toyicl.training import recipes
from toyicl.training.loop import Histories, History, Job
from toyicl.training.step import Training

PUBLISHED = {
    "theory": {0.2: 0.8253, 0.6: 0.4385, 1.0: 0.1636, 2.0: 0.0301, 8.0: 0.0037},
    "simulation, d = 10": {0.2: 1.452, 0.6: 0.676, 1.0: 0.266, 2.0: 0.0455, 8.0: 0.0042},
}
"""Error on new weights minus error on the pool, by kappa, of Lu et al. (2025)."""


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the pools; alpha, tau and the noise are by default those of the published values."""

    kappas: tuple[float, ...] = (0.2, 0.6, 1.0, 2.0, 8.0)
    """Sizes of the pools, divided by the number of inputs."""
    alpha: float = 10.0
    """Number of context points, divided by the number of inputs."""
    tau: float = 10.0
    """Number of contexts that a layer is fitted to, divided by the squared number of inputs."""
    noise_variance: float = 0.01
    """Variance of the label noise, rho."""
    dims: tuple[int, ...] = (10, 20, 30)
    """Numbers of inputs, d; layers are trained on the first one."""
    pools: tuple[int, ...] = (150, 16, 5)
    """Number of pools for each number of inputs, each with its own fit."""
    episodes: int = 2000
    """Number of test episodes of new weights, and of weights of the pool."""
    plenty: float = 200.0
    """Number of contexts, divided by d^2, of the fits that trained layers are compared with."""
    model: Architecture = Architecture(init_scale=0.02)
    """The layer that is trained."""
    training: Training = replace(
        recipes.FALLING_FAST, steps=10_000, batch_size=128, snapshot_every=500
    )
    """Its training, on fresh contexts."""
    model_max_seeds: int = 3
    """Largest number of seeds of each training."""

    def __post_init__(self) -> None:
        for name in ("kappas", "dims"):
            require_increasing(name, getattr(self, name))
        for name in ("alpha", "tau", "noise_variance", "plenty"):
            require_positive(name, getattr(self, name))
        for name in ("tau", "plenty"):
            rule = "at least 2, for a fit of d (d + 1) weights"
            require(getattr(self, name) >= 2, name, rule, getattr(self, name))
        rule = f"a number for each of {len(self.dims)} dims"
        require(len(self.pools) == len(self.dims), "pools", rule, self.pools)
        for count in self.pools:
            require_size("pools", count)
        for dim in self.dims:
            require_size("dims", dim, least=2)
            rule = "large enough for one weight in each pool and one point in each context"
            fits = min(round(self.kappas[0] * dim), round(self.alpha * dim)) >= 1
            require(fits, "dims", rule, dim)
        require_size("episodes", self.episodes)
        require_size("model_max_seeds", self.model_max_seeds)

    def task(self, dim: int, kappa: float, seed: int = 0) -> PooledRegression:
        """The task with a number of inputs and a pool."""
        return pool_fits.pool_task(dim, kappa, self.alpha, self.noise_variance, seed)


FULL = Settings()
QUICK = Settings(
    kappas=(0.2, 1.0, 8.0),
    dims=(10,),
    pools=(20,),
    episodes=1000,
    plenty=50.0,
    training=replace(FULL.training, steps=1000),
)


def trainings(settings: Settings) -> dict[str, Job]:
    """One training for each size of the pool, on the smallest number of inputs."""
    return {
        _name(kappa): Job(
            settings.model,
            settings.task(settings.dims[0], kappa),
            settings.training,
            max_seeds=settings.model_max_seeds,
        )
        for kappa in settings.kappas
    }


def _name(kappa: float) -> str:
    """Name of the training on a pool."""
    return f"kappa {kappa:g}"


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Errors of fitted and of trained layers on new weights and on the pool."""
    by_kappa = {}
    for kappa in settings.kappas:
        fitted = side_by_side(
            {
                dim: _fitted(settings, dim, kappa, count)
                for dim, count in zip(settings.dims, settings.pools, strict=True)
            },
            "dim",
        )
        limit = theory.pool_errors(settings.alpha, kappa, settings.tau, settings.noise_variance)
        known = {name: values.get(kappa, np.nan) for name, values in _published(settings).items()}
        by_kappa[kappa] = xr.merge(
            [
                fitted,
                _trained(settings, kappa, histories[_name(kappa)]),
                xr.Dataset({"theory_gap": limit.new - limit.pool, "theory_pool": limit.pool}),
                xr.Dataset({"published_gap": ("published", list(known.values()))}),
            ]
        ).assign_coords(published=list(known))
    plenty = theory.pool_errors(settings.alpha, np.inf, np.inf, settings.noise_variance)
    return side_by_side(by_kappa, "kappa").assign(plenty=plenty.new)


def _published(settings: Settings) -> dict[str, dict[float, float]]:
    """The published values by kappa, if they are for these settings."""
    own = (settings.alpha, settings.tau, settings.noise_variance)
    same = own == (10.0, 10.0, 0.01)
    return {name: values if same else {} for name, values in PUBLISHED.items()}


def _fitted(settings: Settings, dim: int, kappa: float, count: int) -> xr.Dataset:
    """Errors of layers fitted to several pools of one size, (pool,)."""
    contexts = round(settings.tau * dim**2)
    found = [
        pool_fits.fitted_errors(
            settings.task(dim, kappa, seed), jax.random.key(seed), contexts, settings.episodes
        )
        for seed in range(count)
    ]
    new, pool = np.array(found, np.float64).T
    values = {"fitted_gap": ("pool", new - pool), "fitted_pool": ("pool", pool)}
    return xr.Dataset(values, {"pool": np.arange(count)})


def _trained(settings: Settings, kappa: float, history: History) -> xr.Dataset:
    """Errors of trained layers, (seed,), and of a layer fitted to many contexts of the same pool."""
    dim = settings.dims[0]
    task = settings.task(dim, kappa)
    tests = pool_fits.held_out(task, settings.episodes)
    own = jax.lax.map(lambda learner: pool_fits.errors(learner, task, tests), history.final)
    contexts = round(settings.plenty * dim**2)
    best = pool_fits.fitted_errors(task, jax.random.key(1), contexts, settings.episodes)
    pool = np.asarray(own.pool)
    # At a saddle point, a layer predicts from some directions of the inputs only. Predicting 0 has the
    # error |w|^2 E x^2 = 1.
    saddles = theory.saddle_losses(task.base)
    values = {
        "trained_gap": ("seed", np.asarray(own.new - own.pool)),
        "trained_pool": ("seed", pool),
        "on_plateau": ("seed", metrics.on_plateau(pool, float(best.pool), 1.0, saddles)),
        "many_contexts_gap": float(best.new - best.pool),
        "many_contexts_pool": float(best.pool),
    }
    return dataset(values, {"seed": history.seeds})


def draw(results: xr.Dataset) -> Figure:
    """Differences of errors over the size of the pool, and over the number of inputs."""
    drawn = {
        "fitted layers": _fitted_panel,
        "as the number of inputs grows": _dims_panel,
        f"trained layers, d = {results.dim.values[0]}": _trained_panel,
    }
    sentence = (
        "Squared error on new weights minus that on weights of the pool. (a), (b): layers fitted by "
        "least squares, means over pools with standard errors. (c): layers trained on fresh contexts "
        "of one pool, each seed, and least squares on many contexts of the same pool."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _mean_and_error(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Means over pools, and their standard errors; without an error for a single pool."""
    count = values.notnull().sum("pool")
    return values.mean("pool").values, (values.std("pool", ddof=1) / np.sqrt(count)).values


def _fitted_panel(axes: Axes, results: xr.Dataset) -> None:
    """Fitted layers of each number of inputs, the limit, and published values, over kappa."""
    for dim, (color, line) in zip(results.dim.values, panels.LOOKS, strict=False):
        mean, error = _mean_and_error(results.fitted_gap.sel(dim=dim))
        axes.errorbar(results.kappa, mean, error, color=color, linestyle=line, label=f"d = {dim}")
    axes.plot(results.kappa, results.theory_gap, "k-", label=r"limit $d \to \infty$")
    for name, marker in zip(results.published.values, "ox", strict=True):
        published = results.published_gap.sel(published=name)
        axes.plot(results.kappa, published, "k" + marker, label=f"published {name}", zorder=3)
    _kappa_axis(axes, results)
    axes.set(ylabel="difference of squared errors", yscale="log")
    axes.legend(fontsize=6)


def _dims_panel(axes: Axes, results: xr.Dataset) -> None:
    """Fitted layers relative to the limit, over 1 / d."""
    places = 1 / results.dim.values
    for number, kappa in enumerate(results.kappa.values):
        own = results.sel(kappa=kappa)
        mean, error = _mean_and_error(own.fitted_gap / own.theory_gap)
        shade = str(0.75 * number / max(results.sizes["kappa"] - 1, 1))
        name = rf"$\kappa$ = {kappa:g}"
        axes.errorbar(places, mean, error, color=shade, marker="o", markersize=3, label=name)
    axes.axhline(1, color="black", linestyle=":")
    axes.set(xlabel="1 / d", ylabel="difference over its limit", xlim=(0, None))
    axes.legend(fontsize=6)


def _trained_panel(axes: Axes, results: xr.Dataset) -> None:
    """Trained layers and the fit to many contexts of the same pool, over kappa."""
    color = figures.MODEL
    figures.every_seed(axes, results.trained_gap, "kappa", label="trained", color=color, style="o")
    axes.plot(results.kappa, results.many_contexts_gap, "k--", label="least squares")
    _kappa_axis(axes, results)
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_ylabel("difference of squared errors")
    axes.legend()


def _kappa_axis(axes: Axes, results: xr.Dataset) -> None:
    """A logarithmic axis of the size of the pool, with a tick for each."""
    axes.set(xscale="log", xlabel=r"$\kappa$, pool size over d")
    kappas = results.kappa.values
    axes.set_xticks(kappas, [f"{kappa:g}" for kappa in kappas])
    axes.minorticks_off()


def _first_dim(results: xr.Dataset) -> xr.DataArray:
    """Mean over pools of the difference, at ten inputs."""
    return results.fitted_gap.sel(dim=10)


def _limit(results: xr.Dataset) -> xr.DataArray:
    """The difference in the limit of many inputs."""
    return results.theory_gap


def _ratio_of_pool_errors(results: xr.Dataset) -> xr.DataArray:
    """Error of trained layers on the pool divided by that of least squares."""
    return results.trained_pool / results.many_contexts_pool


def _fall(results: xr.Dataset) -> xr.DataArray:
    """Difference of errors of fitted layers on the smallest pool minus that on the largest."""
    gap = _first_dim(results)
    return gap.isel(kappa=0) - gap.isel(kappa=-1)


# The ids of the claims have the size of the pool at ten inputs, 10 kappa.
VALUES: dict[str, Value] = {
    **{f"LU-theory-{size}": _limit for size in (2, 6, 10, 20, 80)},
    **{f"LU-simulation-{size}": _first_dim for size in (2, 6, 10, 20, 80)},
    "LU-transition": _fall,
    "LU-plenty": lambda results: results.plenty,
    "POOL-trained": _ratio_of_pool_errors,
}
CLAIMS = catalogue.read(Path(__file__).with_name("claims.toml"), VALUES)
