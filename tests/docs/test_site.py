"""The documentation builds as a site, and agrees with the package about versions and licence."""

import ast
import html
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from typing import is_typeddict

import pages
import pytest
import yaml
from flax import nnx
from pages import DOCS, README, ROOT

from toyicl.harness import experiment
from toyicl.tasks import DerivedTask


def nav_pages(entries):
    for entry in entries:
        for value in entry.values():
            yield from nav_pages(value) if isinstance(value, list) else [value]


def test_the_navigation_has_every_page():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    shown = list(nav_pages(settings["nav"]))
    assert len(set(shown)) == len(shown)
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= set(shown)
    assert {"gallery/index.md", "gallery/verdicts.md"} <= set(shown)


def remote(link):
    """Whether a <link> loads a style sheet or a font from another host."""
    loaded = re.search(r"rel=[\"']?(stylesheet|preload|preconnect)", link)
    return bool(loaded and re.search(r"href=[\"']?(https?:)?//", link))


def test_a_remote_style_sheet_would_be_found():
    assert remote('<link rel="stylesheet" href="https://fonts.example/css">')
    assert remote('<link href="//fonts.example" rel=preconnect crossorigin>')
    assert not remote('<link rel="stylesheet" href="assets/main.css">')
    assert not remote('<link rel="canonical" href="https://example.org/">')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": pages.python_path()}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def html_pages(site):
    """The text of each built page, by its path; the teaching page is tested in tests/page."""
    found = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    return {path: text for path, text in found.items() if path.name != "teaching_page.html"}


