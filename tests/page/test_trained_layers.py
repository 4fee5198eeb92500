"""The sections on trained layers and on softmax: what each control changes, in a real browser."""

import numpy as np
import pytest
from browser import opened
from controls import choose, drawing, number, slide, state, texts

from toyicl.demo.build import contents, render, shipped, verdicts

# During training.


def test_training_is_scrubbed(page, results):
    last = results.sizes["step"] - 1
    page.click("#learn-compare")
    for snapshot in (0, last // 2, last):
        slide(page, "learn-step", snapshot)
        here = results.isel(seed=0, step=snapshot).sel(reference="gd")
        assert number(page, "learn-step-out") == int(here.step)
        assert number(page, "learn-loss") == pytest.approx(float(here.loss), abs=6e-5)
        assert number(page, "learn-cosine") == pytest.approx(float(here.model_cosine), abs=6e-4)
        assert number(page, "learn-ratio") == pytest.approx(float(here.norm_ratio), abs=6e-4)
    assert number(page, "learn-eta") == pytest.approx(float(results.learned_step[0]), abs=6e-4)
    assert number(page, "learn-eta-exact") == pytest.approx(0.606, abs=6e-4)


def test_the_end_is_hidden_until_it_is_compared_with_a_prediction(page, results):
    slide(page, "learn-guess", 0.25)
    assert texts(page, "learn-floor") == ["?"]
    assert page.locator("#learn-losses .other").count() == 0
    slide(page, "learn-step", results.sizes["step"] - 1)
    page.click("#learn-compare")
    assert number(page, "learn-floor") == pytest.approx(0.2062, abs=1e-4)
    assert page.locator("#learn-losses .other").count() == results.sizes["seed"] - 1
    assert page.locator("#learn-losses .faint").count() == results.sizes["saddle"] - 2
    assert "your prediction was 0.25" in texts(page, "learn-message")[0]


def test_the_saddle_point_is_named(page, results):
    """Only seed 2 stays there; the others pass by."""
    middle = int(np.argmin(abs(results.step.values - 280)))
    slide(page, "learn-step", middle)
    assert "saddle point" not in texts(page, "learn-message")[0]
    choose(page, "learn-seed", 2)
    assert (
        "labels serve as keys and one input direction as values" in texts(page, "learn-message")[0]
    )
    assert number(page, "learn-loss") == pytest.approx(float(results.loss[2, middle]), abs=6e-5)


def test_heat_maps_turn_into_the_construction(page, results):
    first = drawing(page, "learn-pv")
    slide(page, "learn-step", results.sizes["step"] - 1)
    assert drawing(page, "learn-pv") != first

    def cells(name):
        return page.eval_on_selector_all(
            f"#{name} .cell", "(all) => all.map((n) => [n.dataset.value, n.getAttribute('x')])"
        )

    learned, target = cells("learn-kq"), cells("learn-kq-target")
    assert len(target) == 10
    large = [value for value, _ in learned if abs(float(value)) > 0.5]
    assert len(large) == 10
    assert float(cells("learn-pv")[-1][0]) == pytest.approx(-0.606, abs=0.03)


def test_the_curve_is_a_slider_for_the_pointer(page, results):
    page.locator("#learn-losses").scroll_into_view_if_needed()
    box = page.locator("#learn-losses .frame").bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.9 * box["height"])
    assert number(page, "learn-step-out") == pytest.approx(0.25 * 5000, abs=100)
    page.mouse.move(
        box["x"] + 0.5 * box["width"], box["y"] + box["height"] * (1 - 0.3 / (1.1 / 2.4))
    )
    page.mouse.down()
    page.mouse.move(
        box["x"] + 0.5 * box["width"], box["y"] + box["height"] * (1 - 0.2 / (1.1 / 2.4))
    )
    page.mouse.up()
    assert number(page, "learn-guess-out") == pytest.approx(0.2, abs=0.011)


def test_the_film_plays_and_pauses(page):
    slide(page, "learn-step", 3)
    page.click("#learn-play")
    page.wait_for_function("() => window.toyicl.state.learn.snapshot > 5")
    page.click("#learn-play")
    assert texts(page, "learn-play") == ["Play"]
    assert state(page, "learn.playing") is None


def test_reduced_motion_is_respected(browser, page_file):
    with opened(browser, page_file, reduced_motion="reduce") as page:
        behaviour = "() => getComputedStyle(document.documentElement).scrollBehavior"
        assert page.evaluate(behaviour) == "auto"
        slide(page, "learn-step", 3)
        page.click("#learn-play")
        page.wait_for_timeout(700)
        assert state(page, "learn.snapshot") == 3
        page.wait_for_function("() => window.toyicl.state.learn.snapshot === 8", timeout=3000)
        page.click("#learn-play")


