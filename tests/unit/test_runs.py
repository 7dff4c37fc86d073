"""Runs of a toy chapter: what they write, and what failing, being killed or meeting another run leaves behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from toy_project import METHOD, environment, files_below, make_project, notebook, start

from routebook import datasets, record, runs
from routebook.errors import RunFailed, UserError
from routebook.parameters import ChapterParams, parameter

RUN_FILES = {
    "notebook.ipynb",
    "notebook.html",
    "results.json",
    "run.json",
    "tables/numbers.csv",
    "figures/numbers.svg",
}
RUN_FIELDS = {
    *("chapter", "digest", "parameters", "profile", "dataset", "origin", "complete", "absent", "dataset_digest"),
    *("seconds", "peak_memory_mib", "date", "git_commit", "python", "packages"),
}
RECORD_FIELDS = {"id", "value", "low", "high", "n", "unit", "dataset", "origin", "complete", "absent"}


# --- with a kernel ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def twins(project):
    """Two runs of the same at the same time into the same folder."""
    words = ("run", "toy", "-p", "n=4", "--out", "out/twin")
    both = [start(project, *words) for _ in range(2)]
    return [(process.communicate(timeout=120), process.returncode) for process in both]


def test_two_runs_at_once_into_one_folder_both_succeed_and_leave_one_whole_run(project, twins):
    for (out, err), code in twins:
        assert code == 0, err
        assert re.search(r"out/twin: \d+ s, peak memory \d+ MiB", out)
        assert "custom profile on simulated, digest" in err
    assert files_below(project / "out") == {f"twin/{name}" for name in RUN_FILES}


@pytest.mark.usefixtures("twins")
def test_a_run_describes_itself(project):
    folder = project / "out" / "twin"
    run = json.loads((folder / "run.json").read_text())
    assert set(run) == RUN_FIELDS
    assert run["parameters"] == {"dataset": "simulated", "n": 4, "seed": 0, "sleep": 0.0, "fail": ""}
    assert (run["chapter"], run["profile"], run["dataset"], run["origin"]) == ("toy", "custom", *["simulated"] * 2)
    assert run["dataset_digest"] == datasets.data_digest("simulated")
    assert run["seconds"] > 0
    assert run["peak_memory_mib"] > 20
    assert run["packages"]["numpy"] == np.__version__
    assert runs.is_complete(folder, run["digest"])
    assert not runs.is_complete(folder, "0" * 16)


@pytest.mark.usefixtures("twins")
def test_results_are_tidy_records(project):
    records = record.read_results(project / "out" / "twin" / "results.json")
    drawn = np.random.default_rng(0).random(4)
    by_id = {r["id"]: r for r in records}
    assert list(by_id) == ["mean", "never", *(f"table/numbers/{i}/draw" for i in range(4))]
    assert all(set(r) >= RECORD_FIELDS for r in records)
    assert {(r["dataset"], r["origin"]) for r in records} == {("simulated", "simulated")}
    mean = by_id["mean"]
    assert (mean["value"], mean["low"], mean["high"], mean["n"]) == (drawn.mean(), drawn.min(), drawn.max(), 4)
    assert by_id["never"]["value"] == float("inf")
    table = pd.read_csv(project / "out" / "twin" / "tables" / "numbers.csv", index_col=0)
    np.testing.assert_array_equal(table["draw"], drawn)
    assert list(table["of"]) == ["toy"] * 4
    assert (project / "out" / "twin" / "figures" / "numbers.svg").read_text().startswith("<?xml")


@pytest.mark.usefixtures("twins")
def test_the_html_shows_the_outputs_and_the_values_for_the_prose_stay_in_the_notebook(project):
    folder = project / "out" / "twin"
    html = (folder / "notebook.html").read_text()
    assert "The toy chapter" in html
    assert "routebook-table" in html
    assert "papermill.record" not in html
    assert "application/papermill.record/" in (folder / "notebook.ipynb").read_text()


@pytest.mark.usefixtures("twins")
def test_glued_numbers_are_stored_as_text_that_a_format_can_read(project):
    cells = nbformat.read(project / "out" / "twin" / "notebook.ipynb", 4).cells
    outputs = [
        output for cell in cells for output in cell.get("outputs", []) if "scrapbook" in output.get("metadata", {})
    ]
    glued = {o.metadata.scrapbook.name: o.data["application/papermill.record/text/plain"] for o in outputs}
    drawn = np.random.default_rng(0).random(4)
    assert set(glued) == {"mean", "mean/low", "mean/high", "never"}
    assert float(glued["mean"]) == drawn.mean(), "np.float64(...) would render as nothing"
    assert float(glued["mean/low"]) == drawn.min()


@pytest.fixture(scope="module")
def later(project, twins):
    """Three more runs: the same again into the same folder, and two into default folders that must fail."""
    first = (project / "out" / "twin" / "results.json").read_bytes()
    again = start(project, "run", "toy", "-p", "n=4", "--out", "out/twin")
    broken = start(project, "run", "toy", "-p", "fail=raise")
    killed = start(project, "run", "toy", "-p", "fail=die")
    answers = [(process.communicate(timeout=120), process.returncode) for process in (again, broken, killed)]
    return first, *answers


def test_the_same_run_again_gives_the_same_results_bit_for_bit(project, later):
    first, ((_, err), code), *_ = later
    assert code == 0, err
    assert "nbconvert" not in err.lower()
    assert "mimetype" not in err
    assert (project / "out" / "twin" / "results.json").read_bytes() == first
    assert files_below(project / "out") == {f"twin/{name}" for name in RUN_FILES}


def test_a_raising_cell_ends_with_1_and_keeps_the_notebook_with_its_traceback(project, later):
    (out, err), code = later[2]
    assert code == 1
    assert out == ""
    assert "RuntimeError: the toy broke" in err
    assert "Traceback" not in err
    kept = Path(re.search(r"kept in (\S+\.ipynb)", err)[1])
    assert "RuntimeError" in kept.read_text()
    assert "the toy broke" in kept.read_text()
    assert sorted((project / "_build/runs/toy").glob(f"{kept.name.partition('.')[0]}*")) == [kept]


def test_a_kernel_that_dies_is_a_failed_run_and_its_notebook_is_kept_as_far_as_it_came(later):
    (out, err), code = later[3]
    assert code == 1
    assert out == ""
    assert "process died" in err
    assert "Traceback" not in err
    kept = nbformat.read(re.search(r"kept in (\S+\.ipynb)", err)[1], 4)
    counts = [cell.execution_count for cell in kept.cells if cell.cell_type == "code"]
    assert counts[0] == 1
    assert counts[-1] is None


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Three runs, ended by the three signals: what each said, and how long its kernel outlived it."""
    root, found = make_project(tmp_path_factory.mktemp("killed")), {}
    for sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        started = root / f"started-{sent.name}"
        process = start(
            *(root, "run", "toy", "-p", "sleep=120", "--out", f"out/{sent.name}"), env={"TOY_STARTED": str(started)}
        )
        found[sent] = (process, started)
    for sent, (process, started) in found.items():
        _wait_for(lambda file=started: file.is_file() and file.read_text(), 120)
        partial = list((root / "out").glob(f".{sent.name}.partial-*"))
        process.send_signal(sent)
        _, err = process.communicate(timeout=90)
        kernel = Path("/proc") / started.read_text()
        found[sent] = (process.returncode, err, partial, kernel)
    return root, found


