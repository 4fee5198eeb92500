"""Model confidence sets: the candidate algorithms that are not distinguishably worse than the best.

Every candidate is compared with the model on the same held-out episodes, by its predictions and by its
sensitivities. A bootstrap over episodes shows which differences exceed sampling error.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from toyicl.analysis.metrics import Observation, observe
from toyicl.core.config import require, require_positive, require_size
from toyicl.core.episode import Episode, Learner, predict
from toyicl.core.variables import require_no_state

NOT_ZERO = "a learner whose predictions are not all 0"


class CandidateFit(NamedTuple):
    """How well one candidate algorithm agrees with a model on held-out episodes."""

    r_squared: float
    """Explained fraction of the model's squared predictions, 1 - |f - g|^2 / |f|^2."""
    r_squared_range: tuple[float, float]
    """Bootstrap interval of `r_squared` over episodes."""
    model_cosine: float
    """Mean cosine between the sensitivities; it does not depend on their scale."""
    model_cosine_range: tuple[float, float]
    """Bootstrap interval of `model_cosine`."""
    norm_ratio: float
    """Mean norm of the model's sensitivities divided by that of the candidate's."""
    norm_ratio_range: tuple[float, float]
    """Bootstrap interval of `norm_ratio`."""
    deficit: float
    """R^2 of the best candidate minus that of this one."""
    deficit_range: tuple[float, float]
    """Bootstrap interval of `deficit`; both candidates are evaluated on the same resampled episodes."""
    in_set: bool
    """Whether the candidate is in the confidence set: its deficit is not reliably above the margin,
    and R^2 is above 0."""


def confidence_set(
    model: Learner,
    candidates: Mapping[str, Learner],
    episodes: Episode,
    *,
    margin: float = 1e-3,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, CandidateFit]:
    """Compare candidate algorithms with a model on held-out episodes; the best candidate comes first.

    The result is a set of candidates, which may be empty, rather than a single best one: a candidate is
    in the set unless, on resampled episodes, its R^2 is reliably lower than the best candidate's by
    more than `margin`. `confidence` is the confidence level of all intervals.

    Raises BadInput if there is no candidate; for numbers out of their bounds; for a model that predicts
    only 0; for predictions that are not finite; for a candidate that is a class and not an instance;
    and for learners with state that is neither a parameter nor `Fixed`.
    """
    require(len(candidates) > 0, "candidates", "at least one", len(candidates))
    require(0 < confidence < 1, "confidence", "between 0 and 1", confidence)
    require(margin >= 0, "margin", "at least 0", margin)
    require_size("resamples", resamples, least=2)
    own = _observed("model", model, episodes)
    require(bool(jnp.any(own.predictions != 0)), "model", NOT_ZERO, type(model).__name__)
    sums = {
        name: _sums(own, _observed(f"candidate {name!r}", one, episodes))
        for name, one in candidates.items()
    }
    count = episodes.x_query.shape[-1]
    picks = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    values = {name: _statistics(np.ones((1, count)), each)[0] for name, each in sums.items()}
    resampled = {name: _statistics(picks.astype(float), each) for name, each in sums.items()}
    order = sorted(candidates, key=lambda name: -values[name][0])
    best = order[0]
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    return {
        name: _fit(values[name], values[best], resampled[name], resampled[best], tails, margin)
        for name in order
    }


def _fit(
    values: np.ndarray,
    best_values: np.ndarray,
    resampled: np.ndarray,
    best_resampled: np.ndarray,
    tails: tuple[float, float],
    margin: float,
) -> CandidateFit:
    """The fit of a candidate: `values` (3,) and `resampled` (resamples, 3) are its statistics."""

    def interval(samples: np.ndarray) -> tuple[float, float]:
        # Quantiles without interpolation: the norm ratio of a candidate that ignores the query is inf.
        low, high = np.quantile(samples, tails, method="inverted_cdf")
        return float(low), float(high)

    r_squared, cosine, ratio = values.tolist()
    deficit_range = interval(best_resampled[:, 0] - resampled[:, 0])
    return CandidateFit(
        r_squared,
        interval(resampled[:, 0]),
        cosine,
        interval(resampled[:, 1]),
        ratio,
        interval(resampled[:, 2]),
        float(best_values[0]) - r_squared,
        deficit_range,
        deficit_range[0] <= margin and r_squared > 0,
    )