# From linear to softmax attention, and the limits.


def test_the_softmax_fraction_heads_and_inputs_change_what_breaks(page, results):
    assert number(page, "breaks-cosine") > 0.99
    linear = drawing(page, "breaks-curve")
    slide(page, "breaks-fraction", results.sizes["softmax_fraction"] - 1)
    assert number(page, "breaks-fraction-out") == 100
    softmax = number(page, "breaks-loss")
    assert softmax > 1.2
    assert drawing(page, "breaks-curve") != linear
    choose(page, "breaks-head", 1)
    two = number(page, "breaks-loss")
    assert two < softmax - 0.1
    caution = "Gradient descent's step is too large for these inputs"
    assert caution not in texts(page, "breaks-message")[0]
    slide(page, "breaks-scale", 3)
    assert number(page, "breaks-loss") < 1, "a win over gradient descent"
    assert number(page, "breaks-zero") > 1, "and worse than answering 0"
    message = texts(page, "breaks-message")[0]
    assert caution in message
    assert "also worse than answering 0" in message
    before = drawing(page, "breaks-curve")
    page.click("#breaks-new")
    assert drawing(page, "breaks-curve") != before


def test_seeds_that_diverged_are_left_out(browser, results, tmp_path):
    """At one softmax fraction the first seed has diverged, at another every seed."""
    lost = results.copy(deep=True)
    for name in ("mixed_loss", "mixed_model_cosine", "mixed_norm_ratio", "mixed_key_query"):
        places = lost[name].transpose("softmax_fraction", "mixed_seed", ...).values
        places[1, 0] = np.nan
        places[2] = np.nan
    out = tmp_path / "page.html"
    out.write_text(render(contents(lost, verdicts(shipped()))))
    with opened(browser, out, at="#breaks/compared=1&layer=softmax") as page:
        slide(page, "breaks-fraction", 1)
        assert number(page, "breaks-cosine") > 0.99
        slide(page, "breaks-fraction", 2)
        assert texts(page, "breaks-loss") == ["not finite"]
        assert page.locator("#clip").is_hidden()
        assert page.locator("#heads").is_hidden()
        assert page.locator("nav a[href='#heads']").is_hidden()


def test_half_of_the_softmax_slider_is_for_the_last_tenth(results):
    fractions = results.softmax_fraction.values
    assert (fractions >= 0.9).sum() / fractions.size >= 0.5
    assert results.sizes["mixed_seed"] == 5


def test_the_sweep_is_hidden_until_it_is_compared_with_a_mark(page, results):
    marks = page.locator("#breaks-sweep .mark.cosine")
    assert marks.count() == results.sizes["mixed_seed"]
    slide(page, "breaks-guess", 2)
    page.click("#breaks-compare")
    assert marks.count() == results.sizes["mixed_seed"] * results.sizes["softmax_fraction"]
    sentence = texts(page, "breaks-saddles")[0]
    assert "Your mark: 40%" in sentence
    trained = results.sel(task="all inputs", heads=1, stage="trained")
    over = (trained.mixed_loss.min("mixed_seed") / trained.mixed_reference_loss > 1.05).values
    first = results.softmax_fraction.values[np.flatnonzero(~over)[-1] + 1]
    assert f"from a fraction of {round(100 * first)}% on" in sentence


def test_seeds_at_a_saddle_point_are_hollow_and_named(page, results):
    stuck = results.mixed_on_plateau.sel(task="all inputs", heads=1)
    index = int(np.flatnonzero(stuck.any("mixed_seed"))[0])
    slide(page, "breaks-fraction", index)
    names = [str(seed) for seed in stuck.mixed_seed.values[stuck.values[index]]]
    assert ", ".join(names) in texts(page, "breaks-saddles")[0]
    assert page.locator("#breaks-sweep .mark.cosine.open").count() == len(names)


def test_the_scale_of_the_logits_changes_the_loss_gradually(page):
    losses = []
    for position in (4, 7, 10, 12):
        slide(page, "logits-scale", position)
        losses.append(number(page, "logits-loss"))
    assert losses[0] > losses[1] > losses[2] > losses[3]
    slide(page, "logits-scale", 0)
    choose(page, "logits-head", 1)
    assert 1.0 < number(page, "logits-loss") < 1.1


def test_a_softmax_head_becomes_linear_as_its_context_grows(page):
    distances = []
    for position in (0, 3, 6):
        slide(page, "context-size", position)
        distances.append(number(page, "context-distance"))
    assert distances[0] > distances[1] > distances[2]
