"""Adds the teaching page to the site, built from the results that are checked in."""

import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from toyicl.demo import build

NAME = "teaching_page.html"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page that `toyicl demo` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = build.write(Path(folder) / NAME, build.shipped() / "teaching" / build.CLASSROOM)
        files.append(File.generated(config, NAME, content=path.read_text(encoding="utf-8")))
    return files
