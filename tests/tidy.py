"""What can be told of the source by reading it: sizes, imports, circles, names without a use.

Every function takes the root of a checkout and returns what it found, in order; `test_tidy.py`
holds what may be found. Files that are generated are left out.
"""

from __future__ import annotations

import ast
import gc
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

GENERATED = "_pb2.py"
PACKAGE = "keyraft"
FOLDERS = ("src", "sim", "bench", "tests", "tools")
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # the fields that hold statements
OPEN_FOLDERS = frozenset(("base", "proto"))  # of which the modules are imported, by their rule


class Import(NamedTuple):
    """One import: who, of which module, and which name of it ("" for the module itself)."""

    who: str
    module: str
    name: str
    runtime: bool


@cache
def _parsed(path: Path, _changed: int) -> ast.Module:
    gc.disable()  # a tree is millions of objects, none of them garbage
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def parsed(path: Path) -> ast.Module:
    return _parsed(path, path.stat().st_mtime_ns)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every statement, at whatever depth; a tenth of what `ast.walk` goes through."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        for field in BLOCKS:
            below = getattr(node, field, None)
            if isinstance(below, list):
                todo += below


def python_files(root: Path, *folders: str) -> list[Path]:
    found = [path for folder in folders for path in (root / folder).rglob("*.py")]
    return sorted(path for path in found if not path.name.endswith(GENERATED))


def sizes(root: Path) -> dict[str, int]:
    """Lines of each file."""
    return {
        str(path.relative_to(root)): path.read_text().count("\n")
        for path in python_files(root, *FOLDERS)
    }


# --- imports --------------------------------------------------------------------------------------


def modules(root: Path) -> dict[str, Path]:
    """The package's modules by their names; a folder's is its `__init__`."""
    named = {}
    for path in python_files(root, "src"):
        parts = path.relative_to(root / "src").with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports(name: str, path: Path) -> Iterator[Import]:
    """Of one module, those inside functions too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def walk(node: ast.AST, runtime: bool) -> Iterator[Import]:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=orelse):
                for checked in body:
                    yield from walk(checked, False)
                for run in orelse:
                    yield from walk(run, runtime)
                return
            case ast.Import():
                for alias in node.names:
                    yield Import(name, alias.name, "", runtime)
            case ast.ImportFrom():
                module = node.module or ""
                if node.level:
                    above = package.split(".")
                    above = above[: len(above) - node.level + 1]
                    module = ".".join([*above, *filter(None, [node.module])])
                for alias in node.names:
                    yield Import(name, module, alias.name, runtime)
        for field in BLOCKS:  # imports are statements
            below = getattr(node, field, None)
            if isinstance(below, list):
                for child in below:
                    yield from walk(child, runtime)

    return walk(parsed(path), True)


def all_imports(root: Path) -> list[Import]:
    """Of the package's modules, by the module that is really meant."""
    named = modules(root)
    found = []
    for name, path in named.items():
        for one in imports(name, path):
            inner = f"{one.module}.{one.name}"
            meant = inner if inner in named else one.module
            if meant in named and meant != name:
                found.append(one._replace(module=meant))
    return found


def circles(root: Path) -> list[list[str]]:
    """Modules that import each other when the program runs, at once or inside functions."""
    edges: dict[str, set[str]] = {}
    for one in all_imports(root):
        if one.runtime:
            edges.setdefault(one.who, set()).add(one.module)
    return strongly_connected(edges)


