"""What the site needs beside docs/: the files elsewhere in the repository that its pages link to.

A page links to them as a reader of the repository finds them, such as ../figures/REPORT.md. In the site
the top of the repository and docs/ are one folder.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
"""Where a link in Markdown leads, if that is a file."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to, and what that links to in turn."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / link).resolve()
            name = path.relative_to(ROOT).as_posix()
            if name.startswith("docs/") or files.get_file_from_path(name) or not path.is_file():
                continue
            files.append(File.generated(config, name, abs_src_path=str(path)))
            if path.suffix == ".md":
                waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the site, where docs/ is the top."""
    own = page.file.abs_src_path
    inside = own is not None and Path(own).is_relative_to(ROOT / "docs")
    depth = len(Path(page.file.src_uri).parts) - 1

    def moved(match: re.Match[str]) -> str:
        link = match[1]
        above = "../" * (depth + 1)
        if inside and link.startswith(above):
            return link.removeprefix("../")
        return "../" * depth + link.removeprefix("docs/") if link.startswith("docs/") else link

    return LINK.sub(moved, markdown)
