"""One attention layer followed by an MLP whose output is the prediction, without a residual around it.

A transformer can predict from attention alone, which the residual connection passes around its MLP. In
this model everything that the context contributes has to pass through the first matrix of the MLP.
"""

import jax
from flax import nnx

from toyicl.core.config import require_positive, require_size, settings, static
from toyicl.models.attention import Attention, AttentionSettings
from toyicl.models.layers import MLP
from toyicl.models.tokens import joint_tokens, query_token, read_label
from toyicl.tasks.linear import Task


@settings
class AttentionMLP:
    """Settings of attention followed by an MLP; calling them with a task and a key builds one.

    Raises BadSetting, at construction, for a setting out of its bounds.
    """

    attention: AttentionSettings = AttentionSettings()
    """The attention, whose output is added to the query's token."""
    mlp_size: int = static(default=64)
    """Hidden width of the MLP."""
    mlp_init_scale: float = 1.0
    """Variance of the MLP's initial weights, times fan-in."""

    def __post_init__(self) -> None:
        require_size("mlp_size", self.mlp_size)
        require_positive("mlp_init_scale", self.mlp_init_scale)

    def __call__(self, task: Task, key: jax.Array) -> "AttentionThenMLP":
        """Build a model with fresh weights for the episodes of a task."""
        return AttentionThenMLP(self, task.dim, task.outputs, key)


class AttentionThenMLP(nnx.Module):
    """MLP(A(C, x_q)) for the attention output A(C, x_q) = e_q + attention(e_q; C), as a learner.

    Tokens are joint, (x_j, y_j) and e_q = (x_q, 0). The prediction is minus the last `outputs` entries
    of the MLP's output.
    """

    def __init__(self, settings: AttentionMLP, dim: int, outputs: int, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        size = dim + outputs
        self.attention = Attention(size, attention_key, settings.attention)
        self.mlp = MLP(size, settings.mlp_size, settings.mlp_init_scale, nnx.Rngs(mlp_key))
        self.outputs = outputs

    def __call__(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """Predict the query's label: (N, d), (N, m), (d,) -> (m,)."""
        return self.answer(self.attended(x, y, x_query))

    def attended(self, x: jax.Array, y: jax.Array, x_query: jax.Array) -> jax.Array:
        """The attention output with context, A(C, x_q): (d + m,)."""
        query = self.token(x_query)
        return query + self.attention(query, joint_tokens(x, y))

    def token(self, x_query: jax.Array) -> jax.Array:
        """The query's token, which is the attention output without context, A(x_q): (d + m,)."""
        return query_token(x_query, self.outputs)

    def answer(self, attended: jax.Array) -> jax.Array:
        """The prediction from an attention output, (d + m,) -> (m,)."""
        return read_label(self.mlp(attended), self.outputs)
