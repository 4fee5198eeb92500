"""The teaching page in Firefox: what it draws, the keyboard, the address, and accessibility."""

import importlib.resources

import pytest
from browser import OPERATE
from firefox import launched_firefox

KEYS = {
    "asked": ("#task-query", ("ArrowRight",), "#task-label"),
    "rate": ("#step-rate", ("ArrowRight",), "#step-descent-out"),
    "sharpness": ("#step-sharpness", ("ArrowLeft",), "#step-sharpness-out"),
    "points": ("#step-descent [data-index='0']", ("Shift", "ArrowUp"), "#step-data"),
    "query": ("#step-descent [data-index='6']", ("ArrowRight",), "#step-attention-out"),
    "attention": ("input[name='step-attention-kind']", ("ArrowRight",), "#step-attention"),
    "factor": ("#trap-multiple", ("ArrowRight",), "#trap-loss"),
    "frame": ("#learn-step", ("ArrowRight",), "#learn-losses"),
    "compare": ("#learn-compare", ("Enter",), "#learn-losses"),
    "share": ("#breaks-fraction", ("ArrowRight",), "#breaks-curve"),
    "heads": ("input[name='breaks-head']", ("ArrowRight",), "#breaks-curve"),
    "steps": ("#deeper-steps", ("ArrowRight",), "#deeper-gd"),
    "bound": ("#clip-bound", ("ArrowRight",), "#clip-best"),
}
"""Controls by their name in the address: where they are, a key, and what it must change."""
DRAWN = """async () => {
  document.querySelectorAll('details').forEach((fold) => { fold.open = true; });
  await new Promise((done) => setTimeout(done, 100));
  const seen = (node) => node.checkVisibility();
  const sized = (node) => {
    const {width, height} = node.getBoundingClientRect();
    return Math.max(width, height) > 1;
  };
  const drawn = (root) => sized(root) && [...root.querySelectorAll('path, line, rect')].some(sized);
  return [...document.querySelectorAll('main > section')].map((section) => {
    const figures = [...section.querySelectorAll('svg')].filter(seen);
    return {
      name: section.id,
      figures: figures.length,
      empty: figures.filter((root) => !drawn(root)).map((root) => root.id),
      formulas: [...section.querySelectorAll('math')].filter(seen).map(sized),
      source: section.outerHTML,
    };
  });
}"""
PLACES = """(section) => {
  const parts = [
    ...document.querySelectorAll('main > section, footer'),
    ...document.querySelectorAll(`#${section} :is(h2, .controls, figure, .message, .numbers)`),
  ].filter((node) => node.checkVisibility() && !node.closest('.stick'));
  const places = () => parts.map((node) => {
    const {left, top, width, height} = node.getBoundingClientRect();
    return [left + scrollX, top + scrollY, width, height].map(Math.round).join();
  });
  const initial = places();
  window.moved = [];
  window.painted = () => places().forEach((place, i) => {
    const name = parts[i].id || parts[i].className;
    if (place !== initial[i]) moved.push(`${name}: ${initial[i]} to ${place}`);
  });
  return parts.length;
}"""
"""Records which parts of a section are not at their places any more, whenever a frame is painted."""


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    with launched_firefox(tmp_path_factory.mktemp("firefox")) as firefox:
        yield firefox


@pytest.fixture(scope="module")
def window(firefox, page_file):
    firefox.open(page_file)
    return firefox


@pytest.fixture
def page(window):
    """The page with every control at its initial value. It makes no request and logs no message."""
    window.evaluate("() => { window.toyicl.reset(); scrollTo(0, 0); }")
    yield window
    reported(window)
    assert window.messages == []
    assert window.requests == []


def reported(page):
    """Wait until what happened so far is reported."""
    page.evaluate("() => new Promise((done) => setTimeout(done, 50))")


def value(page, name):
    return page.evaluate("(name) => window.toyicl.controls.get(name).get()", name)


def html(page, selector):
    return page.evaluate("(selector) => document.querySelector(selector).innerHTML", selector)


def focus(page, selector):
    page.evaluate("(selector) => document.querySelector(selector).focus()", selector)


def focused(page):
    return page.evaluate("() => document.activeElement.id")


def axe_violations(page, selector="html"):
    package = pytest.importorskip("axe_playwright_python")
    source = importlib.resources.files(package).joinpath("axe.min.js").read_text()
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(f"() => {{ {source} }}")
    return page.evaluate(
        "(selector) => axe.run(selector, {resultTypes: ['violations']}).then(({violations}) =>"
        " violations.map(({id, impact, nodes}) => [id, impact, nodes[0].html.slice(0, 200)]))",
        selector,
    )


