"""Tokens compared with the matrices of the paper, written out."""

import jax
import numpy as np
import pytest

from toyicl.models import tokens

RANDOM = np.random.default_rng(0)
X, Y, X_QUERY = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(4, 2)), RANDOM.normal(size=3)


def test_joint_tokens_are_inputs_then_labels(close):
    close(tokens.joint_tokens(X, Y), np.concatenate([X, Y], axis=1))


def test_the_query_token_has_label_zero(close):
    query = tokens.query_token(jax.numpy.asarray(X_QUERY), 2)
    close(query, np.concatenate([X_QUERY, np.zeros(2)]))


def test_the_query_token_holds_minus_the_initial_prediction(close):
    weights = RANDOM.normal(size=(2, 3))
    query = tokens.query_token(X_QUERY, 2, weights)
    close(query, np.concatenate([X_QUERY, -weights @ X_QUERY]))


def test_the_prediction_is_minus_the_last_entries(close):
    rows = RANDOM.normal(size=(4, 5))
    close(tokens.read_label(rows, 2), -rows[:, 3:])
    close(tokens.read_label(rows[0], 1), -rows[0, 4:])


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((3,), (2,)), ((2, 4, 1), (2, 4, 3))])
def test_arrays_are_concatenated_along_their_last_axis(shapes):
    left, right = (RANDOM.normal(size=shape) for shape in shapes)
    np.testing.assert_array_equal(
        tokens.concatenate_last(left, right), np.concatenate([left, right], -1)
    )


def test_a_batch_of_concatenated_arrays_keeps_its_axis_last():
    episodes = tuple(np.ones((*shape, 6)) for shape in (X.shape, Y.shape))
    concatenate_last = jax.vmap(tokens.concatenate_last, in_axes=-1, out_axes=-1)
    names = [
        equation.primitive.name for equation in jax.make_jaxpr(concatenate_last)(*episodes).eqns
    ]
    assert "transpose" not in names


def test_separate_tokens_alternate_and_have_positions(close):
    context, query = tokens.separate_tokens(X, Y, X_QUERY, 4)
    rows = np.zeros((8, 3))
    rows[::2], rows[1::2, :2] = X, Y
    places = tokens.sinusoids(9, 4, X.dtype)
    close(context, np.concatenate([rows, places[:8]], axis=1))
    close(query, np.concatenate([X_QUERY, places[8]]))


def test_positions_are_those_of_vaswani_et_al(close):
    places = np.asarray(tokens.sinusoids(21, 10, X.dtype))
    for position in (0, 7, 20):
        for pair in range(5):
            angle = position / 10_000 ** (2 * pair / 10)
            close(places[position, 2 * pair : 2 * pair + 2], [np.sin(angle), np.cos(angle)])
