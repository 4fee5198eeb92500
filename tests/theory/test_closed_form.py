"""Closed forms against independently derived numbers, against simulation, and against each other."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled import drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from toyicl import theory
from toyicl.tasks.linear import LinearRegression
from toyicl.theory import gram_spectrum

ORACLES = json.loads((Path(__file__).parents[1] / "helpers" / "oracles.json").read_text())
EXACT, SAMPLED = 1e-6, 5e-3
DEPTHS = (1, 2, 3, 4, 5)

scales = st.floats(0.2, 5)
noises = st.floats(0, 2)


def linear(context_size=10, **others):
    return LinearRegression(context_size=context_size, **others)


def within(losses, expected, errors=3):
    """Whether simulated losses, one an episode, have the expected mean."""
    losses = np.asarray(losses)
    error = losses.std() / np.sqrt(losses.size)
    assert abs(losses.mean() - expected) < errors * error, (losses.mean(), expected, error)


def simulate(task, rates, curvatures, seed=0, episodes=150_000):
    """Losses of GD++ done on the data, point by point; (episodes,)."""
    x, y, x_query, y_query = map(np.asarray, drawn(task, seed, episodes))
    answer = np.zeros_like(y_query)
    for rate, curvature in zip(rates, curvatures, strict=True):
        moments = np.einsum("nde,nme->dme", x, y)
        scatter = np.einsum("nde,nce->dce", x, x)
        answer = answer + rate / task.context_size * np.einsum("de,dme->me", x_query, moments)
        y = y - rate / task.context_size * np.einsum("nde,dme->nme", x, moments)
        x_query = x_query - curvature * np.einsum("dce,ce->de", scatter, x_query)
        x = x - curvature * np.einsum("nce,dce->nde", x, scatter)
    return 0.5 * np.sum((answer - y_query) ** 2, axis=0)


# One step and one head: closed forms


@pytest.mark.parametrize("r", [1, 2])
def test_predict_zero(r):
    expected = ORACLES["zero_pred_loss"][f"r{r}"]
    assert theory.predict_zero_loss(linear(input_range=float(r))) == pytest.approx(expected, EXACT)


@pytest.mark.parametrize("name", ORACLES["one_step"])
def test_one_step(name):
    r, size = (int(part[1:]) for part in name.split("_"))
    task, expected = linear(size, input_range=float(r)), ORACLES["one_step"][name]
    best = theory.gradient_descent_optimum(task)
    assert best.steps == 1
    assert best.loss == pytest.approx(expected["loss"], EXACT)
    assert best.learning_rates == (pytest.approx(expected["eta"], EXACT),)
    rate = best.learning_rates[0]
    assert theory.gradient_descent_loss(task, rate) == pytest.approx(best.loss, 1e-12)
    assert theory.gd_shared(task, 1) == theory.gd_per_step(task, 1) == best


@pytest.mark.parametrize("name", ORACLES["retuned"])
def test_one_step_of_any_context_size(name):
    r, size = (int(part[1:]) for part in name.split("_"))
    best = theory.gradient_descent_optimum(linear(size, input_range=float(r)))
    assert best.loss == pytest.approx(ORACLES["retuned"][name], EXACT)


@pytest.mark.parametrize("name", ORACLES["label_noise"])
def test_one_step_with_label_noise(name):
    r, _, sigma = name.split("_")
    task = linear(input_range=float(r[1:]), label_noise=float(sigma.removeprefix("sigma")))
    best, expected = theory.gradient_descent_optimum(task), ORACLES["label_noise"][name]
    assert best.learning_rates[0] == pytest.approx(expected["eta"], EXACT)
    assert best.loss == pytest.approx(expected["loss_noisefree_target"], EXACT)
    clean = theory.gradient_descent_optimum(replace(task, label_noise=None)).learning_rates[0]
    expected_loss = expected["loss_at_noisefree_eta"]
    assert theory.gradient_descent_loss(task, clean) == pytest.approx(expected_loss, EXACT)


@pytest.mark.parametrize("r", [1, 2])
def test_one_step_with_distractors(r):
    rate = theory.gradient_descent_optimum(linear(input_range=float(r))).learning_rates[0]
    for count, expected in ORACLES["distractors"][f"r{r}"].items():
        task = linear(input_range=float(r), distractors=int(count))
        assert theory.gradient_descent_loss(task, rate) == pytest.approx(expected, EXACT)


@pytest.mark.parametrize("distribution", ["uniform", "normal", "laplace"])
def test_one_step_with_everything_against_simulation(distribution):
    task = LinearRegression(
        dim=4,
        context_size=6,
        outputs=2,
        input_distribution=distribution,
        input_range=0.7,
        weight_scale=1.3,
    )
    task = replace(task, label_noise=0.8, distractors=2, distractor_scale=1.5)
    rate = 1.2 * theory.gradient_descent_optimum(task).learning_rates[0]
    within(simulate(task, [rate], [0.0]), theory.gradient_descent_loss(task, rate))


def test_only_distractors_are_best_ignored():
    task = linear(distractors=10)
    assert theory.gradient_descent_optimum(task).learning_rates == (0.0,)
    assert theory.gradient_descent_optimum(task).loss == theory.predict_zero_loss(task)


@pytest.mark.parametrize("r", [1, 2])
def test_implicit_weights(r):
    task, expected = linear(input_range=float(r)), ORACLES["lsa"]
    scale, coefficient = expected[f"z_star_r{r}"], expected[f"excess_loss_coef_r{r}"]
    assert theory.optimal_scale(task) == pytest.approx(scale, EXACT)
    assert theory.excess_loss(task, scale * np.eye(10)) == pytest.approx(0, abs=1e-12)
    implicit = np.random.default_rng(0).normal(size=(10, 10))
    miss = coefficient * np.sum((implicit - scale * np.eye(10)) ** 2)
    assert theory.excess_loss(task, implicit) == pytest.approx(miss, EXACT)


def test_keys_of_lower_rank_have_a_higher_loss():
    best = theory.gradient_descent_optimum(linear())
    for rank, expected in enumerate(ORACLES["lsa"]["rank_k_loss_r1"]):
        implicit = theory.optimal_scale(linear()) * np.diag(np.arange(10) < rank)
        loss = best.loss + theory.excess_loss(linear(), implicit)
        assert loss == pytest.approx(expected, EXACT)


@given(rate=st.floats(-3, 30), size=st.integers(1, 30), dim=st.integers(1, 6), omega=scales)
def test_head_of_the_construction_is_gradient_descent(rate, size, dim, omega):
    task = LinearRegression(dim=dim, context_size=size, weight_scale=omega)
    key_query = np.diag([*np.ones(dim), 0])
    value_output = np.diag([*np.zeros(dim), -rate / size])
    head = theory.single_head_loss(task, key_query, value_output)
    assert head == pytest.approx(theory.gradient_descent_loss(task, rate), 1e-9)
    excess = theory.excess_loss(task, rate / size * np.eye(dim))
    best = theory.gradient_descent_optimum(task).loss
    assert head == pytest.approx(best + excess, 1e-9)


@pytest.mark.parametrize(
    "task",
    [
        LinearRegression(dim=3, context_size=5, input_range=2.0, weight_scale=1.4),
        LinearRegression(dim=4, context_size=2, input_distribution="normal", input_range=0.6),
    ],
    ids=["uniform, N > d", "normal, N < d"],
)
def test_any_head_against_simulation(task):
    numbers, dim = np.random.default_rng(5), task.dim
    key_query, value_output = numbers.normal(0, 0.4, (2, dim + 1, dim + 1))
    losses = []
    for seed in range(5):
        x, y, x_query, y_query = map(np.asarray, drawn(task, seed, 200_000))
        tokens = np.concatenate([x, y], axis=1)
        query = np.concatenate([x_query, np.zeros_like(y_query)])
        scores = np.einsum("nae,ab,be->ne", tokens, key_query, query, optimize=True)
        answer = -np.einsum("ne,b,nbe->e", scores, value_output[-1], tokens, optimize=True)
        losses.append(0.5 * (answer - y_query[0]) ** 2)
    within(np.concatenate(losses), theory.single_head_loss(task, key_query, value_output))


# The distribution of eigenvalues


@pytest.mark.parametrize(
    ("task", "rates", "curvatures"),
    [
        (LinearRegression(dim=4, context_size=6, label_noise=0.4), [9.0, 4.0, 5.0], [0.0] * 3),
        (LinearRegression(dim=6, context_size=4, label_noise=0.4), [4.0, 3.0], [0.2, 0.1]),
        (
            LinearRegression(dim=4, context_size=6, outputs=2, input_range=2.0, weight_scale=1.5),
            [1.0, 3.0],
            [0.05, 0.0],
        ),
    ],
    ids=["noisy GD", "noisy GD++, N < d", "GD++, two outputs"],
)
def test_population_loss_against_steps_done_on_the_data(task, rates, curvatures):
    def residual(values):
        left = np.ones_like(values)
        for rate, curvature in zip(rates, curvatures, strict=True):
            left = left * (1 - rate / task.context_size * values)
            values = values * (1 - curvature * values) ** 2
        return left

    within(simulate(task, rates, curvatures), theory.population_loss(task, residual))


@pytest.mark.parametrize("depth", DEPTHS)
def test_population_loss_of_a_bounded_family(depth):
    def residual(values):
        angle = np.arcsin(np.sqrt(values / 25))
        return np.sin(3**depth * angle) / (3**depth * np.sin(angle))

    expected = ORACLES["chebyshev_safe_sc25"][f"K{depth}"]
    assert theory.population_loss(linear(), residual) == pytest.approx(expected, SAMPLED)


@settings(deadline=None, max_examples=50)
@given(rate=st.floats(0, 10), sigma=noises, omega=st.floats(0, 3))
def test_population_loss_of_one_step_is_the_closed_form(rate, sigma, omega):
    task = linear(weight_scale=omega, label_noise=sigma, input_range=1.2, outputs=2)
    loss = theory.population_loss(task, lambda values: 1 - rate / 10 * values)
    assert loss == pytest.approx(theory.gradient_descent_loss(task, rate), EXACT, 1e-12)


def test_known_values_for_normal_inputs():
    """Full squared errors are twice the losses; derived apart from this project's formulas."""

    def normal(dim, size, **changes):
        return LinearRegression(dim=dim, context_size=size, input_distribution="normal", **changes)

    spread = normal(4, 31, covariance=(0.4, 0.3, 0.2, 0.1))
    assert 2 * theory.best_step_matrix(spread).loss == pytest.approx(0.13599507, rel=1e-6)
    assert theory.gd_shared(normal(5, 20), 1).loss == pytest.approx(0.5769231, rel=1e-6)
    assert 2 * theory.gradient_descent_loss(normal(20, 40), 1.0) == pytest.approx(10.5, EXACT)


