"""The contents of the teaching page and, in a real browser, the effects of its controls."""

import base64
import json
import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import xarray as xr
from browser import launched, opened
from programs import here, toyicl

from toyicl.core.errors import BadInput
from toyicl.demo import build
from toyicl.demo.build import CLASSROOM, contents, place, render, shipped, write
from toyicl.harness import report
from toyicl.harness.results import load_results, save_results

RUN = shipped() / "teaching" / CLASSROOM
SIZES = {"projector": (1280, 800), "phone": (390, 844)}
MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "toyicl.html", RUN)


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser, page_file):
    with opened(browser, page_file) as page:
        yield page


def held(page_file):
    """The data stored in the page."""
    (text,) = re.findall(r'id="data">(.*?)</script>', page_file.read_text())
    return json.loads(text)


# Tests without a browser.


def test_the_page_is_one_small_file_that_refers_to_nothing(page_file):
    text = page_file.read_text()
    assert len(text.encode()) < MOST_BYTES
    assert "{{" not in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"<script[^>]* src|<img|<iframe|@import|url\((?!#)", text)


def test_the_page_holds_the_runs_weights_to_the_bit(page_file):
    """Arrays are (..., head, row, column); those of one input are 2 x 2, without padding."""
    data, results = held(page_file), load_results(RUN)
    mixed = results.sel(task="one input").isel(mixed_row=slice(2), mixed_column=slice(2))
    for kept, expected in (
        (data["learn"]["keyQuery"], results.key_query.expand_dims("head", -3)),
        (data["deep"]["valueOutput"], results.two_layers_value_output.expand_dims("head", -3)),
        (
            data["softmaxSweep"]["line"]["heads"]["2"]["keyQuery"],
            mixed.mixed_key_query.sel(heads=2),
        ),
        (
            data["softmaxSweep"]["line"]["heads"]["1"]["valueOutput"],
            mixed.mixed_value_output.sel(heads=1, head=[0]),
        ),
        (
            data["softmaxSweep"]["wide"]["heads"]["1"]["keyQuery"],
            results.mixed_key_query.sel(task="all inputs", heads=1, head=[0]),
        ),
    ):
        assert np.isfinite(expected).all()
        values = np.frombuffer(base64.b64decode(kept["base64"]), "<f4")
        np.testing.assert_array_equal(values.reshape(kept["shape"]), expected.values)


def test_the_page_says_where_it_comes_from_and_every_verdict(page_file):
    assert "toyicl run classroom" in held(page_file)["made"]
    kept = json.loads((shipped() / report.RECORDS).read_text())
    assert held(page_file)["verdicts"] == kept
    assert sum(len(one["records"]) for one in kept["experiments"]) > 100


def save(folder, **attributes):
    kept = {"format": load_results(RUN).attrs["format"], "sweep": "{}", **attributes}
    results = xr.Dataset({"loss": 1.0}, attrs=kept)
    folder.mkdir(parents=True)
    save_results(results, folder)
    return folder


def test_a_full_run_of_ones_own_is_shown_before_what_is_checked_in(tmp_path):
    mine = tmp_path / CLASSROOM
    assert place(tmp_path) == RUN
    save(mine, level="quick")
    assert place(tmp_path) == RUN
    shutil.rmtree(mine)
    save(mine, level="full")
    assert place(tmp_path) == mine


def test_a_quick_run_is_shown_where_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "shipped", lambda: tmp_path / "nothing")
    assert place(tmp_path) is None
    mine = save(tmp_path / CLASSROOM, level="quick")
    assert place(tmp_path) == mine


def test_other_results_are_refused():
    results = load_results(RUN)
    with pytest.raises(BadInput, match=r"a run of classroom, got a run of fig02_one_step"):
        contents(results.assign_attrs(experiment="fig02_one_step"), [])
    with pytest.raises(BadInput, match=r"a single run of classroom, got a sweep"):
        contents(results.assign_attrs(sweep='{"task.dim": [3]}'), [])
    settings = json.loads(results.attrs["settings"])
    settings["task"]["input_distribution"] = "normal"
    with pytest.raises(
        BadInput,
        match=r"default values of the task's input_distribution, got input_distribution normal",
    ):
        contents(results.assign_attrs(settings=json.dumps(settings)), [])


def test_what_an_installed_package_needs_is_carried():
    root = shipped().parent
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    carried = wheel["wheel"]["force-include"]
    for source in ("figures/teaching/classroom/results.nc", f"figures/{report.RECORDS}"):
        assert carried[source] == f"toyicl/{source}"
        assert (root / source).is_file()


