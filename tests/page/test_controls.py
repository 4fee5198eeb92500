"""The effect of each control of the teaching page, in a real browser."""

import json

import numpy as np
import pytest
from browser import opened

from toyicl.demo.build import CLASSROOM, contents, render, shipped, verdicts
from toyicl.harness.results import load_results

RUN = shipped() / "teaching" / CLASSROOM
VIEWS = ("step-descent-out", "step-attention-out", "step-data-out")


@pytest.fixture(scope="module")
def results():
    return load_results(RUN)


def texts(page, *names):
    return [page.locator(f"#{name}").inner_text() for name in names]


def number(page, name):
    return float(page.locator(f"#{name}").inner_text().replace("\u2212", "-").strip("% \u00d7"))


def slide(page, name, value):
    page.locator(f"#{name}").evaluate(
        "(node, value) => { node.value = value;"
        " node.dispatchEvent(new Event('input', {bubbles: true})); }",
        value,
    )


def choose(page, group, index):
    page.locator(f"input[name='{group}']").nth(index).check()


def drawing(page, name):
    return page.locator(f"#{name}").inner_html()


def state(page, path):
    return page.evaluate(f"() => window.toyicl.state.{path}")


def test_nothing_is_undefined(page):
    for step in range(13):
        show = "const one = window.toyicl.controls.get('guide'); one.set(String(step)); one.draw();"
        page.evaluate(f"(step) => {{ {show} }}", step)
    text = page.evaluate(
        "() => { const copy = document.body.cloneNode(true);"
        " copy.querySelectorAll('script').forEach((node) => node.remove()); return copy.textContent; }"
    )
    assert "Several layers" in text
    for wrong in ("undefined", "NaN", "[object"):
        assert wrong not in text


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


# Several layers, larger models, verdicts.


def test_depth_moves_the_references_and_not_the_trained_layers(page, results):
    trained = texts(page, "deeper-model")
    for steps in (1, 3, 5):
        slide(page, "deeper-steps", steps - 1)
        for name in ("gd", "gdpp"):
            exact = float(results.exact_loss.sel(reference=name, depth=steps))
            assert number(page, f"deeper-{name}") == pytest.approx(exact, abs=6e-5)
        assert texts(page, "deeper-model") == trained
    before = drawing(page, "deeper-answers")
    page.click("#deeper-new")
    assert drawing(page, "deeper-answers") != before


def test_the_residuals_are_drawn_when_they_are_opened(page):
    assert page.locator("#deeper-residuals .mark").count() == 0
    page.click("#deeper-fold summary")
    page.wait_for_function(
        "() => document.querySelectorAll('#deeper-residuals .mark').length === 10"
    )
    page.click("#deeper-fold summary")


def test_the_chosen_seed_of_the_two_layers_is_on_top(page, results):
    choose(page, "deeper-seed", 1)
    loss = float(results.two_layers_loss[1])
    assert number(page, "deeper-model") == pytest.approx(loss, abs=6e-5)
    triangles = page.locator("#deeper-losses .mark.model, #deeper-losses .mark.hollow")
    assert triangles.count() == results.sizes["seed"]
    assert "model" in triangles.last.get_attribute("class")


def test_the_bound_changes_the_loss_of_the_best_gdpp(page):
    bounds = load_results(shipped() / "departures" / "token_clip")
    for index in range(bounds.sizes["clip"]):
        slide(page, "clip-bound", index)
        exact = float(bounds.exact_loss.sel(layers=10).isel(clip=index))
        assert number(page, "clip-best") == pytest.approx(exact, abs=6e-5)
    assert texts(page, "clip-model") == ["not stable"]


def test_heads_are_those_of_the_results_and_their_controls_have_none(page):
    found = load_results(shipped() / "language_model" / "head_circuits")
    z = found.z.transpose("source", "circuit", "layer", "head")
    far = (abs(z) > 4).all("circuit")
    opposite = far & (z.prod("circuit") < 0)
    marks = page.locator("#heads-map path[data-head]")
    for index, source in enumerate(("model", "other head")):
        choose(page, "heads-source", index)
        counted = int(far.sel(source=source).sum())
        assert texts(page, "heads-far") == [f"{counted} of {marks.count()}"]
        diamonds = page.locator("#heads-map path[data-head].mark.model:not(.open)")
        assert diamonds.count() == int(opposite.sel(source=source).sum())
    choose(page, "heads-source", 0)
    assert int(far.sel(source="model").sum()) > 200
    for layer, head in ((0, 8), (12, 3), (29, 0)):
        slide(page, "heads-layer", layer)
        slide(page, "heads-head", head)
        own = found.isel(layer=layer, head=head).sel(source="model")
        for circuit, name in (("key_query", "keys"), ("value_output", "values")):
            one = own.sel(circuit=circuit)
            assert number(page, f"heads-z-{name}") == pytest.approx(float(one.z), abs=0.06)
            fraction = number(page, f"heads-fraction-{name}")
            assert fraction == pytest.approx(float(one.fraction), abs=6e-4)
    before = drawing(page, "heads-keys")
    page.locator("#heads-map path[data-head='5 2']").dispatch_event("click")
    assert texts(page, "heads-layer-out", "heads-head-out") == ["5", "2"]
    assert drawing(page, "heads-keys") != before


def test_five_verdicts_have_three_lights(page):
    def lights(card):
        return [
            name.split()[-1]
            for name in page.locator(f"[data-card='{card}'] .light").evaluate_all(
                "(all) => all.map((n) => n.className)"
            )
        ]

    assert lights("construct") == ["yes", "yes", "yes"]
    assert lights("trained")[:2] == ["yes", "yes"]
    assert lights("layers")[:2] == ["partly", "no"]
    assert lights("softmax")[:2] == ["partly", "no"]
    assert lights("language") == ["yes", "partly", "no"]
    page.click("[data-card='trained'] summary")
    assert "toyicl run fig02_one_step" in page.locator("[data-card='trained']").inner_text()
    page.click("[data-card='trained'] summary")


def test_a_sentence_leads_to_its_result(page):
    link = page.locator("#watch .tie").first
    name = link.get_attribute("href").removeprefix("#verdict-")
    link.click()
    row = page.locator(f"[id='verdict-{name}']")
    row.wait_for()
    assert row.is_visible()
    kept = json.loads((shipped() / "verdicts.json").read_text())["experiments"]
    (record,) = [one for part in kept for one in part["records"] if one["id"] == name]
    assert record["statement"] in row.inner_text()
    (value,) = page.locator(f"[data-value='{name}']").all_inner_texts()
    assert float(value) == pytest.approx(record["measured"], abs=6e-4)


def test_light_and_dark_follow_the_system_and_the_button(browser, page_file):
    background = "() => getComputedStyle(document.body).backgroundColor"
    with opened(browser, page_file, color_scheme="light") as page:
        light = page.evaluate(background)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(background) != light
        page.click("#theme")
        assert page.evaluate(background) == light