def _wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_killed_run_leaves_neither_a_folder_nor_a_kernel(killed, sent, code):
    root, found = killed
    returned, err, partial, kernel = found[sent]
    assert returned == code
    assert "Traceback" not in err
    _wait_for(lambda: not kernel.exists(), 10)
    assert not (root / "out" / sent.name).exists()
    assert len(partial) == 1, "the run had begun"
    if sent == signal.SIGKILL:
        assert partial[0].exists(), "nobody could tidy up yet"
        runs.remove_leftovers(root / "out")
    assert not partial[0].exists()


@pytest.mark.parametrize(
    ("temporary", "transport"),
    [("short", "ipc"), ("a name that leaves no room for the path of a socket" * 2, "tcp")],
    ids=["files", "ports where files have too long a path"],
)
def test_no_kernel_can_be_reached_through_a_port_that_another_one_may_get(tmp_path_factory, temporary, transport):
    root = make_project(tmp_path_factory.mktemp("sockets"))
    folder = Path(tempfile.mkdtemp(dir="/tmp")) / temporary
    folder.mkdir()
    started = root / "started"
    process = start(
        *(root, "run", "toy", "-p", "sleep=1", "--out", "out"), env={"TOY_STARTED": str(started), "TMPDIR": str(folder)}
    )
    _wait_for(lambda: started.is_file() and started.read_text(), 120)
    kernel = psutil.Process(int(started.read_text()))
    files = [c for c in kernel.net_connections("unix") if c.laddr.startswith(str(folder))]
    ports = [c for c in kernel.net_connections("inet") if c.raddr]
    assert (bool(files), bool(ports)) == (transport == "ipc", transport == "tcp")
    assert (process.communicate(timeout=60), process.returncode)[1] == 0
    assert list(folder.iterdir()) == []
    shutil.rmtree(folder.parent)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Two notebooks run by papermill alone: one with a right parameter, one with a wrong one."""
    root = make_project(tmp_path_factory.mktemp("plain"))
    command = [sys.executable, "-m", "papermill", "replications/toy/toy.ipynb"]
    both = [
        subprocess.Popen(
            [*command, f"{n}.ipynb", "-p", "n", n, "--no-progress-bar"],
            cwd=root,
            env=environment(root),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in ("5", "0")
    ]
    return root, [(process.communicate(timeout=120)[1], process.returncode) for process in both]


def test_plain_papermill_runs_the_chapter_and_writes_no_results(plain):
    root, ((err, code), _) = plain
    assert code == 0, err
    assert {"results.json", "kernel.json"} & {Path(name).name for name in files_below(root)} == set()
    assert any("routebook-table" in str(cell.get("outputs")) for cell in nbformat.read(root / "5.ipynb", 4).cells)


def test_plain_papermill_with_a_wrong_parameter_fails_in_the_validation_cell(plain):
    root, (_, (err, code)) = plain
    assert code == 1
    assert "UserError: n: found 0, expected an integer from 1 to 1000" in err
    failed = [
        cell.source
        for cell in nbformat.read(root / "0.ipynb", 4).cells
        if any(output.output_type == "error" for output in cell.get("outputs", []))
    ]
    assert failed == [notebook().cells[2].source]


# --- without one ------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy chapter in this process: `replications` is the toy's while the test runs."""
    root = make_project(tmp_path / "toy")
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "replications"}
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.chdir(root)
    yield runs.chapter("toy", root)
    for name in [name for name in sys.modules if name.split(".")[0] == "replications"]:
        del sys.modules[name]
    sys.modules.update(ours)


