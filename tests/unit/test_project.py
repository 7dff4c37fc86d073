"""The files that describe the project must agree with one another."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def pyproject(root):
    return tomllib.loads((root / "pyproject.toml").read_text())


def _pins(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.lower().replace("_", "-").split("==") for line in lines)


@pytest.fixture(scope="module")
def pins(root):
    return _pins(root / "requirements.lock")


@pytest.fixture(scope="module")
def tracked(root):
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in listed.splitlines()]


def _check_pinned(wanted, pins):
    for text in wanted:
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        assert name in pins, f"{name} is not pinned: run make lock"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{name}=={pins[name]} is outside {text}"


def test_every_requirement_is_pinned_inside_its_range(pyproject, pins):
    project = pyproject["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"] + pyproject["build-system"]["requires"]
    _check_pinned(wanted, pins)


def test_the_scorer_is_pinned_apart_since_what_it_requires_is_not_wanted(root, pyproject, pins):
    scorer = _pins(root / "requirements-scorer.lock")
    _check_pinned(pyproject["dependency-groups"]["scorer"], scorer)
    assert len(scorer) == len(pyproject["dependency-groups"]["scorer"])
    assert not set(scorer) & set(pins)


def test_jupyter_book_stays_on_1x_and_torch_is_pinned(pins):
    assert pins["jupyter-book"].startswith("1.")
    assert pins["torch"] == "2.13.0"


def test_environment_yml_installs_from_the_lock(root):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert "python=3.11" in environment["dependencies"]
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == ["-r requirements.lock", "-e ."]


def test_make_installs_from_the_lock(root):
    makefile = (root / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    assert len(installs) == 3
    assert "-r requirements.lock" in installs[0]
    assert "--no-deps -r requirements-scorer.lock" in installs[1]
    assert "--no-deps" in installs[2]


def test_pre_commit_runs_the_pinned_tools(root, pins):
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"]
    tools = {"ruff-pre-commit": "ruff", "nbstripout": "nbstripout", "codespell": "codespell"}
    assert {hook["repo"].split("/")[-1] for hook in hooks} == set(tools)
    for hook in hooks:
        assert hook["rev"].lstrip("v") == pins[tools[hook["repo"].split("/")[-1]]]


def test_ci_calls_the_test_command_of_the_readme(root):
    assert "make test" in (root / "README.md").read_text()
    assert (root / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    assert "bash .ci/run" in (root / ".github" / "workflows" / "test.yml").read_text()


def test_versions_agree(root, pyproject):
    version = pyproject["project"]["version"]
    assert f"version: {version}" in (root / "CITATION.cff").read_text()
    assert f"[{version}]" in (root / "CHANGELOG.md").read_text()


def test_every_page_of_the_contents_exists_and_every_page_is_in_the_contents(root):
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    listed = {toc["root"]} | {page["file"] for c in chapters for page in (c, *c.get("sections", ()))}
    patterns = ("book/*.md", "book/api/*.md", "book/*.ipynb", "replications/*/*.ipynb")
    pages = [p for pattern in patterns for p in root.glob(pattern)]
    assert listed == {p.relative_to(root).with_suffix("").as_posix() for p in pages}


def test_notebooks_hold_no_outputs_and_name_the_language(tracked):
    notebooks = [p for p in tracked if p.suffix == ".ipynb"]
    assert notebooks
    for path in notebooks:
        notebook = json.loads(path.read_text())
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert not any(cell["outputs"] or cell["execution_count"] for cell in code), path
        assert notebook["metadata"]["kernelspec"]["language"] == "python", path


def _is_the_readers_router(path, cell):
    """The one cell of the book that may define something: a router in ten lines is what its page is about."""
    return (path.name, cell["id"]) == ("your-router.ipynb", "your-router")


def test_the_readers_router_has_ten_lines(root):
    cells = json.loads((root / "book/your-router.ipynb").read_text())["cells"]
    (cell,) = [cell for cell in cells if cell["id"] == "your-router"]
    lines = [line for line in "".join(cell["source"]).splitlines() if line.strip()]
    assert len(lines) == 10
    assert lines[0].startswith("class ")


def test_notebook_cells_are_short_and_figures_are_captioned(tracked):
    for path in (p for p in tracked if p.suffix == ".ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] != "code":
                continue
            assert len(source.splitlines()) <= 25, f"{path}: a code cell is longer than 25 lines"
            if not _is_the_readers_router(path, cell):
                assert not re.search(r"^\s*(def|class) ", source, re.M), f"{path}: functions belong in a module"
            assert "filterwarnings" not in source, f"{path}: a chapter does not silence warnings"
            assert "pip install" not in source, f"{path}: a chapter installs nothing"
            if "record.figure(" in source:
                figure = cell["metadata"]["mystnb"]
                assert figure["figure"]["caption"], path
                assert figure["figure"]["name"].startswith("fig-"), path
                assert figure["image"]["alt"], path


def test_every_notebook_opens_with_what_one_will_learn_and_what_one_needs(tracked):
    for path in (p for p in tracked if p.suffix == ".ipynb"):
        opening = "".join(json.loads(path.read_text())["cells"][0]["source"])
        box = re.search(r"^:::\{admonition\} On this page\n:class: tip\n\n(.*?)\n:::$", opening, re.M | re.S)
        assert box, f"{path}: no box 'On this page' below the title"
        assert re.fullmatch(r"\*\*You will learn\*\* .+\n\n\*\*You need\*\* .+", box[1]), path


def test_notebook_prose_types_no_result(tracked):
    """Numbers with decimals in a chapter's prose come from {glue}, a formula, or the paper."""
    for path in (p for p in tracked if p.suffix == ".ipynb" and "replications" in p.parts):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] != "markdown":
                continue
            text = re.sub(r"\{[\w:]+\}`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|```.*?```", "", "".join(cell["source"]), flags=re.S)
            typed = re.findall(r"(?<![\w.])\d*\.\d{2,}", text)
            allowed = re.findall(r"\d\.\d+ is expected", "".join(cell["source"]))
            assert len(typed) <= len(allowed), f"{path}: typed numbers {typed}"


def test_no_path_of_this_machine_is_in_the_project(tracked, root):
    for path in tracked:
        if path.suffix in {".png", ".parquet", ".npz"}:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert str(root) + "/" not in text, path


def test_tracked_files_are_small(tracked):
    assert all(path.stat().st_size < 5 * 2**20 for path in tracked)
