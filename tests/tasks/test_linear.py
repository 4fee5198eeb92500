"""Linear regression: distributions of inputs, exact labels, sweeps by vmap, refused settings."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from toyicl.core.errors import BadInput
from toyicl.tasks import linear
from toyicl.tasks.linear import QUANTILES, LinearRegression

KEY = jax.random.key(5)
SMALL = LinearRegression(dim=2, outputs=2, context_size=4)


@partial(jax.jit, static_argnums=1)
def sample(task, episodes):
    return task.sample(KEY, episodes)


# mean, standard deviation and kurtosis at scale 1
MOMENTS = {
    "uniform": (0, np.sqrt(1 / 12), 1.8),
    "normal": (0, 1, 3),
    "exponential": (1, 1, 9),
    "laplace": (0, np.sqrt(2), 6),
}
SCIPY = {
    "uniform": stats.uniform(-0.5, 1),
    "normal": stats.norm(),
    "exponential": stats.expon(),
    "laplace": stats.laplace(),
}


def sample_inputs(task, episodes=20_000):
    episode = sample(task, episodes)
    return np.concatenate([np.ravel(episode.x), np.ravel(episode.x_query)])


@pytest.mark.parametrize("distribution", MOMENTS)
def test_quantile_functions_are_those_of_scipy(distribution, close):
    u = np.linspace(-0.999, 0.999, 101)
    close(QUANTILES[distribution](u), SCIPY[distribution].ppf((1 + u) / 2), 1e-12)


@pytest.mark.parametrize("distribution", MOMENTS)
def test_moments_of_the_inputs(distribution):
    mean, deviation, kurtosis = MOMENTS[distribution]
    x = sample_inputs(replace(SMALL, input_distribution=distribution, input_range=3.0)) / 3
    z = (x - mean) / deviation
    # 200,000 numbers: the mean has an error of 1/450 of a deviation; that of the kurtosis of heavy
    # tails is the largest.
    assert abs(z.mean()) < 0.01
    assert abs(z.var() - 1) < 0.03
    assert abs((z**4).mean() / kurtosis - 1) < 0.1


def test_uniform_inputs_fill_their_range_and_stay_within_it():
    x = sample_inputs(replace(SMALL, input_range=3.0))
    assert -1.5 < x.min() < -1.499
    assert 1.499 < x.max() < 1.5


def test_exponential_inputs_are_positive_and_laplace_ones_symmetric():
    assert sample_inputs(replace(SMALL, input_distribution="exponential")).min() > 0
    laplace = sample_inputs(replace(SMALL, input_distribution="laplace"))
    assert abs(np.mean(laplace > 0) - 0.5) < 0.005


@pytest.mark.parametrize("end", ["least", "largest"])
@pytest.mark.parametrize("distribution", MOMENTS)
def test_no_draw_is_infinite_even_in_float32(distribution, end, monkeypatch):
    """The uniform draw can return its lower bound, but not its upper bound."""

    def uniform(key, shape, dtype, minval, maxval):
        ends = {"least": minval, "largest": np.nextafter(dtype.type(maxval), dtype.type(minval))}
        return jnp.full(shape, ends[end], dtype)

    monkeypatch.setattr(jax.random, "uniform", uniform)
    with jax.enable_x64(False):
        episode = replace(SMALL, input_distribution=distribution, input_range=3.0).sample(KEY, 1)
    assert all(np.isfinite(field).all() for field in episode)


def test_all_inputs_are_independent():
    x, _, x_query, _ = sample(SMALL, 40_000)
    columns = np.concatenate([x.reshape(8, -1), x_query])
    assert np.abs(np.corrcoef(columns) - np.eye(10)).max() < 0.03


def test_weights_are_standard_normal_times_their_scale():
    x, _, x_query, _ = sample(SMALL, 20_000)
    _, y, _, y_query = sample(replace(SMALL, weight_scale=3.0), 20_000)
    standardised = y_query / (3 * jnp.linalg.norm(x_query, axis=0)[None])
    assert abs(np.mean(standardised)) < 0.02
    assert abs(np.var(standardised) - 1) < 0.03
    assert abs(np.mean(standardised**4) - 3) < 0.2
    assert abs(np.corrcoef(standardised)[0, 1]) < 0.03
    lengths = 3 * np.linalg.norm(x, axis=1)[:, None]
    assert abs(np.var(y / lengths) - 1) < 0.03


def test_weights_have_their_mean_and_scale():
    task = replace(SMALL, weight_mean=-1.5, weight_scale=0.5)
    weights = np.asarray(task.sample_weights(KEY, 20_000))
    assert weights.shape == (2, 2, 20_000)
    np.testing.assert_allclose(weights.mean(axis=-1), -1.5, atol=0.02)
    np.testing.assert_allclose(weights.std(axis=-1), 0.5, atol=0.01)
    x, y, *_ = (np.asarray(field) for field in sample(task, 2000))
    found = [np.linalg.lstsq(x[..., i], y[..., i])[0] for i in range(2000)]
    assert abs(np.mean(found) + 1.5) < 0.03
    assert abs(np.std(found) - 0.5) < 0.02


def test_episodes_of_given_weights_have_their_labels(close):
    task = replace(SMALL, weight_mean=2.0, label_noise=0.3)
    weights = task.sample_weights(jax.random.key(1), 500)
    x, y, x_query, y_query = task.sample_given(KEY, weights)
    close(np.einsum("mde,de->me", weights, x_query), y_query, 1e-12)
    noise = np.asarray(y) - np.einsum("mde,nde->nme", weights, x)
    assert abs(noise.std() - 0.3) < 0.02
    with pytest.raises(BadInput, match=r"weights must be of shape \(2, 2, 'episodes'\)"):
        task.sample_given(KEY, weights[:1])


@pytest.mark.parametrize("distribution", ["uniform", "frobenius_laplace"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_least_squares_on_the_context_predicts_the_query(distribution, outputs, close):
    task = LinearRegression(dim=3, outputs=outputs, context_size=5, input_distribution=distribution)
    x, y, x_query, y_query = (np.asarray(field) for field in sample(task, 20))
    for index in range(20):
        weights = np.linalg.lstsq(x[..., index], y[..., index])[0].T
        close(weights @ x_query[:, index], y_query[:, index], 1e-8)


MIXED, DIAGONAL = np.array([[2.0, 0.6], [0.6, 0.5]]), np.diag([2.0, 0.5])


@pytest.mark.parametrize(
    ("covariance", "matrix"),
    [((2.0, 0.6, 0.6, 0.5), MIXED), (((2.0, 0.6), (0.6, 0.5)), MIXED), ((2.0, 0.5), DIAGONAL)],
)
def test_covariance_of_normal_inputs(covariance, matrix):
    task = replace(SMALL, input_distribution="normal", covariance=covariance)
    x, _, x_query, _ = sample(task, 20_000)
    for points in (*x, x_query):
        np.testing.assert_allclose(np.cov(points), matrix, atol=0.08)


@pytest.mark.parametrize("covariance", [(2.0, 0.6, 0.6, 0.5), (2.0, 0.5), jnp.array(MIXED)])
def test_a_covariance_may_pass_through_jit(covariance, close):
    task = replace(SMALL, covariance=covariance)
    close(sample(task, 3).x, task.sample(KEY, 3).x)


def test_covariance_of_the_weights():
    """Labels of the unit vectors are the weights, whose covariance is that of the setting."""
    task = replace(SMALL, weight_covariance=(2.0, 0.6, 0.6, 0.5), weight_scale=1.5)
    x, y, *_ = sample(replace(task, context_size=2), 20_000)
    weights = np.linalg.solve(np.asarray(x).transpose(2, 0, 1), np.asarray(y).transpose(2, 0, 1))
    typical = np.abs(weights).max(axis=(1, 2)) < 20  # contexts of almost parallel inputs
    found = np.cov(weights[typical, :, 0].T)
    np.testing.assert_allclose(found, 2.25 * MIXED, atol=0.1)


def test_rotations_are_orthogonal_uniform_and_those_of_a_slow_loop(close):
    """The columns of O are products of reflections; its entries have the moments of the uniform law."""
    normal = jax.random.normal(KEY, (3, 3, 20_000))
    turned = linear._rotated(jnp.broadcast_to(jnp.eye(3)[:, :, None], (3, 3, 20_000)), normal)
    matrices = np.asarray(turned).transpose(2, 1, 0)  # O, whose columns are the turned unit vectors
    products = matrices @ matrices.swapaxes(1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-12)
    for matrix, draw in zip(matrices[:5], np.moveaxis(np.asarray(normal), -1, 0), strict=False):
        close(matrix, slow_rotation(draw))
    np.testing.assert_allclose(matrices.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose((matrices**2).mean(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_allclose((matrices**4).mean(axis=0), 3 / 15, atol=0.02)
    assert abs(np.linalg.det(matrices).mean()) < 0.03


def slow_rotation(normal):
    """The product of reflections of rows of normal numbers, each as a matrix."""
    size, product = len(normal), np.eye(len(normal))
    for k, row in enumerate(normal):
        tail = np.where(np.arange(size) >= k, row, 0)
        mirror = tail - np.linalg.norm(tail) * np.eye(size)[k]
        reflection = np.eye(size)
        if np.linalg.norm(mirror) > 0:
            reflection -= 2 * np.outer(mirror, mirror) / (mirror @ mirror)
        product = product @ reflection
    return product


def test_a_rotation_turns_all_inputs_of_an_episode_and_keeps_the_draws_of_others():
    task = replace(SMALL, covariance=(2.0, 0.5))
    plain, turned = (task.sample(KEY, 6), replace(task, rotated=True).sample(KEY, 6))
    assert turned.x.shape == plain.x.shape
    both = [np.concatenate([one.x, one.x_query[None]]) for one in (sample(task, 6), turned)]
    assert not np.allclose(both[0], both[1])
    many = replace(task, rotated=True, input_distribution="normal").sample(KEY, 20_000)
    found = np.cov(np.asarray(many.x_query))
    np.testing.assert_allclose(found, 1.25 * np.eye(2), atol=0.08)
    gram = np.einsum("nde,de->ne", many.x, many.x_query)
    assert np.mean(gram**2) == pytest.approx(2.0**2 + 0.5**2, rel=0.1)  # tr Lambda^2


def test_one_input_may_have_a_covariance(close):
    task = LinearRegression(dim=1, context_size=3)
    close(sample(replace(task, covariance=(4.0,)), 5).x, 2 * sample(task, 5).x)


@pytest.mark.parametrize("distribution", ["normal", "exponential", "laplace"])
def test_frobenius_distributions_rescale_context_and_query_alike(distribution, close):
    raw = sample(replace(SMALL, input_distribution=distribution), 7)
    x, _, x_query, _ = sample(
        replace(SMALL, input_distribution=f"frobenius_{distribution}", input_range=2.5), 7
    )
    norms = np.sqrt(np.sum(np.asarray(x) ** 2, axis=(0, 1)))
    np.testing.assert_allclose(norms, 2.5, rtol=1e-12)
    factor = 2.5 / np.sqrt(np.sum(np.asarray(raw.x) ** 2, axis=(0, 1)))
    close(x, np.asarray(raw.x) * factor)
    close(x_query, np.asarray(raw.x_query) * factor)


def test_label_noise_has_its_variance_and_the_query_has_none():
    noisy = sample(replace(SMALL, label_noise=0.3, weight_scale=0.0), 20_000)
    assert abs(np.std(noisy.y) - 0.3) < 0.004
    assert abs(np.mean(noisy.y)) < 0.004
    assert np.abs(np.corrcoef(noisy.y.reshape(8, -1)) - np.eye(8)).max() < 0.03
    assert np.all(np.asarray(noisy.y_query) == 0)


@pytest.mark.parametrize("quiet", [{"label_noise": 0.0}, {"distractors": 0}])
def test_noise_of_scale_zero_leaves_the_labels_exact(quiet, close):
    task = replace(SMALL, **quiet)
    x, y, x_query, y_query = (np.asarray(field) for field in sample(task, 5_000))
    for index in range(5):
        weights = np.linalg.lstsq(x[..., index], y[..., index])[0].T
        close(weights @ x_query[:, index], y_query[:, index], 1e-8)
    assert abs(np.var(y_query) / np.var(sample(SMALL, 5_000).y_query) - 1) < 0.1


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_the_first_labels_are_distractors_and_the_others_exact(count, close):
    task = replace(SMALL, distractors=count, distractor_scale=2.0)
    x, y, x_query, y_query = (np.asarray(field) for field in sample(task, 20_000))
    noise, exact = y[:count], y[count:]
    if count:
        assert abs(np.std(noise) - 2) < 0.03
        assert abs(np.mean(noise)) < 0.03
        score = np.corrcoef(noise[0, 0] * x[0, 0], y_query[0] * x_query[0])
        assert abs(score[0, 1]) < 0.03
    if len(exact) >= 2:
        for index in range(5):
            weights = np.linalg.lstsq(x[count:, :, index], exact[..., index])[0].T
            close(weights @ x_query[:, index], y_query[:, index], 1e-8)


def test_a_sweep_by_vmap_equals_single_tasks(close):
    fields = ("input_range", "weight_scale", "label_noise", "distractors", "distractor_scale")
    values = [(0.5, 2.0, 0.1, 0, 1.0), (2.0, 0.0, 1.0, 3, 0.5), (1.0, 1.0, 0.0, 4, 3.0)]

    def draw(*scales):
        return replace(SMALL, **dict(zip(fields, scales, strict=True))).sample(KEY, 6)

    swept = jax.jit(jax.vmap(draw))(*map(np.array, zip(*values, strict=True)))
    for index, scales in enumerate(values):
        alone = sample(replace(SMALL, **dict(zip(fields, scales, strict=True))), 6)
        for together, one in zip(swept, alone, strict=True):
            close(together[index], one)


def test_another_scale_does_not_compile_again():
    traces = []

    @jax.jit
    def draw(task, key):
        traces.append(task)
        return task.sample(key, 3)

    for scale in (1.0, 2.0):
        draw(replace(SMALL, input_range=scale), KEY)
    assert len(traces) == 1
    draw(replace(SMALL, context_size=5), KEY)
    assert len(traces) == 2


def test_a_scaled_task_gives_the_same_batch_scaled(close):
    task = replace(SMALL, input_range=2.0)
    large = jax.jit(lambda factor: task.scaled(factor).sample(KEY, 5))(3.0)
    for one, other in zip(sample(SMALL, 5), large, strict=True):
        close(other, 6 * np.asarray(one))


def test_defaults_are_those_of_the_paper():
    task = LinearRegression()
    assert (task.dim, task.outputs, task.context_size, task.input_range) == (10, 1, 10, 1.0)


MATRIX = "2 positive numbers, or a symmetric positive definite 2 x 2 matrix"
BAD = [
    ("input_range", 0.0, "a finite number above 0"),
    ("weight_scale", -1.0, "a finite number of at least 0"),
    ("weight_mean", float("inf"), "a finite number"),
    ("label_noise", -0.1, "a finite number of at least 0"),
    ("distractors", 11, "a whole number between 0 and context_size (10)"),
    ("distractor_scale", -1.0, "a finite number of at least 0"),
    ("covariance", (), MATRIX),
    ("covariance", (1.0,), MATRIX),
    ("covariance", (1.0, 0.0), MATRIX),
    ("covariance", (1.0, -1.0), MATRIX),
    ("covariance", (1.0, 0.5, 0.0, 1.0), MATRIX),
    ("covariance", (1.0, 2.0, 2.0, 1.0), MATRIX),
    ("covariance", ((1.0, 0.0), (0.0,)), MATRIX),
    ("covariance", (1.0, float("nan")), MATRIX),
    ("weight_covariance", (1.0, -1.0), MATRIX),
    ("rotated", 1, "True or False"),
]


@pytest.mark.parametrize(("field", "value", "rule"), BAD)
def test_refuses(field, value, rule):
    message = f"LinearRegression.{field} must be {rule}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*, got {re.escape(repr(value))}$"):
        LinearRegression(**{"dim": 2, field: value})
