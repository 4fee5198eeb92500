"""Every figure is drawn from its checked-in results, so that no experiment's `draw` breaks unseen."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PathCollection

from toyicl.harness import experiment, outputs

FIGURES = Path(__file__).parents[2] / "figures"


@pytest.mark.parametrize("listing", experiment.listings(), ids=lambda listing: listing.name)
def test_every_panel_is_drawn_from_the_checked_in_results(listing):
    results = outputs.results_of(experiment.place(FIGURES, listing), print)
    figure = experiment.load(listing).draw(results)
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    assert panels
    assert [axes.get_title() for axes in panels if not has_data(axes)] == []
    plt.close(figure)


def has_data(axes):
    """Whether something is drawn besides lines across the panel, and no labelled line is all NaN."""
    lines = [line for line in axes.lines if not is_across(axes, line)]
    finite = [is_finite(line) for line in lines]
    labelled = [is_finite(line) for line in lines if is_labelled(line) and len(line.get_ydata())]
    points = [
        bool(np.isfinite(np.ma.filled(points.get_offsets(), np.nan)).all(axis=-1).any())
        for points in axes.collections
        if is_labelled(points) and isinstance(points, PathCollection)
    ]
    drawn = bool(axes.images or axes.patches or axes.collections) or any(finite)
    return drawn and all(labelled) and all(points)


def is_across(axes, line):
    """Whether a line was drawn by `axhline` or `axvline`, which use coordinates of the panel."""
    return not all(line.get_transform().contains_branch_seperately(axes.transData))


def is_finite(line):
    """Whether a line has a point with finite coordinates."""
    return np.isfinite(np.asarray(line.get_xydata(), float)).all(axis=-1).any()


def is_labelled(artist):
    """Whether the legend names an artist."""
    return not str(artist.get_label()).startswith("_")


NAN, STEPS = [np.nan, np.nan], [0.0, 1.0]


def nan_next_to_a_reference_line(axes):
    axes.plot(STEPS, NAN)
    axes.axhline(0.5, label="GD")
    axes.axvline(0.5)


def labelled_nan_next_to_other_curves(axes):
    axes.plot(STEPS, NAN, label="trained")
    axes.plot(STEPS, STEPS, label="GD")


def labelled_points_of_nan(axes):
    axes.plot(STEPS, STEPS, label="GD")
    axes.scatter(STEPS, NAN, label="trained")


@pytest.mark.parametrize(
    "draw",
    [nan_next_to_a_reference_line, labelled_nan_next_to_other_curves, labelled_points_of_nan],
)
def test_a_panel_without_its_values_is_noticed(draw):
    figure, axes = plt.subplots()
    draw(axes)
    assert not has_data(axes)
    plt.close(figure)


def test_a_panel_with_some_seeds_that_diverged_has_data():
    figure, axes = plt.subplots()
    axes.plot(STEPS, NAN)
    axes.plot(STEPS, STEPS, label="trained")
    axes.plot([], [], "k.", label="an entry of the legend")
    axes.axhline(0.5, label="GD")
    assert has_data(axes)
    plt.close(figure)
