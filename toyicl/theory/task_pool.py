"""Linear attention that is fitted to a finite pool of tasks, in the limit of many inputs.

Lu et al. (2025), for d inputs x ~ N(0, I / d), weights w on the sphere of squared norm d, label noise
of variance rho on the context and on the query, and the reduced layer of `models.reduced_attention`,
fitted by least squares. As d grows, the ratios

    alpha = N / d,   kappa = (size of the pool) / d,   tau = (number of contexts) / d^2

are fixed. With q = (1 + rho) / alpha the layer reads h = (d / N) sum_i y_i x_i, the weights plus noise
of covariance q I. With an unlimited number of contexts it multiplies h by R (R + q I)^-1, where R is
the second moment of the weights of the pool. The eigenvalues r of R have the Marchenko-Pastur
distribution, and squared errors on weights of the pool and on new weights are the means over r

    E_pool = q r / (r + q) + rho,   E_new = (q^2 + q r^2) / (r + q)^2 + rho

With tau > 1 contexts for each of the d^2 weights of the layer, least squares adds to them the
fractions 1 / (tau - 1) and (1 + q) m / (tau - 1) of E_pool, where m is the mean of 1 / (r + q). Errors
are squared errors against the noisy label, twice the losses of the other modules plus rho.
"""

import math
from typing import NamedTuple

from toyicl.core.config import require, require_not_negative, require_positive


class PoolErrors(NamedTuple):
    """Squared errors of a fitted layer, against labels with noise."""

    new: float
    """On weights drawn anew: "ICL" of Lu et al. (2025)."""
    pool: float
    """On weights of the pool that it was fitted to: "IDG" of Lu et al. (2025)."""


def pool_errors(
    alpha: float, kappa: float, tau: float = math.inf, noise_variance: float = 0.0
) -> PoolErrors:
    """Errors of the reduced layer on new weights and on the pool, in the limit of many inputs.

    `kappa` and `tau` may be infinite. Raises BadInput unless `alpha` and `kappa` are positive, `tau` is
    above 1, and `noise_variance`, rho, is not negative.
    """
    require_positive("alpha", alpha)
    require(kappa > 0, "kappa", "above 0", kappa)
    require(tau > 1, "tau", "above 1, so that least squares has one solution", tau)
    require_not_negative("noise_variance", noise_variance)
    rho = noise_variance
    q = (1 + rho) / alpha
    inverse, square = _inverse_means(q, kappa)
    pool = q * (1 - q * inverse) + rho
    # r / (r + q) = 1 - q / (r + q), so that both errors are combinations of the two means.
    new = q**2 * square + q * (1 - 2 * q * inverse + q**2 * square) + rho
    excess = pool / (tau - 1)
    return PoolErrors(new + excess * (1 + q) * inverse, pool + excess)


def _inverse_means(q: float, kappa: float) -> tuple[float, float]:
    """Means of 1 / (r + q) and 1 / (r + q)^2 over the Marchenko-Pastur distribution of ratio 1 / kappa.

    m = 2 / (q + 1 - 1/kappa + root), where root^2 = (q + 1 - 1/kappa)^2 + 4 q / kappa, and the second
    mean is minus its derivative with respect to q.
    """
    ratio = 1 / kappa
    shifted = q + 1 - ratio
    root = math.sqrt(shifted**2 + 4 * ratio * q)
    inverse = 2 / (shifted + root)
    slope = 1 + (shifted + 2 * ratio) / root
    return inverse, inverse**2 * slope / 2