def test_without_verdicts_the_page_has_none(tmp_path):
    assert build.verdicts(tmp_path) == {"figures": [], "experiments": []}


def test_what_text_says_is_text(tmp_path):
    results = load_results(RUN).assign_attrs(command="</script><b>")
    text = render(contents(results, build.verdicts(tmp_path)))
    assert "</script><b>" not in text
    assert "&lt;/script&gt;&lt;b&gt;" in text


def test_the_command_writes_the_page(tmp_path):
    answer = toyicl("demo", "--out", "my page.html", "--no-open", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "wrote my page.html\n"
    assert "</html>" in (tmp_path / "my page.html").read_text()


@pytest.mark.parametrize(
    ("out", "why"), [("missing/page.html", "there is no folder missing"), (".", "is a folder")]
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path, out, why):
    answer = here("demo", "--out", out, "--no-open", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith(
        "toyicl: out must be a file in a folder that exists and can be written"
    )
    assert why in answer.stderr


@pytest.mark.slow
def test_what_is_lacking_is_trained(tmp_path):
    program = """
from pathlib import Path
from toyicl.demo import build
build.shipped = lambda: Path("nothing")
from toyicl.__main__ import main
main()
"""
    command = [sys.executable, "-c", program, "demo", "--no-open"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "training quick settings into runs/classroom" in answer.stderr
    data = held(tmp_path / "toyicl.html")
    assert "toyicl run classroom --quick --seeds 2" in data["made"]
    assert data["learn"]["seeds"] == [0, 1]
    assert data["verdicts"] == {"figures": [], "experiments": []}


# Tests in a browser: the effect of each control.


def texts(page, *names):
    return [page.locator(f"#{name}").inner_text() for name in names]


def number(page, name):
    return float(page.locator(f"#{name}").inner_text().replace("\u2212", "-"))


def slide(page, name, value):
    page.locator(f"#{name}").evaluate(
        "(node, value) => { node.value = value;"
        " node.dispatchEvent(new Event('input', {bubbles: true})); }",
        value,
    )


def drawing(page, name):
    return page.locator(f"#{name}").inner_html()


VIEWS = ("step-descent-out", "step-attention-out", "step-data-out")


def test_three_views_say_the_same_number(page):
    for rate in (0, 0.4, 1.5, 6):
        slide(page, "step-rate", rate)
        assert len(set(texts(page, *VIEWS))) == 1
        ways = page.evaluate("() => window.toyicl.threeWays()")
        np.testing.assert_allclose([ways["attention"], ways["data"]], ways["descent"], atol=1e-12)


def test_the_step_size_scales_the_answer(page):
    slide(page, "step-rate", 1)
    one = number(page, VIEWS[0])
    slide(page, "step-rate", 3)
    assert number(page, VIEWS[0]) == pytest.approx(3 * one, abs=2e-4)
    page.click("#step-best")
    points = np.array(page.evaluate("() => window.toyicl.state.step.points"))
    assert number(page, "step-rate-out") == pytest.approx(1 / np.mean(points[:, 0] ** 2), abs=5e-3)
    fit = points[:, 0] @ points[:, 1] / (points[:, 0] @ points[:, 0])
    assert number(page, VIEWS[0]) == pytest.approx(fit * 0.5, abs=1e-4)


def test_a_point_is_dragged_by_the_pointer(page):
    before = texts(page, *VIEWS)
    pictures = [drawing(page, f"step-{name}") for name in ("descent", "attention", "data")]
    grip = page.locator("#step-descent [data-index='0']")
    box = grip.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y - 60, steps=4)
    page.mouse.up()
    assert texts(page, *VIEWS) != before
    after = [drawing(page, f"step-{name}") for name in ("descent", "attention", "data")]
    assert all(old != new for old, new in zip(pictures, after, strict=True))
    moved = page.evaluate("() => window.toyicl.state.step.points[0]")
    assert moved[0] > -0.9
    assert moved[1] > -0.95


def test_points_and_query_are_moved_by_keys(page):
    page.focus("#step-descent [data-index='6']")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => window.toyicl.state.step.query") == pytest.approx(0.55)
    page.focus("#step-descent [data-index='2']")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    point = page.evaluate("() => window.toyicl.state.step.points[2]")
    assert point == pytest.approx([-0.4, -0.3])
    grip = page.locator("#step-descent [data-index='2']")
    assert grip.get_attribute("aria-valuetext") == "x -0.40, y -0.30"
    outline = "(node) => getComputedStyle(node.querySelector('circle')).strokeWidth"
    assert grip.evaluate(outline) == "4px", "the focus must be visible"
    page.wait_for_function(
        "() => document.querySelector('#step-live').textContent.includes('predict')"
    )


def test_new_points_are_other_points(page):
    before = page.evaluate("() => window.toyicl.state.step.points")
    page.click("#step-new")
    assert page.evaluate("() => window.toyicl.state.step.points") != before
    assert len(set(texts(page, *VIEWS))) == 1


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
        "() => [...document.querySelectorAll('button[id], input[type=range]')].map((n) => n.id)"
    )
    assert set(ids) <= seen
    assert {str(index) for index in range(7)} <= seen
    assert {"learn-seed", "deeper-seed", "breaks-head", "claims-show"} <= seen


def test_training_is_scrubbed(page):
    results = load_results(RUN)
    last = results.sizes["step"] - 1
    for snapshot in (0, last // 2, last):
        slide(page, "learn-step", snapshot)
        here = results.isel(seed=0, step=snapshot).sel(reference="gd")
        assert number(page, "learn-step-out") == int(here.step)
        assert number(page, "learn-loss") == pytest.approx(float(here.loss), abs=6e-5)
        assert number(page, "learn-cosine") == pytest.approx(float(here.model_cosine), abs=6e-4)
        assert number(page, "learn-ratio") == pytest.approx(float(here.norm_ratio), abs=6e-4)
    assert number(page, "learn-eta") == pytest.approx(float(results.learned_step[0]), abs=6e-4)
    assert number(page, "learn-eta-exact") == pytest.approx(0.606, abs=6e-4)


def test_heat_maps_turn_into_the_construction(page):
    slide(page, "learn-step", 0)
    first = page.locator("#learn-kq .cell").count(), drawing(page, "learn-pv")
    slide(page, "learn-step", page.evaluate("() => window.toyicl.data.learn.steps.length - 1"))
    assert drawing(page, "learn-pv") != first[1]

    def cells(name):
        return page.eval_on_selector_all(
            f"#{name} .cell", "(all) => all.map((n) => [n.dataset.value, n.getAttribute('x')])"
        )

    learned, target = cells("learn-kq"), cells("learn-kq-target")
    assert len(target) == 10
    large = [value for value, _ in learned if abs(float(value)) > 0.5]
    assert len(large) == 10
    assert float(cells("learn-pv")[-1][0]) == pytest.approx(-0.606, abs=0.03)


def test_seeds_are_chosen(page):
    results = load_results(RUN)
    slide(page, "learn-step", 2)
    before = drawing(page, "learn-losses"), drawing(page, "learn-kq")
    page.check("input[name='learn-seed'] >> nth=2")
    assert number(page, "learn-loss") == pytest.approx(float(results.loss[2, 2]), abs=6e-5)
    assert before != (drawing(page, "learn-losses"), drawing(page, "learn-kq"))


def test_the_film_plays_and_pauses(page):
    slide(page, "learn-step", 3)
    page.click("#learn-play")
    page.wait_for_function("() => window.toyicl.state.learn.snapshot > 5")
    page.click("#learn-play")
    assert texts(page, "learn-play") == ["Play"]
    assert page.evaluate("() => window.toyicl.state.learn.playing") is None


def test_reduced_motion_is_respected(browser, page_file):
    with opened(browser, page_file, reduced_motion="reduce") as page:
        assert (
            page.evaluate("() => getComputedStyle(document.documentElement).scrollBehavior")
            == "auto"
        )
        slide(page, "learn-step", 3)
        page.click("#learn-play")
        page.wait_for_timeout(700)
        assert page.evaluate("() => window.toyicl.state.learn.snapshot") == 3
        page.wait_for_function("() => window.toyicl.state.learn.snapshot === 8", timeout=3000)
        page.click("#learn-play")


def test_depth_moves_the_references_and_not_the_trained_layers(page):
    results = load_results(RUN)
    trained = texts(page, "deeper-model")
    for steps in (1, 3, 5):
        slide(page, "deeper-steps", steps)
        for name in ("gd", "gdpp"):
            exact = float(results.exact_loss.sel(reference=name, depth=steps))
            assert number(page, f"deeper-{name}") == pytest.approx(exact, abs=6e-5)
        assert texts(page, "deeper-model") == trained
    before = drawing(page, "deeper-residuals"), drawing(page, "deeper-answers")
    page.click("#deeper-new")
    assert drawing(page, "deeper-residuals") != before[0]
    assert drawing(page, "deeper-answers") != before[1]


def test_the_seed_of_the_two_layers_is_chosen(page):
    results = load_results(RUN)
    page.check("input[name='deeper-seed'] >> nth=1")
    loss = float(results.two_layers_loss[1])
    assert number(page, "deeper-model") == pytest.approx(loss, abs=6e-5)


def test_the_softmax_fraction_heads_and_inputs_change_what_breaks(page):
    assert number(page, "breaks-cosine") > 0.99
    linear = drawing(page, "breaks-curve")
    slide(
        page,
        "breaks-fraction",
        page.evaluate("() => window.toyicl.data.softmaxSweep.fractions.length - 1"),
    )
    assert "100%" in texts(page, "breaks-fraction-out")[0]
    softmax = number(page, "breaks-loss")
    assert softmax > 1.2
    assert drawing(page, "breaks-curve") != linear
    page.check("input[name='breaks-head'] >> nth=1")
    two = number(page, "breaks-loss")
    assert two < softmax - 0.1
    caution = "Gradient descent's step is too large for these inputs"
    assert caution not in texts(page, "breaks-message")[0]
    slide(page, "breaks-scale", 2)
    assert number(page, "breaks-loss") != two
    assert caution in texts(page, "breaks-message")[0]
    before = drawing(page, "breaks-curve")
    page.click("#breaks-new")
    assert drawing(page, "breaks-curve") != before


def test_the_trap_shows_a_cosine_that_sees_nothing(page):
    losses = {}
    for multiple in (0.5, 1, 2):
        slide(page, "trap-multiple", multiple)
        assert number(page, "trap-cosine") > 0.99
        assert number(page, "trap-ratio") == pytest.approx(multiple, rel=0.05)
        losses[multiple] = number(page, "trap-loss")
    assert losses[1] < losses[0.5]
    assert losses[1] < losses[2]


def test_verdicts_are_filtered_and_linked(page):
    kept = json.loads((shipped() / report.RECORDS).read_text())["experiments"]
    verdicts = [record["verdict"] for one in kept for record in one["records"]]
    for verdict in set(verdicts):
        page.check(f"input[name='claims-show'][value='{verdict}']")
        shown = page.locator("#claims-list tr[data-verdict]:not([hidden])")
        assert shown.count() == verdicts.count(verdict)
    (own,) = [one for one in kept if one["experiment"] == "fig02_one_step"]
    lacking = set(verdicts) - {record["verdict"] for record in own["records"]}
    page.check(f"input[name='claims-show'][value='{lacking.pop()}']")
    page.click("#watch .source a >> nth=0")  # resets the filter
    assert page.is_checked("input[name='claims-show'] >> nth=0")
    page.wait_for_selector("#claims-fig02_one_step[open]")
    command = "toyicl run fig02_one_step"
    assert command in page.locator("#claims-fig02_one_step").inner_text()


def test_every_figure_has_its_verdict(page):
    kept = json.loads((shipped() / report.RECORDS).read_text())["figures"]
    rows = page.locator("#claims-figures tbody tr").all_inner_texts()
    assert len(rows) == len(kept) > 30
    for row, figure in zip(rows, kept, strict=True):
        assert [cell.strip() for cell in row.split("\t")][:3] == [
            figure["figure"],
            figure["claims"],
            figure["verdict"],
        ]


def test_light_and_dark_follow_the_system_and_the_button(browser, page_file):
    background = "() => getComputedStyle(document.body).backgroundColor"
    with opened(browser, page_file, color_scheme="light") as page:
        light = page.evaluate(background)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(background) != light
        page.click("#theme")
        assert page.evaluate(background) == light


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_wider_than_the_window(browser, page_file, size):
    width, height = SIZES[size]
    with opened(browser, page_file, width=width, height=height) as page:
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def axe_violations(page, **context):
    """What axe finds on the page; it reports only violations, which takes half the time."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}, **context)
    return found.response["violations"]


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious(browser, page_file, size):
    width, height = SIZES[size]
    with opened(browser, page_file, width=width, height=height) as page:
        page.evaluate(
            "() => document.querySelectorAll('details').forEach((n, i) => { n.open = i < 3; })"
        )
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            grave = [
                f"{scheme}: {one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
                for one in axe_violations(page)
                if one["impact"] in ("serious", "critical")
            ]
            assert grave == []


def test_axe_would_find_something(browser, page_file):
    with opened(browser, page_file) as page:
        page.evaluate("() => { document.querySelector('#step-new').textContent = ''; }")
        found = axe_violations(page, context="#one-step")
        assert "button-name" in [one["id"] for one in found]
