"""Makes the tutorial's notebook: the cells of tutorial.md, executed.

`python docs/notebook.py` writes docs/tutorial.ipynb; `make notebook` calls it.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

PAGE = Path(__file__).with_name("tutorial.md")
NOTEBOOK = PAGE.with_suffix(".ipynb")
FENCE = re.compile(
    r"^```(python|sh)(?: title=\"(\S+?)( \(continued\))?\")?\n(.*?)^```$", re.M | re.S
)
"""A block of code: its language, the file that it begins or continues, and its text."""


def cells(page: str) -> NotebookNode:
    """The notebook of a page, not executed.

    A block with a title becomes a cell that writes a file of that name, which later cells can import;
    a block of shell commands becomes a cell of bash.
    """

    def cell(block: re.Match[str]) -> str:
        language, name, continued, code = block.groups()
        magic = "%%bash\n" if language == "sh" else ""
        if name:
            magic = f"%%writefile {'-a ' if continued else ''}{name}\n"
        return f"```python\n{magic}{code}```"

    notebook = jupytext.reads(FENCE.sub(cell, page), fmt="markdown")
    for number, one in enumerate(notebook.cells):
        one.id = f"cell-{number:02d}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def run(notebook: NotebookNode, folder: Path, *, timeout: float = 600) -> NotebookNode:
    """Execute all cells in a folder, with this Python; an error in a cell is raised."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    client = NotebookClient(
        notebook,
        timeout=timeout,
        coalesce_streams=True,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | {"PATH": path})
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of Python
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [one for one in cell.outputs if not _is_progress(one)]
    return notebook


def _is_progress(output: NotebookNode) -> bool:
    """Whether an output has only lines of progress, which are printed on slow machines."""
    lines = output.text.split("\n") if output.get("name") == "stderr" else ["not progress"]
    return all(re.search(r": \d+ of \d+ steps, loss|^\s*$", line) for line in lines)


def main() -> None:
    """Execute the notebook and write it."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = run(cells(PAGE.read_text(encoding="utf-8")), Path(folder))
    NOTEBOOK.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
