"""Every figure is drawn from its checked-in results, so that no experiment's `draw` breaks unseen."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

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
    """Whether pictures, points or bars are drawn, or lines with a finite value."""
    finite = [np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in axes.lines]
    return bool(axes.images or axes.patches or axes.collections) or any(finite)
