"""The sections on several layers, larger models and verdicts, in a real browser."""

import json

import pytest
from controls import choose, drawing, number, slide, texts

from toyicl.demo.build import shipped
from toyicl.harness.results import load_results


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
