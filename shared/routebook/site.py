"""From runs to a site: mirrors the prose beside the executed notebooks and builds it with Jupyter Book.

Jupyter Book executes nothing here. Its cache does not see changes in imported code or data, so notebooks are run by
`routebook.runs` when their digest changed, and this module only puts their outputs under the prose.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from routebook import runs, sources
from routebook.errors import RunFailed, UserError
from routebook.parameters import Profile
from routebook.paths import environment
from routebook.quiet import building
from routebook.teaching import is_tagged
from routebook.threads import PROCESSES_VARIABLE, processes

SITE_STAMP = ".routebook-digest"
ORIGIN_WORDS = {
    "real": "real, published data",
    "made": "made by this project: real answers of tiny models, which say nothing about LLMs at large",
    "simulated": "simulated data: no number here says anything about real LLMs",
}


@dataclass(frozen=True)
class Built:
    """One notebook of a build: its run, and whether it had to be executed."""

    chapter: runs.Chapter
    folder: Path
    run: dict[str, Any]
    executed: bool


def build(
    root: Path,
    profile: Profile = "quick",
    names: Iterable[str] | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = print,
    jobs: int | None = None,
) -> tuple[Path, list[Built]]:
    """Run what changed, then build the site.

    Chapters run side by side, one a process; while one measures time, the others stand still (`routebook.quiet`).

    Parameters
    ----------
    names
        Chapters to run again if they changed; the others keep their latest run, but every notebook needs one.
    fresh
        Run them even if nothing changed.
    say
        Receives one line a step.
    jobs
        Chapters that run at once; by default as many as there are processors.

    Returns
    -------
    tuple of Path and list of Built
        The site's folder, ``_build/html``, and its notebooks.

    Raises
    ------
    RunFailed
        When a notebook raises, or Jupyter Book finds anything to warn about.
    """
    from filelock import FileLock, Timeout

    known = runs.chapters(root)
    for name in names or ():
        runs.chapter(name, root)
    try:
        (root / "_build").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {root / '_build'}: {error.strerror}; make room for that folder") from None
    runs.remove_leftovers(root / "_build")
    try:
        with FileLock(root / "_build" / ".build.lock", timeout=0):
            found = {c.name: _look(c, profile, fresh, names is None or c.name in names, say) for c in known.values()}
            plans = [plan for plan in found.values() if isinstance(plan, runs.Plan)]
            built = _run_all(plans, profile, jobs or processes(), say)
            pages = [built.get(name, page) for name, page in found.items()]
            return _build_site(root, pages, say), pages
    except Timeout:
        raise UserError("another `routebook build` is at work in this checkout; wait for it to end") from None


def _look(
    chapter: runs.Chapter, profile: Profile, fresh: bool, wanted: bool, say: Callable[[str], None]
) -> Built | runs.Plan:
    """Return the run of a chapter that can be kept, or what is to be run."""
    params = chapter.params.build({}, profile)
    plan = runs.plan(chapter, params, check=False)
    if runs.is_complete(plan.out, plan.digest) and not (fresh and wanted):
        return Built(chapter, plan.out, _read_json(plan.out / runs.RUN_FILE), executed=False)
    if not wanted:
        earlier = latest_run(chapter)
        if earlier is not None:
            return Built(chapter, earlier, _read_json(earlier / runs.RUN_FILE), executed=False)
        say(f"{chapter.name}: has no earlier run, so it is run too")
    return runs.plan(chapter, params)


def _run_all(plans: list[runs.Plan], profile: Profile, jobs: int, say: Callable[[str], None]) -> dict[str, Built]:
    """Run what is to be run, and return it by chapter."""
    from joblib import Parallel, delayed

    def tell(plan: runs.Plan) -> runs.Plan:
        say(f"{plan.chapter.name}: running on {plan.dataset} ({plan.params.profile} profile)")
        return plan

    if jobs == 1 or len(plans) < 2:
        done = [runs.execute(tell(plan)) for plan in plans]
    else:
        # What uses most of our code takes longest, and should not be left alone at the end.
        plans = sorted(plans, key=_n_modules, reverse=True)
        calls = (delayed(_run_elsewhere)(tell(plan).chapter.root, plan.chapter.name, profile) for plan in plans)
        jobs = min(jobs, len(plans))
        share = str(max(1, processes() // jobs))
        lock = plans[0].chapter.root / "_build" / ".quiet.lock"
        with building(lock), environment({PROCESSES_VARIABLE: share}):
            done = Parallel(n_jobs=jobs, pre_dispatch="n_jobs", batch_size=1)(calls)
    return {
        plan.chapter.name: Built(plan.chapter, plan.out, run, executed=True)
        for plan, run in zip(plans, done, strict=True)
    }


def _n_modules(plan: runs.Plan) -> int:
    root = plan.chapter.root
    return len(sources.notebook_modules(root / plan.chapter.notebook, root))


def _run_elsewhere(root: Path, name: str, profile: Profile) -> dict[str, Any]:
    """Run a chapter in a worker process, which plans it anew: parameter models are classes it has to import itself.

    The data has been verified for the plans that `build` made.
    """
    chapter = runs.chapter(name, root)
    return runs.execute(runs.plan(chapter, chapter.params.build({}, profile), check=False))


def latest_run(chapter: runs.Chapter) -> Path | None:
    """Return the folder of a chapter's most recent whole run, or None."""
    files = (chapter.root / "_build" / "runs" / chapter.name).glob(f"*/{runs.RUN_FILE}")
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    return newest.parent if newest else None


