"""The tutorial runs as a notebook, and the notebook that is checked in is the tutorial's."""

import re

import nbformat
import pages
import pytest
from pages import DOCS, TUTORIAL, blocks

MOST_BYTES = 300 * 1024
"""Size of the notebook with its figures."""
OF_A_MACHINE = re.compile(r"(?<![\w.])/\w+/|0x[0-9a-f]{6}|\d+\.\d+\.\d+\.\d+")
"""Absolute paths, memory addresses, network addresses."""


def sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.fixture(scope="module")
def kept():
    return nbformat.read(DOCS / "tutorial.ipynb", as_version=4)


def test_the_notebook_is_the_tutorial(kept):
    again = pages.load("notebook").cells(TUTORIAL.read_text(encoding="utf-8"))
    assert sources(kept) == sources(again), "`make notebook` writes it again"
    code = [cell for cell in again.cells if cell.cell_type == "code"]
    found = [block for block in blocks(TUTORIAL) if block[0] in ("python", "sh")]
    assert len(code) == len(found)
    for cell, (_, _, text, _) in zip(code, found, strict=True):
        assert cell.source.endswith(text.strip())


def test_the_notebook_has_figures_and_nothing_of_a_machine(kept):
    text = (DOCS / "tutorial.ipynb").read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert text.count('"image/png"') >= 2
    assert kept.metadata.kernelspec.name == "python3"
    assert all(cell.id == f"cell-{number:02d}" for number, cell in enumerate(kept.cells))
    for output in outputs(kept):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        shown = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not OF_A_MACHINE.search(shown), shown


@pytest.mark.slow  # the blocks of the tutorial run in test_blocks
def test_the_tutorial_runs_as_a_notebook(tmp_path, monkeypatch, kept):
    monkeypatch.setenv("PYTHONPATH", pages.python_path())
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = pages.load("notebook")
    folder = tmp_path / "work"
    folder.mkdir()
    done = notebook.run(notebook.cells(TUTORIAL.read_text(encoding="utf-8")), folder)
    assert (folder / "runs" / "my_experiment" / "results.nc").exists()
    printed = "".join(output.get("text", "") for output in outputs(done))
    assert "holds    SPARSE-1" in printed
    assert "holds    SPARSE-2" in printed
    kinds = [output.output_type for output in outputs(done)]
    assert kinds == [output.output_type for output in outputs(kept)]
