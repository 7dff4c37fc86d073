"""Which source files a notebook depends on, and a digest of them that ignores comments and layout.

Jupyter Book's own cache knows neither imported code nor data (see CONTRIBUTING, "Why build executes by itself"), so
the book asks this module which files a notebook can be affected by.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGES = ("routebook", "replications", "book")


def notebook_code(path: Path) -> list[str]:
    """Return the sources of a notebook's code cells; prose and cell metadata do not count."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def notebook_modules(path: Path, root: Path) -> set[str]:
    """Return every module of ours that a notebook's code imports, directly or not."""
    found: set[str] = set()
    for code in notebook_code(path):
        found |= _existing(imported(parsed_cell(code), package=""), root)
    return closure(found, root)


def closure(modules: Iterable[str], root: Path) -> set[str]:
    """Return the modules and everything of ours that they import, directly or not, at top level or inside functions."""
    waiting, reached = set(modules), set()
    while waiting:
        module = waiting.pop()
        path = module_path(module, root)
        if path is None or module in reached:
            continue
        reached.add(module)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting |= _existing(_imported(path, path.stat().st_mtime_ns, package), root) - reached
    return reached


@cache
def _imported(path: Path, modified: int, package: str) -> frozenset[str]:
    return frozenset(imported(_parsed(path, modified), package))


def imported(tree: ast.AST, package: str) -> set[str]:
    """Return the names in a syntax tree's imports that modules of ours could have."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(filter(None, [*parts, base]))
            found.add(base)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def _existing(names: Iterable[str], root: Path) -> set[str]:
    return {name for name in names if module_path(name, root)}


def module_path(module: str, root: Path) -> Path | None:
    """Return the file of a module of ours, or None where the name is no module."""
    base = root / ("shared" if module.split(".")[0] == "routebook" else "") / Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def code_digest(modules: Iterable[str], root: Path) -> str:
    """Return a hash of the modules' syntax trees: comments and layout leave it as it is, code and docstrings do not."""
    h = hashlib.sha256()
    for module in sorted(modules):
        path = module_path(module, root)
        if path is not None:
            h.update(f"{module}\0{_dumped(path, path.stat().st_mtime_ns)}\0".encode())
    return h.hexdigest()


@cache
def _parsed(path: Path, modified: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _dumped(path: Path, modified: int) -> str:
    return ast.dump(_parsed(path, modified))


def parsed_cell(code: str) -> ast.Module:
    """Return the syntax tree of a notebook cell; of one that is no plain Python, the lines that are."""
    with contextlib.suppress(SyntaxError):
        return ast.parse(code)
    with contextlib.suppress(SyntaxError):
        return ast.parse(_without_magics(code))
    found = ast.Module(body=[], type_ignores=[])
    for line in code.splitlines():
        with contextlib.suppress(SyntaxError):
            found.body += ast.parse(line.strip()).body
    return found


def _without_magics(code: str) -> str:
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.M)
