"""The kinds of variables that a learner may hold: `flax.nnx.Param`, which is trained, and `Fixed`.

A learner is a pure function of one episode. It has no state that advances, such as running averages
of batch normalisation or counters: `require_no_state` refuses such variables and names them. Training,
finetuning, comparisons of learners and all other functions that copy or differentiate learners call it.
"""

from typing import Any

import jax
from flax import nnx

from toyicl.core.config import require


class Fixed(nnx.Variable):
    """A number or an array of a learner that training leaves unchanged; it may be traced."""


def require_no_state(learner: Any, role: str = "learner") -> None:
    """Check that every variable of a learner is an `nnx.Param`, which is trained, or `Fixed`.

    Other variables, such as running averages of batch normalisation, counters or random streams, are
    state that would have to advance whenever the learner is used. Learners are pure functions of one
    episode, which cannot advance it. Raises BadInput that names the first such variable, as one of the
    learner with this role.
    """
    if not isinstance(learner, nnx.Module) and jax.tree_util.all_leaves([learner]):
        return  # a function, which has no variables
    for path, variable in nnx.to_flat_state(nnx.state(learner)):
        allowed = not isinstance(variable, nnx.Variable) or isinstance(variable, nnx.Param | Fixed)
        name = ".".join(map(str, (role, *path)))
        rule = "a flax.nnx.Param, which is trained, or Fixed: state of a learner does not advance"
        require(allowed, name, rule, type(variable).__name__)
