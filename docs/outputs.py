"""Shows the outputs of the tutorial's notebook below the blocks of code of the tutorial."""

import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

NOTEBOOK = Path(__file__).with_name("tutorial.ipynb")
BLOCK = re.compile(r"^```(?:python|sh).*?^```$", re.M | re.S)
"""A block of code that is a cell of the notebook; tests/docs/test_notebook.py compares them."""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add the outputs to the tutorial."""
    return with_outputs(markdown) if page.file.src_uri == "tutorial.md" else markdown


def with_outputs(markdown: str, notebook: Path = NOTEBOOK) -> str:
    """A page with the outputs of each cell of its notebook after the cell's block of code.

    Raises ValueError unless there are as many blocks as cells.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    shown = ["".join(_outputs(cell)) for cell in cells if cell["cell_type"] == "code"]
    if len(BLOCK.findall(markdown)) != len(shown):
        raise ValueError(
            f"{notebook.name} must have a cell for each block; `make notebook` writes it"
        )
    left = iter(shown)
    return BLOCK.sub(lambda match: match[0] + next(left), markdown)


def _outputs(cell: Mapping[str, Any]) -> Iterator[str]:
    """The outputs of a cell as HTML; figures are part of the page."""
    for output in cell["outputs"]:
        data = output.get("data", {})
        text = "".join(output.get("text", data.get("text/plain", "")))
        if "image/png" in data:
            picture = "".join(data["image/png"].split())
            yield f'\n\n<img class="figure" alt="Figure" src="data:image/png;base64,{picture}">'
        elif text.strip() and not text.startswith("Writing ") and not text.startswith("Appending "):
            yield f'\n\n<pre class="output">{html.escape(text.rstrip())}</pre>'
