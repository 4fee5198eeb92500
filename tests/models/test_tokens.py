"""Tokens as blocks, compared with the concatenated matrices of the paper."""

import jax
import numpy as np
import pytest

from toyicl.models import tokens

RANDOM = np.random.default_rng(0)
X, Y, X_QUERY = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(4, 2)), RANDOM.normal(size=3)


def test_joint_tokens_are_inputs_then_labels(close):
    close(tokens.merge(tokens.joint_tokens(X, Y)), np.concatenate([X, Y], axis=1))


def test_the_query_token_has_label_zero(close):
    query = tokens.query_token(jax.numpy.asarray(X_QUERY), 2)
    close(tokens.merge(query), np.concatenate([X_QUERY, np.zeros(2)]))


def test_the_query_token_holds_minus_the_initial_prediction(close):
    weights = RANDOM.normal(size=(2, 3))
    query = tokens.query_token(X_QUERY, 2, weights)
    close(tokens.merge(query), np.concatenate([X_QUERY, -weights @ X_QUERY]))


def test_the_prediction_is_minus_the_last_entries(close):
    rows = RANDOM.normal(size=(4, 5))
    close(tokens.read_label((rows[:, :3], rows[:, 3:]), 2), -rows[:, 3:])
    close(tokens.read_label((rows,), 2), -rows[:, 3:])
    close(tokens.read_label((rows[0],), 1), -rows[0, 4:])


def test_split_undoes_merge(close):
    blocks = (X, Y, RANDOM.normal(size=(4, 1)))
    sizes = tokens.block_sizes(blocks)
    assert sizes == (3, 2, 1)
    for block, again in zip(blocks, tokens.split(tokens.merge(blocks), sizes), strict=True):
        close(again, block)


@pytest.mark.parametrize("rows", [(X, Y), (X[0], Y[0]), (np.concatenate([X, Y], axis=1),)])
def test_project_is_a_product_with_the_concatenated_rows(rows, close):
    matrix = RANDOM.normal(size=(5, 6))
    close(tokens.project(rows, matrix), np.concatenate(rows, axis=-1) @ matrix)


def test_add_keeps_the_blocks(close):
    moved = tokens.add((X, Y), (2 * X, -Y))
    close(moved[0], 3 * X)
    close(moved[1], 0 * Y)


def test_add_refuses_other_blocks():
    with pytest.raises(ValueError, match="shorter"):
        tokens.add((X, Y), (X,))


def test_sum_of_adds_all_terms(close):
    close(tokens.sum_of([X, 2 * X, 4 * X]), 7 * X)


def test_separate_tokens_alternate_and_have_positions(close):
    context, query = tokens.separate_tokens(X, Y, X_QUERY, 4)
    rows = np.zeros((8, 3))
    rows[::2], rows[1::2, :2] = X, Y
    close(context[0], rows)
    close(query[0], X_QUERY)
    places = tokens.sinusoids(9, 4, X.dtype)
    close(context[1], places[:8])
    close(query[1], places[8])


def test_positions_are_those_of_vaswani_et_al(close):
    places = np.asarray(tokens.sinusoids(21, 10, X.dtype))
    for position in (0, 7, 20):
        for pair in range(5):
            angle = position / 10_000 ** (2 * pair / 10)
            close(places[position, 2 * pair : 2 * pair + 2], [np.sin(angle), np.cos(angle)])
