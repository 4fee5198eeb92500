"""Reading and operating the teaching page."""


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
