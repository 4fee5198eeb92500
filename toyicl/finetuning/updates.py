"""Finetuning as a pure function: one epoch over a task's demonstrations, one example at a time.

Written for one model and one task; tasks, rates and seeds are a `jax.vmap` or `jax.lax.map` outside. An
example is the prompt BOS x_i with the label y_i, in the order and the template of the prompt. Plain
descent, descent layer by layer, and descent linearised in the tangent space at the model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import require_different, require_positive
from toyicl.models.causal import Activations, CausalTransformer
from toyicl.tasks.prompts import Cost

Which = Callable[[Any, Any], bool]
"""Whether a parameter is finetuned, from its path and itself."""
Objective = Callable[[CausalTransformer, jax.Array, jax.Array], jax.Array]
"""What one example costs a model: (model, x, y) -> ()."""


def _inside(part: str, *names: str) -> Which:
    """Parameters in a part of the model, of some names or of all."""

    def chosen(path: Any, value: Any) -> bool:
        return part in path and (not names or path[-1] in names)

    return chosen


def _everything(path: Any, value: Any) -> bool:
    return True


WHICH: dict[str, Which] = {
    "keys and values": _inside("attention", "key", "value"),
    "queries": _inside("attention", "query"),
    "MLPs": _inside("mlp"),
    "all": _everything,
}
"""What may be finetuned; Dai et al. (2022) restrict it to keys and values, W_K and W_V."""


class Method(TypedDict):
    """A way of finetuning, as the keyword arguments of what finetunes."""

    which: Which
    objective: Objective


def plain(cost: Cost) -> Objective:
    """The cost of the zero-shot answer."""
    return lambda model, x, y: cost(model.zero_shot(x).logits, y)


def published(cost: Cost) -> Method:
    """Plain descent of W_K and W_V alone, as in Dai et al. (2022)."""
    return {"which": WHICH["keys and values"], "objective": plain(cost)}


def layer_causal(cost: Cost) -> Objective:
    """The summed cost of what the unembedding reads after each layer, whose gradient stays inside it.

    Layer-causal gradient descent of Deutch et al. (2024): no layer learns from those behind it, as in a
    forward pass none is moved by them.
    """

    def objective(model: CausalTransformer, x: jax.Array, y: jax.Array) -> jax.Array:
        seen = model.see(model.alone(x), jax.lax.stop_gradient).last()
        return jnp.sum(jax.vmap(cost, (0, None))(seen.early_logits, y))

    return objective


class Parts(NamedTuple):
    """A model as what is finetuned and what is not."""

    structure: Any
    chosen: nnx.State
    rest: nnx.State

    def model(self, chosen: nnx.State) -> CausalTransformer:
        """The model with other values of what is finetuned."""
        return nnx.merge(self.structure, chosen, self.rest)


def parts(model: CausalTransformer, which: Which) -> Parts:
    """Divide a model's parameters; raises BadInput if none is chosen."""
    structure, *states = nnx.split(model, nnx.All(nnx.Param, which), ...)
    chosen, rest = states
    require_different("parameters to finetune", list(nnx.to_flat_state(chosen).paths))
    return Parts(structure, chosen, rest)


def finetune(
    model: CausalTransformer,
    x: jax.Array,
    y: jax.Array,
    rate: float | jax.Array,
    *,
    which: Which,
    objective: Objective,
) -> CausalTransformer:
    """The model after one epoch of gradient descent on examples (N, d), (N, m), one at a time.

    All that `which` leaves out keeps its bits. Too large a rate leaves parameters that are not finite,
    and raises nothing.
    """
    divided = parts(model, which)

    def step(chosen: nnx.State, example: tuple[jax.Array, jax.Array]) -> tuple[nnx.State, None]:
        slope = jax.grad(lambda chosen: objective(divided.model(chosen), *example))(chosen)
        return jax.tree.map(lambda value, by: value - rate * by, chosen, slope), None

    chosen, _ = jax.lax.scan(step, divided.chosen, (x, y))
    return divided.model(chosen)


def tangent_steps(
    model: CausalTransformer,
    x: jax.Array,
    y: jax.Array,
    rate: float | jax.Array,
    *,
    which: Which,
    cost: Cost,
) -> nnx.State:
    """The change of parameters after the epoch of `finetune`, of the model linearised where it is.

        theta <- theta - rate J(x)^T cost'(f_lin(x), y),   f_lin = f + J (theta - theta_0)

    For the cross-entropy, cost' is softmax(f_lin) - e_y.
    """
    divided = parts(model, which)

    def step(change: nnx.State, example: tuple[jax.Array, jax.Array]) -> tuple[nnx.State, None]:
        def logits(chosen: nnx.State) -> jax.Array:
            return divided.model(chosen).zero_shot(example[0]).logits

        start, forward = jax.linearize(logits, divided.chosen)
        error = jax.grad(cost)(start + forward(change), example[1])
        (slope,) = jax.linear_transpose(forward, change)(error)
        return jax.tree.map(lambda value, by: value - rate * by, change, slope), None

    nothing = jax.tree.map(jnp.zeros_like, divided.chosen)
    change, _ = jax.lax.scan(step, nothing, (x, y))
    return change


def see_linearised(
    model: CausalTransformer, change: nnx.State, x_query: jax.Array, *, which: Which
) -> Activations:
    """What is seen of a query, zero-shot, to first order in a change of parameters.

    Logits, and attention outputs and scores inside: a linearised model whose logits alone were
    linearised would have no attention outputs that move.
    """
    divided = parts(model, which)

    def see(chosen: nnx.State) -> Activations:
        return divided.model(chosen).zero_shot(x_query)

    seen, moved = jax.jvp(see, (divided.chosen,), (change,))
    return jax.tree.map(jnp.add, seen, moved)


def label_step(
    model: CausalTransformer, x: jax.Array, y: jax.Array, *, which: Which
) -> tuple[nnx.State, nnx.State]:
    """J(x)^T (softmax(f(x)) - e_y), and log softmax(f(x))_y times the features of y, grad f(x)_y.

    The gradient of the cross-entropy on one example, (d,), (m,), and what an unfinished report
    simplifies it to.
    """
    divided = parts(model, which)

    def logits(chosen: nnx.State) -> jax.Array:
        return divided.model(chosen).zero_shot(x).logits

    start, backward = jax.vjp(logits, divided.chosen)
    (gradient,) = backward(jax.nn.softmax(start) - y)
    (simplified,) = backward(y * jax.nn.log_softmax(start))
    return gradient, simplified


class Search(NamedTuple):
    """Rates that were tried, and the one that did best."""

    best: jax.Array
    """The rate of the highest score, the least of them if several; NaN if all diverged."""
    scores: jax.Array
    """Score of each rate, (rate,)."""
    diverged: jax.Array
    """Whether something was not finite with a rate, (rate,)."""


def search(
    rates: tuple[float, ...], trial: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
) -> Search:
    """The rate of the highest score among those that do not diverge.

    `trial(rate)` returns the score and whether all was finite. Raises BadInput unless rates are
    positive and different.
    """
    require_different("rates", rates)
    for rate in rates:
        require_positive("rate", rate)
    values = jnp.asarray(rates)
    scores, finite = jax.lax.map(trial, values)
    able = finite & jnp.isfinite(scores)
    highest = jnp.max(jnp.where(able, scores, -jnp.inf))
    best = jnp.min(jnp.where(able & (scores == highest), values, jnp.inf))
    return Search(jnp.where(jnp.any(able), best, jnp.nan), scores, ~able)
