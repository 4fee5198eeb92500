"""Roll-outs, compared with gradient descent whose step is multiplied by the damping."""

import jax
import pytest
from compiled import drawn, loss

from toyicl.algorithms.gradient_descent import GradientDescent, GradientDescentPlusPlus
from toyicl.analysis import metrics
from toyicl.core.datasets import dataset
from toyicl.core.errors import BadInput
from toyicl.models.transformer import Architecture
from toyicl.studies.alignment import Study
from toyicl.studies.roll_outs import roll_outs
from toyicl.tasks.linear import LinearRegression
from toyicl.tasks.prompts import Classification

STUDY = Study(task=LinearRegression(dim=2, context_size=3), evaluation_episodes=20)
RATE = 0.7
REFERENCES = {"gd": GradientDescent(RATE), "gdpp": GradientDescentPlusPlus(RATE, 0.1, 1)}
DAMPINGS = (1.0, 0.5)


@pytest.fixture(scope="module")
def models():
    keys = jax.random.split(jax.random.key(0))
    return jax.vmap(Architecture(init_scale=0.3), (None, 0))(STUDY.task, keys)


@pytest.fixture(scope="module")
def found(models):
    rolled = roll_outs(STUDY, models, REFERENCES, DAMPINGS, 3)
    return dataset(rolled, {"seed": [0, 1]})


def test_damped_gradient_descent_takes_smaller_steps(found, close):
    losses = found.rolled_reference_loss
    assert losses.dims == ("reference", "damping", "layer")
    for damping in DAMPINGS:
        for layers in (1, 2, 3):
            expected = loss(GradientDescent(RATE * damping, layers), STUDY.episodes())
            here = losses.sel(reference="gd", damping=damping, layer=layers)
            close(here, expected, 1e-10)


def test_inputs_are_not_updated(found, close):
    """The curvature of GD++ changes inputs only, and therefore nothing."""
    losses = found.rolled_reference_loss
    close(losses.sel(reference="gdpp"), losses.sel(reference="gd"), 1e-10)


def test_the_first_undamped_layer_is_the_model(found, models, close):
    assert found.rolled_loss.dims == ("damping", "seed", "layer")
    here = found.rolled_loss.sel(damping=1.0, layer=1)
    close(here, metrics.losses(models, STUDY.episodes()), 1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dampings": ()}, "^dampings must be one value or more, each once"),
        ({"dampings": (1.0, 0.0)}, "^dampings must be a finite number above 0, got 0.0"),
        ({"depth": 0}, "^depth must be a whole number of at least 1, got 0"),
        (
            {"episodes": drawn(Classification(dim=2, outputs=2), 0, 3)},
            "^episodes must be scored by the squared error of .* got 'Prompt'$",
        ),
    ],
)
def test_bad_input_is_named(models, changes, message):
    given = {"dampings": DAMPINGS, "depth": 3} | changes
    with pytest.raises(BadInput, match=message):
        roll_outs(STUDY, models, REFERENCES, **given)
