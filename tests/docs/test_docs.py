"""The documentation: its code runs, its commands parse, its links lead somewhere, and it builds."""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import jax
import nbformat
import pytest
import yaml
from programs import here

from toyicl.cli import main, options, parsing, training
from toyicl.cli.options import Departures, Run
from toyicl.harness import experiment
from toyicl.studies import departures

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
FORBIDDEN = re.compile(r"(?<![\w.])/\w+/|0x[0-9a-f]{6}|\d+\.\d+\.\d+\.\d+")
"""Absolute paths, places in memory, addresses."""
pytestmark = pytest.mark.usefixtures("plain_compiler")
LARGEST = 300 * 1024
"""Bytes of the notebook, figures included."""


def load(name):
    """A program of the documentation, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page):
    """(language, title, text, line) of each block of code."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield match[1], match[2], match[3], text[: match.start(3)].count("\n")


def commands_of(page):
    """Every command of a page's shell blocks, and those in its text."""
    text = page.read_text(encoding="utf-8")
    for language, _, code, _ in blocks(page):
        if language == "sh":
            yield from (line for line in code.replace("\\\n", " ").splitlines() if line.strip())
    prose = BLOCK.sub("", text)
    for inline in re.findall(r"`((?:toyicl|make) [^`]+)`", prose):
        words = " ".join(inline.split())
        if not re.search(r"\b[A-Z]{3,}\b", words.replace("REPORT", "")):  # stands for something
            yield words


def after(program, command):
    """The words that a command line gives a program; None if it does not start it."""
    words = shlex.split(command, comments=True)
    if program not in words:
        return None
    rest = words[words.index(program) + 1 :]
    ends = [i for i, word in enumerate(rest) if word in ("&&", "||", "|", ">", ";")]
    return rest[: ends[0]] if ends else rest


def code_pages():
    return [page for page in PAGES if any(b[0] == "python" for b in blocks(page))]


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """An empty folder to work in, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    x64 = jax.config.jax_enable_x64
    yield tmp_path
    jax.config.update("jax_enable_x64", x64)


@pytest.mark.parametrize(
    "page",
    [page for page in code_pages() if page not in (TUTORIAL, ROOT / "README.md")],
    ids=lambda page: page.stem,
)
def test_the_code_of_a_page_runs(page, in_folder):
    """In order, in one namespace; the tutorial runs as a notebook, the README as a doctest."""
    names = {"__name__": "page"}
    for language, title, code, line in blocks(page):
        if title:
            write_file(title, code)
        elif language == "python":
            tree = ast.increment_lineno(ast.parse(code, str(page)), line)
            exec(compile(tree, str(page), "exec"), names)
        elif language == "sh":
            for command in code.splitlines():
                words = after("toyicl", command) or []
                if any(word.endswith(".py") and Path(word).exists() for word in words):
                    answer = here(*words, cwd=in_folder)
                    assert answer.returncode == 0, answer.stderr[-3000:]


def write_file(title, code):
    """A block with a title is a file of that name, or the next part of it."""
    name = title.removesuffix(" (continued)")
    with open(name, "a" if name != title else "w", encoding="utf-8") as file:
        file.write(code)


def python_path():
    """So that programs started elsewhere use this source tree."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def test_blocks_are_of_languages_that_are_checked():
    for page in PAGES:
        fences = page.read_text(encoding="utf-8").count("```")
        found = list(blocks(page))
        assert fences == 2 * len(found), f"{page}: a fence is not closed, or indented"
        assert {language for language, *_ in found} <= {"python", "sh", "text"}, page


class Parsed(Exception):  # noqa: N818 (it carries what was parsed)
    """What the command line made of some words."""


@pytest.fixture
def parse(monkeypatch):
    """The real command line, stopped once it has parsed its words."""
    real = parsing.parse_command

    def stop(kinds, words):
        raise Parsed(real(kinds, words))

    monkeypatch.setattr(parsing, "parse_command", stop)
    monkeypatch.setattr(training, "prepare_devices", lambda: None)

    def parsed(words):
        with pytest.raises(Parsed) as found:
            main.carry_out(words, None)
        return found.value.args[0]

    return parsed


def check_names(command):
    """That what a command names exists: experiments, swept settings, axes and their values."""
    for name in getattr(command, "experiments", ()):
        if name != "all" and not (ROOT / name).is_dir() and not name.startswith("runs/"):
            experiment.find(name)
    if isinstance(command, Run) and command.sweep:
        assert parsing.parse_sweep(command.settings, command.sweep)
    if isinstance(command, Departures):
        assert all(departures.find(name) for name in command.factor)
        assert all(parsing.parse_values(values) for values in command.values)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page_exist(page, parse, in_folder):
    targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.M)
    for _, title, code, _ in blocks(page):
        if title:
            write_file(title, code)
    for name in re.findall(r"toyicl run (\w+\.py)", page.read_text()):
        if not Path(name).exists():  # stands for a file of the reader's
            Path(name).write_text((ROOT / "tests" / "small.py").read_text())
    for command in commands_of(page):
        words = after("toyicl", command)
        if words and words[-1] == "--help":
            words = words[:-1] or ["list"]
        if words in (["run"], ["draw"]):  # the name of a command
            words = [*words, "fig2"]
        if words:
            check_names(parse(words))
        for target in after("make", command) or []:
            assert target in targets, command


