"""A notebook's digest changes with what can affect it, and with nothing else."""

from __future__ import annotations

import json

import pytest

from routebook import runs, sources


@pytest.fixture
def project(tmp_path):
    files = {
        "shared/routebook/__init__.py": "",
        "shared/routebook/used.py": "from routebook import deep\n\ndef f():\n    return 1\n",
        "shared/routebook/deep.py": "X = 1\n",
        "shared/routebook/lazy.py": "Y = 1\n",
        "shared/routebook/unused.py": "Z = 1\n",
        "replications/__init__.py": "",
        "replications/toy/__init__.py": "",
        "replications/toy/method.py": "def g():\n    from routebook.lazy import Y\n    return Y\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    cells = [
        {"cell_type": "markdown", "source": ["# Toy"], "metadata": {}},
        {"cell_type": "code", "source": ["%config X\n", "from routebook import used\n"], "metadata": {}},
        {"cell_type": "code", "source": ["from replications.toy.method import g"], "metadata": {"tags": ["a"]}},
    ]
    (tmp_path / "toy.ipynb").write_text(json.dumps({"cells": cells}))
    return tmp_path


def test_closure_follows_imports_at_the_top_and_inside_functions(project):
    modules = sources.notebook_modules(project / "toy.ipynb", project)
    assert modules == {
        "routebook",
        "routebook.used",
        "routebook.deep",
        "routebook.lazy",
        "replications.toy.method",
    }


def _digest(project):
    return sources.code_digest(sources.notebook_modules(project / "toy.ipynb", project), project)


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("shared/routebook/deep.py", "X = 2\n", True),
        ("shared/routebook/lazy.py", "Y = 2\n", True),
        ("shared/routebook/deep.py", "# why\nX  =  1\n", False),
        ("shared/routebook/unused.py", "Z = 2\n", False),
    ],
)
def test_code_digest(project, file, text, changes):
    before = _digest(project)
    (project / file).write_text(text)
    assert (_digest(project) != before) is changes


def test_prose_and_tags_are_not_code(project):
    before = sources.notebook_code(project / "toy.ipynb")
    notebook = json.loads((project / "toy.ipynb").read_text())
    notebook["cells"][0]["source"] = ["# Another title"]
    notebook["cells"][2]["metadata"] = {"tags": ["hide-input"]}
    (project / "toy.ipynb").write_text(json.dumps(notebook))
    assert sources.notebook_code(project / "toy.ipynb") == before


def test_the_uniroute_digest_changes_with_parameters_and_data_and_knows_its_modules(root):
    chapter = runs.chapter("uniroute", root)
    modules = sources.notebook_modules(root / chapter.notebook, root)
    needed = {"routebook.deferral", "routebook.routers", "routebook.encoders", "replications.uniroute.learned_map"}
    assert needed <= modules
    assert "routebook.cli" not in modules
    assert "routebook.site" not in modules
    quick = chapter.params.build({})
    digest = runs.digest_of(chapter, quick, ["simulated"], "a")
    assert digest == runs.digest_of(chapter, chapter.params.build({}), ["simulated"], "a")
    assert digest != runs.digest_of(chapter, chapter.params.build({"n_trials": 4}), ["simulated"], "a")
    assert digest != runs.digest_of(chapter, quick, ["simulated"], "b")
    assert digest != runs.digest_of(chapter, quick, ["routerbench"], "a")
