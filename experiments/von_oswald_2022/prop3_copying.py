"""A constructed layer copies each label to the token before it, if its attention is linear.

Proposition 3 (appendix A.5) of von Oswald et al. (2022): 21 tokens whose positions are unit
vectors. The key-query circuit selects the successor of each token. Linear attention copies it
exactly; softmax attention copies it only if the logits are large.

Expected: linear attention is exact; softmax attention with logits of 1 has a weight of e / (e + 20)
= .12 on the next token.
Alias: prop3
Cost: seconds.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.core.config import named_in_errors, require_memory, require_positive, require_size
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue
from toyicl.models.attention import read_linear, read_softmax
from toyicl.plots import figures, panels
from toyicl.training.loop import Histories


@dataclass(frozen=True, kw_only=True)
@named_in_errors
class Settings:
    """Settings of the copying; everything is computed in float64."""

    tokens: int = 21
    """Number of tokens."""
    content: int = 10
    """Size of a token's content, to which its position, a unit vector, is appended."""
    sharpness: float = 20.0
    """Factor on the logits with which softmax attention copies as well."""

    def __post_init__(self) -> None:
        require_size("tokens", self.tokens, least=2)
        require_size("content", self.content)
        size, largest = self.tokens + self.content, max(self.tokens, self.content)
        name = "tokens" if self.tokens == largest else "content"
        require_memory(name, largest, 2 * size**2)
        require_positive("sharpness", self.sharpness)


FULL = QUICK = Settings()
LOGITS = np.geomspace(0.1, 100.0, 61)


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Error of linear attention, and the weight of softmax attention on the next token."""
    with jax.enable_x64(True):
        shape = (settings.tokens, settings.content)
        content, places = jax.random.normal(jax.random.key(2022), shape), jnp.eye(settings.tokens)
        following = jnp.eye(settings.tokens, k=1)  # the position that each token attends to
        asked = jnp.concatenate([jnp.zeros(shape), following], axis=1)
        tokens = jnp.concatenate([content, places], axis=1)
        copied = read_linear(asked, tokens, tokens)[:, : settings.content]
        missed = jnp.max(jnp.abs(copied[:-1] - content[1:]))

        def attention(logit: jax.Array) -> jax.Array:
            """The weight on the next token, the smallest over tokens that have one."""
            weights = read_softmax(logit * asked, tokens, places)
            return jnp.min(jnp.diagonal(weights, offset=1))

        return dataset(
            {"linear_difference": missed},
            {"weight": ("logit", jax.vmap(attention)(jnp.asarray(LOGITS))), "logit": LOGITS},
            {"weight_of_one": attention(jnp.ones(()))},
            {"weight_sharp": attention(jnp.asarray(settings.sharpness))},
        )


def draw(results: xr.Dataset) -> Figure:
    """Weight of softmax attention on the next token, by its logit."""

    def panel(axes: Axes, results: xr.Dataset) -> None:
        axes.semilogx(results.logit, results.weight, color=figures.MODEL, label="softmax")
        axes.axvline(1.0, color="0.4", linestyle=":", label="logit of the proposition")
        axes.set(xlabel="logit of the next token", ylabel="attention weight", ylim=(0, 1.05))
        axes.legend()

    sentence = "Attention of a constructed layer to the next token."
    return panels.figure(results, {"copying by softmax attention": panel}, sentence, columns=1)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "VO-P3-1": lambda results: results.linear_difference,
        "VO-P3-2": lambda results: results.weight_of_one,
        "VO-P3-2-sharp": lambda results: results.weight_sharp,
    },
)