def links(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_of_the_repository(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        assert (page.parent / path).exists(), link
        if anchor.startswith("toyicl."):
            check_anchor(page.parent / path, anchor)


def check_anchor(page, anchor):
    """That a page of the API shows a module, or a public thing that is in one of its modules."""
    rooms = re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    room = next((room for room in rooms if anchor == room or anchor.startswith(f"{room}.")), None)
    assert room, f"{page.name} does not show {anchor}"
    module = importlib.import_module(room)
    name = anchor.removeprefix(room).removeprefix(".").split(".")[0]
    assert not name or hasattr(module, name), anchor


def nav_pages(entries):
    for entry in entries:
        for value in entry.values():
            yield from nav_pages(value) if isinstance(value, list) else [value]


def test_the_site_shows_every_page():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    shown = list(nav_pages(settings["nav"]))
    assert len(set(shown)) == len(shown)
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= set(shown)


def test_every_command_and_option_is_described():
    page = (DOCS / "command_line.md").read_text()
    kinds = [
        kind
        for kind in vars(options).values()
        if is_dataclass(kind) and kind.__module__ == options.__name__
    ]
    assert Run in kinds
    for kind in kinds:
        assert f"\n## {kind.__name__.lower()}\n" in page, kind
        for field in fields(kind):
            name = field.name.replace("_", "-")
            said = f"--{name}" in page or f"--no-{name}" in page
            assert said or name == "experiments", (kind, name)


def test_every_figure_of_the_project_has_its_command_in_the_paper_in_code():
    page = (DOCS / "paper_in_code.md").read_text()
    for listing in experiment.listings():
        if re.match(r"fig\d|prop\d", listing.name):
            assert f"`toyicl run {listing.name}`" in page, listing.name


def test_the_readme_says_the_python_versions_and_the_license_of_the_package():
    readme = (ROOT / "README.md").read_text()
    package = (ROOT / "pyproject.toml").read_text()
    versions = re.findall(r"Python :: (\d\.\d+)", package)
    assert f"Python {' or '.join(versions)}" in readme
    assert 'license = "MIT"' in package
    assert "MIT license" in readme


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    package = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in package
    assert citation["license"] == "MIT"
    assert citation["references"][0]["title"] == "Transformers learn in-context by gradient descent"


def sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.fixture(scope="module")
def kept():
    return nbformat.read(DOCS / "tutorial.ipynb", as_version=4)


def test_the_notebook_is_the_tutorial(kept):
    again = load("notebook").cells(TUTORIAL.read_text(encoding="utf-8"))
    assert sources(kept) == sources(again), "make notebook writes it anew"
    code = [cell for cell in again.cells if cell.cell_type == "code"]
    found = [block for block in blocks(TUTORIAL) if block[0] in ("python", "sh")]
    assert len(code) == len(found)
    for cell, (_, _, text, _) in zip(code, found, strict=True):
        assert cell.source.endswith(text.strip())


def test_the_kept_notebook_has_figures_and_nothing_of_a_machine(kept):
    text = (DOCS / "tutorial.ipynb").read_text(encoding="utf-8")
    assert len(text) < LARGEST
    assert text.count('"image/png"') >= 2
    assert kept.metadata.kernelspec.name == "python3"
    assert all(cell.id == f"cell-{number:02d}" for number, cell in enumerate(kept.cells))
    for output in outputs(kept):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        shown = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not FORBIDDEN.search(shown), shown


def test_the_tutorial_runs_as_a_notebook(tmp_path, monkeypatch, kept):
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = load("notebook")
    folder = tmp_path / "work"
    folder.mkdir()
    done = notebook.run(notebook.cells(TUTORIAL.read_text(encoding="utf-8")), folder)
    assert (folder / "runs" / "sparse" / "results.nc").exists()
    printed = "".join(output.get("text", "") for output in outputs(done))
    assert "holds    SPARSE-1" in printed
    assert "holds    SPARSE-2" in printed
    kinds = [output.output_type for output in outputs(done)]
    assert kinds == [output.output_type for output in outputs(kept)]


def from_afar(link):
    """Whether a <link> fetches a style sheet or a font from another host."""
    fetched = re.search(r"rel=[\"']?(stylesheet|preload|preconnect)", link)
    return bool(fetched and re.search(r"href=[\"']?(https?:)?//", link))


def test_a_style_from_afar_would_be_found():
    assert from_afar('<link rel="stylesheet" href="https://fonts.example/css">')
    assert from_afar('<link href="//fonts.example" rel=preconnect crossorigin>')
    assert not from_afar('<link rel="stylesheet" href="assets/main.css">')
    assert not from_afar('<link rel="canonical" href="https://example.org/">')


def test_the_site_builds_without_warnings_and_asks_the_network_for_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": python_path()}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(https?:[^\"' >]+)", text)
        loaded += [link for link in re.findall(r"<link[^>]*>", text) if from_afar(link)]
        assert not loaded, (page.name, loaded)
    shown = (tmp_path / "api" / "nouns.html").read_text(encoding="utf-8")
    assert 'id="toyicl.algorithms.gradient_descent.GradientDescent"' in shown
    assert (tmp_path / "figures" / "fig2" / "figure.png").exists()
    assert (tmp_path / "tutorial.ipynb").exists()