def test_the_page_is_loaded_without_a_network(page):
    assert page.evaluate("() => performance.getEntriesByType('resource').map((one) => one.name)"
                         ".filter((name) => !name.startsWith('data:'))") == []  # fmt: skip
    assert page.evaluate("() => document.title").startswith("toyicl")


def test_every_section_is_drawn(page):
    found = page.evaluate(DRAWN)
    assert len(found) == 11
    for section in found:
        assert section["empty"] == []
        assert all(section["formulas"])
        for wrong in ("NaN", "undefined", "[object"):
            assert wrong not in section["source"]
    assert [one["name"] for one in found if not one["figures"]] == ["claims"]
    assert sum(len(one["formulas"]) for one in found) > 10


@pytest.mark.parametrize("name", KEYS)
def test_a_control_is_operated_by_keys_and_restored_from_the_address(page, name):
    control, keys, changed = KEYS[name]
    initial, before = value(page, name), html(page, changed)
    focus(page, control)
    page.press(*keys)
    moved, after = value(page, name), html(page, changed)
    assert moved != initial
    assert after != before
    address = page.evaluate("() => window.toyicl.addressNow()")
    assert f"{name}=" in address
    page.evaluate("() => window.toyicl.reset()")
    assert (value(page, name), html(page, changed)) == (initial, before)
    page.evaluate("(text) => { location.hash = '#x'; location.hash = text; }", address)
    page.wait_for(
        "([name, text]) => window.toyicl.controls.get(name).get() === text", [name, moved]
    )
    assert html(page, changed) == after


def test_operating_a_control_writes_the_address(page):
    focus(page, "#step-rate")
    page.press("ArrowRight")
    page.wait_for("() => location.hash === '#one-step/rate=2.05'")


def test_the_tour_is_operated_by_keys(page):
    focus(page, ".skip")
    page.press("Tab")
    assert focused(page) == "guide-start"
    page.press("Enter")
    for number in range(1, 13):
        page.wait_for("(text) => document.querySelector('#guide-count').textContent === text",
                      f"{number} of 12")  # fmt: skip
        assert focused(page) == "guide-next"
        page.press("ArrowRight")
    page.press("Shift", "Tab")
    assert focused(page) == "guide-try"
    page.press("Escape")
    assert page.evaluate("() => document.querySelector('#guide').hidden")


def test_nothing_moves_while_controls_are_operated(page):
    """Firefox does not measure shifts of the layout, so that places are compared after each frame."""
    for section in page.evaluate(
        "() => [...document.querySelectorAll('main > section')].map((n) => n.id)"
    ):
        assert page.evaluate(PLACES, section) > 11
        page.evaluate(OPERATE, section)
        assert page.evaluate("() => window.moved") == []
    page.evaluate(
        "() => { document.querySelector('nav').before('A line that moves the rest'); painted(); }"
    )
    assert page.evaluate("() => window.moved") != []
    page.evaluate(
        "() => { delete window.painted; document.querySelector('nav').previousSibling.remove(); }"
    )


def test_axe_finds_nothing_serious(page):
    page.evaluate("() => document.querySelectorAll('details').forEach((n) => { n.open = true; })")
    found = axe_violations(page)
    assert [one for one in found if one[1] in ("serious", "critical")] == []
    page.evaluate("() => { document.querySelector('#step-new').textContent = ''; }")
    assert "button-name" in [one[0] for one in axe_violations(page, "#one-step .controls")]
    page.evaluate("() => { document.querySelector('#step-new').textContent = 'New points'; }")


WRONG = {
    "an error": ("<script>throw new Error('wrong')</script>", "messages", "error: Error: wrong"),
    "a warning": ("<script>console.warn('wrong')</script>", "messages", "warn: wrong"),
    "a policy": (
        "<meta http-equiv='Content-Security-Policy' content=\"img-src 'none'\">"
        "<img src='http://example.org/wrong.png' alt=''>",
        "messages",
        "blocked the loading of a resource (img-src) at http://example.org/wrong.png",
    ),
    "a request": (
        "<img src='http://example.org/wrong.png' alt=''>",
        "requests",
        "example.org/wrong.png",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_page_does_wrong_is_reported(firefox, tmp_path, name):
    body, kind, expected = WRONG[name]
    other = tmp_path / "wrong.html"
    other.write_text(f"<!doctype html><meta charset='utf-8'><title>Wrong</title>{body}")
    firefox.messages, firefox.requests = [], []
    firefox.open(other)
    reported(firefox)
    assert any(expected in text for text in getattr(firefox, kind))
