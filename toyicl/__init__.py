"""toyicl: experiments on whether transformers learn in context by gradient descent.

The public names below are imported when they are first used, so that importing the package is quick.
"""

import importlib
from typing import Any

_NAMES = {
    "core.episode": ("Episode", "Learner", "Objective", "predict"),
    "core.variables": ("Fixed",),
    "tasks.linear": ("LinearRegression",),
    "models.transformer": ("Architecture", "Transformer"),
    "algorithms.gradient_descent": ("GradientDescent", "GradientDescentPlusPlus"),
    "algorithms.label_descent": ("LabelDescent",),
    "algorithms.token_descent": ("TokenDescent",),
    "algorithms.ridge": ("AdaptiveRidge", "LeastSquares", "Ridge", "TunedAdaptiveRidge"),
    "algorithms.iterative": (
        "Chebyshev",
        "ConjugateGradients",
        "HeavyBall",
        "IterativeNewton",
        "PreconditionedGradientDescent",
    ),
    "algorithms.pool": ("PoolPosterior",),
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
    "analysis.confidence_set": ("CandidateFit", "best_steps", "confidence_set", "tuned"),
    "training.distributed": ("use_all_cores",),
    "training.step": ("StartFrom", "Training"),
    "training.loop": ("History", "fit"),
    "theory.reference_losses": ("floors",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_ALIASES = {
    "anisotropic": "theory.correlated_inputs",
    "attention": "models.attention",
    "axes": "studies.departures",
    "causal": "models.causal",
    "checkpoints": "harness.checkpoints",
    "claims": "harness.claims",
    "classification": "tasks.prompts",
    "commands": "cli.options",
    "construction": "models.construction",
    "contrast": "finetuning.evaluation",
    "controls": "finetuning.baselines",
    "dependence": "analysis.token_jacobian",
    "descent": "theory.step_search",
    "devices": "training.distributed",
    "dual": "finetuning.dual_form",
    "elsewhere": "tasks.recall",
    "episode": "core.episode",
    "experiment": "harness.experiment",
    "explain": "analysis.confidence_set",
    "files": "harness.atomic_files",
    "fitting": "training.loop",
    "growth": "analysis.cost_scaling",
    "iterative": "algorithms.iterative",
    "kernels": "algorithms.kernel",
    "laboratory": "harness.runner",
    "layers": "models.layers",
    "meta": "models.feature_descent",
    "metrics": "analysis.metrics",
    "panels": "plots.panels",
    "parsing": "cli.parsing",
    "plotting": "plots.figures",
    "pools": "tasks.fixed_set",
    "probe_panels": "plots.sweep_panels",
    "probing": "studies.departure_sweep",
    "reading": "analysis.black_box",
    "references": "algorithms",
    "report": "harness.report",
    "rivalry": "studies.algorithm_comparison",
    "runs": "harness.results",
    "settings": "core.config",
    "similarity": "finetuning.similarity",
    "sines": "tasks.sine",
    "spectrum": "theory.gram_spectrum",
    "spread": "training.placement",
    "study": "studies.alignment",
    "sweeps": "harness.sweeps",
    "teachers": "tasks.nonlinear",
    "terminal": "cli.console",
    "tokens": "models.tokens",
    "trails": "training.state",
    "transformer": "models.transformer",
}
"""Names that modules had before they were grouped into packages, and where they are now."""
_PACKAGES = ("tasks", "theory", "algorithms", "models", "analysis", "training")
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"toyicl.{_MODULE_OF[name]}"), name)
    if name in _ALIASES:
        return importlib.import_module(f"toyicl.{_ALIASES[name]}")
    if name in _PACKAGES:
        return importlib.import_module(f"toyicl.{name}")
    raise AttributeError(f"module 'toyicl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_PACKAGES]