# Floors


LARGE = ("N20", "N35", "N50")
"""Numbers of points for which quadrature takes seconds."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.startswith(LARGE))
        for name in ORACLES["ridge_r1"]
    ],
)
def test_ridge(name):
    size, sigma = name.split("_")
    sigma = float(sigma.removeprefix("sigma"))
    loss, penalty = theory.ridge(linear(int(size[1:]), label_noise=sigma))
    assert loss == pytest.approx(ORACLES["ridge_r1"][name], SAMPLED)
    assert penalty == pytest.approx(sigma**2)


def test_ridge_at_its_own_penalty_is_best():
    task = linear(label_noise=0.5, weight_scale=2.0)
    loss, penalty = theory.ridge(task)
    for other in (0.9 * penalty, 1.1 * penalty):
        assert loss < theory.population_loss(task, lambda s, other=other: other / (s + other))


def test_without_noise_a_full_context_determines_the_weights():
    assert theory.bayes_loss(linear(10)) == 0
    assert theory.bayes_loss(linear(4, outputs=2)) == pytest.approx(2 * 6 / 24, EXACT)


def test_floors_are_plain_numbers():
    result = theory.floors(linear(label_noise=0.1), range(1, 4))
    assert json.loads(json.dumps(result)) == result
    assert list(result) == [
        "predict_zero",
        "gd_shared",
        "gd_per_step",
        "gdpp_shared",
        "bayes",
        "ridge",
        "saddles",
    ]
    columns = {
        "gd_shared": {"steps", "loss", "learning_rate"},
        "gd_per_step": {"steps", "loss", "learning_rates"},
        "gdpp_shared": {"steps", "loss", "learning_rate", "curvature"},
    }
    for name, keys in columns.items():
        assert [row["steps"] for row in result[name]] == [1, 2, 3]
        assert all(set(row) == keys for row in result[name])
    assert result["gdpp_shared"][0]["curvature"] == 0.0
    assert result["ridge"] == {"loss": result["bayes"], "penalty": pytest.approx(0.01)}
    ends = (result["predict_zero"], result["gd_shared"][0]["loss"])
    assert (result["saddles"][0], result["saddles"][-1]) == pytest.approx(ends)


# Bad input


@pytest.mark.parametrize("distribution", ["exponential", "frobenius_normal"])
@pytest.mark.parametrize(
    "answer",
    [
        theory.input_moments,
        theory.predict_zero_loss,
        theory.gradient_descent_optimum,
        gram_spectrum.gram_spectrum,
        theory.bayes_loss,
        lambda task: theory.gdpp_shared(task, 2),
        lambda task: theory.single_head_loss(task, np.eye(11), np.eye(11)),
    ],
)
def test_distributions_without_formulas_are_refused(distribution, answer):
    with pytest.raises(
        ValueError, match=r"task.input_distribution must be one of uniform.*got '" + distribution
    ):
        answer(linear(input_distribution=distribution))


def test_mixed_coordinates_are_refused():
    with pytest.raises(ValueError, match=r"task.covariance must be None"):
        theory.input_moments(linear(covariance=tuple(np.eye(10).ravel().tolist())))


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
@pytest.mark.parametrize(
    "optimum",
    [
        theory.gd_shared,
        theory.gd_per_step,
        theory.gdpp_shared,
        theory.gdpp_per_layer,
        lambda task, steps: theory.floors(task, [steps]),
    ],
)
def test_steps_that_are_no_number_of_steps(optimum, steps):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        optimum(linear(), steps)


@pytest.mark.parametrize(
    "answer",
    [
        lambda task: theory.gd_shared(task, 2),
        lambda task: theory.gd_per_step(task, 2),
        lambda task: theory.gdpp_shared(task, 2),
        theory.bayes_loss,
        lambda task: theory.population_loss(task, np.ones_like),
        lambda task: theory.single_head_loss(task, np.eye(11), np.eye(11)),
    ],
)
def test_distractors_are_refused(answer):
    with pytest.raises(ValueError, match=r"task.distractors must be None or 0 .*got 3"):
        answer(linear(distractors=3))


def test_weights_of_scale_zero_have_no_best_step():
    for answer in (theory.gradient_descent_optimum, theory.ridge):
        with pytest.raises(ValueError, match=r"task.weight_scale must be .* above 0"):
            answer(linear(weight_scale=0.0))


def test_heads_that_fit_no_token():
    with pytest.raises(ValueError, match=r"key_query must be a 11 x 11 matrix, got \(10, 10\)"):
        theory.single_head_loss(linear(), np.eye(10), np.eye(11))
    with pytest.raises(ValueError, match=r"task.outputs must be 1 here, got 2"):
        theory.single_head_loss(linear(outputs=2), np.eye(12), np.eye(12))
    with pytest.raises(ValueError, match=r"task.label_noise must be None"):
        theory.single_head_loss(linear(label_noise=0.1), np.eye(11), np.eye(11))
    with pytest.raises(ValueError, match=r"implicit must be a 10 x 10 matrix"):
        theory.excess_loss(linear(), np.eye(11))


@pytest.mark.parametrize(("tasks", "seed"), [(0, 0), (1.5, 0), (10, -1)])
def test_samples_of_no_size(tasks, seed):
    with pytest.raises(ValueError, match="must be a whole number of at least"):
        gram_spectrum.gram_spectrum(linear(), tasks, seed)