def _plan(toy, out=None, **given):
    return runs.plan(toy, toy.params.build(given), out)


def test_digest_changes_with_what_can_change_the_results_and_with_nothing_else(toy):
    files = [toy.root / toy.notebook.parent / name for name in ("toy.ipynb", "method.py", "params.py")]
    table = toy.root / toy.notebook.parent / "measured" / "scores.csv"
    table.parent.mkdir()
    table.write_text("id,x\na,1\n")
    files += [toy.root / "requirements.lock", table]
    before, quick = [file.read_text() for file in files], _plan(toy).digest

    def after(file, change):
        place = next(i for i, path in enumerate(files) if path.as_posix().endswith(file))
        assert change(before[place]) != before[place]
        files[place].write_text(change(before[place]))
        digest = _plan(toy).digest
        files[place].write_text(before[place])
        return digest

    assert after("toy.ipynb", lambda s: s.replace("never", "nevermore")) != quick
    assert after("toy.ipynb", lambda s: s.replace("# The toy chapter", "# Another title")) == quick
    assert after("toy.ipynb", lambda s: s.replace('"parameters"', '"parameters", "hide-input"')) == quick
    assert after("toy.ipynb", lambda s: s.replace('"toy-4"', '"other-id"')) == quick
    assert after("method.py", lambda s: s.replace("random(n)", "normal(size=n)")) != quick
    assert after("method.py", lambda s: s + "\n# a remark\n") == quick
    assert after("params.py", lambda s: s.replace("(3,", "(4,")) != quick
    assert after("requirements.lock", lambda s: s.replace("1", "2")) != quick
    assert after("measured/scores.csv", lambda s: s.replace("1", "2")) != quick
    assert _plan(toy, n=4).digest != quick
    assert _plan(toy, seed=1).digest != quick
    assert _plan(toy).digest == quick


