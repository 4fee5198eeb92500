"""The guided tour, the address, and how the teaching page fits on screens, in a real browser."""

import contextlib

import pytest
from browser import OPERATE, opened

from toyicl.demo import build

SCREENS = {"laptop": (1366, 768), "projector": (1920, 1080), "phone": (390, 844)}
WHOLE = ("one-step", "watch")
"""Sections that must be seen whole on one screen."""
SMALLEST = 0.022
"""Smallest text on a projector, as a fraction of the screen's height."""


@contextlib.contextmanager
def shown(browser, page_file, screen, at="", **settings):
    width, height = SCREENS[screen]
    with opened(browser, page_file, at=at, width=width, height=height, **settings) as page:
        yield page


# The address.

OPERATIONS = {
    "theme": ("click", "#theme"),
    "task": ("click", "#task-new"),
    "asked": ("key", "#task-query"),
    "rate": ("key", "#step-rate"),
    "attention": ("radio", "step-attention-kind"),
    "sharpness": ("key", "#step-sharpness"),
    "card": ("set", "data"),
    "points": ("key", "#step-descent [data-index='0']"),
    "query": ("key", "#step-descent [data-index='6']"),
    "layer": ("radio", "measure-layer"),
    "factor": ("key", "#trap-multiple"),
    "measured": ("click", "#measure-new"),
    "frame": ("key", "#learn-step"),
    "guess": ("key", "#learn-guess"),
    "seed": ("radio", "learn-seed"),
    "compare": ("click", "#learn-compare"),
    "share": ("key", "#breaks-fraction"),
    "scale": ("key", "#breaks-scale"),
    "heads": ("radio", "breaks-head"),
    "mark": ("key", "#breaks-guess"),
    "compared": ("click", "#breaks-compare"),
    "context": ("click", "#breaks-new"),
    "logits": ("key", "#logits-scale"),
    "softmaxes": ("radio", "logits-head"),
    "size": ("key", "#context-size"),
    "steps": ("key", "#deeper-steps"),
    "layers": ("radio", "deeper-seed"),
    "tokens": ("click", "#deeper-new"),
    "bound": ("key", "#clip-bound"),
    "block": ("key", "#heads-layer"),
    "head": ("key", "#heads-head"),
    "matrices": ("radio", "heads-source"),
    "guide": ("click", "#guide-start"),
}
"""How each control is moved away from its initial value: a click, an arrow key, or its last choice."""


def values(page):
    return page.evaluate(
        "() => Object.fromEntries([...window.toyicl.controls].map(([name, one]) => [name, one.get()]))"
    )


def operate(page, name):
    kind, target = OPERATIONS[name]
    if kind == "click":
        page.locator(target).evaluate("(node) => node.click()")
    elif kind == "key":
        page.locator(target).evaluate("(node) => node.focus({preventScroll: true})")
        page.keyboard.press("ArrowRight")
    elif kind == "radio":
        page.locator(f"input[name='{target}']").last.evaluate("(node) => node.click()")
    else:  # shown on small screens only
        page.evaluate("([name, text]) => { const one = window.toyicl.controls.get(name);"
                      " one.set(text); one.draw(); }", [name, target])  # fmt: skip


