"""The teaching page of the checked-in results, in one browser for all of its tests."""

import pytest
from browser import launched, opened

from toyicl.demo.build import CLASSROOM, shipped, write
from toyicl.harness.results import load_results

RUN = shipped() / "teaching" / CLASSROOM


@pytest.fixture(scope="session")
def page_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "toyicl.html", RUN)


@pytest.fixture(scope="module")
def results():
    """The checked-in results that the page shows."""
    return load_results(RUN)


@pytest.fixture(scope="session")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def window(browser, page_file):
    with opened(browser, page_file, width=1366, height=768) as page:
        yield page


@pytest.fixture
def page(window):
    """The page with every control at its initial value."""
    window.evaluate("() => { window.toyicl.reset(); scrollTo(0, 0); }")
    return window
