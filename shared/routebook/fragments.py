"""Pieces of pages that are made from runs and ledgers at build time, so that no number in the prose is typed."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

import routebook
from routebook import ledger, record, scorecard, teaching

if TYPE_CHECKING:
    from routebook.site import Built

# Technical prose is read slowly; a formula, a figure or a table takes a look of its own.
WORDS_A_MINUTE, LOOKS_A_MINUTE = 150, 2
_BOX = re.compile(r"^(:::\{admonition\} On this page\n.*?)\n:::$", re.M | re.S)
_FORMULA = re.compile(r"\$\$.*?\$\$", re.S)

# Commands shown on the page "Rerunning", with what they print.
SHOWN_COMMANDS = {
    "list": ["list"],
    "params": ["params", "uniroute"],
    "wrong-type": ["run", "uniroute", "-p", "n_trials=many"],
    "wrong-name": ["run", "uniroute", "-p", "n_cluster=4"],
    "wrong-range": ["run", "uniroute", "-p", "n_clusters=0"],
}

# The pages of the API reference, and the modules on each; what is named on none stands on the last one.
API = {
    "data": ("benchmark", "own_data", "datasets", "datasets.*", "encoders", "text_encoder", "language_models"),
    "routing": ("routers", "protocol", "contrastive", "deferral", "metrics"),
    "evidence": ("significance", "ledger", "scorecard", "record", "figures"),
    "building": (),
}


def make_all(root: Path, built: Sequence[Built]) -> dict[str, str]:
    """Return every generated file of the book: its path in the book's source, and its text."""
    ledgers = ledger.discover(root)
    evaluated = ledger.evaluate_all(ledgers, results_of(built, [entry.paper for entry in ledgers]))
    chapters = {b.chapter.paper: _address(b) for b in built if b.chapter.name == b.chapter.paper}
    pages = {
        "scoreboard": scorecard.scoreboard(evaluated),
        "scorecard": scorecard.scorecard(evaluated, chapters),
        "errata": scorecard.errata(evaluated),
        "open-questions": scorecard.open_questions(open_tables(built, {e.paper: e.title for e in ledgers})),
        "statistics": statistics(built),
        "data-used": data_used(built),
        "times": times(built),
    }
    pages |= {f"command-{name}": command_output(root, words) for name, words in SHOWN_COMMANDS.items()}
    pages |= {f"api-{name}": api_page(modules) for name, modules in api_modules().items()}
    downloads = {"ledger.json": scorecard.as_json(evaluated), "claims.csv": scorecard.as_csv(evaluated)}
    return {f"_generated/{name}.md": text for name, text in pages.items()} | {
        f"_static/{name}": text for name, text in downloads.items()
    }


def open_tables(built: Sequence[Built], titles: Mapping[str, str]) -> dict[str, tuple[str, Path]]:
    """Return, by title of its paper, each page that tells what the paper leaves open, with the folder of its run."""
    telling = [b for b in built if b.chapter.paper in titles and scorecard.open_file(b.folder).is_file()]
    return {titles[b.chapter.paper]: (_address(b), b.folder) for b in telling}


def _address(built: Built) -> str:
    """Return the address of a notebook's page, seen from a page of the folder `book`."""
    return f"../{built.chapter.notebook.with_suffix('.html').as_posix()}"


