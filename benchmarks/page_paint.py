"""Time from a key press to the next painted frame, for every slider of the teaching page.

    python benchmarks/page_paint.py [--presses N] [--out FILE]

Opens the page of the checked-in results in Chromium, presses arrow keys on every slider, and measures
the time from the key event to the end of the frame that shows its effect, with the processor as it is
and throttled by 4, as a slow phone. Printed: the median and the fastest of each slider, and the largest
median. The bars are 60 ms and 250 ms. On a machine that is busy otherwise only the fastest times mean
something. Needs `make browser`.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from toyicl.core import strict_json
from toyicl.demo.build import CLASSROOM, shipped, write

HELPERS = Path(__file__).parents[1] / "tests" / "helpers"

BARS = {1: 60, 4: 250}
"""Largest median, in ms, by the factor that throttles the processor."""
OBSERVE = """() => {
  window.times = [];
  addEventListener('keydown', (event) => {
    const from = event.timeStamp;
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => window.times.push(performance.now() - from);
      channel.port2.postMessage(0);  // runs after the frame is painted
    });
  }, true);
}"""
SLIDERS = """() => {
  const all = [...document.querySelectorAll('input[type=range], .handle[tabindex]')];
  return all.map((node, i) => {
    node.dataset.bench = i;
    return [i, node.id || node.getAttribute('aria-label')];
  });
}"""


def measured(page: Any, presses: int) -> dict[str, list[float]]:
    """Times of each slider, in ms."""
    page.evaluate(OBSERVE)
    found = {}
    for index, name in page.evaluate(SLIDERS):
        page.locator(f"[data-bench='{index}']").focus()
        page.evaluate("() => { window.times = []; }")
        for press in range(presses):
            page.keyboard.press("ArrowRight" if press % 2 == 0 else "ArrowLeft")
            page.wait_for_function("(count) => window.times.length > count", arg=press)
        found[name] = sorted(page.evaluate("() => window.times"))
    return found


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presses", type=int, default=8, help="key presses of each slider")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/page_paint.json"))
    options = parser.parse_args()
    results = {}
    sys.path.insert(0, str(HELPERS))
    tests = importlib.import_module("browser")  # as the tests of the page open it
    with tempfile.TemporaryDirectory() as folder, tests.launched() as browser:
        file = write(Path(folder) / "toyicl.html", shipped() / "teaching" / CLASSROOM)
        for factor, bar in BARS.items():
            with tests.opened(
                browser, file, width=1366, height=768, reduced_motion="reduce"
            ) as page:
                session = page.context.new_cdp_session(page)
                session.send("Emulation.setCPUThrottlingRate", {"rate": factor})
                found = measured(page, options.presses)
            results[str(factor)] = found
            print(f"throttled by {factor}:")
            medians = {name: statistics.median(times) for name, times in found.items()}
            for name, value in sorted(medians.items(), key=lambda item: -item[1]):
                print(f"  {value:6.1f} ms, fastest {found[name][0]:6.1f} ms  {name}")
            heaviest = max(medians.values())
            print(f"  largest median {heaviest:.1f} ms; bar {bar} ms")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(strict_json.text(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
