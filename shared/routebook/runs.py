"""Typed papermill runs: all is checked before a kernel starts, and a run's folder appears whole or not at all."""

from __future__ import annotations

import datetime
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routebook import sources
from routebook.errors import RunFailed, UserError, suggest
from routebook.parameters import ChapterParams
from routebook.paths import project_root

RUN_FILE = "run.json"
VERSIONED = (
    "numpy",
    "pandas",
    "scikit-learn",
    "faiss-cpu",
    "torch",
    "sentence-transformers",
    "papermill",
    "jupyter-book",
)


@dataclass(frozen=True)
class Chapter:
    """A notebook that can be run: a paper's chapter, or a page of the book that computes.

    Attributes
    ----------
    name
        What `routebook run` calls it.
    notebook
        Path of the source notebook, relative to the project's root.
    """

    name: str
    notebook: Path
    root: Path

    @property
    def is_replication(self) -> bool:
        """Whether this is a paper's chapter, with a ledger."""
        return self.notebook.parts[0] == "replications"

    @property
    def params(self) -> type[ChapterParams]:
        """The chapter's parameter model: the one `ChapterParams` of the `params.py` beside it."""
        place = f"replications.{self.name}.params" if self.is_replication else "routebook.pages"
        module = importlib.import_module(place)
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, ChapterParams)
            and value is not ChapterParams
            and self.name == value.CHAPTER
        ]
        if len(found) != 1:
            raise UserError(f"{place} must define one ChapterParams with CHAPTER = {self.name!r}; found {len(found)}")
        return found[0]

    @property
    def title(self) -> str:
        """The notebook's first heading."""
        for cell in json.loads((self.root / self.notebook).read_text(encoding="utf-8"))["cells"]:
            for line in "".join(cell["source"]).splitlines():
                if cell["cell_type"] == "markdown" and line.startswith("# "):
                    return line[2:].strip()
        return self.name


@dataclass(frozen=True)
class Plan:
    """A run that has passed every check: what it will use and where it will write."""

    chapter: Chapter
    params: ChapterParams
    dataset: str
    dataset_digest: str
    digest: str
    out: Path


def chapters(root: Path | None = None) -> dict[str, Chapter]:
    """Return every notebook that can be run, by name: the papers' chapters, then the pages of the book that compute."""
    root = root or project_root()
    found = [Chapter(p.parent.name, p.relative_to(root), root) for p in sorted(root.glob("replications/*/*.ipynb"))]
    found = [chapter for chapter in found if chapter.notebook.stem == chapter.name]
    found += [Chapter(p.stem, p.relative_to(root), root) for p in sorted(root.glob("book/*.ipynb"))]
    return {chapter.name: chapter for chapter in found}


def chapter(name: str, root: Path | None = None) -> Chapter:
    """Return a chapter by name; an unknown one raises UserError with the nearest name."""
    known = chapters(root)
    if name not in known:
        raise UserError(f"there is no chapter {name!r}{suggest(name, known)} (chapters: {', '.join(known)})")
    return known[name]


def resolve_dataset(params: ChapterParams) -> str:
    """Return the dataset a run will use: the one asked for, or for "auto" the best one that is present.

    A page that looks at every dataset there is has "all".
    """
    from routebook import datasets

    if params.DATASETS == ("all",):
        return "all"
    wanted = getattr(params, "dataset", "auto")
    if wanted == "auto":
        return next(name for name in params.DATASETS if datasets.status(name).present)
    return wanted