def test_every_control_is_in_the_list(page):
    assert list(values(page)) == list(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_address_restores(page, name):
    initial = values(page)
    operate(page, name)
    moved = values(page)
    assert {key for key in moved if moved[key] != initial[key]} == {name}
    address = page.evaluate("() => window.toyicl.addressNow()")
    assert f"{name}=" in address
    page.evaluate("() => window.toyicl.reset()")
    assert values(page) == initial
    page.evaluate("(text) => { location.hash = `#x`; location.hash = text; }", address)
    page.wait_for_function(
        "([name, text]) => window.toyicl.controls.get(name).get() === text", arg=[name, moved[name]]
    )
    assert values(page) == moved


def test_a_link_opens_the_page_as_it_was(browser, page_file):
    at = "#breaks/share=0.98&heads=2&rate=3.5&query=-1.5&compared=1&seed=2"
    with opened(browser, page_file, at=at) as page:
        found = values(page)
        for one in at.split("/")[1].split("&"):
            name, value = one.split("=")
            assert found[name] == value
        assert page.is_checked("input[name='breaks-head'] >> nth=1")
        assert page.locator("#breaks-fraction-out").inner_text() == "98%"
        assert page.locator("#step-rate-out").inner_text() == "3.50"
        assert page.locator("#breaks-compare").get_attribute("aria-pressed") == "true"
        top = page.locator("#breaks").bounding_box()["y"]
        assert abs(top) < 5
        page.click("#reset")
        assert set(values(page).items()) - set(found.items())
        page.wait_for_function("() => !location.hash.includes('share')")


def test_values_that_are_not_allowed_are_ignored(page):
    initial = values(page)
    page.evaluate(
        "() => { location.hash = '#x/rate=99&query=abc&attention=other&points=1,2&share=0.5"
        "&frame=-1&guide=13&compare=2&task=&theme=red&unknown=1&scale='; }"
    )
    page.wait_for_function("() => location.hash.includes('rate=99')")
    page.wait_for_timeout(50)
    assert values(page) == initial


def test_operating_a_control_writes_the_address(page):
    page.focus("#step-rate")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.hash === '#one-step/rate=2.05'")
    page.evaluate("() => document.querySelector('nav a[href=\"#watch\"]').click()")
    page.wait_for_function("() => location.hash === '#watch/rate=2.05'")


def test_the_link_is_copied(browser, page_file):
    with opened(browser, page_file, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.focus("#step-rate")
        page.keyboard.press("ArrowRight")
        page.click("#copy")
        page.wait_for_function(
            "() => document.querySelector('#bar-live').textContent.includes('link')"
        )
        text = page.evaluate("() => navigator.clipboard.readText()")
        assert text == page_file.as_uri() + "#one-step/rate=2.05"


# The guided tour.


def focused(page, selector):
    return page.evaluate("(selector) => document.activeElement.matches(selector)", selector)


def test_the_tour_is_operated_by_the_keyboard_alone(browser, page_file):
    """Every step is reached, its control is moved, and the next step follows, without a pointer."""
    with shown(browser, page_file, "laptop", reduced_motion="reduce") as page:
        for _ in range(3):
            page.keyboard.press("Tab")
            if focused(page, "#guide-start"):
                break
        page.keyboard.press("Enter")
        for number, step in enumerate(build.story()["steps"], 1):
            assert page.locator("#guide-count").inner_text() == f"{number} of 12"
            assert focused(page, "#guide-next")
            assert page.locator(f"{step['outline']}.outlined").count() == 1
            visible_above_guide(page, step["outline"])
            page.keyboard.press("Shift+Tab")
            assert focused(page, "#guide-try")
            page.keyboard.press("Enter")
            assert focused(page, step["control"])
            before = shown_state(page)
            keys = ["Enter"] if focused(page, "button, summary") else ["ArrowRight", "ArrowLeft"]
            for key in keys:
                page.keyboard.press(key)
                if shown_state(page) != before:
                    break
            assert shown_state(page) != before, f"step {number}"
            page.keyboard.press("Escape")
            assert focused(page, "#guide-next")
            page.keyboard.press("Enter")
        page.keyboard.press("ArrowLeft")
        assert page.locator("#guide-count").inner_text() == "11 of 12"
        page.keyboard.press("Escape")
        assert page.locator("#guide").is_hidden()


def shown_state(page):
    opened = page.evaluate("() => document.querySelectorAll('details[open]').length")
    return values(page), opened


PLACED = """({section, outline, control}) => {
  const box = (node) => node.getBoundingClientRect();
  const part = document.querySelector(outline);
  const controls = document.querySelector(`#${section} > .controls`);
  const above = controls && !controls.contains(part);
  const target = document.querySelector(control);
  const {left, top, width, height} = box(target);
  const hit = document.elementFromPoint(left + width / 2, top + height / 2);
  return {
    top: box(part).top,
    bottom: box(part).bottom,
    covered: above ? Math.max(0, box(controls).bottom) : 0,
    stays: above && getComputedStyle(controls).position === 'sticky' ? controls.offsetHeight : 0,
    bar: box(document.getElementById('guide')).top,
    control: target.contains(hit) || Boolean(hit?.closest('label')?.contains(target)),
  };
}"""
LARGER = {"laptop": set(), "phone": {"#task-box", "#claims-cards"}}
"""Parts that may be larger than the screen; the first one is not with the usual fonts."""


@pytest.mark.parametrize("screen", LARGER)
def test_the_part_of_a_step_is_above_the_bar(browser, page_file, screen):
    """Neither the bar nor controls that stay in view cover it, and its control can be operated."""
    with shown(browser, page_file, screen, reduced_motion="reduce") as page:
        page.click("#guide-start")
        for number, step in enumerate(build.story()["steps"], 1):
            assert page.locator("#guide-count").inner_text() == f"{number} of 12"
            place = page.evaluate(PLACED, step)
            if place["bottom"] - place["top"] > place["bar"] - place["stays"] - 8:
                assert step["outline"] in LARGER[screen]
                assert place["top"] <= place["covered"] + 10, number
            else:
                assert place["bottom"] <= place["bar"], number
            assert place["top"] >= place["covered"], number
            assert place["control"], number
            if number < 12:
                page.click("#guide-next")


def test_a_link_to_a_step_shows_its_part(browser, page_file):
    with shown(browser, page_file, "phone", "#measure/guide=7&factor=2") as page:
        place = page.evaluate(PLACED, build.story()["steps"][6])
        assert place["covered"] <= place["top"]
        assert place["bottom"] <= place["bar"]


def visible_above_guide(page, selector):
    """Whether an element is on the screen and not only below the bar of the tour."""
    box = page.locator(selector).first.bounding_box()
    bar = page.locator("#guide").bounding_box()
    assert box["y"] > -5
    assert box["y"] + 40 < bar["y"]


def test_the_tour_starts_from_a_link(browser, page_file):
    with opened(browser, page_file, at="#measure/guide=7&factor=2") as page:
        assert page.locator("#guide-count").inner_text() == "7 of 12"
        assert page.locator("#guide").is_visible()
        page.click("#guide-end")
        assert page.locator("#guide").is_hidden()
        assert focused(page, "#guide-start")


def test_every_control_can_be_reached_by_tab(page):
    controls = page.evaluate(
        "() => [...document.querySelectorAll('a[href], button, input, summary, [tabindex]')].length"
    )
    page.evaluate(
        "() => { window.focused = []; document.addEventListener('focusin', ({target: n}) =>"
        " window.focused.push(n.id || n.name || n.dataset.index || n.textContent.slice(0, 12))); }"
    )
    page.focus(".skip")
    for _ in range(controls):
        page.keyboard.press("Tab")
    seen = set(page.evaluate("() => window.focused"))
    ids = page.evaluate(
        "() => [...document.querySelectorAll('button[id], input[type=range]')]"
        ".filter((n) => !n.closest('#guide')).map((n) => n.id)"
    )
    assert set(ids) <= seen
    assert {str(index) for index in range(7)} <= seen
    assert {"learn-seed", "deeper-seed", "breaks-head", "measure-layer"} <= seen


# Screens.


def measured_height(page, section):
    """Pixels from the top of a section to the end of its sentence, which is its last needed part."""
    return page.evaluate(
        "(name) => { const node = document.querySelector(`#${name}`);"
        " const end = node.querySelector('.message').getBoundingClientRect().bottom;"
        " return end - node.getBoundingClientRect().top; }",
        section,
    )


@pytest.mark.parametrize("at", ["", "?present"])
def test_a_scene_is_whole_on_one_screen(browser, page_file, at):
    """With the bar of the tour on large screens; without it on the phone."""
    with shown(browser, page_file, "laptop", f"{at}#one-step/guide=3") as page:
        for screen in ("laptop", "projector", "phone"):
            width, height = SCREENS[screen]
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width
            if screen == "phone":
                continue
            bar = page.locator("#guide").bounding_box()["height"]
            for section in WHOLE:
                assert measured_height(page, section) <= height - bar, (screen, section)
        if not at:
            page.click("#guide-end")
            for section in WHOLE:
                assert measured_height(page, section) <= height, (screen, section)


def test_the_film_has_720_pixels(page):
    assert measured_height(page, "watch") <= 720


def test_the_slider_of_the_film_stays_in_view(browser, page_file):
    with shown(browser, page_file, "phone", "#watch", reduced_motion="reduce") as page:
        page.evaluate("() => scrollBy(0, 300)")
        box = page.locator("#learn-step").bounding_box()
        assert 0 <= box["y"] < 100
        top = "([x, y]) => document.elementFromPoint(x, y).id"
        assert page.evaluate(top, [box["x"] + 20, box["y"] + 10]) == "learn-step"


TEXT_SIZES = """() => {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    const text = walk.currentNode.textContent.trim();
    if (!text || !node.checkVisibility({visibilityProperty: true})) continue;
    if (node.closest('script, style, math, sub, sup, .live, .hidden, .skip')) continue;
    const matrix = node.ownerSVGElement ? node.getScreenCTM() : null;
    const scale = matrix ? Math.hypot(matrix.a, matrix.b) : 1;
    found.push([parseFloat(getComputedStyle(node).fontSize) * scale, text]);
  }
  return found;
}"""


def test_text_is_large_where_it_is_presented(browser, page_file):
    at = "?present#watch/guide=9&compare=1&compared=1"
    with shown(browser, page_file, "laptop", at) as page:
        assert page.locator("#present").get_attribute("aria-pressed") == "true"
        assert page.locator(".prose >> visible=true").count() == 0
        for screen in ("laptop", "projector"):
            width, height = SCREENS[screen]
            page.set_viewport_size({"width": width, "height": height})
            sizes = page.evaluate(TEXT_SIZES)
            assert len(sizes) > 200
            small = [(round(size, 1), text) for size, text in sizes if size < SMALLEST * height]
            assert small == []
            heights = page.eval_on_selector_all(
                "main > section", "(all) => all.map((n) => n.getBoundingClientRect().height)"
            )
            assert min(heights) >= height, "a section has a screen of its own"


def test_a_page_that_is_read_shows_its_prose(page):
    assert page.locator("#present").get_attribute("aria-pressed") == "false"
    assert page.locator(".prose >> visible=true").count() > 10


# Nothing moves while controls are operated.

OBSERVE = """() => {
  window.shifts = [];
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => window.shifts.push(
    [entry.value, entry.sources.map(({node}) => node?.id || node?.className || node?.nodeName).join()]
  ))).observe({type: 'layout-shift'});
}"""


@pytest.mark.parametrize("screen", ["laptop", "phone"])
def test_nothing_shifts_while_controls_are_operated(browser, page_file, screen):
    """All shifts count, also those that follow an input."""
    with shown(browser, page_file, screen, reduced_motion="reduce") as page:
        page.evaluate(OBSERVE)
        for section in page.eval_on_selector_all("main > section", "(all) => all.map((n) => n.id)"):
            page.evaluate(OPERATE, section)
        page.wait_for_timeout(100)
        assert page.evaluate("() => window.shifts") == []
        page.evaluate("() => scrollTo({top: 0, behavior: 'instant'})")
        page.evaluate("() => document.querySelector('nav').before('A line that moves the rest')")
        page.wait_for_function("() => window.shifts.length > 0", timeout=5000)


# Accessibility.


def axe_violations(page, **context):
    """What axe finds on the page; it reports only violations, which takes half the time."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}, **context)
    return found.response["violations"]


@pytest.mark.parametrize(("screen", "scheme"), [("laptop", "light"), ("phone", "dark")])
def test_axe_finds_nothing_serious(browser, page_file, screen, scheme):
    at = "#watch/guide=9&compare=1&compared=1&attention=softmax"
    with shown(browser, page_file, screen, at, color_scheme=scheme) as page:
        page.evaluate(
            "() => document.querySelectorAll('details').forEach((n) => { n.open = true; })"
        )
        grave = [
            f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
            for one in axe_violations(page)
            if one["impact"] in ("serious", "critical")
        ]
        assert grave == []


def test_axe_would_find_something(page):
    page.evaluate("() => { document.querySelector('#step-new').textContent = ''; }")
    found = axe_violations(page, context="#one-step .controls")
    assert "button-name" in [one["id"] for one in found]
    page.evaluate("() => { document.querySelector('#step-new').textContent = 'New points'; }")


# Text and colours.


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


def test_light_and_dark_follow_the_system_and_the_button(browser, page_file):
    background = "() => getComputedStyle(document.body).backgroundColor"
    with opened(browser, page_file, color_scheme="light") as page:
        light = page.evaluate(background)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(background) != light
        page.click("#theme")
        assert page.evaluate(background) == light
