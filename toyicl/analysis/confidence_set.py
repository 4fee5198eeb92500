"""Which of several algorithms explain a model: the set that cannot be told from the best.

Every rival is set beside the model on the same held-out episodes, by its predictions and by its
sensitivities; a bootstrap over episodes says which differences are more than chance.
"""

from collections.abc import Mapping
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

NOT_ZERO = "a learner whose predictions are not all 0"


class Explanation(NamedTuple):
    """What one rival says of a model, on held-out episodes."""

    r_squared: float
    """Share of the model's squared predictions that the rival's account for, 1 - |f - g|^2 / |f|^2."""
    r_squared_range: tuple[float, float]
    """Its bootstrap interval over episodes."""
    model_cosine: float
    """Mean cosine of sensitivities, and"""
    model_cosine_range: tuple[float, float]
    """its interval; a cosine is blind to scale."""
    norm_ratio: float
    """Mean norm of the model's sensitivities over that of the rival's, and"""
    norm_ratio_range: tuple[float, float]
    """its interval."""
    behind: float
    """How much less it accounts for than the best rival: the difference of R^2, and"""
    behind_range: tuple[float, float]
    """its interval, of the same resampled episodes for both."""
    in_set: bool
    """Whether it cannot be told from the best, the interval reaching below the margin, and accounts
    for anything at all: R^2 is above 0."""


def explain(
    model: Learner,
    rivals: Mapping[str, Learner],
    episodes: Episode,
    *,
    margin: float = 1e-3,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Explanation]:
    """Each rival beside a model on held-out episodes, the best first.

    The answer is a set: a rival is in it if, on resampled episodes, it does not reliably account for
    less of the model's predictions than the best one, by more than `margin` of R^2. A single winner
    would say more than the episodes do, and none may be in it. `confidence` is that of all intervals.

    Raises BadInput without rivals, for numbers that are not allowed, for a model that predicts 0, for
    answers that are not finite, and for a rival that is a class, its parameters not chosen.
    """
    require(len(rivals) > 0, "rivals", "at least one", len(rivals))
    require(0 < confidence < 1, "confidence", "between 0 and 1", confidence)
    require(margin >= 0, "margin", "at least 0", margin)
    require_size("resamples", resamples, least=2)
    own = _observed("model", model, episodes)
    require(bool(jnp.any(own.predictions != 0)), "model", NOT_ZERO, type(model).__name__)
    sums = {
        name: _sums(own, _observed(f"rival {name!r}", one, episodes))
        for name, one in rivals.items()
    }
    count = episodes.x_query.shape[-1]
    draw = np.random.default_rng(seed)
    picks = draw.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
    values = {name: _statistics(np.ones((1, count)), each)[0] for name, each in sums.items()}
    resampled = {name: _statistics(picks, each) for name, each in sums.items()}
    order = sorted(rivals, key=lambda name: -values[name][0])
    best = order[0]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = {}
    for name in order:
        # Of order statistics, since a ratio is infinite for a rival that ignores the query.
        ranges = np.quantile(resampled[name], tails, axis=0, method="inverted_cdf").T
        behind = np.quantile(
            resampled[best][:, 0] - resampled[name][:, 0], tails, method="inverted_cdf"
        )
        r_squared, cosine, ratio = values[name].tolist()
        found[name] = Explanation(
            r_squared,
            _pair(ranges[0]),
            cosine,
            _pair(ranges[1]),
            ratio,
            _pair(ranges[2]),
            float(values[best][0]) - r_squared,
            _pair(behind),
            bool(behind[0] <= margin) and r_squared > 0,
        )
    return found


