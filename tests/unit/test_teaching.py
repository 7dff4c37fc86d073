"""Exercises: each check refuses the student edition's stub and wrong answers, and passes with the solution put in."""

from __future__ import annotations

import ast
import builtins
import dataclasses
from pathlib import Path

import nbformat
import numpy as np
import pytest

from routebook import runs, teaching
from routebook.deferral import DeferralCurve
from routebook.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = {name: nbformat.read(ROOT / chapter.notebook, 4) for name, chapter in runs.chapters(ROOT).items()}
EXERCISES = {(name, e.label): e for name, notebook in CHAPTERS.items() for e in teaching.exercises(notebook)}
every_exercise = pytest.mark.parametrize(("chapter", "label"), list(EXERCISES))


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The student edition of every notebook that has exercises, as written to a folder."""
    out = tmp_path_factory.mktemp("student") / "edition"
    written = teaching.write_student_edition(ROOT, out)
    return {path.stem: nbformat.read(path, 4) for path in written}


def _cells(edition, chapter, label):
    """Sources of the student edition's context, stub and check of an exercise."""
    place = [name for at, name in EXERCISES if at == chapter].index(label)
    stubs, checks = (
        [cell.source for cell in edition.cells if teaching.is_tagged(cell, tag)]
        for tag in (teaching.SOLUTION, teaching.CHECK)
    )
    return teaching.context(edition), stubs[place], checks[place]


def _run(*sources):
    """Run cells one after the other in a namespace of their own, as a kernel does, and return it."""
    namespace = {"__name__": "__main__"}
    for source in sources:
        exec(compile(source, "<cell>", "exec"), namespace)
    return namespace


@every_exercise
def test_the_check_refuses_the_stub_by_name_and_passes_with_the_solution(student, chapter, label):
    context, stub, check = _cells(student[chapter], chapter, label)
    exercise = EXERCISES[chapter, label]
    with pytest.raises(
        NotImplementedError, match=f"{exercise.title}.*{', '.join(exercise.wanted)} still to be defined"
    ):
        _run(*context, stub, check)
    done = _run(*context, exercise.solution, check)
    assert exercise.wanted.keys() <= done.keys()


@every_exercise
def test_the_check_refuses_a_wrong_answer_and_says_why(student, chapter, label):
    context, _, check = _cells(student[chapter], chapter, label)
    exercise = EXERCISES[chapter, label]
    for name in exercise.wanted:
        done = _run(*context, exercise.solution)
        done[name] = _spoiled(done[name])
        with pytest.raises(AssertionError) as refused:
            exec(compile(check, "<cell>", "exec"), done)
        assert str(refused.value), f"{label} refuses a wrong {name} without a word"


def _spoiled(value):
    """Return a wrong answer of the same kind: another number, an array or a list with one entry changed."""
    if isinstance(value, DeferralCurve):
        return dataclasses.replace(value, quality=_spoiled(value.quality))
    if isinstance(value, str):
        return "general-5k" if value != "general-5k" else "general-12k"
    if isinstance(value, list | np.ndarray) and np.ndim(value):
        changed = value.copy()
        changed[0] = _spoiled(changed[0])
        return changed
    return -1.0 if np.isinf(value) else value + 1


@every_exercise
def test_an_exercise_asks_for_what_its_solution_defines_and_its_check_reads(chapter, label):
    exercise = EXERCISES[chapter, label]
    given = set().union(*(_names(source, ast.Store) for source in teaching.context(CHAPTERS[chapter])))
    defined = _names(exercise.solution, ast.Store)
    read = _names(exercise.check, ast.Load)
    assert set(exercise.wanted) <= defined, "the solution leaves something out that the exercise asks for"
    assert set(exercise.wanted) <= read, "the check does not look at everything the exercise asks for"
    unasked = read - given - set(exercise.wanted) - _names(exercise.check, ast.Store) - set(dir(builtins))
    assert not unasked, f"the check reads {unasked}, which a student is not asked for"


def _names(source, use):
    """Names that a cell uses in one way; what it imports counts as stored."""
    nodes = list(ast.walk(ast.parse(source)))
    found = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, use)}
    imports = [a for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for a in node.names]
    return found | {(a.asname or a.name).split(".")[0] for a in imports if use is ast.Store}


def test_every_notebook_has_exercises_and_none_is_left_in_another_form():
    assert {chapter for chapter, _ in EXERCISES} == set(CHAPTERS)
    assert len({label for _, label in EXERCISES}) == len(EXERCISES)
    for name, notebook in CHAPTERS.items():
        prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        assert not any("{admonition} Exercise" in text for text in prose), (
            f"{name}: see CONTRIBUTING, Write an exercise"
        )


