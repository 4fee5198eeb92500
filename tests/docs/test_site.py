"""The documentation builds as a site, and agrees with the package about versions and licence."""

import os
import re
import subprocess
import sys

import pages
import yaml
from pages import DOCS, README, ROOT


def nav_pages(entries):
    for entry in entries:
        for value in entry.values():
            yield from nav_pages(value) if isinstance(value, list) else [value]


def test_the_navigation_has_every_page():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    shown = list(nav_pages(settings["nav"]))
    assert len(set(shown)) == len(shown)
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= set(shown)


def remote(link):
    """Whether a <link> loads a style sheet or a font from another host."""
    loaded = re.search(r"rel=[\"']?(stylesheet|preload|preconnect)", link)
    return bool(loaded and re.search(r"href=[\"']?(https?:)?//", link))


def test_a_remote_style_sheet_would_be_found():
    assert remote('<link rel="stylesheet" href="https://fonts.example/css">')
    assert remote('<link href="//fonts.example" rel=preconnect crossorigin>')
    assert not remote('<link rel="stylesheet" href="assets/main.css">')
    assert not remote('<link rel="canonical" href="https://example.org/">')


def test_the_site_builds_without_warnings_and_loads_nothing_from_other_hosts(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": pages.python_path()}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stdout + done.stderr
    built = list(tmp_path.rglob("*.html"))
    assert len(built) > len(list(DOCS.rglob("*.md")))
    for page in built:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(https?:[^\"' >]+)", text)
        loaded += [link for link in re.findall(r"<link[^>]*>", text) if remote(link)]
        assert not loaded, (page.name, loaded)
    shown = (tmp_path / "api" / "algorithms.html").read_text(encoding="utf-8")
    name = "toyicl.algorithms.gradient_descent.GradientDescent"
    assert f'id="{name}"' in shown
    constructor = shown.partition(f'id="{name}"')[2].partition("</div>")[0]
    assert "learning_rate" in constructor
    assert (tmp_path / "figures/von_oswald_2022/fig02_one_step/figure.png").exists()
    assert (tmp_path / "tutorial.ipynb").exists()


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
