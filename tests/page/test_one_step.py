"""The sections on one step of gradient descent: what each control changes, in a real browser."""

import numpy as np
import pytest
from controls import choose, drawing, number, slide, state, texts

VIEWS = ("step-descent-out", "step-attention-out", "step-data-out")


# What is in-context learning?


def test_a_new_task_is_answered_by_the_same_weights(page):
    errors = []
    weights = drawing(page, "task-kq"), drawing(page, "task-pv")
    tokens = set()
    for _ in range(8):
        page.click("#task-new")
        tokens.add(drawing(page, "task-tokens"))
        assert (drawing(page, "task-kq"), drawing(page, "task-pv")) == weights
        errors.append(number(page, "task-answer") - number(page, "task-label"))
    assert len(tokens) == 8
    assert np.mean(np.abs(errors)) < 0.1


def test_the_query_of_the_task_is_moved(page):
    slide(page, "task-query", -0.4)
    left = number(page, "task-label")
    slide(page, "task-query", 0.4)
    assert number(page, "task-label") == pytest.approx(-left)
    assert number(page, "task-query-out") == pytest.approx(0.4)


# One step, and why it is one.


def test_three_views_give_the_same_number(page):
    for rate in (0, 0.4, 1.5, 6):
        slide(page, "step-rate", rate)
        assert len(set(texts(page, *VIEWS))) == 1
        ways = page.evaluate("() => window.toyicl.threeWays()")
        np.testing.assert_allclose([ways["attention"], ways["data"]], ways["descent"], atol=1e-12)


def test_the_answer_is_at_one_height_in_all_three_views(page):
    """The diamond at the answer has the same vertical position relative to its figure."""
    heights = page.evaluate(
        "() => ['descent', 'attention', 'data'].map((name) => {"
        " const root = document.querySelector(`#step-${name}`);"
        "  const mark = root.querySelector('path.mark.query:not(.open)');"
        " return mark.transform.baseVal[0].matrix.f; })"
    )
    assert max(heights) - min(heights) < 1e-6
    assert heights[0] < 124, "a positive answer is above 0"


def test_the_step_size_scales_the_answer(page):
    slide(page, "step-rate", 1)
    one = number(page, VIEWS[0])
    slide(page, "step-rate", 3)
    assert number(page, VIEWS[0]) == pytest.approx(3 * one, abs=2e-4)
    page.click("#step-best")
    points = np.array(state(page, "step.points"))
    assert number(page, "step-rate-out") == pytest.approx(1 / np.mean(points[:, 0] ** 2), abs=6e-3)
    fit = points[:, 0] @ points[:, 1] / (points[:, 0] @ points[:, 0])
    assert number(page, VIEWS[0]) == pytest.approx(fit * 0.5, abs=1e-4)
    assert number(page, "valley-after") == pytest.approx(number(page, "valley-best"), abs=2e-3)


def test_softmax_stays_between_the_labels_while_the_line_goes_on(page):
    choose(page, "step-attention-kind", 1)
    labels = [y for _, y in state(page, "step.points")]
    weights = page.evaluate("() => window.toyicl.threeWays().weights")
    assert min(weights) > 0
    assert sum(weights) == pytest.approx(1)
    page.focus("#step-descent [data-index='6']")
    for _ in range(8):
        page.keyboard.press("Shift+ArrowRight")
    slide(page, "step-sharpness", 20)
    assert number(page, VIEWS[0]) > max(labels) + 0.4
    assert min(labels) <= number(page, VIEWS[1]) <= max(labels)
    assert "Softmax cannot" in texts(page, "step-message")[0]
    assert "sum 1.00" in texts(page, "step-sum")[0]
    assert page.locator("#step-attention .band").count() == 1
    choose(page, "step-attention-kind", 0)
    assert page.locator("#step-attention .band").count() == 0
    assert len(set(texts(page, *VIEWS))) == 1


def test_discs_have_the_areas_of_the_weights(page):
    page.focus("#step-descent [data-index='6']")
    page.keyboard.press("Shift+ArrowRight")
    weights = np.abs(page.evaluate("() => window.toyicl.threeWays().weights"))
    widths = page.eval_on_selector_all(
        "#step-attention g path.mark[data-point]", "(all) => all.map((n) => n.getBBox().width)"
    )
    areas = np.array(widths) ** 2
    np.testing.assert_allclose(areas / areas.max(), weights / weights.max(), rtol=0.02)


def test_a_point_is_dragged_by_the_pointer(page):
    page.locator("#step-cards").scroll_into_view_if_needed()
    before = texts(page, *VIEWS)
    pictures = [drawing(page, f"step-{name}") for name in ("descent", "attention", "data")]
    box = page.locator("#step-descent [data-index='0']").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    assert page.locator("#one-step").get_attribute("class") == "lit-0"
    page.mouse.down()
    page.mouse.move(x + 30, y - 60, steps=4)
    page.mouse.up()
    assert texts(page, *VIEWS) != before
    after = [drawing(page, f"step-{name}") for name in ("descent", "attention", "data")]
    assert all(old != new for old, new in zip(pictures, after, strict=True))
    moved = state(page, "step.points")[0]
    assert moved[0] > -0.9
    assert moved[1] > -0.95


def test_points_and_query_are_moved_by_keys(page):
    page.focus("#step-descent [data-index='6']")
    page.keyboard.press("ArrowRight")
    assert state(page, "step.query") == pytest.approx(0.55)
    page.focus("#step-descent [data-index='2']")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    assert state(page, "step.points")[2] == pytest.approx([-0.4, -0.3])
    grip = page.locator("#step-descent [data-index='2']")
    assert grip.get_attribute("aria-valuetext") == "x -0.40, y -0.30"
    outline = "(node) => getComputedStyle(node.querySelector('circle')).strokeWidth"
    assert grip.evaluate(outline) == "4px", "the focus must be visible"
    page.wait_for_function(
        "() => document.querySelector('#step-live').textContent.includes('answers')"
    )


def test_new_points_are_other_points(page):
    before = state(page, "step.points")
    page.click("#step-new")
    assert state(page, "step.points") != before
    assert len(set(texts(page, *VIEWS))) == 1


def test_the_parabola_shows_the_same_step(page):
    slide(page, "valley-rate", 1)
    assert number(page, "step-rate-out") == 1
    assert number(page, "valley-after") == pytest.approx(-number(page, "valley-slope"), abs=2e-3)
    assert "stops before" in texts(page, "valley-message")[0]
    slide(page, "valley-rate", 6)
    assert "ends higher" in texts(page, "valley-message")[0]


# What is measured.


def test_the_cosine_does_not_see_the_step_size(page):
    losses = {}
    for multiple in (0.5, 1, 2):
        slide(page, "trap-multiple", multiple)
        for name in ("trap", "arrow"):
            assert number(page, f"{name}-cosine") > 0.99
            assert number(page, f"{name}-ratio") == pytest.approx(multiple, rel=0.05)
        losses[multiple] = number(page, "trap-loss")
    assert losses[1] < losses[0.5]
    assert losses[1] < losses[2]


def test_the_arrows_of_a_softmax_layer_point_elsewhere(page):
    choose(page, "measure-layer", 1)
    assert number(page, "trap-cosine") < 0.8
    before = number(page, "arrow-cosine"), drawing(page, "arrow-plot")
    page.click("#measure-new")
    assert (number(page, "arrow-cosine"), drawing(page, "arrow-plot")) != before
    assert "different directions" in texts(page, "trap-message")[0]
