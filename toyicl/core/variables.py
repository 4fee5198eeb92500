"""The kinds of variables that a learner may hold: `flax.nnx.Param`, which is trained, and `Fixed`.

A learner is a pure function of one episode. It has no state that advances, such as running averages
of batch normalisation or counters; training refuses such variables and names them.
"""

from flax import nnx


class Fixed(nnx.Variable):
    """A number or an array of a learner that training leaves unchanged; it may be traced."""
