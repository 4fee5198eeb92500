"""Shows the meaning of a term of the glossary where a page uses it and the pointer rests on it."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

GLOSSARY = Path(__file__).with_suffix(".md")
ROW = re.compile(r"^\| (?!Term |---)(.+?) \| (.+?) \|$", re.M)
FORMULA = re.compile(r",? \$[^$]*\$")
"""A formula, which hover text cannot have."""
PLAIN = frozenset(
    {"context", "query", "task", "seed", "claim", "finding", "episode", "eta", "gamma"}
)
"""Terms that are too common to be marked at each use."""


def terms() -> dict[str, str]:
    """The terms of the glossary, and their meanings."""
    rows = ROW.findall(GLOSSARY.read_text(encoding="utf-8"))
    plain = ((words, FORMULA.sub("", meaning)) for words, meaning in rows)
    return {term: meaning for words, meaning in plain for term in words.split(", ")}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Define the terms as abbreviations, which Markdown marks in the text of guides."""
    if page.file.src_uri.startswith(("api/", "glossary.md", "CHANGELOG.md", "gallery/")):
        return markdown
    marked = {term: meaning for term, meaning in terms().items() if term not in PLAIN}
    lines = [f"*[{term}]: {meaning}" for term, meaning in marked.items()]
    return markdown + "\n\n" + "\n".join(lines) + "\n"
