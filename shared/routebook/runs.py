"""Typed papermill runs: all is checked before a kernel starts, and a run's folder appears whole or not at all."""

from __future__ import annotations

import ast
import contextlib
import datetime
import errno
import hashlib
import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routebook import sources
from routebook.errors import RunFailed, UserError, suggest
from routebook.parameters import ChapterParams
from routebook.paths import environment, project_root

if TYPE_CHECKING:
    from traitlets.config import Config

RUN_FILE = "run.json"
RUN_EXPECTED = "a folder that is new, empty or an earlier run's"
# A socket's path may have 104 characters on macOS, 108 on Linux; ours end in "kernel-ipc-5", not in "kernel.json".
LONGEST_SOCKET = 100
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
    def paper(self) -> str | None:
        """Name of the paper whose chapter, or a further page of it, this is; None for a page of the book."""
        return self.notebook.parts[1] if self.notebook.parts[0] == "replications" else None

    @property
    def params(self) -> type[ChapterParams]:
        """The chapter's parameter model: the one `ChapterParams` of the `params.py` beside it."""
        place = f"replications.{self.paper}.params" if self.paper else "routebook.pages"
        module = importlib.import_module(place)
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, ChapterParams)
            and value is not ChapterParams
            # A base that several pages share is no chapter.
            and self.name == getattr(value, "CHAPTER", None)
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
    papers = sorted(root.glob("replications/*/*.ipynb"), key=lambda p: (p.parent.name, p.stem != p.parent.name, p.stem))
    found = [Chapter(_chapter_name(p), p.relative_to(root), root) for p in papers]
    found += [Chapter(p.stem, p.relative_to(root), root) for p in sorted(root.glob("book/*.ipynb"))]
    return {chapter.name: chapter for chapter in found}


def _chapter_name(notebook: Path) -> str:
    """Name the notebook of a paper's room: the room for the chapter itself, room and page for further pages."""
    room = notebook.parent.name
    return room if notebook.stem == room else f"{room}-{notebook.stem}"


def chapter(name: str, root: Path | None = None) -> Chapter:
    """Return a chapter by name; an unknown one raises UserError with the nearest name."""
    known = chapters(root)
    if name not in known:
        raise UserError(f"there is no chapter {name!r}{suggest(name, known)} (chapters: {', '.join(known)})")
    return known[name]


def resolve_dataset(params: ChapterParams) -> str:
    """Return the dataset a chapter on one dataset will use: the one asked for, or the best one that is present."""
    (name,) = resolve_datasets(params)
    return name


def resolve_datasets(params: ChapterParams) -> tuple[str, ...]:
    """Return the datasets a run will use: those asked for, else the best one that is present.

    A chapter on several datasets takes every one of its `ORIGINS` that is present; a page that looks at every dataset
    there is, everything present.
    """
    from routebook import datasets

    if params.DATASETS == ("all",):
        return tuple(name for name in datasets.names() if datasets.status(name).present)
    wanted = getattr(params, "pools", None) if params.MANY else (getattr(params, "dataset", "auto"),)
    if wanted and "auto" not in wanted:
        return tuple(dict.fromkeys(wanted))
    present = [name for name in params.DATASETS if datasets.status(name).present]
    best = tuple(present[:1]) or params.DATASETS[-1:]
    if not params.MANY:
        return best
    return tuple(name for name in present if datasets.status(name).origin in params.ORIGINS) or best


