"""The figure of later work: its rows are verdicts that are checked in, and its marks their values."""

import numpy as np
import pages
import pytest

from toyicl.harness import experiment

MOST_BYTES = 300 * 1024
LATER = ("prior_mean", "softmax_context", "recurrent", "rank_one", "weight_changes",
         "labels_alone", "preconditioned_depth", "mixed_noise", "task_diversity",
         "language_model")  # fmt: skip
"""Groups of experiments on later work."""


@pytest.fixture(scope="module")
def later_work():
    return pages.load("later_work")


def test_every_group_of_later_work_has_a_row(later_work):
    drawn = {name for row in later_work.rows() for name in row.values}
    for group in LATER:
        own = {
            claim.id
            for listing in experiment.listings()
            if listing.group == group
            for claim in experiment.load(listing).claims
        }
        assert own & drawn, group


def test_marks_are_the_checked_in_values(later_work):
    records = later_work.records()
    figure = later_work.draw(later_work.rows(), records)
    for panel, axes in zip(later_work.PANELS, figure.axes, strict=True):
        marks = [line for line in axes.lines if line.get_marker() in later_work.SHAPES.values()]
        found = [
            (line.get_xdata()[0], line.get_ydata()[0]) for line in marks if len(line.get_xdata())
        ]
        rows = [row for row in later_work.rows() if row.panel == panel]
        expected = [
            (records[name]["measured"], place)
            for place, row in enumerate(rows)
            for name in row.values
        ]
        np.testing.assert_allclose(found, expected)


def test_the_figure_is_small(later_work):
    assert 10_000 < later_work.FIGURE.stat().st_size < MOST_BYTES
