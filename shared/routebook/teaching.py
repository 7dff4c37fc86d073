"""Exercises of the notebooks, and their student edition, with stubs where the solutions were.

CONTRIBUTING, "Write an exercise", says what an exercise looks like. Readers of the site find its solution folded below
it; a student edition keeps the exercise's own small data and its check, so that whoever solves it knows when it is
solved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from routebook import runs
from routebook.errors import UserError

CONTEXT, SOLUTION, CHECK, CHAPTER_DATA = "exercise-context", "solution", "check", "chapter-data"

_EXERCISE = re.compile(r"^:::\{exercise\} (?P<title>.+)\n:label: ex-(?P<label>[\w-]+)\n(?P<text>.*?)^:::$", re.M | re.S)
_START = re.compile(r"^:::\{solution-start\} ex-(?P<label>[\w-]+)\n.*?^:::$", re.M | re.S)
_END = re.compile(r"^:::\{solution-end\}\n:::$", re.M)
_WANTED = re.compile(r"^- `(?P<name>\w+)`: (?P<what>.+)$", re.M)
_ANY = re.compile(r"\{(exercise|solution)(-start|-end)?\}")

README = """\
# Student edition

The notebooks of *LLM Routing, Replicated* without the solutions to their exercises.

An exercise needs the cell under the heading "Exercises" and nothing else of its notebook: run that cell, put what you
found in place of each `...`, and run the check below. It stays silent, or prints what you found, when you are right,
and says what is wrong when you are not.

The notebooks need the book's package: install it with `make book` in a checkout, and open them with its Python, in
`.venv`. The solutions stand on the book's pages.

"""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes
    ----------
    label
        What the book refers to it by, without the leading "ex-".
    wanted
        What a solution defines: names, each with a description.
    solution, check
        Sources of the two code cells: the first defines what is wanted, the second asserts that it is right.
    """

    label: str
    title: str
    wanted: dict[str, str]
    solution: str
    check: str

    @property
    def stub(self) -> str:
        """What stands in the student edition where the solution was."""
        lines = [f"{name} = ...  # {what.replace('$', '')}" for name, what in self.wanted.items()]
        return "\n".join(["# Put your solution in place of each `...`, then run the check below.", *lines])

    @property
    def student_check(self) -> str:
        """The check of the student edition: it says what is still to be defined before it looks at anything."""
        names = ", ".join(f"{name}={name}" for name in self.wanted)
        call = f"teaching.expect_defined({self.title!r}, {names})"
        return f"from routebook import teaching\n\n{call}\n{self.check}"


def expect_defined(exercise: str, **values: Any) -> None:
    """Raise NotImplementedError if a value is still the `...` of the student edition's stub.

    Parameters
    ----------
    exercise
        Title of the exercise.
    **values
        What its solution defines, by name.
    """
    missing = [name for name, value in values.items() if value is ...]
    if missing:
        raise NotImplementedError(
            f"exercise {exercise!r}: {', '.join(missing)} still to be defined; put your solution in place of each "
            "`...` in the cell above, run it, and run this cell again"
        )


