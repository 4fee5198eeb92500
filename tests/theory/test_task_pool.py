"""Errors of a layer fitted to a pool: published values, integrals over spectra, and simulated fits."""

import jax
import numpy as np
import pytest

from toyicl import theory
from toyicl.core.episode import predict
from toyicl.core.errors import BadInput
from toyicl.models.reduced_attention import least_squares_attention
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.pool import PooledRegression

PUBLISHED = {0.2: 0.8253, 0.6: 0.4385, 1: 0.1636, 2: 0.0301, 8: 0.0037}
"""Error on new weights minus error on the pool at alpha = tau = 10 and rho = .01, Lu et al. (2025)."""
PLENTY = {1: 0.51249, 10: 0.10173}
"""Error of an unlimited pool and unlimited contexts at rho = .01, by alpha."""


@pytest.mark.parametrize("kappa", PUBLISHED)
def test_the_published_differences(kappa):
    new, pool = theory.pool_errors(10, kappa, 10, 0.01)
    assert round(new - pool, 4) == PUBLISHED[kappa]


@pytest.mark.parametrize("alpha", PLENTY)
def test_the_limit_of_plenty(alpha):
    """It is that of the best step of gradient descent on inputs of many dimensions."""
    new, pool = theory.pool_errors(alpha, np.inf, np.inf, 0.01)
    assert round(new, 5) == PLENTY[alpha]
    assert new == pytest.approx(pool, rel=1e-12)
    task = LinearRegression(
        dim=400,
        context_size=400 * alpha,
        input_distribution="normal",
        input_range=400**-0.5,
        label_noise=0.1,
    )
    finite = 2 * theory.gradient_descent_optimum(task).loss + 0.01
    assert finite == pytest.approx({1: 0.5131, 10: 0.1019}[alpha], abs=1e-4)
    assert finite == pytest.approx(new, rel=3e-3)


@pytest.mark.parametrize("kappa", [0.3, 1, 4])
def test_errors_are_means_over_the_spectrum_of_a_pool(kappa):
    """The spectrum of a pool of weights with 1,500 inputs, instead of its limit."""
    dim, q = 1500, 1.01 / 5
    weights = np.random.default_rng(0).normal(size=(int(kappa * dim), dim))
    r = np.linalg.eigvalsh(weights.T @ weights / len(weights))
    new, pool = theory.pool_errors(5, kappa, noise_variance=0.01)
    assert new == pytest.approx(np.mean((q**2 + q * r**2) / (r + q) ** 2) + 0.01, rel=5e-3)
    assert pool == pytest.approx(np.mean(q * r / (r + q)) + 0.01, rel=5e-3)


def simulated(dim, kappa, alpha, tau, rho, pools):
    """Mean errors of layers that are fitted to noisy labels of several pools."""
    base = LinearRegression(
        dim=dim,
        context_size=alpha * dim,
        input_distribution="normal",
        input_range=dim**-0.5,
        label_noise=rho**0.5,
    )

    @jax.jit
    def errors(seed):
        task = PooledRegression(
            base=base, count=int(kappa * dim), pool_seed=seed, weight_norm=dim**0.5
        )
        keys = jax.random.split(jax.random.key(seed), 4)
        fitted = task.sample(keys[0], tau * dim**2)
        noise = rho**0.5 * jax.random.normal(keys[1], fitted.y_query.shape)
        layer = least_squares_attention(fitted._replace(y_query=fitted.y_query + noise), 1 / dim)
        fresh, known = base.sample(keys[2], 2000), task.sample(keys[3], 2000)
        return [
            jax.numpy.mean((predict(layer, one) - one.y_query) ** 2) + rho for one in (fresh, known)
        ]

    return np.mean([errors(seed) for seed in range(pools)], axis=0)


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.slow
def test_errors_are_the_limit_of_simulated_fits():
    """Simulated errors exceed the limit by terms of order 1 / d, which are extrapolated away."""
    expected = np.array(theory.pool_errors(4, 2, 6, 0.05))
    small, large = simulated(8, 2, 4, 6, 0.05, 60), simulated(16, 2, 4, 6, 0.05, 20)
    assert np.all(small > large)
    assert np.all(large > expected)
    np.testing.assert_allclose(2 * large - small, expected, rtol=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0), "alpha must be a finite number above 0"),
        ((1.0, 0.0), "kappa must be above 0"),
        ((1.0, 1.0, 1.0), "tau must be above 1"),
        ((1.0, 1.0, 2.0, -0.1), "noise_variance must be a finite number of at least 0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(BadInput, match=message):
        theory.pool_errors(*arguments)
