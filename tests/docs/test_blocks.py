"""The code of the documentation runs, its commands can be parsed, and its links lead to files."""

import ast
import contextlib
import importlib
import io
import itertools
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import jax
import pages
import pytest
from pages import DOCS, NAMES, PAGES, README, ROOT, TUTORIAL, blocks
from programs import here

from toyicl.cli import commands, main, options, parsing, training
from toyicl.cli.options import Departures, Run
from toyicl.harness import experiment
from toyicl.studies import departures


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """An empty working folder, from which modules can be imported, and the precision of a reader."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    x64 = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    yield tmp_path
    jax.config.update("jax_enable_x64", x64)


def with_code():
    """Pages with Python, except for the tutorial, run as a notebook, and the README, a doctest.

    The example of the landing page is that of the README.
    """
    others = [page for page in PAGES if page not in (TUTORIAL, README, DOCS / "index.md")]
    return [page for page in others if any(block[0] == "python" for block in blocks(page))]


def expected_outputs(page):
    """What each block of Python is shown to print, by its line; empty where no output follows."""
    found = [*blocks(page), ("", None, "", 0)]
    return {
        line: after[2].rstrip() if after[1] == pages.OUTPUT else ""
        for (_, _, _, line), after in itertools.pairwise(found)
    }


@pytest.mark.parametrize("page", with_code(), ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, in_folder):
    """In order, in one namespace, with the commands that run a file of the page.

    What a block prints is shown in the block after it, to the letter.
    """
    namespace = {"__name__": "page"}
    shown = expected_outputs(page)
    for language, title, code, line in blocks(page):
        if title and title != pages.OUTPUT:
            pages.write_file(title, code)
        elif language == "python":
            tree = ast.increment_lineno(ast.parse(code, str(page)), line)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(tree, str(page), "exec"), namespace)
            assert printed.getvalue().rstrip() == shown[line], f"{page}, line {line}"
        elif language == "sh":
            for command in code.splitlines():
                words = pages.arguments("toyicl", command) or []
                if any(word.endswith(".py") and Path(word).exists() for word in words):
                    answer = here(*words, cwd=in_folder)
                    assert answer.returncode == 0, answer.stderr[-3000:]


def test_blocks_are_of_languages_that_are_tested():
    for page in PAGES:
        fences = page.read_text(encoding="utf-8").count("```")
        found = list(blocks(page))
        assert fences == 2 * len(found), f"{page}: a fence is not closed, or indented"
        assert {language for language, *_ in found} <= {"python", "sh", "text"}, page


class Parsed(Exception):  # noqa: N818 (it carries the parsed command)
    """The command that some words stand for."""


@pytest.fixture
def parse(monkeypatch):
    """The real command line, stopped once it has parsed its words."""
    real = parsing.parse_command

    def stop(kinds, words):
        raise Parsed(real(kinds, words))

    monkeypatch.setattr(parsing, "parse_command", stop)
    monkeypatch.setattr(training, "prepare_devices", lambda: None)

    def parsed(words):
        if not any(word.startswith("-") for word in words):  # needs no experiment's settings
            return real(commands.COMMANDS, [main.ALIASES.get(words[0], words[0]), *words[1:]])
        with pytest.raises(Parsed) as found:
            main.carry_out(words, None)
        return found.value.args[0]

    return parsed


def check_names(command):
    """Check that what a command names exists: experiments, swept settings, factors, their values."""
    for name in getattr(command, "experiments", ()):
        if name != "all" and not name.startswith("runs/"):
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
        if title and title != pages.OUTPUT:
            pages.write_file(title, code)
    for name in re.findall(r"toyicl run (\w+\.py)", page.read_text()):
        if not Path(name).exists():  # stands for a file of the reader
            Path(name).write_text((ROOT / "tests" / "helpers" / "small.py").read_text())
    for command in pages.commands_of(page):
        words = pages.arguments("toyicl", command)
        if words and words[-1] == "--help":
            words = words[:-1] or ["list"]
        if words in (["run"], ["draw"]):  # the name of a command
            words = [*words, "fig2"]
        if words:
            check_names(parse(words))
        for target in pages.arguments("make", command) or []:
            assert target in targets, command


def links(page):
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", pages.prose(page)) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_of_the_repository(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor.startswith("toyicl."):
            check_anchor(target, anchor)


def check_anchor(page, anchor):
    """Check that a page of the API has a module, or a public name that is defined in its module."""
    modules = re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    within = [module for module in modules if f"{anchor}.".startswith(f"{module}.")]
    assert within, f"{page.name} does not have {anchor}"
    module = importlib.import_module(within[0])
    name = anchor.removeprefix(within[0]).removeprefix(".").split(".")[0]
    assert not name or hasattr(module, name), anchor


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
            described = f"--{name}" in page or f"--no-{name}" in page
            positional = ("experiments", "parts")
            assert described or name in positional, (kind, name)


def test_every_figure_of_the_paper_has_its_command_in_the_paper_in_code():
    page = (DOCS / "paper_in_code.md").read_text()
    for listing in experiment.listings():
        if listing.group == "von_oswald_2022":
            names = (listing.name, listing.alias)
            assert any(f"`toyicl run {name}`" in page for name in names), listing.name


def test_the_page_on_factors_has_all_of_them():
    page = (DOCS / "choosing_factors.md").read_text()
    rows = "".join(line.split("|")[2] for line in page.splitlines() if line.startswith("| "))
    assert set(re.findall(r"`([\w.]+)`", rows)) == set(departures.FACTORS)
