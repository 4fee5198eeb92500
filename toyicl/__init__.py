"""toyicl: do transformers learn in context by gradient descent? A laboratory to find out.

The public names below are imported when they are first used, so that importing the package is quick.
"""

import importlib
from typing import Any

_NAMES = {
    "core.episode": ("Episode", "Learner", "predict"),
    "tasks.linear": ("LinearRegression",),
    "models.transformer": ("Architecture", "Transformer"),
    "algorithms.gradient_descent": ("GradientDescent", "GradientDescentPlusPlus"),
    "algorithms.ridge": ("AdaptiveRidge", "LeastSquares", "Ridge"),
    "algorithms.iterative": (
        "Chebyshev",
        "ConjugateGradients",
        "HeavyBall",
        "IterativeNewton",
        "PreconditionedGradientDescent",
    ),
    "algorithms.kernel": (
        "AveragedLabels",
        "CentredDescent",
        "FunctionalDescent",
        "KernelRidge",
        "NadarayaWatson",
        "NearestNeighbour",
    ),
    "models.construction": ("gradient_descent_transformer", "interpolate", "with_circuits"),
    "analysis.weights": ("circuit_scores", "implied_step", "read_layer"),
    "analysis.black_box": ("implicit_weights", "residual_polynomial"),
    "analysis.metrics": ("compare", "loss", "observe", "over_snapshots", "sensitivity"),
    "analysis.confidence_set": ("best_steps", "tuned"),
    "training.distributed": ("use_all_cores",),
    "training.step": ("StartFrom", "Training"),
    "training.loop": ("History", "fit"),
    "theory.closed_form": ("floors",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_ALIASES = {
    "construction": "models.construction",
    "devices": "training.distributed",
    "episode": "core.episode",
    "explain": "analysis.confidence_set",
    "fitting": "training.loop",
    "iterative": "algorithms.iterative",
    "kernels": "algorithms.kernel",
    "metrics": "analysis.metrics",
    "reading": "analysis.black_box",
    "references": "algorithms",
    "tasks": "tasks",
    "theory": "theory",
    "training": "training",
    "transformer": "models.transformer",
}
"""Modules that can be reached as attributes of the package: old names lead to where they are now."""
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"toyicl.{_MODULE_OF[name]}"), name)
    if name in _ALIASES:
        return importlib.import_module(f"toyicl.{_ALIASES[name]}")
    raise AttributeError(f"module 'toyicl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_ALIASES]
