"""toyicl: do transformers learn in context by gradient descent? A laboratory to find out.

The nouns below are loaded when they are first used, so that importing the package is quick.
"""

import importlib
from typing import Any

_ROOMS = {
    "episode": ("Episode", "Learner", "predict"),
    "tasks": ("LinearRegression",),
    "transformer": ("Architecture", "Transformer"),
    "references": (
        "AdaptiveRidge",
        "GradientDescent",
        "GradientDescentPlusPlus",
        "LeastSquares",
        "Ridge",
    ),
    "iterative": (
        "Chebyshev",
        "ConjugateGradients",
        "HeavyBall",
        "IterativeNewton",
        "PreconditionedGradientDescent",
    ),
    "kernels": (
        "AveragedLabels",
        "CentredDescent",
        "FunctionalDescent",
        "KernelRidge",
        "NadarayaWatson",
        "NearestNeighbour",
    ),
    "construction": (
        "gradient_descent_transformer",
        "implied_step",
        "interpolate",
        "read_layer",
        "with_circuits",
    ),
    "reading": ("circuit_scores", "implicit_weights", "residual_polynomial"),
    "metrics": ("compare", "loss", "observe", "over_snapshots", "sensitivity"),
    "explain": ("best_steps", "tuned"),
    "devices": ("use_all_cores",),
    "training": ("StartFrom", "Training"),
    "fitting": ("History", "fit"),
    "theory": ("floors",),
}
_WHERE = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"toyicl.{_WHERE[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"toyicl.{name}")
    raise AttributeError(f"module 'toyicl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS]