def test_the_student_edition_holds_no_solution_and_all_the_rest(student):
    for name, edition in student.items():
        text = "\n".join(cell.source for cell in edition.cells)
        for exercise in teaching.exercises(CHAPTERS[name]):
            assert exercise.solution not in text
            assert exercise.check in text
            assert f"### Exercise: {exercise.title}" in text
        assert "{solution" not in text
        kept = [c.source for c in CHAPTERS[name].cells if c.cell_type == "code" and not c.metadata.get("tags")]
        assert all(source in text for source in kept)
        assert not any(teaching.is_tagged(cell, teaching.CHAPTER_DATA) for cell in edition.cells)
        nbformat.validate(edition)


def _notebook(*cells):
    """A notebook of markdown texts and (source, tag) pairs."""
    made = []
    for cell in cells:
        if isinstance(cell, str):
            made.append(nbformat.v4.new_markdown_cell(cell))
        else:
            made.append(nbformat.v4.new_code_cell(cell[0], metadata={"tags": [cell[1]]}))
    return nbformat.v4.new_notebook(cells=made)


STATED = ":::{exercise} Sum\n:label: ex-sum\n\nAdd.\n\nDefine:\n\n- `total`: the sum of $a$ and $b$\n:::"
START = ":::{solution-start} ex-sum\n:label: solution-sum\n:class: dropdown\n:::\n\nPlus."
END = "After.\n\n:::{solution-end}\n:::\n\nNext."
CONTEXT, SOLVED, CHECKED = (
    ("a, b = 1, 2", "exercise-context"),
    ("total = a + b", "solution"),
    ("assert total == 3, 'no'", "check"),
)


def test_a_small_notebook_is_read_and_rewritten():
    notebook = _notebook(CONTEXT, STATED, START, SOLVED, ("total / a", "chapter-data"), CHECKED, END)
    (exercise,) = teaching.exercises(notebook)
    assert (exercise.label, exercise.title) == ("sum", "Sum")
    assert exercise.wanted == {"total": "the sum of $a$ and $b$"}
    edition = teaching.student_edition(notebook)
    assert [cell.source for cell in edition.cells] == [
        "a, b = 1, 2",
        "### Exercise: Sum\n\nAdd.\n\nDefine:\n\n- `total`: the sum of $a$ and $b$",
        "# Put your solution in place of each `...`, then run the check below.\ntotal = ...  # the sum of a and b",
        "from routebook import teaching\n\nteaching.expect_defined('Sum', total=total)\nassert total == 3, 'no'",
        "Next.",
    ]
    assert notebook.cells[3].source == "total = a + b"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ((CONTEXT, STATED, START, CHECKED, END), "found 0 code cells tagged 'solution'"),
        ((CONTEXT, STATED, START, SOLVED, END), "found 0 code cells tagged 'check'"),
        ((CONTEXT, STATED, START, SOLVED, CHECKED, CHECKED, END), "found 2 code cells tagged 'check'"),
        ((STATED, START, SOLVED, CHECKED, END), "no code cell tagged 'exercise-context'"),
        ((CONTEXT, STATED.replace("- `total`", "- total"), START, SOLVED, CHECKED, END), "says what to define"),
        ((CONTEXT, STATED, SOLVED, CHECKED), "without a whole solution: sum"),
        ((CONTEXT, STATED, START, SOLVED, CHECKED), "the last one has no end"),
        ((CONTEXT, START, SOLVED, CHECKED, END), "follows no exercise of its own"),
        ((CONTEXT, STATED.replace(":label:", ":name:"), START, SOLVED, CHECKED, END), "not written as asked"),
    ],
)
def test_markup_that_is_not_as_asked_is_refused(cells, message):
    with pytest.raises(UserError, match=message):
        teaching.exercises(_notebook(*cells))


def test_a_value_still_to_be_defined_is_named():
    teaching.expect_defined("Sum", total=3)
    with pytest.raises(NotImplementedError, match="exercise 'Sum': b still to be defined"):
        teaching.expect_defined("Sum", a=None, b=...)


def test_a_notebook_without_exercises_has_no_student_edition(tmp_path):
    from toy_project import make_project

    root = make_project(tmp_path / "toy")
    with pytest.raises(UserError, match="toy has no exercises"):
        teaching.write_student_edition(root, tmp_path / "out", ["toy"])
    assert not (tmp_path / "out").exists()