def strongly_connected(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Tarjan's components of two nodes and more."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        path.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in path:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            component = path[path.index(node) :]
            del path[path.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(edges):
        if node not in number:
            visit(node)
    return found


def reached_past(root: Path) -> dict[str, set[str]]:
    """Modules imported past an `__init__` that offers names, and the folders that do it."""
    named = modules(root)
    past: dict[str, set[str]] = {}
    for one in all_imports(root):
        package = one.module.rpartition(".")[0]
        parts = one.module.split(".")
        if named[one.module].name == "__init__.py" or len(parts) < 3 or parts[1] in OPEN_FOLDERS:
            continue
        if one.who != package and not one.who.startswith(package + ".") and offers(named[package]):
            past.setdefault(one.module, set()).add(one.who.split(".")[1])
    return past


def offers(path: Path) -> bool:
    """Whether an `__init__` has names to import."""
    return any(
        isinstance(node, ast.FunctionDef | ast.Import)
        or (isinstance(node, ast.ImportFrom) and node.module != "__future__")
        for node in statements(parsed(path))
    )


# --- names without a use --------------------------------------------------------------------------


_WORDS = re.compile(r"[.\s\[\]|,()]+")


def unused(root: Path) -> dict[str, str]:
    """Functions, classes, constants and fields of the package that nothing but tests names.

    Name → file. A name counts as used wherever it is read, imported, given as a keyword or stands
    in a string (`getattr`, annotations); `__slots__` and `__all__` do not count. What a decorator
    registers is used.
    """
    uses: Counter[str] = Counter()
    defined: dict[str, str] = {}
    for path in python_files(root, "src", "sim", "bench", "tools"):
        tree = parsed(path)
        for name in read(tree):
            uses[name] += 1
        if path.is_relative_to(root / "src"):
            for name in definitions(tree):
                defined.setdefault(name, str(path.relative_to(root)))
    return {
        name: where
        for name, where in sorted(defined.items(), key=lambda item: (item[1], item[0]))
        if not uses[name] and not (name.startswith("__") and name.endswith("__"))
    }


def read(tree: ast.Module) -> Iterator[str]:
    listed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            if not isinstance(node.ctx, ast.Store):
                yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.Constant):
            text = node.value
            if isinstance(text, str) and len(text) < 2_000 and node not in listed:
                yield from (word for word in _WORDS.split(text) if word.isidentifier())
        elif isinstance(node, ast.keyword):
            if node.arg is not None:
                yield node.arg
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]
        elif isinstance(node, ast.MatchClass):
            yield from node.kwd_attrs
        elif isinstance(node, ast.Assign):
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id in ("__slots__", "__all__"):
                listed.update(ast.walk(node.value))


def definitions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not any(isinstance(decorator, ast.Call) for decorator in node.decorator_list):
                    yield name
            case ast.ClassDef(name=name, body=body):
                yield name
                yield from assigned(body)
            case ast.Module(body=body):
                yield from assigned(body)
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self")):
                yield name


def assigned(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple) else (target,):
                if isinstance(each, ast.Name):
                    yield each.id


# --- statuses -------------------------------------------------------------------------------------

HTTP_STATUSES = frozenset(range(200, 600))
CODES = frozenset(range(1, 17))
REFUSALS = frozenset(("RawError", "RpcError", "CallFailed", "fail", "finish", "_finish"))
ANSWERS = frozenset(("respond", "start", "RefusedError", "http_error", "json_error", "PeerReply"))


def bare_statuses(root: Path) -> list[str]:
    """Statuses of gRPC or HTTP that are written as numbers, with their lines."""
    found = []
    for path in python_files(root, "src"):
        for node in ast.walk(parsed(path)):
            match node:
                case ast.Call(func=func, args=[ast.Constant(value=int(value)), *_]):
                    name = getattr(func, "attr", None) or getattr(func, "id", "")
                    wrong = (name in REFUSALS and value in CODES) or (
                        name in ANSWERS and value in HTTP_STATUSES
                    )
                case ast.Compare(left=left, comparators=[ast.Constant(value=int(value))]):
                    name = str(getattr(left, "attr", None) or getattr(left, "id", ""))
                    wrong = "status" in name and value in HTTP_STATUSES
                case ast.Assign(
                    targets=[ast.Name(id="code")], value=ast.Constant(value=int(value))
                ):
                    wrong = value in CODES
                case _:
                    continue
            if wrong:
                found.append(f"{path.relative_to(root)}:{node.lineno} {ast.unparse(node)[:60]}")
    return found


# --- documents ------------------------------------------------------------------------------------

_QUOTED = re.compile(r"`([^`\s]+)`")
_FILE = re.compile(r"[\w./-]+(\.(py|md|proto|toml|pyi)|/)")
_PLACES = ("", "src/keyraft/", "docs/")


def missing_files(root: Path) -> list[str]:
    """Files, and folders of the checkout, that a document names and nobody finds."""
    tops = tuple(f"{folder}/" for folder in (*FOLDERS, "docs"))
    found = []
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for name in _QUOTED.findall(page.read_text()):
            if not _FILE.fullmatch(name) or name.startswith(("/", ".")):
                continue
            if name.endswith("/") and not name.startswith(tops):
                continue  # of a data directory, or below a folder that the sentence names
            if not any((root / place / name).exists() for place in _PLACES):
                found.append(f"{page.relative_to(root)}: {name}")
    return found


def folders_without_row(root: Path) -> list[str]:
    """Folders of the package that ARCHITECTURE's table of folders leaves out."""
    text = (root / "docs" / "ARCHITECTURE.md").read_text()
    rows = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    folders = (path.parent.name for path in (root / "src" / PACKAGE).glob("*/__init__.py"))
    return sorted(name for name in folders if f"`{name}/`" not in rows)