def test_a_notebook_whose_own_values_differ_is_run_with_those_of_the_plan(toy):
    assert runs.changed_parameters(_plan(toy)) == {}
    assert runs.changed_parameters(_plan(toy, n=5)) == {"n": 5}
    nbformat.write(notebook('dataset = "simulated"\nn = 7\nseed = 1 - 1\nsleep = 0.0'), toy.root / toy.notebook)
    assert runs.changed_parameters(_plan(toy)) == {"n": 3, "seed": 0, "fail": ""}
    assert runs.changed_parameters(_plan(toy, n=7)) == {"seed": 0, "fail": ""}


def test_a_cell_that_is_no_python_does_not_stop_the_plan(toy):
    source = nbformat.read(toy.root / toy.notebook, 4)
    before = _plan(toy).digest
    source.cells.append(nbformat.v4.new_code_cell("%%bash\nif true; then ls; fi"))
    nbformat.write(source, toy.root / toy.notebook)
    assert _plan(toy).digest != before


def test_auto_without_any_of_its_datasets_says_what_is_missing(toy, monkeypatch):
    monkeypatch.delenv("ROUTEBOOK_DATA", raising=False)
    monkeypatch.setattr(toy.params, "DATASETS", ("routerbench",))
    with pytest.raises(UserError, match="routerbench"):
        _plan(toy, dataset="auto")


def _write_results(plan, partial):
    """Stand in for a kernel: what a notebook that ran leaves in its folder."""
    source = nbformat.read(plan.chapter.root / plan.chapter.notebook, 4)
    nbformat.write(source, partial / "notebook.ipynb")
    results = record.Record(partial)
    results.use(datasets.load("simulated", n_prompts=5))
    results.value("n", plan.params.n)


class Many(ChapterParams):
    """Parameters of a chapter on several datasets."""

    CHAPTER: ClassVar[str] = "many"
    DATASETS: ClassVar[tuple[str, ...]] = ("embedllm", "mmlu-pro", "overruling", "tinypool", "simulated")
    MANY: ClassVar[bool] = True

    pools: list[str] | None = parameter(None, "pools")


@pytest.mark.parametrize(
    ("present", "pools", "used"),
    [
        (("mmlu-pro", "overruling", "tinypool", "simulated"), None, ("mmlu-pro", "overruling")),
        (("tinypool", "simulated"), None, ("tinypool",)),
        (("mmlu-pro", "tinypool"), ["tinypool", "mmlu-pro", "tinypool"], ("tinypool", "mmlu-pro")),
        (("tinypool",), ["embedllm"], ("embedllm",)),
    ],
)
def test_a_chapter_on_several_datasets_takes_the_real_ones_that_are_present(monkeypatch, present, pools, used):
    real = {name: name not in ("tinypool", "simulated") for name in Many.DATASETS}
    monkeypatch.setattr(
        datasets,
        "status",
        lambda name: SimpleNamespace(present=name in present, origin="real" if real[name] else "made"),
    )
    assert runs.resolve_datasets(Many(pools=pools)) == used


def test_a_chapter_may_take_made_pools_along_with_real_ones(monkeypatch):
    class WithMade(Many):
        ORIGINS: ClassVar[tuple[str, ...]] = ("real", "made")

    origins = {"mmlu-pro": "real", "tinypool": "made", "simulated": "simulated"}
    monkeypatch.setattr(
        datasets,
        "status",
        lambda name: SimpleNamespace(present=name in origins, origin=origins.get(name, "real")),
    )
    assert runs.resolve_datasets(WithMade()) == ("mmlu-pro", "tinypool")


