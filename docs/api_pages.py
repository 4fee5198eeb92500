"""What the API pages have besides docstrings: import paths, constructors, tables of public names.

A hook of mkdocs, which adds the tables, and an extension of griffe, which reads the package for the
documentation without importing it. Griffe knows the constructors of dataclasses, but neither the
decorator `settings` nor named tuples nor exceptions.
"""

import ast
import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

PACKAGE = Path(__file__).parent.parent / "toyicl"
MARKER = "<!-- public names -->"
"""What the table of public names replaces on a page of the API."""
SETTINGS = "toyicl.core.config.settings"
CHECKED = "toyicl.core.config.named_in_errors"
FIELDS = ("toyicl.core.config.static", "dataclasses.field")
"""Functions that declare a field, with its default as an argument."""
TUPLES = ("typing.NamedTuple", "NamedTuple")
KEYWORDS = ("typing.TypedDict", "TypedDict")
MODULE, VARIABLE = "flax.nnx.Module", "flax.nnx.Variable"


@functools.cache
def public_names() -> Mapping[str, str]:
    """The statement that imports each public object, by its full name.

    Public are the names of `toyicl` itself and those that its packages re-export.
    """
    found = {}
    for path in sorted(PACKAGE.glob("*/__init__.py")):
        package = f"toyicl.{path.parent.name}"
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                for one in node.names:
                    found[f"{node.module}.{one.name}"] = f"from {package} import {one.name}"
    for node in ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_NAMES":
            for module, names in ast.literal_eval(node.value).items():
                for name in names:
                    found[f"toyicl.{module}.{name}"] = f"from toyicl import {name}"
    return found


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the table of public names into a page of the API that has a place for it."""
    if MARKER not in markdown:
        return markdown
    package = Path(page.file.src_uri).stem
    wanted = "toyicl." if package == "index" else f"toyicl.{package}."
    rows = [
        f"| [`{_own(name)}`]({name.split('.')[1]}.md#{name}) "
        f"| `{statement.split()[1]}` | {_first_line(name)} |"
        for name, statement in sorted(
            public_names().items(), key=lambda item: _own(item[0]).lower()
        )
        if name.startswith(wanted) and (package != "index" or "from toyicl import" in statement)
    ]
    table = "\n".join(["| Name | Import it from | Purpose |", "|---|---|---|", *rows])
    return markdown.replace(MARKER, table)


def _own(name: str) -> str:
    """The last part of a full name."""
    return name.rpartition(".")[2]


def _first_line(name: str) -> str:
    """The first sentence of the docstring of an object, by its full name, for a cell of a table."""
    body = _parsed(name.rpartition(".")[0]).body
    for node, after in itertools.pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == _own(name):
            return _sentence(ast.get_docstring(node) or "")
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if _own(name) in [getattr(target, "id", "") for target in targets]:
            return _sentence(ast.literal_eval(after.value) if isinstance(after, ast.Expr) else "")
    return ""


def _sentence(docstring: str) -> str:
    first = " ".join(docstring.split("\n\n")[0].split()).partition("; cf.")[0]
    return re.split(r"(?<=[a-z)`])[:.](?= |$)", first)[0].rstrip(".").replace("|", "\\|") + "."


@functools.cache
def _parsed(module: str) -> ast.Module:
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


class Constructors(griffe.Extension):
    """Adds constructors to settings classes, named tuples, typed dictionaries and exceptions.

    Classes and functions get the statement that imports them as well, which the templates show.
    """

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Add them to all classes and functions of a package."""
        names = public_names()
        for found in list(_objects(pkg)):
            if isinstance(found.parent, griffe.Module):
                own = f"from {found.parent.path} import {found.name}"
                place = Path(str(found.filepath)).relative_to(PACKAGE.parent).as_posix()
                extra = {"statement": names.get(found.path, own), "source": place}
                found.extra["toyicl"].update(extra)
            parameters = _parameters(found) if isinstance(found, griffe.Class) else None
            if parameters is not None and "__init__" not in found.members:
                found.set_member("__init__", _constructor(found, parameters))


def _objects(inside: griffe.Module | griffe.Class) -> Iterator[griffe.Class | griffe.Function]:
    for member in inside.members.values():
        if member.is_alias:
            continue
        if isinstance(member, griffe.Class | griffe.Function):
            yield member
        if isinstance(member, griffe.Module | griffe.Class):
            yield from _objects(member)


def _parameters(found: griffe.Class) -> list[griffe.Parameter] | None:
    """The parameters of a constructor; None if it is written out, inherited or known to griffe."""
    ancestors = _ancestors(found)
    bases = {_path(base) for one in ancestors for base in one.bases}
    if any(_path(one.value) in (SETTINGS, CHECKED) for one in found.decorators):
        if any("dataclass" in _path(one.value) for one in found.decorators):
            return None
        return _fields(ancestors, griffe.ParameterKind.keyword_only)
    if bases & set(TUPLES):  # the fields are those of the first class; derived classes inherit them
        first = [one for one in ancestors if set(TUPLES) & set(map(_path, one.bases))]
        return _fields(first, griffe.ParameterKind.positional_or_keyword)
    if bases & set(KEYWORDS):
        return _fields(ancestors, griffe.ParameterKind.keyword_only)
    if any(base.endswith(("Error", "Exception")) for base in bases) and not any(
        "__init__" in one.members for one in ancestors
    ):
        text = griffe.Parameter(
            "message", annotation="str", kind=griffe.ParameterKind.positional_or_keyword
        )
        return [text]
    if bases == {MODULE} and "__init__" not in found.members:
        return []
    if bases == {VARIABLE}:
        return [griffe.Parameter("value", kind=griffe.ParameterKind.positional_or_keyword)]
    written = any("__init__" in one.members or one.decorators for one in ancestors)
    return None if written or bases else []


def _ancestors(found: griffe.Class) -> list[griffe.Class]:
    """A class after the classes of the package that it is derived from."""
    try:
        return [*reversed(found.mro()), found]
    except ValueError:
        return [found]


def _path(value: str | griffe.Expr) -> str:
    """The full name of a base or a decorator, without its arguments."""
    if isinstance(value, griffe.ExprSubscript):
        value = value.left
    return value if isinstance(value, str) else value.canonical_path


def _fields(classes: list[griffe.Class], kind: griffe.ParameterKind) -> list[griffe.Parameter]:
    """A parameter for each annotated attribute, in the order of its first declaration."""
    found: dict[str, griffe.Parameter] = {}
    for one in classes:
        for member in one.members.values():
            if not isinstance(member, griffe.Attribute) or member.annotation is None:
                continue
            if "property" in member.labels or "ClassVar" in str(member.annotation):
                continue
            found[member.name] = griffe.Parameter(
                member.name,
                annotation=member.annotation,
                kind=kind,
                default=_default(member.value),
                docstring=member.docstring,
            )
    return list(found.values())


def _default(value: str | griffe.Expr | None) -> str | griffe.Expr | None:
    """The default of a field, also of one that is declared by a function."""
    if not isinstance(value, griffe.ExprCall) or value.canonical_path not in FIELDS:
        return value
    given = {one.name: one.value for one in value.arguments if isinstance(one, griffe.ExprKeyword)}
    if "default_factory" in given:
        return f"{given['default_factory']}()"
    return given.get("default")


def _constructor(found: griffe.Class, parameters: list[griffe.Parameter]) -> griffe.Function:
    own = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    return griffe.Function(
        "__init__",
        lineno=0,
        endlineno=0,
        parent=found,
        parameters=griffe.Parameters(own, *parameters),
        returns="None",
    )