def digest_of(chapter: Chapter, params: ChapterParams, names: Sequence[str], dataset_digest: str) -> str:
    """Return the digest of a run: notebook code, parameters, the source it can be affected by, data, lock file."""
    from routebook import datasets

    loaders = [datasets.loader_module(name) for name in names]
    modules = sources.notebook_modules(chapter.root / chapter.notebook, chapter.root)
    modules = {m for m in modules if not m.startswith("routebook.datasets.")} | set(loaders)
    tables = {}
    if chapter.paper:
        # The ledger's checks are imported by name, its statements and published cells are shown on the page, and so is
        # what comes from other tables in the chapter's folders.
        folder = chapter.root / chapter.notebook.parent
        checks = folder / "arithmetic.py"
        modules |= {f"replications.{chapter.paper}.{checks.stem}"} if checks.is_file() else set()
        files = [folder / "ledger.yaml", *sorted(folder.glob("*/*.csv"))]
        tables = {
            path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files if path.is_file()
        }
    modules |= sources.closure(modules, chapter.root)
    content = {
        "code": sources.notebook_code(chapter.root / chapter.notebook),
        "tables": tables,
        "parameters": params.model_dump(),
        "sources": sources.code_digest(modules, chapter.root),
        "dataset": [list(names), dataset_digest],
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
        Whether to verify the dataset's files in full, once a process; `build` skips this for runs it already has.

    Raises
    ------
    UserError
        For anything that would make the run fail; nothing has been written then.
    """
    from routebook import datasets

    asked = None if out is None else _asked_folder(out)
    names = resolve_datasets(params)
    every = params.DATASETS == ("all",)
    digests = {name: datasets.data_digest(name) for name in names}
    for name in names if check and not every else ():
        _check_data(name, digests[name])
    dataset_digest = json.dumps(digests) if every or len(names) > 1 else digests[names[0]]
    digest = digest_of(chapter, params, names, dataset_digest)
    folder = asked or chapter.root / "_build" / "runs" / chapter.name / digest
    _check_out(folder)
    return Plan(chapter, params, "all" if every else ", ".join(names), dataset_digest, digest, folder)


@cache
def _check_data(name: str, digest: str) -> None:
    from routebook import datasets

    datasets.check(name)


def _asked_folder(out: Path, expected: str = RUN_EXPECTED, replaceable: Callable[[Path], bool] | None = None) -> Path:
    """Return the folder that `--out` names, links followed; a name no folder can have raises UserError."""
    try:
        folder = out.expanduser().resolve()
        _check_out(folder, expected, replaceable)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--out: {out} cannot be used: {reason}; name another folder with --out") from None
    return folder


def _check_out(out: Path, expected: str = RUN_EXPECTED, replaceable: Callable[[Path], bool] | None = None) -> None:
    """Check that a folder can be made or replaced; `replaceable` says which ones that hold files may be."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: {out} is a file, expected {expected}")
    if out.is_dir() and any(out.iterdir()) and not (replaceable or read_run)(out):
        raise UserError(f"--out: {out} holds other files, expected {expected}")
    if out.is_mount():
        raise UserError(f"--out: {out} is a mount point, which cannot be replaced; name a folder below it")
    existing = next(folder for folder in (out.parent, *out.parent.parents) if folder.exists())
    try:
        # Only writing tells: permissions say nothing of read-only disks or of folders the system makes up.
        tempfile.TemporaryDirectory(dir=existing, prefix=".routebook-").cleanup()
    except OSError:
        raise UserError(f"--out: cannot write below {existing}; name another folder with --out") from None


def read_run(folder: Path) -> dict[str, Any]:
    """Return a folder's `run.json`, empty where the folder holds no run of ours."""
    try:
        run = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) and {"chapter", "digest"} <= run.keys() else {}


def is_complete(folder: Path, digest: str) -> bool:
    """Whether a folder holds a whole run with this digest."""
    return read_run(folder).get("digest") == digest


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
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from routebook.engine import register
    from routebook.progress import quiet
    from routebook.record import OUTPUT_VARIABLE

    source = plan.chapter.root / plan.chapter.notebook
    target = partial / "notebook.ipynb"
    variables = {OUTPUT_VARIABLE: str(partial), "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONHASHSEED": "0"}
    with environment(variables), _sockets() as sockets:
        try:
            papermill.execute_notebook(
                source,
                target,
                parameters=changed_parameters(plan),
                engine_name=register(),
                kernel_name="python3",
                cwd=source.parent,
                progress_bar=not quiet(),
                log_output=False,
                # ipykernel's own log is of no use to readers: it prints a traceback from its inside when a run is
                # interrupted, and warns at every start where it has to use ports.
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                config=sockets,
            )
        except PapermillExecutionError as error:
            kept = _keep_failed(plan, target)
            raise RunFailed(
                f"{plan.chapter.name}: cell {error.exec_count} raised {error.ename}: {error.evalue}\n"
                f"the notebook with its traceback is kept in {kept}"
            ) from None
        except (KeyboardInterrupt, SystemExit):
            # The cell that was at work ends with its kernel; asyncio would print that as an error nobody awaited.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise
        except DeadKernelError:
            kept = _keep_failed(plan, target)
            raise RunFailed(
                f"{plan.chapter.name}: the notebook's process died, as it does when memory runs out or it is killed\n"
                f"the notebook as far as it came is kept in {kept}"
            ) from None