class Scaled(nnx.Module):
    """A learner whose predictions are multiplied by a factor, which is a further parameter."""

    def __init__(self, learner: Learner, factor: jax.Array | float = 1.0):
        self.learner = learner
        self.factor = nnx.Param(jnp.asarray(factor, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Shapes (N, d), (N, m), (d,) -> (m,)."""
        return self.factor[...] * self.learner(x, y, x_query)


def tuned(
    candidate: Learner,
    model: Learner,
    episodes: Episode,
    *,
    steps: int = 300,
    learning_rate: float = 0.03,
) -> Any:
    """The candidate with its parameters fitted to a model's predictions on some episodes.

    Adam minimises the squared distance of the predictions. Each parameter is in units of its initial
    size, so that the result does not depend on its scale, and the step size falls to 0 along a cosine.
    Candidates with different numbers of parameters should be compared on other episodes.

    Raises BadInput unless `steps` is at least 1 and `learning_rate` is positive, and for learners with
    state that is neither a parameter nor `Fixed`.
    """
    require_size("steps", steps)
    require_positive("learning_rate", learning_rate)
    require_no_state(candidate, "candidate")
    require_no_state(model, "model")
    targets = _compiled(predict, model, episodes)
    structure, parameters, *rest = nnx.split(candidate, nnx.Param, ...)
    found = _search(structure, parameters, rest, targets, episodes, steps, learning_rate)
    return nnx.merge(structure, found, *rest)


@partial(jax.jit, static_argnames=("structure", "steps"))
def _search(
    structure: Any,
    parameters: Any,
    rest: Any,
    targets: jax.Array,
    episodes: Episode,
    steps: int,
    learning_rate: float,
) -> Any:
    """The parameters whose predictions are nearest to targets; candidates of one kind compile once."""
    # Not `theory.step_search.minimise`: its derivatives take one pass for each parameter, and the
    # matrix of a preconditioned step has d^2. Fits are in the precision of the model, as a whole
    # compiled program.
    units = jax.tree.map(lambda leaf: jnp.where(leaf == 0, 1.0, jnp.abs(leaf)), parameters)
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def changed(changes: Any) -> Any:
        return jax.tree.map(lambda leaf, by, unit: leaf + unit * by, parameters, changes, units)

    def distance(changes: Any) -> jax.Array:
        candidate = nnx.merge(structure, changed(changes), *rest)
        return jnp.mean(jnp.sum((predict(candidate, episodes) - targets) ** 2, axis=0))

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        changes, state = carry
        updates, state = optimiser.update(jax.grad(distance)(changes), state)
        return (optax.apply_updates(changes, updates), state), None

    start = jax.tree.map(jnp.zeros_like, parameters)
    (changes, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), length=steps)
    return changed(changes)


def best_steps(
    model: Learner, family: Mapping[int, Learner], episodes: Episode
) -> tuple[int, dict[int, float]]:
    """The number of steps at which an iterative candidate is nearest to a model, and R^2 of each.

    `family` holds the candidate by its number of steps. Raises BadInput as `confidence_set` does.
    """
    require(len(family) > 0, "family", "at least one number of steps", len(family))
    own = _observed("model", model, episodes).predictions
    require(bool(jnp.any(own != 0)), "model", NOT_ZERO, type(model).__name__)
    found = {}
    for steps, candidate in family.items():
        role = f"candidate of {steps} steps"
        answers = _observed(role, candidate, episodes).predictions
        distance = jnp.sum((own - answers) ** 2)
        found[steps] = float(1 - distance / jnp.sum(own**2))
    return max(found, key=lambda steps: found[steps]), found


def _observed(role: str, learner: Learner, episodes: Episode) -> Observation:
    """A learner's observation; raises BadInput that names its role if it cannot be compared."""
    rule = "a learner with its parameters, such as GradientDescent.shared(task)"
    require(not isinstance(learner, type), role, rule, learner)
    require_no_state(learner, role)
    found = _compiled(observe, learner, episodes)
    wrong = int(jnp.sum(~jnp.isfinite(found.predictions)))
    rule = f"a learner whose {found.predictions.size} predictions are finite"
    require(wrong == 0, role, rule, f"{type(learner).__name__} with {wrong} that are not")
    return found


def _compiled(measure: Callable[..., Any], learner: Learner, episodes: Episode) -> Any:
    """`measure(learner, episodes)` as a compiled program.

    A learner that is a plain function is not an array, and cannot be an argument of the program.
    """
    if jax.tree_util.all_leaves([learner]):
        return jax.jit(partial(measure, learner))(episodes)
    return jax.jit(measure)(learner, episodes)


def _sums(own: Observation, other: Observation) -> np.ndarray:
    """The summands of the statistics for each episode, (episodes, 5), float64."""
    axes = (0, 1)
    norms = [
        np.sqrt(np.sum(np.square(one.sensitivities, dtype=float), axes)) for one in (own, other)
    ]
    products = np.sum(np.asarray(own.sensitivities, float) * np.asarray(other.sensitivities), axes)
    scale = norms[0] * norms[1]
    cosines = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    distance = np.sum(np.square(np.asarray(own.predictions, float) - other.predictions), 0)
    size = np.sum(np.square(own.predictions, dtype=float), 0)
    return np.stack([distance, size, cosines, *norms], axis=-1)


def _statistics(weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """R^2, cosine and norm ratio for each row of weights of episodes, (rows, 3)."""
    means: np.ndarray = weights @ sums
    distance, size, cosine, own, other = (means[:, column] for column in range(means.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([1 - distance / size, cosine / weights.sum(axis=1), own / other], axis=-1)