def test_a_plan_on_several_datasets_checks_each_and_names_them(toy, monkeypatch):
    checked = []
    monkeypatch.setattr(datasets, "check", checked.append)
    monkeypatch.setattr(datasets, "data_digest", lambda name: f"digest of {name}")
    monkeypatch.setattr(runs, "digest_of", lambda chapter, params, names, digest: digest)
    plan = runs.plan(toy, Many(pools=["mmlu-pro", "overruling"]))
    assert checked == ["mmlu-pro", "overruling"]
    assert plan.dataset == "mmlu-pro, overruling"
    assert json.loads(plan.digest) == {name: f"digest of {name}" for name in checked}


def test_a_further_page_of_a_room_is_a_chapter_named_after_both(toy):
    nbformat.write(notebook(), toy.root / "replications/toy/more.ipynb")
    found = runs.chapters(toy.root)
    assert list(found) == ["toy", "toy-more"]
    assert found["toy-more"].paper == found["toy"].paper == "toy"
    assert found["toy-more"].notebook == Path("replications/toy/more.ipynb")


def test_a_run_through_a_link_replaces_the_run_it_points_to(toy, monkeypatch):
    monkeypatch.setattr(runs, "_execute_notebook", _write_results)
    (toy.root / "elsewhere").mkdir()
    (toy.root / "link").symlink_to("elsewhere")
    for n in (4, 5):
        runs.execute(_plan(toy, Path("link"), n=n))
    assert (toy.root / "link").is_symlink()
    assert json.loads((toy.root / "elsewhere" / "run.json").read_text())["parameters"]["n"] == 5


def test_a_notebook_that_records_nothing_is_a_failed_run(toy, monkeypatch):
    monkeypatch.setattr(runs, "_execute_notebook", lambda *_: None)
    with pytest.raises(RunFailed, match="recorded nothing"):
        runs.execute(_plan(toy, Path("out")))
    assert [path.name for path in toy.root.iterdir() if "out" in path.name] == []


def test_a_failed_run_leaves_the_earlier_one_as_it_was(toy, monkeypatch):
    monkeypatch.setattr(runs, "_execute_notebook", _write_results)
    runs.execute(_plan(toy, Path("out")))
    before = (toy.root / "out" / "run.json").read_bytes()

    def interrupt(plan, partial):
        _write_results(plan, partial)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_execute_notebook", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runs.execute(_plan(toy, Path("out"), n=9))
    assert (toy.root / "out" / "run.json").read_bytes() == before
    assert not list(toy.root.glob(".out*"))