def _build_site(root: Path, built: list[Built], say: Callable[[str], None]) -> Path:
    source, html = root / "_build" / "book", root / "_build" / "html"
    fresh = runs.partial_path(source)
    try:
        mirror(root, built, fresh)
        # The API reference is made from docstrings.
        digest = _folder_digest(fresh, "*") + _folder_digest(root / "shared" / "routebook", "*.py")
        runs.replace_folder(fresh, source)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if (html / SITE_STAMP).is_file() and (html / SITE_STAMP).read_text() == digest:
        say("site: nothing changed")
        return html
    site = runs.partial_path(root / "_build" / "site")
    say("site: building")
    try:
        _jupyter_book(root, source, site)
        (site / "_build" / "html" / SITE_STAMP).write_text(digest)
        runs.replace_folder(site / "_build" / "html", html)
    finally:
        shutil.rmtree(site, ignore_errors=True)
    return html


def _jupyter_book(root: Path, source: Path, site: Path) -> None:
    log = root / "_build" / "site.log"
    program = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command = [*program, "build", str(source), "--path-output", str(site)]
    command += ["--all", "-W", "--keep-going", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        told = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
        raise RunFailed("\n".join([*told[:20], f"Jupyter Book refused the book; its whole output is in {log}"]))


def mirror(root: Path, built: list[Built], target: Path) -> None:
    """Write the book as Jupyter Book reads it: prose, notebooks with outputs, pages made from ledgers and runs."""
    from routebook import fragments, slides

    target.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, target / name)
    ignore = shutil.ignore_patterns("*.ipynb", "*.py", "__pycache__")
    shutil.copytree(root / "book", target / "book", ignore=ignore)
    shutil.copytree(root / "book" / "_static", target / "_static")
    (target / "_generated").mkdir()
    for name, text in fragments.make_all(root, built).items():
        (target / name).write_text(text, encoding="utf-8")
    for item in built:
        place = target / item.chapter.notebook
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(merge(root / item.chapter.notebook, item.folder / "notebook.ipynb", item.run), place)
    # Copied into the site as it is, see html_extra_path in _config.yml.
    decks = target / "_extra" / "slides"
    decks.mkdir(parents=True)
    slides.write_decks(built, decks)
    footer = fragments.prose_footer(built)
    for page in (target / "book").rglob("*.md"):
        text = page.read_text(encoding="utf-8").rstrip()
        text = fragments.with_time(text, fragments.reading_minutes([text]))
        page.write_text(text + "\n\n" + footer, encoding="utf-8")


def merge(source: Path, executed: Path, run: dict[str, Any]) -> nbformat.NotebookNode:
    """Return the source notebook with the outputs of its execution, a notice of its data tier and a footer.

    Prose, tags and captions come from the source, so that changing them needs no rerun. Where code was changed since,
    the notebook stays as it ran: no output is shown under code that did not make it.
    """
    from routebook import fragments

    notebook, ran = nbformat.read(source, 4), nbformat.read(executed, 4)
    minutes = fragments.notebook_minutes(notebook, ran)
    injected = [cell for cell in ran.cells if is_tagged(cell, "injected-parameters")]
    done = [cell for cell in ran.cells if cell.cell_type == "code" and cell not in injected]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in code] == [cell.source for cell in done]:
        for cell, its in zip(code, done, strict=True):
            cell.outputs, cell.execution_count = its.outputs, its.execution_count
        cells = []
        for cell in notebook.cells:
            cells += [cell, *injected] if is_tagged(cell, "parameters") else [cell]
    else:
        cells = ran.cells
    cells[0].source = fragments.with_time(cells[0].source, minutes, run)
    notebook.cells = [cells[0], nbformat.v4.new_markdown_cell(fragments.notice(run)), *cells[1:]]
    notebook.cells.append(nbformat.v4.new_markdown_cell(fragments.notebook_footer(run)))
    for place, cell in enumerate(notebook.cells):
        cell.id = f"cell-{place}"
    return notebook


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _folder_digest(folder: Path, pattern: str) -> str:
    h = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            h.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return h.hexdigest()