def digest_of(chapter: Chapter, params: ChapterParams, dataset: str, dataset_digest: str) -> str:
    """Return the digest of a run: notebook code, parameters, the source it can be affected by, data, lock file."""
    from routebook import datasets

    loaders = [datasets.loader_module(name) for name in ([dataset] if dataset != "all" else datasets.names())]
    modules = sources.notebook_modules(chapter.root / chapter.notebook, chapter.root)
    modules = {m for m in modules if not m.startswith("routebook.datasets.")} | set(loaders)
    tables = {}
    if chapter.is_replication:
        # The ledger's checks are imported by name, and its statements and published cells are shown on the page.
        folder = chapter.root / chapter.notebook.parent
        modules |= {f"replications.{chapter.name}.{path.stem}" for path in folder.glob("*.py")}
        files = [folder / "ledger.yaml", *sorted(folder.glob("published/*.csv"))]
        tables = {path.name: path.read_text(encoding="utf-8") for path in files if path.is_file()}
    modules |= sources.closure(modules, chapter.root)
    content = {
        "code": sources.notebook_code(chapter.root / chapter.notebook),
        "tables": tables,
        "parameters": params.model_dump(),
        "sources": sources.code_digest(modules, chapter.root),
        "dataset": [dataset, dataset_digest],
        "lock": (chapter.root / "requirements.lock").read_text(encoding="utf-8"),
        "python": sys.version_info[:2],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def plan(chapter: Chapter, params: ChapterParams, out: Path | None = None, *, check: bool = True) -> Plan:
    """Check everything a run needs: dataset present and sound, output folder writable.

    Parameters
    ----------
    out
        Output folder; by default ``_build/runs/<chapter>/<digest>/``.
    check
        Whether to verify the dataset's files in full; `build` skips this for runs it already has.

    Raises
    ------
    UserError
        For anything that would make the run fail; nothing has been written then.
    """
    from routebook import datasets

    asked = Path(os.path.abspath(out.expanduser())) if out else None  # noqa: PTH100 - keep symbolic links
    if asked:
        _check_out(asked)
    dataset = resolve_dataset(params)
    if dataset != "all":
        if check:
            datasets.check(dataset)
        dataset_digest = datasets.data_digest(dataset)
    else:
        present = [name for name in datasets.names() if datasets.status(name).present]
        dataset_digest = json.dumps({name: datasets.data_digest(name) for name in present})
    digest = digest_of(chapter, params, dataset, dataset_digest)
    folder = asked or chapter.root / "_build" / "runs" / chapter.name / digest
    _check_out(folder)
    return Plan(chapter, params, dataset, dataset_digest, digest, folder)


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: {out} is a file, expected a folder that is new, empty or an earlier run's")
    if out.is_dir() and any(out.iterdir()) and not (out / RUN_FILE).is_file():
        raise UserError(f"--out: {out} holds other files, expected a folder that is new, empty or an earlier run's")
    existing = next(folder for folder in (out.parent, *out.parent.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--out: cannot write below {existing}; name another folder with --out")


def is_complete(folder: Path, digest: str) -> bool:
    """Whether a folder holds a whole run with this digest."""
    try:
        return json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["digest"] == digest
    except (OSError, ValueError, KeyError):
        return False


def execute(plan: Plan) -> dict[str, Any]:
    """Run a planned chapter with papermill and move the finished folder into place.

    Returns
    -------
    dict
        The content of the run's `run.json`.

    Raises
    ------
    RunFailed
        When a cell raises; the notebook with its traceback is kept beside the output folder.
    """
    with _partial_folder(plan.out) as partial:
        started = time.monotonic()
        _execute_notebook(plan, partial)
        run = _describe(plan, partial, time.monotonic() - started)
        _export_html(partial / "notebook.ipynb")
        (partial / RUN_FILE).write_text(json.dumps(run, indent=1), encoding="utf-8")
        replace_folder(partial, plan.out)
    return run


def _execute_notebook(plan: Plan, partial: Path) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from routebook.progress import quiet
    from routebook.record import OUTPUT_VARIABLE

    source = plan.chapter.root / plan.chapter.notebook
    target = partial / "notebook.ipynb"
    with _environment({OUTPUT_VARIABLE: str(partial), "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONHASHSEED": "0"}):
        try:
            papermill.execute_notebook(
                source,
                target,
                parameters=changed_parameters(plan),
                kernel_name="python3",
                cwd=source.parent,
                progress_bar=not quiet(),
                log_output=False,
                # ipykernel warns of unencrypted local sockets at every start; nothing else is at that level.
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )
        except PapermillExecutionError as error:
            kept = plan.out.with_name(plan.out.name + ".failed.ipynb")
            shutil.copy(target, kept)
            raise RunFailed(
                f"{plan.chapter.name}: cell {error.exec_count} raised {error.ename}: {error.evalue}\n"
                f"the notebook with its traceback is kept in {kept}"
            ) from None


def changed_parameters(plan: Plan) -> dict[str, Any]:
    """Return the parameters that differ from the notebook's own: the rest stands in its parameters cell already.

    ``dataset="auto"`` stays as it is unless the run was planned for a named one.
    """
    defaults = plan.params.profile_values("quick")
    return {name: value for name, value in plan.params.model_dump().items() if value != defaults[name]}


def _describe(plan: Plan, partial: Path, seconds: float) -> dict[str, Any]:
    from importlib.metadata import version

    kernel, results = partial / "kernel.json", partial / "results.json"
    if not results.is_file():
        raise RunFailed(f"{plan.chapter.name}: the notebook ran but recorded nothing; record results with Record")
    measured = json.loads(kernel.read_text(encoding="utf-8"))
    kernel.unlink()
    records = json.loads(results.read_text(encoding="utf-8"))
    used = {r["dataset"]: r for r in records if r["dataset"]}
    main = used.get(plan.dataset) or next(iter(used.values()), {"origin": None, "complete": True, "absent": []})
    return {
        "chapter": plan.chapter.name,
        "digest": plan.digest,
        "parameters": plan.params.model_dump(),
        "profile": plan.params.profile,
        "dataset": plan.dataset,
        "origin": main["origin"],
        "complete": main["complete"],
        "absent": main["absent"],
        "dataset_digest": plan.dataset_digest,
        "seconds": round(seconds, 1),
        "peak_memory_mib": measured["peak_memory_mib"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(plan.chapter.root),
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in VERSIONED},
    }


def _git_commit(root: Path) -> str | None:
    """Return the commit of the working tree, with "+changes" where it is not clean; None outside a repository."""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed.strip() else "")


def _export_html(notebook: Path) -> None:
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_filename(str(notebook))
    notebook.with_suffix(".html").write_text(body, encoding="utf-8")


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write in; whatever is left of it afterwards, and of dead runs, is removed."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out.parent)
        partial = partial_path(out)
        partial.mkdir()
    except OSError as error:
        raise UserError(f"--out: cannot write below {out.parent}: {error.strerror}; name another with --out") from None
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_path(out: Path) -> Path:
    """Return the name under which this process writes before it moves the finished folder to `out`."""
    return out.with_name(f".{out.name}.partial-{os.getpid()}")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left behind: partial folders whose process is gone."""
    for leftover in folder.glob(".*.partial-*"):
        process = int(leftover.name.rpartition("-")[2])
        if process != os.getpid() and not Path(f"/proc/{process}").exists() and not _alive(process):
            shutil.rmtree(leftover, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder in place of an older one, leaving no moment at which a half-written one has its name."""
    if old.exists():
        aside = partial_path(old.with_name(old.name + ".old"))
        old.rename(aside)
        new.rename(old)
        shutil.rmtree(aside)
    else:
        new.rename(old)
