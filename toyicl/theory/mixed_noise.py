"""Exact losses where the scale sigma of the label noise is drawn once per episode, from U(0, s).

The loss of a learner that is linear in the labels, with coefficients that do not depend on sigma, is
linear in sigma^2. Its mean over sigma is therefore that of noise of the one scale s / sqrt(3), to which
the functions of `toyicl.theory` for gradient descent, GD++ and ridge regression with a constant penalty
apply. Ridge regression that knows sigma is different: with normal weights it is the best of all
learners that are given sigma. The task of all functions is that without noise.
"""

import math
from dataclasses import replace

import numpy as np

from toyicl.core.config import require, require_not_negative, require_positive
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import predict_zero_loss
from toyicl.theory.gram_spectrum import eigenvalue_quadrature, require_no_distractors
from toyicl.theory.reference_losses import ridge

SCALES = 64
"""Number of noise scales of the Gauss-Legendre quadrature."""


def with_mean_noise(task: LinearRegression, largest_noise: float) -> LinearRegression:
    """The task whose noise has the mean variance of sigma ~ U(0, s), s^2 / 3.

    Raises BadInput for a scale below 0 and for a task that has noise of its own.
    """
    require_not_negative("largest_noise", largest_noise)
    require(task.label_noise is None, "task.label_noise", "None", task.label_noise)
    return replace(task, label_noise=float(largest_noise) / math.sqrt(3))


def known_noise_loss(task: LinearRegression, largest_noise: float) -> float:
    """Mean loss of ridge regression with penalty sigma^2 / omega^2 for each episode's own sigma.

    At penalty p its loss is m m2 / 2 omega^2 E sum_s p / (s + p), which is averaged over sigma. Raises
    BadInput as `with_mean_noise` does, for distractors, and for weights of scale 0.
    """
    if not with_mean_noise(task, largest_noise).label_noise:
        return ridge(task)[0]
    require_no_distractors(task)
    require_positive("task.weight_scale", task.weight_scale)
    values, weights = eigenvalue_quadrature(task)
    values = values * float(task.input_range) ** 2
    nodes, shares = np.polynomial.legendre.leggauss(SCALES)
    relative = float(largest_noise) / float(task.weight_scale)
    penalties = (relative * (nodes + 1) / 2)[:, None] ** 2
    left = penalties / (values + penalties)
    each = predict_zero_loss(task) / task.dim
    return each * float(shares / 2 @ left @ weights)
