"""A project of one tiny chapter, made in a temporary folder, and the `routebook` command run inside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat

import routebook

SHARED = Path(routebook.__file__).resolve().parents[1]

PARAMS = '''
from typing import ClassVar, Literal

from routebook.parameters import ChapterParams, parameter


class ToyParams(ChapterParams):
    """Parameters of the toy chapter."""

    CHAPTER: ClassVar[str] = "toy"
    DATASETS: ClassVar[tuple[str, ...]] = ("routerbench", "simulated")

    dataset: Literal["auto", "routerbench", "simulated"] = parameter("simulated", "benchmark to look at")
    n: int = parameter(3, "how many draws", paper=300, ge=1, le=1000)
    seed: int = parameter(0, "seed", ge=0)
    sleep: float = parameter(0.0, "seconds to wait", ge=0.0)
    fail: Literal["", "raise", "die", "record nothing"] = parameter("", "how to go wrong")
'''
METHOD = '''
import numpy as np


def draw(n, seed):
    """Return n numbers."""
    return np.random.default_rng(seed).random(n)
'''
PARAMETERS_CELL = 'dataset = "simulated"\nn = 3  # how many draws\nseed = 0\nsleep = 0.0\nfail = ""'
VALIDATION_CELL = "from replications.toy.params import ToyParams\n\nparams = ToyParams.from_notebook(globals())"
WORK_CELL = """
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from replications.toy.method import draw
from routebook import load, runs
from routebook.record import Record

record = Record()
if started := os.environ.get("TOY_STARTED"):
    Path(started).write_text(str(os.getpid()))
time.sleep(params.sleep)
if params.fail == "raise":
    raise RuntimeError("the toy broke")
if params.fail == "die":
    os._exit(9)
"""
RECORD_CELL = """
if params.fail != "record nothing":
    name = runs.resolve_dataset(params)
    benchmark = record.use(load(name, **({"n_prompts": 50} if name == "simulated" else {})))
    numbers = draw(params.n, params.seed)
    record.value("mean", np.mean(numbers), low=numbers.min(), high=numbers.max(), n=np.int64(params.n), unit="share")
    record.value("never", np.inf)
"""
TABLE_CELL = 'record.table("numbers", pd.DataFrame({"draw": numbers, "of": "toy"}))'
FIGURE_CELL = 'plot, axes = plt.subplots()\naxes.plot(numbers)\nrecord.figure("numbers", plot)'

CONFIG = 'title: Toy\nonly_build_toc_files: true\nexecute:\n  execute_notebooks: "off"\n'
TOC = "format: jb-book\nroot: book/intro\nchapters:\n  - file: replications/toy/toy\n"


def notebook(parameters: str = PARAMETERS_CELL) -> nbformat.NotebookNode:
    """The toy chapter: every kind of cell that a real one has."""
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# The toy chapter")]
    cells += [v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [v4.new_code_cell(text) for text in (VALIDATION_CELL, WORK_CELL, RECORD_CELL, TABLE_CELL, FIGURE_CELL)]
    for place, cell in enumerate(cells):
        cell.id = f"toy-{place}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def make_project(root: Path) -> Path:
    """Write the project's files below `root` and return it."""
    files = {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "requirements.lock": "toy==1\n",
        "book/intro.md": "# Toy\n\nHello.\n",
        "book/_static/toy.css": "",
        "replications/__init__.py": "",
        "replications/toy/__init__.py": "",
        "replications/toy/params.py": PARAMS,
        "replications/toy/method.py": METHOD,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    nbformat.write(notebook(), root / "replications/toy/toy.ipynb")
    return root


def environment(root: Path, **more: str) -> dict[str, str]:
    """The environment in which `replications` is the toy's and `routebook` the one under test."""
    left_out = ("ROUTEBOOK_DATA", "ROUTEBOOK_QUIET", "ROUTEBOOK_OUT", "ROUTEBOOK_ALLOW_MODIFIED")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    paths = os.pathsep.join([str(root), str(SHARED)])
    return {**kept, "PYTHONPATH": paths, "ROUTEBOOK_CACHE": str(root / "cache"), **more}


def start(root: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `routebook WORDS` in the project and return the process."""
    return subprocess.Popen(
        [sys.executable, "-m", "routebook", *words],
        cwd=root,
        env={**environment(root), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a script ignores Ctrl-C, and so would its children; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def call(root: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `routebook WORDS` in the project and return what it printed and its exit code."""
    process = start(root, *words, env=env)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def files_below(folder: Path) -> set[str]:
    """Names of all files below a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
