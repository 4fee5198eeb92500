"""Every public module has an entry on a page of the API, and every entry is a module."""

import importlib
import pkgutil
import re
from pathlib import Path

import pages

import toyicl

PAGES = Path(__file__).parents[2] / "docs" / "api"
DATA = ("toyicl.experiments", "toyicl.figures")
"""Folders inside an installed package that are no modules."""


def modules():
    found = pkgutil.walk_packages(toyicl.__path__, "toyicl.")
    names = [module.name for module in found if not module.ispkg]
    return {name for name in names if "._" not in name and not name.startswith(DATA)}


def documented():
    return {
        name
        for page in PAGES.glob("*.md")
        for name in re.findall(r"^::: (toyicl\.\S+)$", page.read_text(), re.M)
    }


def test_every_public_module_has_an_entry_on_the_page_of_its_package():
    assert modules() - documented() == set()
    assert documented() - modules() == set()
    for page in PAGES.glob("*.md"):
        entries = re.findall(r"^::: toyicl\.(\w+)\.", page.read_text(), re.M)
        assert set(entries) == ({page.stem} if page.stem != "index" else set())


def test_modules_are_found():
    assert "toyicl.analysis.metrics" in modules()
    assert "toyicl.__main__" not in modules()


def test_every_public_name_has_an_import_and_a_purpose():
    hook = pages.load("api_pages")
    names = hook.public_names()
    for name, statement in names.items():
        words = statement.split()
        assert words[0::2] == ["from", "import"]
        module, _, own = name.rpartition(".")
        real = getattr(importlib.import_module(module), own)
        assert getattr(importlib.import_module(words[1]), words[3]) is real
        assert len(hook._first_line(name)) > 15, name
    from_toyicl = {statement.split()[3] for statement in names.values() if " toyicl " in statement}
    assert from_toyicl == set(toyicl.__all__)


def test_every_page_of_a_package_begins_with_an_example_and_its_output():
    for page in PAGES.glob("*.md"):
        text = page.read_text()
        titles = [(language, title) for language, title, *_ in pages.blocks(page)]
        if page.stem != "index":
            assert ("python", None) in titles, page.stem
            assert ("text", pages.OUTPUT) in titles, page.stem
            assert text.index("```python") < text.index("\n## ") < text.index("\n::: ")
