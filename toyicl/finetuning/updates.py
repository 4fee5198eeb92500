"""Finetuning as a pure function: one epoch over a task's demonstrations, one example at a time.

Functions take one model and one task; several tasks, rates or seeds are a `jax.vmap` or a
`jax.lax.map` over them. An example is the prompt BOS x_i with the label y_i, in the order and template
of the prompt. There are plain gradient descent, layer-causal gradient descent, and gradient descent
linearised in the tangent space at the model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from flax import nnx

from toyicl.core.config import require_different, require_positive
from toyicl.core.variables import require_no_state
from toyicl.models.causal import Activations, CausalTransformer
from toyicl.tasks.prompts import Cost

ParameterFilter = Callable[[Any, Any], bool]
"""Whether a parameter is finetuned, given its path and the variable."""
ExampleObjective = Callable[[CausalTransformer, jax.Array, jax.Array], jax.Array]
"""Loss of a model on one example: (model, x, y) -> scalar, for shapes (d,), (m,)."""


def _inside(part: str, *names: str) -> ParameterFilter:
    """Parameters within a part of the model, with the given names or with all names."""

    def chosen(path: Any, value: Any) -> bool:
        return part in path and (not names or path[-1] in names)

    return chosen


def _everything(path: Any, value: Any) -> bool:
    return True


PARAMETERS: dict[str, ParameterFilter] = {
    "keys and values": _inside("attention", "key", "value"),
    "queries": _inside("attention", "query"),
    "MLPs": _inside("mlp"),
    "all": _everything,
}
"""Sets of parameters to finetune; Dai et al. (2022) finetune keys and values, W_K and W_V."""


class Method(TypedDict):
    """A method of finetuning, as keyword arguments of `finetune` and of functions that call it."""

    which: ParameterFilter
    objective: ExampleObjective


def plain(cost: Cost) -> ExampleObjective:
    """The cost of the zero-shot answer, as an objective."""
    return lambda model, x, y: cost(model.zero_shot(x).logits, y)


def published(cost: Cost) -> Method:
    """Plain gradient descent on W_K and W_V only, as in Dai et al. (2022)."""
    return {"which": PARAMETERS["keys and values"], "objective": plain(cost)}


def layer_causal(cost: Cost) -> ExampleObjective:
    """The cost of the early logits summed over layers, with no gradient from a layer to earlier ones.

    Layer-causal gradient descent of Deutch et al. (2024): the update of a layer does not depend on
    later layers, just as its activations do not.
    """

    def objective(model: CausalTransformer, x: jax.Array, y: jax.Array) -> jax.Array:
        found = model.activations(model.query_tokens(x), jax.lax.stop_gradient).last()
        return jnp.sum(jax.vmap(cost, (0, None))(found.early_logits, y))

    return objective


class Parts(NamedTuple):
    """A model divided into the parameters that are finetuned and the rest."""

    structure: Any
    chosen: nnx.State
    rest: nnx.State

    def model(self, chosen: nnx.State) -> CausalTransformer:
        """The model with other values of the finetuned parameters."""
        return nnx.merge(self.structure, chosen, self.rest)


def parts(model: CausalTransformer, which: ParameterFilter) -> Parts:
    """Divide a model's parameters by a filter.

    Raises BadInput if it chooses none, and for a model with state that is neither a parameter nor
    `Fixed`.
    """
    require_no_state(model, "model")
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
    which: ParameterFilter,
    objective: ExampleObjective,
) -> CausalTransformer:
    """The model after one epoch of gradient descent on examples (N, d), (N, m), one at a time.

    `rate` is the learning rate, `which` chooses the parameters, and `objective` is the loss of one
    example. All other parameters keep their bits. A rate that is too large gives parameters that are
    not finite, without an error. Raises BadInput if no parameter is chosen.
    """
    divided = parts(model, which)

    def step(chosen: nnx.State, example: tuple[jax.Array, jax.Array]) -> tuple[nnx.State, None]:
        gradient = jax.grad(lambda chosen: objective(divided.model(chosen), *example))(chosen)
        return jax.tree.map(lambda value, by: value - rate * by, chosen, gradient), None

    chosen, _ = jax.lax.scan(step, divided.chosen, (x, y))
    return divided.model(chosen)


def tangent_steps(
    model: CausalTransformer,
    x: jax.Array,
    y: jax.Array,
    rate: float | jax.Array,
    *,
    which: ParameterFilter,
    cost: Cost,
) -> nnx.State:
    """The change of parameters after the epoch of `finetune`, for the model linearised at theta_0.

        theta <- theta - rate J(x)^T cost'(f_lin(x), y),   f_lin = f + J (theta - theta_0)

    For the cross-entropy, cost' is softmax(f_lin) - e_y.
    """
    divided = parts(model, which)

    def step(change: nnx.State, example: tuple[jax.Array, jax.Array]) -> tuple[nnx.State, None]:
        def logits(chosen: nnx.State) -> jax.Array:
            return divided.model(chosen).zero_shot(example[0]).logits

        start, forward = jax.linearize(logits, divided.chosen)
        error = jax.grad(cost)(start + forward(change), example[1])
        (gradient,) = jax.linear_transpose(forward, change)(error)
        return jax.tree.map(lambda value, by: value - rate * by, change, gradient), None

    nothing = jax.tree.map(jnp.zeros_like, divided.chosen)
    change, _ = jax.lax.scan(step, nothing, (x, y))
    return change


def linearised_activations(
    model: CausalTransformer, change: nnx.State, x_query: jax.Array, *, which: ParameterFilter
) -> Activations:
    """Zero-shot activations at a query (d,), to first order in a change of parameters.

    All activations are linearised. If only the logits were, the attention outputs of the linearised
    model would not change.
    """
    divided = parts(model, which)

    def activations(chosen: nnx.State) -> Activations:
        return divided.model(chosen).zero_shot(x_query)

    values, tangents = jax.jvp(activations, (divided.chosen,), (change,))
    return jax.tree.map(jnp.add, values, tangents)


def label_step(
    model: CausalTransformer, x: jax.Array, y: jax.Array, *, which: ParameterFilter
) -> tuple[nnx.State, nnx.State]:
    """The gradient of the cross-entropy on one example, and the simplification of an unfinished report.

    They are J(x)^T (softmax(f(x)) - e_y) and log softmax(f(x))_y grad f(x)_y; shapes (d,), (m,).
    """
    divided = parts(model, which)

    def logits(chosen: nnx.State) -> jax.Array:
        return divided.model(chosen).zero_shot(x).logits

    start, backward = jax.vjp(logits, divided.chosen)
    (gradient,) = backward(jax.nn.softmax(start) - y)
    (simplified,) = backward(y * jax.nn.log_softmax(start))
    return gradient, simplified


class Search(NamedTuple):
    """Scores of several learning rates, and the best rate."""

    best: jax.Array
    """The rate with the highest score, the smallest one for ties; NaN if all rates diverged."""
    scores: jax.Array
    """Score of each rate, (rate,)."""
    diverged: jax.Array
    """Whether anything was not finite for a rate, (rate,)."""


def search(
    rates: tuple[float, ...], attempt: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
) -> Search:
    """The rate with the highest score among those that do not diverge.

    `attempt(rate)` returns the score, and whether all values were finite. Raises BadInput unless the
    rates are positive and different.
    """
    require_different("rates", rates)
    for rate in rates:
        require_positive("rate", rate)
    values = jnp.asarray(rates)
    scores, finite = jax.lax.map(attempt, values)
    usable = finite & jnp.isfinite(scores)
    highest = jnp.max(jnp.where(usable, scores, -jnp.inf))
    best = jnp.min(jnp.where(usable & (scores == highest), values, jnp.inf))
    return Search(jnp.where(jnp.any(usable), best, jnp.nan), scores, ~usable)