def test_leftovers_of_the_dead_are_removed_and_nothing_else(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    keep = [f".out.partial-{os.getpid()}", ".out.partial-draft", f".out.partial-{os.getppid()}", "out.partial-1x"]
    for name in (*keep, f".out.partial-{dead.pid}", f".out.old.partial-{dead.pid}", ".out.partial-" + "9" * 30):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    runs.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(keep)


def test_a_leftover_of_an_earlier_process_with_our_number_is_no_obstacle(toy, monkeypatch):
    monkeypatch.setattr(runs, "_execute_notebook", _write_results)
    plan = _plan(toy, Path("out"))
    runs.partial_path(plan.out).mkdir()
    (runs.partial_path(plan.out) / "results.json").write_text("half")
    runs.execute(plan)
    assert files_below(plan.out) == {"notebook.ipynb", "notebook.html", "results.json", "run.json"}


def _replace_often(folder, times):
    for turn in range(times):
        new = folder / f"new-{os.getpid()}-{turn}"
        new.mkdir()
        (new / "a").write_text(new.name)
        (new / "b").write_text(new.name)
        runs.replace_folder(new, folder / "out")


def test_replacing_a_folder_from_several_processes_keeps_it_whole(tmp_path):
    workers = [multiprocessing.Process(target=_replace_often, args=(tmp_path, 100)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == (tmp_path / "out" / "b").read_text()


# --- building ---------------------------------------------------------------------------------------------------


@pytest.fixture
def build(toy, monkeypatch):
    """Build the toy's book with a stand-in for kernels and for Jupyter Book; return its page and what was run."""
    from routebook import fragments, site

    done = []

    def execute(plan, partial):
        done.append(plan.chapter.name)
        _write_results(plan, partial)

    def jupyter_book(root, source, target):
        done.append("site")
        html = target / "_build" / "html"
        html.mkdir(parents=True)
        (html / "index.html").write_text((source / "replications/toy/toy.ipynb").read_text())

    monkeypatch.setattr(runs, "_execute_notebook", execute)
    monkeypatch.setattr(site, "_jupyter_book", jupyter_book)
    monkeypatch.setattr(fragments, "SHOWN_COMMANDS", {})
    (toy.root / "replications/other").mkdir()
    for name in ("__init__.py", "params.py", "toy.ipynb"):
        text = (toy.root / "replications/toy" / name).read_text()
        text = text.replace('"toy"', '"other"').replace("replications.toy.params", "replications.other.params")
        text = text.replace("replications.toy.method", "numpy.random").replace("import draw", "import default_rng")
        (toy.root / "replications/other" / name.replace("toy", "other")).write_text(text)

    def build(**options):
        done.clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "replications"]:
            del sys.modules[name]
        html, built = site.build(toy.root, say=lambda line: None, jobs=1, **options)
        assert [b.chapter.name for b in built if b.executed] == [name for name in done if name != "site"]
        return (html / "index.html").read_text(), list(done)

    return build


def _edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_build_reruns_exactly_what_changed(toy, build):
    folder = toy.root / "replications/toy"
    page, done = build()
    assert done == ["other", "toy", "site"]
    assert build() == (page, [])
    _edit(folder / "method.py", "random(n)", "normal(size=n)")
    assert build()[1] == ["toy", "site"]
    _edit(folder / "params.py", "parameter(3,", "parameter(4,")
    assert build()[1] == ["toy", "site"]
    _edit(folder / "toy.ipynb", "never", "nevermore")
    assert build()[1] == ["toy", "site"]
    _edit(toy.root / "requirements.lock", "toy==1", "toy==2")
    assert build()[1] == ["other", "toy", "site"]
    assert build()[1] == []
    assert build(fresh=True, names=["toy"])[1][0] == "toy"
    assert build(profile="paper")[1] == ["other", "toy", "site"]


def test_chapters_run_side_by_side_in_processes_of_their_own(toy, monkeypatch):
    """With real kernels: three chapters, two at once, each with the numbers it has by itself."""
    from joblib.externals.loky import get_reusable_executor

    from routebook import site

    # Workers that earlier tests left would know neither the toy's folder nor its environment.
    get_reusable_executor().shutdown(wait=True)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(toy.root), *sys.path]))
    said = []
    for name in ("third", "other"):
        folder = toy.root / "replications" / name
        folder.mkdir()
        for file in ("__init__.py", "params.py", "method.py", "toy.ipynb"):
            text = (toy.root / "replications/toy" / file).read_text()
            text = text.replace('"toy"', f'"{name}"').replace("replications.toy", f"replications.{name}")
            (folder / file.replace("toy", name)).write_text(text)
    # More code than the others have.
    _edit(toy.root / "replications/third/method.py", "import numpy", "import replications.toy.method\nimport numpy")
    processes = []
    execute = runs.execute
    monkeypatch.setattr(runs, "execute", lambda plan: processes.append(plan.chapter.name) or execute(plan))
    known = runs.chapters(toy.root)
    plans = [site._look(chapter, "quick", False, True, said.append) for chapter in known.values()]
    built = site._run_all(plans, "quick", 2, said.append)
    assert processes == []  # all ran elsewhere
    assert [line.split(":")[0] for line in said] == ["third", "other", "toy"]
    means = {name: json.loads((found.folder / "results.json").read_text()) for name, found in built.items()}
    expected = np.random.default_rng(0).random(3).mean()
    for records in means.values():
        assert [r["value"] for r in records if r["id"] == "mean"] == [pytest.approx(expected)]
    assert all(runs.is_complete(plan.out, plan.digest) for plan in plans)
    get_reusable_executor().shutdown(wait=True)


