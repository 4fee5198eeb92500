"""Adds to the site the files outside docs/ that its pages link to, and the version.

Pages link to such files by their paths in the repository, such as ../figures/README.md. In the site,
the top folder of the repository and docs/ are the same folder. The gallery replaces the report and the
folders of results.
"""

import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
"""The target of a link in Markdown, if it is a file."""
REPLACED = {"figures/README.md": "gallery/index.md", "toyicl/demo/page": "teaching_page.html"}
"""Paths in the repository, and what links to them lead to in the site."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the version next to the name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.site_name = f"{config.site_name} {project['version']}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that pages link to, and those that the added pages link to."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / link).resolve()
            name = path.relative_to(ROOT).as_posix()
            known = name.startswith("docs/") or files.get_file_from_path(name)
            if known or name in REPLACED or not path.is_file():
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
        path = (Path(own).parent / link).resolve() if own else ROOT
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
        if name in REPLACED:
            return "../" * depth + REPLACED[name]
        if path.parent.parent == ROOT / "figures" and path.is_dir():
            return "../" * depth + f"gallery/{path.name}.md"
        above = "../" * (depth + 1)
        if inside and link.startswith(above):
            return link.removeprefix("../")
        return "../" * depth + link.removeprefix("docs/") if link.startswith("docs/") else link

    return LINK.sub(moved, markdown)
