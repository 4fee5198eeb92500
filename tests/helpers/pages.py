"""The pages of the documentation, and the blocks of code in them."""

import importlib.util
import os
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL, README = DOCS / "tutorial.md", ROOT / "README.md"
PAGES = [*sorted(DOCS.rglob("*.md")), README, ROOT / "CONTRIBUTING.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
OUTPUT = "Output"
"""Title of a block with what the block before it prints."""
BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)


def blocks(page):
    """(language, title, text, line) of each block of code."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield match[1], match[2], match[3], text[: match.start(3)].count("\n")


def prose(page):
    """The text of a page without its blocks of code."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def commands_of(page):
    """The commands of a page's shell blocks, and those in its text unless a word stands for another."""
    for language, _, code, _ in blocks(page):
        if language == "sh":
            yield from (line for line in code.replace("\\\n", " ").splitlines() if line.strip())
    for inline in re.findall(r"`((?:toyicl|make) [^`]+)`", prose(page)):
        command = " ".join(inline.split())
        if not re.search(r"\b[A-Z]{3,}\b", command):
            yield command


def arguments(program, command):
    """The arguments that a shell command gives a program; None if it does not start it."""
    words = shlex.split(command, comments=True)
    if program not in words:
        return None
    rest = words[words.index(program) + 1 :]
    ends = [i for i, word in enumerate(rest) if word in ("&&", "||", "|", ">", ";")]
    return rest[: ends[0]] if ends else rest


def write_file(title, code):
    """Write a block with a title as a file of that name, or append it if it continues the file."""
    name = title.removesuffix(" (continued)")
    with open(name, "a" if name != title else "w", encoding="utf-8") as file:
        file.write(code)


def load(name):
    """A Python file of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_path():
    """PYTHONPATH with which other processes import this source tree."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
