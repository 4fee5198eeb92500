"""The training loop: equal to an explicit loop, deterministic, and compiled once."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiled import drawn
from flax import nnx

from toyicl.algorithms.gradient_descent import GradientDescent
from toyicl.analysis import metrics
from toyicl.core.random_numbers import efficient_key
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training import step as training_step
from toyicl.training.loop import Job, fit, fit_all, kind
from toyicl.training.step import StartFrom, Training, advance

TASK = LinearRegression(dim=3, context_size=4)
SHORT = Training(steps=20, batch_size=64, snapshot_every=10)


def equal(one, other):
    """Whether two pytrees are bit-identical."""
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def select(history, index):
    return jax.tree.map(lambda leaf: leaf[index], history.learners)


@pytest.mark.parametrize(
    ("wide", "tolerance"), [(True, 1e-9), pytest.param(False, 1e-4, marks=pytest.mark.slow)]
)
def test_training_equals_an_explicit_loop(wide, tolerance, close):
    """In single precision, the episodes are those of the efficient key, and of no other."""
    with jax.enable_x64(wide):
        trained, written_out = trained_and_written_out()
    for own, expected in zip(trained, written_out, strict=True):
        assert own.dtype == ("float64" if wide else "float32")
        close(own, expected, tolerance)


def trained_and_written_out():
    """Leaves of a model after three steps of `fit`, and after the same steps in a loop."""
    settings = Training(steps=3, batch_size=16, snapshot_every=3, clip_norm=1e-2, b1=0.8, b2=0.95)
    history = fit(Architecture(depth=2, shared=True), TASK, settings, seeds=[7])

    weights_key, episodes_key = jax.random.split(jax.random.key(7))
    model = Architecture(depth=2, shared=True)(TASK, weights_key)
    structure, parameters, fixed = nnx.split(model, nnx.Param, ...)
    optimiser = optax.chain(optax.clip_by_global_norm(1e-2), optax.adam(1e-3, b1=0.8, b2=0.95))
    state = optimiser.init(parameters)
    for step in range(3):
        episodes = TASK.sample(efficient_key(jax.random.fold_in(episodes_key, step)), 16)
        gradient = jax.grad(
            lambda values, episodes=episodes: metrics.loss(
                nnx.merge(structure, values, fixed), episodes
            )
        )(parameters)
        updates, state = optimiser.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)

    trained = jax.tree.leaves(select(history, (0, -1)))
    written_out = jax.tree.leaves(nnx.merge(structure, parameters, fixed))
    return trained, written_out


def test_a_history_has_snapshots_seeds_and_losses(close):
    history = fit(Architecture(), TASK, SHORT, seeds=[3, 5])
    assert history.steps.tolist() == [0, 10, 20]
    assert history.seeds.tolist() == [3, 5]
    assert history.training_loss.shape == (2, 2)
    assert history.diverged_at.tolist() == [-1, -1]
    assert history.learners.blocks[0].attention.key[...].shape == (2, 3, 1, 4, 4)
    first = Architecture()(TASK, jax.random.split(jax.random.key(3))[0])
    start = history.learners.blocks[0].attention.key[...][0, 0]
    close(start, first.blocks[0].attention.key[...])
    assert equal(history.final, select(history, (slice(None), -1)))


def test_the_same_seed_twice_is_bit_identical():
    assert equal(
        fit(Architecture(), TASK, SHORT).learners, fit(Architecture(), TASK, SHORT).learners
    )


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_a_seed_alone_is_bit_identical_to_the_same_seed_among_five(seed):
    alone = fit(Architecture(), TASK, SHORT, seeds=[seed])
    together = fit(Architecture(), TASK, SHORT, seeds=5)
    assert equal(select(alone, 0), select(together, seed))


def test_seeds_differ():
    history = fit(Architecture(), TASK, SHORT, seeds=2)
    assert not equal(select(history, 0), select(history, 1))


def test_chunk_length_does_not_change_the_result():
    long = fit(Architecture(), TASK, replace(SHORT, snapshot_every=20))
    short = fit(Architecture(), TASK, replace(SHORT, snapshot_every=5))
    assert equal(long.final, short.final)
    np.testing.assert_allclose(short.training_loss.mean(axis=1), long.training_loss[:, 0])


def test_other_seeds_scales_steps_and_rates_compile_nothing_new():
    fit(Architecture(), TASK, SHORT, seeds=2)
    compiled = advance._cache_size(), training_step.start._cache_size()
    fit(
        Architecture(damping=0.5, init_scale=0.1),
        replace(TASK, input_range=2.0, weight_scale=0.5),
        replace(SHORT, learning_rate=3e-3, clip_norm=1.0, b2=0.999, steps=30),
        seeds=[10, 11, 12, 13, 14],
    )
    assert (advance._cache_size(), training_step.start._cache_size()) == compiled


def test_fit_finds_the_best_step_of_gradient_descent():
    settings = Training(
        steps=300, batch_size=512, snapshot_every=100, learning_rate=0.1, clip_norm=None
    )
    history = fit(StartFrom(learner=GradientDescent(3.0)), LinearRegression(), settings, seeds=2)
    # eta = N / (m2 (N + d - 2 + kappa)) for inputs U(-1/2, 1/2)
    best = 10 / (10 + 10 - 2 + 1.8) * 12
    np.testing.assert_allclose(history.final.learning_rate[...], best, rtol=0.03)


def test_a_diverged_seed_is_named_and_does_not_change_the_others():
    class Fragile(nnx.Module):
        def __init__(self, rate):
            self.rate = nnx.Param(rate)

        def __call__(self, x, y, x_query):
            # The loss drives the rate up from anywhere; beyond 5.1 the prediction overflows.
            return jnp.where(self.rate[...] > 5.1, jnp.inf, 10 - self.rate[...]) + 0 * x_query[:1]

    def build(task, key):
        first = jax.random.split(jax.random.key(1))[0]
        chosen = jnp.all(jax.random.key_data(key) == jax.random.key_data(first))
        return Fragile(jnp.where(chosen, 5.0, 0.0))

    settings = replace(SHORT, learning_rate=0.02)
    history = fit(jax.tree_util.Partial(build), TASK, settings, seeds=3)
    assert history.diverged_at[0] == history.diverged_at[2] == -1
    assert 0 < history.diverged_at[1] < 20
    assert np.isfinite(history.training_loss[[0, 2]]).all()
    healthy = fit(jax.tree_util.Partial(build), TASK, settings, seeds=[0, 2])
    assert equal(select(history, 0), select(healthy, 0))


def test_a_run_whose_last_update_is_not_finite_has_diverged():
    class Overflowing(nnx.Module):
        def __init__(self):
            self.rate = nnx.Param(jnp.array(1e308))

        def __call__(self, x, y, x_query):
            # Always 10, but the loss drives the rate up by a whole learning rate.
            return 10 - (self.rate[...] - jax.lax.stop_gradient(self.rate[...])) + 0 * x_query[:1]

    settings = Training(steps=1, batch_size=8, snapshot_every=1, learning_rate=1e308)
    history = fit(StartFrom(learner=Overflowing()), TASK, settings)
    assert np.isfinite(history.training_loss).all()
    assert np.isinf(history.final.rate[...]).all()
    assert history.diverged_at.tolist() == [1]


def test_progress_counts_the_steps_of_all_runs():
    seen = []
    fit(
        Architecture(),
        TASK,
        SHORT,
        seeds=3,
        progress=lambda done, losses: seen.append((done, losses)),
    )
    assert [done for done, _ in seen] == [20, 40, 60]
    assert seen[-1][1].shape == (3,)


@pytest.mark.slow
def test_a_layer_approaches_the_best_gradient_step():
    settings = Training(
        steps=600, batch_size=256, snapshot_every=200, learning_rate=3e-3, clip_norm=None
    )
    history = fit(Architecture(), TASK, settings, seeds=2)
    episodes = drawn(TASK, 1, 4000)
    best = GradientDescent.shared(TASK)
    own = jax.vmap(metrics.loss, (0, None))(history.final, episodes)
    np.testing.assert_allclose(own, metrics.loss(best, episodes), rtol=0.03)


@pytest.mark.parametrize("none", [0, []])
def test_no_seeds_is_an_error(none):
    with pytest.raises(ValueError, match="seeds must be at least 1, got 0"):
        fit(Architecture(), TASK, SHORT, seeds=none)


@pytest.mark.slow
def test_a_covariance_can_be_trained_on():
    """Its numbers are leaves, which JAX replaces by placeholders when it evaluates shapes alone."""
    task = LinearRegression(
        dim=2, context_size=3, input_distribution="normal", covariance=(2.0, 0.5)
    )
    training = Training(steps=2, batch_size=4, snapshot_every=2)
    jobs = [Job(Architecture(), replace(task, covariance=(r, 1.0)), training) for r in (2, 3)]
    assert kind(jobs[0]) == kind(jobs[1])
    assert all(np.isfinite(history.training_loss).all() for history in fit_all(jobs))


def test_a_job_trains_the_seeds_below_max_seeds():
    job = Job(Architecture(), TASK, SHORT, max_seeds=8)
    few, all_of_them = fit_all([job, job._replace(max_seeds=None)], [4, 7, 9])
    assert few.seeds.tolist() == [4, 7]
    assert all_of_them.seeds.tolist() == [4, 7, 9]
    assert equal(few.learners, jax.tree.map(lambda leaf: leaf[:2], all_of_them.learners))
    assert list(job.seeds(1)) == [0]
    assert list(job.seeds(9)) == [*range(8)]
    parts = [*job.seeds(range(3)), *job.seeds(range(3, 6)), *job.seeds(range(6, 12))]
    assert parts == [*job.seeds(12)]


def test_a_job_trains_at_least_min_seeds():
    """Also if the run has fewer; of the parts of a run, that with seed 0 trains them."""
    job = Job(Architecture(), TASK, SHORT, min_seeds=2)
    more, as_many = fit_all([job, job._replace(min_seeds=0)], 1)
    assert more.seeds.tolist() == [0, 1]
    assert as_many.seeds.tolist() == [0]
    assert equal(jax.tree.map(lambda leaf: leaf[:1], more.learners), as_many.learners)
    assert list(job.seeds(5)) == [*range(5)]
    assert list(job._replace(max_seeds=3).seeds(5)) == [*range(3)]
    assert list(job.seeds([7])) == [7]
    longer = job._replace(min_seeds=4)
    parts = [*longer.seeds(range(2)), *longer.seeds(range(2, 6))]
    assert parts == [*longer.seeds(6)]