def context(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the sources of the cells that hold what a notebook's exercises need: imports and small data."""
    return [cell.source for cell in notebook.cells if is_tagged(cell, CONTEXT)]


def exercises(notebook: nbformat.NotebookNode) -> list[Exercise]:
    """Return a notebook's exercises, in order.

    Raises
    ------
    UserError
        When the markup is not as CONTRIBUTING says: an exercise without a list of what to define, or without exactly
        one solution, one cell tagged "solution" and one tagged "check".
    """
    found: list[Exercise] = []
    for label, (text, inside) in _regions(notebook).items():
        stated = _EXERCISE.search(text)
        codes = {tag: [c.source for c in inside if is_tagged(c, tag)] for tag in (SOLUTION, CHECK)}
        for tag, sources in codes.items():
            if len(sources) != 1:
                raise UserError(f"exercise ex-{label}: found {len(sources)} code cells tagged {tag!r}, expected one")
        wanted = {m["name"]: m["what"] for m in _WANTED.finditer(stated["text"])}
        if not wanted:
            raise UserError(f'exercise ex-{label}: no line such as "- `name`: what it is" says what to define')
        found.append(Exercise(label, stated["title"], wanted, codes[SOLUTION][0], codes[CHECK][0]))
    if found and not context(notebook):
        raise UserError(f"exercise ex-{found[0].label}: no code cell tagged {CONTEXT!r} holds what it needs")
    return found


def _regions(notebook: nbformat.NotebookNode) -> dict[str, tuple[str, list[nbformat.NotebookNode]]]:
    """Return the statement of each exercise and the cells from its solution's start to its end, by label."""
    stated: dict[str, str] = {}
    regions: dict[str, tuple[str, list]] = {}
    inside: list | None = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            read = [pattern.search(cell.source) for pattern in (_EXERCISE, _START, _END)]
            if len(_ANY.findall(cell.source)) != sum(found is not None for found in read):
                raise UserError(f"cell {cell.id}: an exercise, a start or an end of a solution is not written as asked")
            statement, start, end = read
            if statement:
                stated[statement["label"]] = cell.source
            if start and (inside is not None or start["label"] not in stated or start["label"] in regions):
                raise UserError(f"cell {cell.id}: the solution to ex-{start['label']} follows no exercise of its own")
            if start:
                inside = []
                regions[start["label"]] = stated[start["label"]], inside
            if end:
                inside = None
        elif inside is not None:
            inside.append(cell)
    unsolved = [label for label in stated if label not in regions]
    if unsolved or inside is not None:
        raise UserError(f"exercises without a whole solution: {', '.join(unsolved) or 'the last one has no end'}")
    return regions


def student_edition(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy of a notebook with a stub in place of each solution, which its check refuses.

    What a solution says, and what it computes on the chapter's own data, is left out.
    """
    edition = nbformat.from_dict(notebook)
    known = {exercise.label: exercise for exercise in exercises(notebook)}
    current: Exercise | None = None
    cells = []
    for cell in notebook.cells:
        cell = nbformat.from_dict(cell)
        start = _START.search(cell.source) if cell.cell_type == "markdown" else None
        end = _END.search(cell.source) if cell.cell_type == "markdown" else None
        if start:
            current = known[start["label"]]
            cell.source = cell.source[: start.start()].strip()
        elif end:
            current = None
            cell.source = cell.source[end.end() :].strip()
        elif current and (is_tagged(cell, SOLUTION) or is_tagged(cell, CHECK)):
            cell.source = current.stub if is_tagged(cell, SOLUTION) else current.student_check
            cell.outputs, cell.execution_count = [], None
        elif current:
            continue
        cell.source = _EXERCISE.sub(_plain_statement, cell.source) if cell.cell_type == "markdown" else cell.source
        cells += [cell] if cell.source else []
    edition.cells = cells
    return edition


def _plain_statement(statement: re.Match) -> str:
    """Write an exercise as Jupyter shows it, which knows no directive."""
    return f"### Exercise: {statement['title']}\n\n{statement['text'].strip()}"


def write_student_edition(root: Path, out: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write the student edition of notebooks into a new folder, whole or not at all.

    Parameters
    ----------
    out
        A folder that is new or empty.
    names
        Chapters, by name; by default every notebook that has exercises.

    Returns
    -------
    list of Path
        The notebooks written, one a chapter, named after it.

    Raises
    ------
    UserError
        For a chapter that does not exist or has no exercise, and a folder that holds files or cannot be written.
    """
    if names is not None and not names:
        raise UserError("--chapters names no chapter, expected names such as uniroute,cscr; leave it out for all")
    chosen = [runs.chapter(name, root) for name in names] if names is not None else list(runs.chapters(root).values())
    editions = {}
    for chapter in chosen:
        notebook = nbformat.read(root / chapter.notebook, 4)
        if exercises(notebook):
            editions[chapter] = student_edition(notebook)
        elif names is not None:
            raise UserError(f"--chapters: {chapter.name} has no exercises, so it has no student edition; leave it out")
    with runs.new_folder(out) as folder:
        for chapter, edition in editions.items():
            nbformat.write(edition, folder / f"{chapter.name}.ipynb")
        listed = "\n".join(f"- `{chapter.name}.ipynb`: {chapter.title}" for chapter in editions)
        (folder / "README.md").write_text(f"{README}{listed}\n", encoding="utf-8")
    return [out / f"{chapter.name}.ipynb" for chapter in editions]


def is_tagged(cell: nbformat.NotebookNode, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])