def test_the_site_loads_nothing_from_other_hosts(site):
    built = html_pages(site)
    assert len(built) > len(list(DOCS.rglob("*.md")))
    for page, text in built.items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(https?:[^\"' >]+)", text)
        loaded += [link for link in re.findall(r"<link[^>]*>", text) if remote(link)]
        assert not loaded, (page.name, loaded)


def test_the_links_of_the_site_lead_to_its_files(site):
    """Also those that the hooks write as HTML, which mkdocs does not check."""
    links = 0
    for page, text in html_pages(site).items():
        if page.name == "404.html":  # its links start at the top folder of a host
            continue
        for link in set(re.findall(r"<(?:a|img)\b[^>]*?\s(?:href|src)=\"?([^\s\">]+)", text)):
            target, _, anchor = html.unescape(link).partition("#")
            if ":" in target:
                continue
            path = (page.parent / target) if target else page
            assert path.exists(), (page.name, link)
            if anchor and path.suffix == ".html":
                other = path.read_text(encoding="utf-8") if target else text
                assert re.search(rf"\sid=\"?{re.escape(anchor)}[\s\">]", other), (page.name, link)
            links += 1
    assert links > 1000


def classes(site):
    """The classes on the pages of the API: name, and the text of the constructor that is shown."""
    for page in (site / "api").glob("*.html"):
        parts = re.split(r'(?=<div class="doc doc-object doc-)', page.read_text(encoding="utf-8"))
        for part in parts:
            if part.startswith('<div class="doc doc-object doc-class"'):
                name = re.search(r'\sid="(toyicl[^"]+)"', part)[1]
                shown = part.partition('<div class="doc doc-contents')[0]
                yield name, re.findall(r'<div class="doc-signature.*?</div>', shown, re.S)


def test_every_class_of_the_api_shows_its_constructor(site):
    found = dict(classes(site))
    assert len(found) > 150
    for name, shown in found.items():
        module, _, own = name.rpartition(".")
        real = getattr(importlib.import_module(module), own)
        if getattr(real, "_is_protocol", False):
            assert not shown, name
            continue
        (text,) = (html.unescape(re.sub("<[^>]+>", "", one)) for one in shown)
        assert parameters_shown(text) == parameters(real), name


def parameters_shown(text):
    """The names of the parameters in a signature as text, such as "Ridge(penalty: float)"."""
    (function,) = ast.parse(f"def {text.strip()}: ...").body
    given = function.args
    return [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def parameters(real):
    """The names of the parameters of a class's constructor."""
    if issubclass(real, Exception) and "__init__" not in vars(real):
        return ["message"]
    if issubclass(real, nnx.Variable):
        return ["value"]
    if issubclass(real, nnx.Module):
        own = inspect.signature(real.__init__).parameters
        return [name for name in own if name not in ("self", "args", "kwargs")]
    if is_typeddict(real) or real is DerivedTask:  # a base class, whose subclasses have its field
        return list(real.__annotations__)
    return list(inspect.signature(real).parameters)


def test_the_site_has_the_notebook_and_the_gallery_instead_of_the_report(site):
    assert (site / "tutorial.ipynb").exists()
    assert not (site / "figures" / "README.html").exists()
    index = (site / "gallery" / "index.html").read_text(encoding="utf-8")
    for listing in experiment.listings():
        assert f'href="{listing.name}.html"' in index
        assert (site / "gallery" / f"{listing.name}.html").exists()
    results = "figures/von_oswald_2022/fig02_one_step/results.nc"
    assert (site / results).read_bytes() == (ROOT / results).read_bytes()


def test_the_site_has_the_teaching_page(site):
    text = (site / "teaching_page.html").read_text(encoding="utf-8")
    assert "toyicl run classroom" in text
    assert '"VO-2a-1"' in text  # a verdict, in its data
    for page in ("index.html", "tutorial.html"):
        assert 'href="teaching_page.html"' in (site / page).read_text(encoding="utf-8")


def test_formulas_are_typeset_without_a_script(site):
    text = (site / "paper_in_code.html").read_text(encoding="utf-8")
    assert text.count('display="block"') >= 15
    assert "<mfrac><mrow><mi>&#x003B7;</mi></mrow><mrow><mi>N</mi></mrow></mfrac>" in text
    for page, content in html_pages(site).items():
        assert "arithmatex" not in content, page
        shown = re.sub(r"<(pre|code|script)\b.*?</\1>|<[^>]+>", "", content, flags=re.S)
        assert not re.search(r"\\(frac|sum|begin|top|eta|left)\b|\$\$", shown), page


def test_the_tutorial_shows_the_outputs_of_the_notebook(site):
    text = (site / "tutorial.html").read_text(encoding="utf-8")
    notebook = json.loads((DOCS / "tutorial.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    printed = ["".join(one["text"]).strip() for one in outputs if "text" in one]
    printed = [one for one in printed if not one.startswith(("Writing", "Appending"))]
    assert len(printed) >= 5
    assert all(one in html.unescape(text) for one in printed)
    figures = sum("image/png" in one.get("data", {}) for one in outputs)
    assert text.count('src="data:image/png;base64,') == figures >= 2


def test_terms_of_the_glossary_have_hover_text(site):
    text = (site / "findings.html").read_text(encoding="utf-8")
    assert "<abbr title=\"the mean norm of a learner's sensitivities" in html.unescape(text)
    assert "<abbr" not in (site / "api" / "analysis.html").read_text(encoding="utf-8")


def test_the_version_is_in_the_header(site):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = (site / "index.html").read_text(encoding="utf-8")
    assert f"toyicl {version}" in re.search(r"<header.*?</header>", text, re.S)[0]


def test_the_search_finds_experiments_but_not_their_tables(site):
    entries = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = [entry for entry in entries if entry["location"].startswith("gallery/fig02_one_step.")]
    assert [entry["title"] for entry in found] == [
        "One trained linear attention layer is one step of gradient descent"
    ]
    assert "toyicl run fig02_one_step" in found[0]["text"]
    assert not any(
        "VO-2a-1" in entry["text"] for entry in entries if "gallery" in entry["location"]
    )


def test_the_readme_states_the_python_versions_and_the_licence_of_the_package():
    readme = README.read_text()
    package = (ROOT / "pyproject.toml").read_text()
    versions = re.findall(r"Python :: (\d\.\d+)", package)
    assert f"Python {' or '.join(versions)}" in readme
    assert 'license = "MIT"' in package
    assert "MIT licence" in readme


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    package = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in package
    assert citation["license"] == "MIT"
    assert citation["references"][0]["title"] == "Transformers learn in-context by gradient descent"
