"""Firefox, without network access, for the tests of the teaching page.

Playwright does not drive the Firefox of Linux distributions. This helper uses WebDriver BiDi, the
protocol that Firefox itself offers: commands and events as JSON over a WebSocket.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time

import pytest

NAMES = ("firefox-esr", "firefox")
SECONDS = 120
"""Longest wait for the browser to start, and for an answer."""
PREFERENCES = {
    "ui.prefersReducedMotion": 1,
    # Every request is sent to a proxy that does not exist. With `--offline`, requests are not reported.
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.socks": "127.0.0.1",
    "network.proxy.socks_port": 9,
    "network.proxy.allow_hijacking_localhost": True,
}
KEYS = {
    "Shift": "\ue008",
    "Tab": "\ue004",
    "Enter": "\ue006",
    "Escape": "\ue00c",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
}
"""The characters that stand for keys in WebDriver."""


class Firefox:
    """One window. `messages` are errors and texts of the console; `requests` are addresses.

    Firefox reports no requests for files, so that the page's own file is not among them.
    """

    def __init__(self, socket):
        self.socket = socket
        self.sent = 0
        self.messages, self.requests = [], []
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        # In the first tab the address bar has the keyboard focus.
        self.context = self.send("browsingContext.create", type="tab")["context"]

    def send(self, method, **parameters):
        """The result of a command; events that come before it are kept."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=SECONDS))
            if answer["type"] == "event":
                self.keep(answer["method"], answer["params"])
            elif answer["id"] == self.sent:
                assert answer["type"] == "success", f"{method}: {answer['message']}"
                return answer["result"]

    def keep(self, event, parameters):
        if event == "log.entryAdded":
            self.messages.append(f"{parameters['level']}: {parameters['text']}")
        elif not (url := parameters["request"]["url"]).startswith("data:"):
            self.requests.append(url)

    def open(self, path, *, at="", width=1366, height=768):
        """Open a file. `at` is a query and a fragment that are appended to its address."""
        viewport = {"width": width, "height": height}
        self.send("browsingContext.setViewport", context=self.context, viewport=viewport)
        self.send(
            "browsingContext.navigate",
            context=self.context,
            url=path.as_uri() + at,
            wait="complete",
        )
        self.wait_for("() => document.hasFocus()")

    def evaluate(self, function, *arguments):
        """Call a JavaScript function, wait for its promise if it returns one, and return its value."""
        answer = self.send(
            "script.callFunction",
            functionDeclaration=f"""async (texts) =>
                JSON.stringify(await ({function})(...JSON.parse(texts))) ?? "null" """,
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            target={"context": self.context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"]["value"])

    def wait_for(self, function, *arguments):
        """Wait until a JavaScript function returns something true."""
        end = time.monotonic() + 10
        while not self.evaluate(function, *arguments):
            assert time.monotonic() < end, f"waited for {function}"
            time.sleep(0.02)

    def press(self, *keys):
        """Press keys together and release them."""
        codes = [KEYS.get(key, key) for key in keys]
        actions = [{"type": "keyDown", "value": code} for code in codes]
        actions += [{"type": "keyUp", "value": code} for code in reversed(codes)]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self.send("input.performActions", context=self.context, actions=[source])


def unavailable(why):
    """Skip the test. Where browsers are required, what is installed must work."""
    if os.environ.get("TOYICL_BROWSER") == "required":
        pytest.fail(why)
    pytest.skip(why)


@contextlib.contextmanager
def launched_firefox(folder):
    """Launch Firefox with a new profile in a folder. Skips the test if Firefox is not installed.

    `TOYICL_BROWSER=required` does not require Firefox, which not every distribution has as a package;
    but if it is installed, it must start.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no Firefox was found: install one of {', '.join(NAMES)}; see `make browser`")
    try:
        from websockets.sync.client import connect
    except ImportError:
        unavailable("websockets is not installed, which the tests in Firefox need")
    (folder / "user.js").write_text(
        "".join(
            f"user_pref({json.dumps(key)}, {json.dumps(PREFERENCES[key])});\n"
            for key in PREFERENCES
        )
    )
    options = ["--headless", "--no-remote", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [path, *options, "--profile", str(folder)],
        env={**os.environ, "HOME": str(folder)},  # Firefox refuses a home of another user
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = address(process, folder)
        with connect(f"ws://{server}/session", max_size=None, proxy=None) as socket:
            firefox = Firefox(socket)
            yield firefox
            firefox.send("browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    finally:
        process.kill()
        process.wait()


def address(process, folder):
    """The address at which Firefox waits for commands, which it writes into its profile."""
    place = folder / "WebDriverBiDiServer.json"
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            server = json.loads(place.read_text())
            return f"{server['ws_host']}:{server['ws_port']}"
        time.sleep(0.05)
    unavailable(f"Firefox did not start (exit status {process.poll()})")
