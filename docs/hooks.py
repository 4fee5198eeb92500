"""Adds to the site the files outside docs/ that its pages link to.

Pages link to such files by their paths in the repository, such as ../figures/README.md. In the site,
the top folder of the repository and docs/ are the same folder.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
"""The target of a link in Markdown, if it is a file."""
REPORT, GALLERY = "figures/README.md", "gallery/index.md"
"""The report, and the pages that the site has in its place."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that pages link to, and those that the added pages link to."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / link).resolve()
            name = path.relative_to(ROOT).as_posix()
            known = name.startswith("docs/") or files.get_file_from_path(name)
            if known or name == REPORT or not path.is_file():
                continue
            files.append(File.generated(config, name, abs_src_path=str(path)))
            if path.suffix == ".md":
                waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links for the site, whose top folder is docs/."""
    own = page.file.abs_src_path
    inside = own is not None and Path(own).is_relative_to(ROOT / "docs")
    depth = len(Path(page.file.src_uri).parts) - 1

    def moved(match: re.Match[str]) -> str:
        link = match[1]
        if own and (Path(own).parent / link).resolve() == ROOT / REPORT:
            return "../" * depth + GALLERY
        above = "../" * (depth + 1)
        if inside and link.startswith(above):
            return link.removeprefix("../")
        return "../" * depth + link.removeprefix("docs/") if link.startswith("docs/") else link

    return LINK.sub(moved, markdown)