def test_prose_tags_and_cell_ids_change_the_page_without_a_rerun(toy, build):
    build()
    for old, new in (
        ("# The toy chapter", "# A better title"),
        ('"parameters"', '"parameters", "hide-input"'),
    ):
        _edit(toy.root / toy.notebook, old, new)
        page, done = build()
        assert done == ["site"]
        assert new in re.sub(r"\s+", " ", page)
    _edit(toy.root / toy.notebook, '"toy-4"', '"renamed-by-an-editor"')
    assert build()[1] == []


def test_a_build_of_one_chapter_keeps_the_others_as_they_ran(toy, build):
    build()
    _edit(toy.root / toy.notebook, 'record.value(\\"never\\"', 'record.value(\\"ever\\"')
    page, done = build(names=["other"])
    assert done == []
    assert "never" in page, "no output stands under code that did not make it"
    page, done = build()
    assert done == ["toy", "site"]
    assert "never" not in page


def test_a_build_without_earlier_runs_runs_all_it_needs(build):
    assert build(names=["toy"])[1] == ["other", "toy", "site"]


def test_a_build_where_build_is_a_file_is_refused(toy, build):
    (toy.root / "_build").write_text("mine")
    with pytest.raises(UserError, match="_build"):
        build()


def test_a_second_build_at_the_same_time_is_refused(toy, build):
    from filelock import FileLock

    (toy.root / "_build").mkdir()
    with FileLock(toy.root / "_build" / ".build.lock"), pytest.raises(UserError, match="another"):
        build()


def test_a_book_that_jupyter_book_refuses_leaves_the_old_site(toy, build, monkeypatch):
    from routebook import site

    page, _ = build()
    _edit(toy.root / "book/intro.md", "Hello", "Goodbye")

    def refuse(*_):
        raise RunFailed("WARNING: a link leads nowhere")

    monkeypatch.setattr(site, "_jupyter_book", refuse)
    with pytest.raises(RunFailed):
        build()
    assert (toy.root / "_build/html/index.html").read_text() == page
    assert not list((toy.root / "_build").glob(".*partial*"))
    assert (toy.root / "replications/toy/method.py").read_text() == METHOD


def test_merge_puts_outputs_under_the_sources_prose(toy, tmp_path):
    from routebook import site

    ran = nbformat.read(toy.root / toy.notebook, 4)
    for place, cell in enumerate(c for c in ran.cells if c.cell_type == "code"):
        cell.outputs = [nbformat.v4.new_output("stream", text=f"output {place}")]
        cell.execution_count = place + 1
    injected = nbformat.v4.new_code_cell("n = 9", metadata={"tags": ["injected-parameters"]})
    ran.cells.insert(2, injected)
    nbformat.write(ran, tmp_path / "ran.ipynb")
    run = {
        "chapter": "toy",
        "dataset": "simulated",
        "origin": "simulated",
        "absent": [],
        "profile": "custom",
        "parameters": {"n": 9},
        "digest": "0123456789abcdef",
        "date": "2026-01-02T03:04:05+00:00",
        "seconds": 12.3,
    }
    _edit(toy.root / toy.notebook, "# The toy chapter", "# A better title")
    merged = site.merge(toy.root / toy.notebook, tmp_path / "ran.ipynb", run).cells
    assert merged[0].source == "# A better title"
    assert "simulated data: no number here says anything about real LLMs" in merged[1].source
    assert merged[3].source == "n = 9"
    outputs = [cell.outputs[0].text for cell in merged if cell.cell_type == "code" and cell.outputs]
    assert outputs == [f"output {place}" for place in range(6)]
    footer = merged[-1].source
    for part in ("simulated", "`n=9`", "`0123456789abcdef`", "2026-01-02", "12 s"):
        assert part in footer
    assert len({cell.id for cell in merged}) == len(merged)
