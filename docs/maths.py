"""Typesets formulas when the site is built: LaTeX between dollar signs becomes MathML.

Browsers draw MathML themselves, so that pages need neither a script nor a font. The extension
pymdownx.arithmatex finds the formulas.
"""

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>',
    re.S,
)
"""A formula as the extension marks it: inline in a span, displayed in a div."""


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert the formulas of a page."""
    return FORMULA.sub(_converted, content)


def _converted(match: re.Match[str]) -> str:
    kind, latex = match.groups()
    shown = "block" if kind == "div" else "inline"
    latex = " ".join(html.unescape(latex).split())
    return convert(latex, display=shown).replace(
        "<math ", f'<math alttext="{html.escape(latex)}" ', 1
    )