def results_of(built: Sequence[Built], papers: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the recorded results of the chapters on these papers, all their pages together, by paper."""
    found: dict[str, list[dict[str, Any]]] = {}
    for b in built:
        if b.chapter.paper in papers:
            found.setdefault(b.chapter.paper, []).extend(record.read_results(b.folder / "results.json"))
    return found


def api_modules() -> dict[str, list[str]]:
    """Return the modules of the package by the page of the API reference that they stand on, each on one page."""
    found = [module.name for module in pkgutil.walk_packages(routebook.__path__, "routebook.")]
    found = [name for name in found if not name.endswith("__main__")]
    pages: dict[str, list[str]] = {page: [] for page in API}
    for name in found:
        short = name.removeprefix("routebook.")
        homes = [page for page, patterns in API.items() if any(fnmatch(short, pattern) for pattern in patterns)]
        pages[homes[0] if homes else list(API)[-1]].append(name)
    return pages


def api_page(modules: Sequence[str]) -> str:
    """Return the reference of some modules, which Sphinx makes from their docstrings."""
    parts = [f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in modules]
    return "\n".join(parts)


def statistics(built: Sequence[Built]) -> str:
    """Return the table of execution statistics."""
    rows = ["| notebook | dataset | origin | profile | date (UTC) | seconds | peak memory (MiB) | digest |"]
    rows += ["| --- | --- | --- | --- | --- | ---: | ---: | --- |"]
    for b in built:
        link = f"[{b.chapter.title}](/{b.chapter.notebook.as_posix()})"
        rows.append(
            f"| {link} | {b.run['dataset']} | {b.run['origin']} | {b.run['profile']} | "
            f"{b.run['date'][:16].replace('T', ' ')} | {b.run['seconds']:.0f} | {b.run['peak_memory_mib']} | "
            f"`{b.run['digest']}` |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in built[0].run["packages"].items())
    commit = built[0].run["git_commit"]
    table = [":::{container} scroll", *rows, ":::"]
    return "\n".join([*table, "", f"Python {built[0].run['python']}; {versions}.", "", f"Commit: `{commit}`.", ""])


def data_used(built: Sequence[Built]) -> str:
    """Return one line a paper: which data this copy of the book was built with."""
    lines = [f"- {b.chapter.title}: {describe_data(b.run)}." for b in built if b.chapter.paper]
    return "\n".join(lines) + "\n"


def describe_data(run: dict[str, Any]) -> str:
    """Say in a few words which data a run used."""
    if run["dataset"] == "all":
        return "every dataset present"
    return _describe(_data_of(run), run["absent"])


def _data_of(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the origin and name of each dataset a run used."""
    from routebook.datasets.cards import read_card

    return [(run["origin"] or read_card(name).origin, name) for name in run["dataset"].split(", ")]


def _describe(used: Sequence[tuple[str, str]], absent: Sequence[str]) -> str:
    """Say which datasets were used, each named with its origin, and what of them was absent."""
    from routebook.site import ORIGIN_WORDS

    tiers: dict[str, list[str]] = {}
    for origin, name in dict.fromkeys(used):
        tiers.setdefault(origin, []).append(name)
    words = " and ".join(f"**{', '.join(names)}** ({ORIGIN_WORDS[origin]})" for origin, names in tiers.items())
    return words + (f"; not present of it: {', '.join(absent)}" if absent else "")


def reading_minutes(texts: Sequence[str], looks: int = 0) -> int:
    """Estimate how many minutes a page takes to read.

    Parameters
    ----------
    texts
        Its prose.
    looks
        Figures and tables in it; displayed formulas are counted here.
    """
    prose = "\n".join(texts)
    words = len(_FORMULA.sub("", prose).split())
    looks += len(_FORMULA.findall(prose))
    return max(1, round(words / WORDS_A_MINUTE + looks / LOOKS_A_MINUTE))


def notebook_minutes(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> int:
    """Estimate how many minutes a notebook takes to read: its source's prose, and what its run shows."""
    prose = [cell.source for cell in source.cells if cell.cell_type == "markdown"]
    shown = [out for cell in executed.cells for out in cell.get("outputs", []) if _is_seen(out.get("data", {}))]
    return reading_minutes(prose, len(shown))


def _is_seen(data: dict[str, Any]) -> bool:
    return any(kind.startswith("image/") or kind == "text/html" for kind in data)


def with_time(page: str, minutes: int, run: dict[str, Any] | None = None) -> str:
    """Return a page's text with the time it takes at the end of its box "On this page", where it has one."""
    words = f"**Time**: {_count(minutes, 'minute')} to read"
    if run is not None:
        words += f"; the run behind it took {_duration(run['seconds'])} ({run['profile']} profile)"
    return _BOX.sub(lambda box: f"{box[1]}\n\n{words}.\n:::", page, count=1)


def _duration(seconds: float) -> str:
    return _count(round(seconds), "second") if seconds < 90 else _count(round(seconds / 60), "minute")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def times(built: Sequence[Built]) -> str:
    """Return the table of what each notebook takes: to read, to run, to solve."""
    rows = ["| page | minutes to read | exercises | its last run |", "| --- | ---: | ---: | ---: |"]
    for b in built:
        source = nbformat.read(b.chapter.root / b.chapter.notebook, 4)
        minutes = notebook_minutes(source, nbformat.read(b.folder / "notebook.ipynb", 4))
        link = f"[{b.chapter.title}](/{b.chapter.notebook.as_posix()})"
        rows.append(f"| {link} | {minutes} | {len(teaching.exercises(source))} | {_duration(b.run['seconds'])} |")
    return "\n".join(rows) + "\n"


def notice(run: dict[str, Any]) -> str:
    """Return the box under a chapter's title that says what its numbers were computed on."""
    if run["dataset"] == "all":
        return "*This page describes the datasets that were present when the book was built.*"
    # On a paper's chapter other than real data is a warning; a page about made data is about just that.
    kind = "note" if run["origin"] == "real" or run["chapter"] == run["dataset"] else "warning"
    return f":::{{{kind}}}\nNumbers on this page: {describe_data(run)}. Profile: {run['profile']}.\n:::"


def notebook_footer(run: dict[str, Any]) -> str:
    """Return what every computed page ends with: dataset, origin, parameters, digest, date, seconds."""
    parameters = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in run["parameters"].items()) or "none"
    return (
        "---\n\n"
        f"Dataset: {describe_data(run)} · parameters: {parameters} · digest: `{run['digest']}` · "
        f"run on {run['date'][:10]} in {run['seconds']:.0f} s."
    )


def prose_footer(built: Sequence[Built]) -> str:
    """Return what every page of prose ends with: which data the book's chapters were run on, all together."""
    runs = [b.run for b in built if b.chapter.paper]
    absent = dict.fromkeys(name for run in runs for name in run["absent"])
    used = _describe([pair for run in runs for pair in _data_of(run)], list(absent))
    return f"---\n\nThis copy of the book was computed on {used}. {{ref}}`data-used` lists it page by page.\n"


def command_output(root: Path, words: Sequence[str]) -> str:
    """Run a routebook command and return it with what it printed, as a console block."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "routebook", *words], capture_output=True, text=True, cwd=root, env=environment
    )
    printed = (done.stdout + done.stderr).rstrip().replace(str(root), ".")
    ending = f"\n$ echo $?\n{done.returncode}" if done.returncode else ""
    return f"```console\n$ routebook {' '.join(words)}\n{printed}{ending}\n```\n"
