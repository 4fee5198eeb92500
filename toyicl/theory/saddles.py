"""Losses of the saddle points at which the training of one linear attention layer rests.

A linear attention layer predicts sum_i y_i x_i . G x_q with some d x d matrix G. Its loss is a
quadratic function of G, but training moves the factors of G, and its rank grows by one at a time. The
best matrix of rank m is a saddle point of the loss as a function of the factors, near which training
can stay for long: a plateau (Zhang, Singh, Latham and Saxe, ICML 2025, arXiv 2501.16265).

For normal inputs with covariance Lambda and M = N [(N + 1) Lambda^2 + (tr Lambda + sigma^2 /
omega^2) Lambda], the loss is, up to a constant, a multiple of

    |M^(1/2) G Lambda^(1/2) - N M^(-1/2) Lambda^(3/2)|^2

so the best matrix of rank m keeps the m largest singular values of the second term, those of the m
largest eigenvalues of Lambda. Where inputs are isotropic, all singular values are equal. Losses are
those of `toyicl.theory.closed_form`, 0.5 E |prediction - y_query|^2, where y_query has no label
noise; omega is the scale of the weights and sigma that of the label noise.
"""

import numpy as np

from toyicl.core.config import require_memory, require_positive
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import gradient_descent_optimum, predict_zero_loss
from toyicl.theory.correlated_inputs import input_covariance
from toyicl.theory.gram_spectrum import require_isotropic_weights

COPIES = 16
"""Numbers of single precision for each loss: four arrays in double precision, and a list."""


def saddle_losses(task: LinearRegression) -> np.ndarray:
    """Loss of the best step matrix G of each rank m = 0, ..., d; (d + 1,), float64, decreasing.

    The first is the loss of predicting 0 and the last the optimum of one layer. Without a covariance,
    with L* the loss of the best single step of gradient descent and L0 that of predicting 0,

        L(m) = L* + (1 - m / d) (L0 - L*)

    for any inputs with independent coordinates that are symmetric about 0, also with label noise and
    distractors. For normal inputs whose covariance has the eigenvalues lambda_1 >= ... >= lambda_d,
    and `outputs` outputs,

        L(m) = (outputs / 2) omega^2 [t - sum_(k <= m) lambda_k / (1 + (1 + (t + s) / lambda_k) / N)]

    where t = tr Lambda and s = sigma^2 / omega^2. All outputs share the matrix G. A layer with several
    outputs has further saddle points, at which it predicts some of the outputs only.

    Raises BadSetting if there is no memory for so many losses, and BadInput for weights of scale 0, for
    distractors together with a covariance, and for inputs that are neither normal nor of
    independent, identically distributed and symmetric coordinates.
    """
    require_memory("task.dim", task.dim, COPIES * (task.dim + 1))
    if task.covariance is None:
        best, zero = gradient_descent_optimum(task).loss, predict_zero_loss(task)
        return best + (1 - np.arange(task.dim + 1) / task.dim) * (zero - best)
    require_positive("task.weight_scale", task.weight_scale)
    require_isotropic_weights(task)
    variances = np.linalg.eigvalsh(input_covariance(task))[::-1]
    noise = (float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2
    total = variances.sum()
    gains = variances / (1 + (1 + (total + noise) / variances) / task.context_size)
    left = total - np.concatenate([[0.0], np.cumsum(gains)])
    return task.outputs / 2 * float(task.weight_scale) ** 2 * left