class Scaled(nnx.Module):
    """A learner whose answers are multiplied by a number: one more parameter to tune."""

    def __init__(self, learner: Learner, factor: jax.Array | float = 1.0):
        self.learner = learner
        self.factor = nnx.Param(jnp.asarray(factor, float))

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Shapes (N, d), (N, m), (d,) -> (m,)."""
        return self.factor[...] * self.learner(x, y, x_query)


def tuned(
    rival: Learner,
    model: Learner,
    episodes: Episode,
    *,
    steps: int = 300,
    learning_rate: float = 0.03,
) -> Any:
    """A rival whose parameters are tuned to a model's predictions on some episodes.

    Each parameter is moved in units of its own size by Adam, whose rate falls to 0 along a cosine, so
    that rivals of any scale get the same care. What a rival's freedom buys shows on other episodes.
    """
    require_size("steps", steps)
    require_positive("learning_rate", learning_rate)
    targets = jax.jit(predict)(model, episodes)
    structure, parameters, *rest = nnx.split(rival, nnx.Param, ...)
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
    """The parameters nearest to some targets; rivals of one kind compile once."""
    units = jax.tree.map(lambda leaf: jnp.where(leaf == 0, 1.0, jnp.abs(leaf)), parameters)
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def moved(moves: Any) -> Any:
        return jax.tree.map(lambda leaf, move, unit: leaf + unit * move, parameters, moves, units)

    def distance(moves: Any) -> jax.Array:
        rival = nnx.merge(structure, moved(moves), *rest)
        return jnp.mean(jnp.sum((predict(rival, episodes) - targets) ** 2, axis=0))

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        moves, state = carry
        updates, state = optimiser.update(jax.grad(distance)(moves), state)
        return (optax.apply_updates(moves, updates), state), None

    start = jax.tree.map(jnp.zeros_like, parameters)
    (moves, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), length=steps)
    return moved(moves)


def best_steps(
    model: Learner, family: Mapping[int, Learner], episodes: Episode
) -> tuple[int, dict[int, float]]:
    """The number of steps at which an iterative rival is nearest a model, and R^2 at each."""
    require(len(family) > 0, "family", "at least one number of steps", len(family))
    own = _observed("model", model, episodes).predictions
    require(bool(jnp.any(own != 0)), "model", NOT_ZERO, type(model).__name__)
    found = {}
    for steps, rival in family.items():
        answers = _observed(f"rival of {steps} steps", rival, episodes).predictions
        apart = jnp.sum((own - answers) ** 2)
        found[steps] = float(1 - apart / jnp.sum(own**2))
    return max(found, key=lambda steps: found[steps]), found


def _observed(role: str, learner: Learner, episodes: Episode) -> Observation:
    """A learner on episodes, or an error that says whose answers cannot be compared."""
    rule = "a learner with its parameters, such as GradientDescent.shared(task)"
    require(not isinstance(learner, type), role, rule, learner)
    found = jax.jit(observe)(learner, episodes)
    wrong = int(jnp.sum(~jnp.isfinite(found.predictions)))
    rule = f"a learner whose {found.predictions.size} predictions are finite"
    require(wrong == 0, role, rule, f"{type(learner).__name__} with {wrong} that are not")
    return found


def _sums(own: Observation, other: Observation) -> np.ndarray:
    """What the statistics are made of, one row an episode: (episodes, 5), float64."""
    axes = (0, 1)
    norms = [
        np.sqrt(np.sum(np.square(one.sensitivities, dtype=float), axes)) for one in (own, other)
    ]
    products = np.sum(np.asarray(own.sensitivities, float) * np.asarray(other.sensitivities), axes)
    scale = norms[0] * norms[1]
    cosines = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    apart = np.sum(np.square(np.asarray(own.predictions, float) - other.predictions), 0)
    size = np.sum(np.square(own.predictions, dtype=float), 0)
    return np.stack([apart, size, cosines, *norms], axis=-1)


def _statistics(weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """R^2, cosine and norm ratio for each row of episodes' weights, (rows, 3)."""
    means: np.ndarray = weights @ sums
    apart, size, cosine, own, other = (means[:, column] for column in range(means.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([1 - apart / size, cosine / weights.sum(axis=1), own / other], axis=-1)


def _pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])