@contextmanager
def _sockets() -> Iterator[Config]:
    """Give a kernel's client settings to reach the kernel by files of ours where the system knows such sockets.

    jupyter_client picks ports that are free for the moment and gives them up until the kernel binds them, so that two
    kernels starting at once may come to share one; the one's heartbeat then ends as a traceback in the other's page.
    """
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="routebook-", ignore_cleanup_errors=True) as folder:
        connection = str(Path(folder) / "kernel.json")
        if os.name == "posix" and len(connection) < LONGEST_SOCKET:
            yield Config(KernelManager={"transport": "ipc", "connection_file": connection})
        else:
            yield Config()


def _keep_failed(plan: Plan, notebook: Path) -> Path:
    kept = plan.out.with_name(plan.out.name + ".failed.ipynb")
    shutil.copy(notebook, kept)
    return kept


def changed_parameters(plan: Plan) -> dict[str, Any]:
    """Return the parameters to inject: those whose value is not the one in the notebook's own parameters cell.

    ``dataset="auto"`` stays as it is unless the run was planned for a named one.
    """
    own = notebook_parameters(plan.chapter.root / plan.chapter.notebook)
    return {name: value for name, value in plan.params.model_dump().items() if name not in own or own[name] != value}


def notebook_parameters(path: Path) -> dict[str, Any]:
    """Return the literal values assigned in a notebook's cells that are tagged `parameters`."""
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            for node in sources.parsed_cell("".join(cell["source"])).body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    with contextlib.suppress(ValueError):  # no literal: injected, whatever it evaluates to
                        found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def _describe(plan: Plan, partial: Path, seconds: float) -> dict[str, Any]:
    from importlib.metadata import version

    kernel, results = partial / "kernel.json", partial / "results.json"
    if not results.is_file():
        raise RunFailed(f"{plan.chapter.name}: the notebook ran but recorded nothing; record results with Record")
    measured = json.loads(kernel.read_text(encoding="utf-8"))
    kernel.unlink()
    records = json.loads(results.read_text(encoding="utf-8"))
    used = {r["dataset"]: r for r in records if r["dataset"]}
    ours = [used[name] for name in plan.dataset.split(", ") if name in used] or list(used.values())[:1]
    origins = {r["origin"] for r in ours}
    return {
        "chapter": plan.chapter.name,
        "digest": plan.digest,
        "parameters": plan.params.model_dump(),
        "profile": plan.params.profile,
        "dataset": plan.dataset,
        "origin": origins.pop() if len(origins) == 1 else None,
        "complete": all(r["complete"] for r in ours),
        "absent": [part for r in ours for part in r["absent"]],
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
    import nbformat
    from nbconvert import HTMLExporter

    shown = nbformat.read(notebook, 4)
    for cell in shown.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_glue(output)]
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(shown, {"metadata": {"name": notebook.stem}})
    notebook.with_suffix(".html").write_text(body, encoding="utf-8")


def _is_glue(output: Any) -> bool:
    """Whether an output only carries a value for the prose, in a form that no reader is shown."""
    kinds = output.get("data", {})
    return bool(kinds) and all(kind.startswith("application/papermill.record") for kind in kinds)


@contextmanager
def new_folder(out: Path, made_before: str | None = None) -> Iterator[Path]:
    """Give a folder to write in, which becomes `out` when all went well and is removed when not.

    Parameters
    ----------
    out
        A folder that is new or empty.
    made_before
        A file by which an earlier folder of the same kind is known; such a one is replaced.

    Raises
    ------
    UserError
        When `out` is a file, holds other files, or cannot be written.
    """
    expected = (
        "a folder that is new or empty"
        if made_before is None
        else "a folder that is new, empty or an earlier one of its kind"
    )
    folder = _asked_folder(out, expected, lambda found: made_before is not None and (found / made_before).is_file())
    with _partial_folder(folder) as partial:
        yield partial
        replace_folder(partial, folder)


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write in; whatever is left of it afterwards, and of dead runs, is removed."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out.parent)
        partial = partial_path(out)
        # A dead process of this number left it: containers number theirs alike.
        shutil.rmtree(partial, ignore_errors=True)
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
        process = leftover.name.rpartition("-")[2]
        if process.isdecimal() and not _alive(int(process)):
            shutil.rmtree(leftover, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder in place of an older one, leaving no moment at which a half-written one has its name.

    Of two processes that finish at once, both succeed and the later one's folder stays.
    """
    aside = partial_path(old.with_name(old.name + ".old"))
    while True:
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            old.rename(aside)
        try:
            new.rename(old)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with contextlib.suppress(OSError):
                    aside.rename(old)
                raise
            continue  # another process put its folder there in between
        shutil.rmtree(aside, ignore_errors=True)
        return
