"""A real browser, without network access, for the tests of the teaching page."""

import contextlib
import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
OPERATE = """async (section) => {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))
    .then(() => window.painted?.());
  const node = document.getElementById(section);
  const visit = async (one) => {
    one.scrollIntoView({block: 'center', behavior: 'instant'});
    await painted();
  };
  for (const input of node.querySelectorAll('input')) {
    if (!input.checkVisibility()) continue;
    await visit(input.closest('label'));
    if (input.type === 'radio') input.click();
    else for (const value of [input.min, (Number(input.min) + Number(input.max)) / 2, input.max]) {
      input.value = value;
      input.dispatchEvent(new Event('input', {bubbles: true}));
      await painted();
    }
    await painted();
  }
  for (const button of node.querySelectorAll('button')) {
    await visit(button);
    button.click();
    await painted();
    button.click();
    await painted();
  }
}"""
"""Moves each slider, radio button and button of a section; calls `window.painted` after each frame."""


@contextlib.contextmanager
def launched():
    """Launch a browser. Skips the test if none is installed, or fails if one is required."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        missing = f"no browser was found: install one of {', '.join(NAMES)}; see `make browser`"
        if os.environ.get("TOYICL_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser, path, *, at="", width=1280, height=800, **settings):
    """Open a file in a new window. Fails on exit if the page made a request or logged a message.

    `at` is a query and a fragment that are appended to its address.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height}, offline=True, **settings
    )
    requests, messages = [], []
    context.on("request", lambda request: requests.append(request.url))
    page = context.new_page()
    page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: messages.append(str(error)))
    try:
        page.goto(path.as_uri() + at)
        yield page
        made = [url.split("#")[0] for url in requests if not url.startswith("data:")]
        assert made == [path.as_uri() + at.split("#")[0]]
        assert messages == []
    finally:
        context.close()
