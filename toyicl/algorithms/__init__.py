"""Known learning algorithms as learners: gradient descent, ridge regression, solvers, kernels."""

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.algorithms.iterative import (
    Chebyshev,
    ConjugateGradients,
    HeavyBall,
    IterativeNewton,
    PreconditionedGradientDescent,
)
from toyicl.algorithms.kernel import (
    AveragedLabels,
    CentredDescent,
    FunctionalDescent,
    KernelRidge,
    NadarayaWatson,
    NearestNeighbour,
)
from toyicl.algorithms.label_descent import LabelDescent
from toyicl.algorithms.pool import PoolPosterior
from toyicl.algorithms.ridge import AdaptiveRidge, LeastSquares, Ridge, TunedAdaptiveRidge
from toyicl.algorithms.token_descent import TokenDescent

__all__ = [
    "AdaptiveRidge",
    "AveragedLabels",
    "CentredDescent",
    "Chebyshev",
    "ConjugateGradients",
    "FunctionalDescent",
    "GradientDescent",
    "GradientDescentPlusPlus",
    "HeavyBall",
    "IterativeNewton",
    "KernelRidge",
    "LabelDescent",
    "LeastSquares",
    "NadarayaWatson",
    "NearestNeighbour",
    "PoolPosterior",
    "PreconditionedGradientDescent",
    "Ridge",
    "TokenDescent",
    "TunedAdaptiveRidge",
]
