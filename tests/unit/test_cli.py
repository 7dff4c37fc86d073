"""The `routebook` command: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import subprocess
import sys

import pytest
from fixtures_data import read, write, write_routerbench
from toy_project import call, files_below, make_project

import routebook
from routebook import cli, datasets, ledger, runs


@pytest.fixture
def routebook_(root, tmp_path, monkeypatch, capsys):
    """Call the command in this process, in the real project; a run that gets as far as a kernel fails the test."""
    monkeypatch.chdir(root)
    monkeypatch.delenv("ROUTEBOOK_DATA", raising=False)
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))
    # Restored afterwards: the command sets the one, --quiet the other.
    monkeypatch.setenv("ROUTEBOOK_QUIET", "")
    before = signal.getsignal(signal.SIGTERM)

    def no_kernel(*_):
        pytest.fail("a kernel would have been started")

    monkeypatch.setattr(runs, "_execute_notebook", no_kernel)

    def invoke(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["routebook", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    yield invoke
    signal.signal(signal.SIGTERM, before)


def assert_refused(answer, *parts: str) -> None:
    """Exit code 2, nothing on standard output, one message of one line without a traceback."""
    code, out, err = answer
    assert code == 2, err
    assert out == ""
    assert err.startswith("routebook: ")
    assert len(err.splitlines()) == 1, err
    for part in parts:
        assert part in err


def test_the_student_edition_is_written_to_a_new_or_empty_folder(routebook_, tmp_path):
    out = tmp_path / "handed-out"
    out.mkdir()
    code, printed, err = routebook_("student", "--chapters", "uniroute,tinypool", "--out", str(out))
    assert (code, err) == (0, "")
    assert printed.splitlines() == [str(out / "uniroute.ipynb"), str(out / "tinypool.ipynb")]
    assert files_below(out) == {"README.md", "uniroute.ipynb", "tinypool.ipynb"}
    assert "UniRoute: routing to LLMs" in (out / "README.md").read_text()
    answer = routebook_("student", "--out", str(out))
    assert_refused(answer, "handed-out holds other files", "new or empty")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["handed-out"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run", "unirout"], ["no chapter 'unirout'", "did you mean 'uniroute'"]),
        (["params", "unirout"], ["no chapter 'unirout'", "did you mean 'uniroute'"]),
        (["build", "--chapters", "unirout"], ["no chapter 'unirout'", "did you mean 'uniroute'"]),
        (["student", "--chapters", "unirout"], ["no chapter 'unirout'", "did you mean 'uniroute'"]),
        (["student", "--chapters", ","], ["--chapters names no chapter", "leave it out for all"]),
        (["student", "--out", "README.md"], ["--out", "README.md is a file, expected a folder that is new or empty"]),
        (["student", "--out", "book"], ["--out", "book holds other files, expected a folder that is new or empty"]),
        (["student", "--out", "/proc/x"], ["--out: cannot write below /proc"]),
        (["run", "uniroute", "-p", "n_cluster=4"], ["no parameter 'n_cluster'", "did you mean 'n_clusters'"]),
        (["run", "uniroute", "-p", "n_trials=many"], ["n_trials: found 'many', expected an integer"]),
        (["run", "uniroute", "-p", "n_trials=2.5"], ["n_trials: found 2.5, expected an integer"]),
        (["run", "uniroute", "-p", "n_trials="], ["n_trials: found '', expected an integer"]),
        (["run", "uniroute", "-p", "n_clusters=0"], ["n_clusters: found 0, expected an integer from 1"]),
        (["run", "uniroute", "-p", "n_trials=1e9"], ["n_trials: found 1000000000.0, expected an integer"]),
        (["run", "uniroute", "-p", "n_trials=1000000000"], ["n_trials: found 1000000000, expected an integer from 1"]),
        (["run", "uniroute", "-p", "train_llm_share=NaN"], ["train_llm_share: found nan, expected a number"]),
        (["run", "uniroute", "-p", "dataset=foo"], ["dataset: found 'foo'", "'routerbench'"]),
        (["run", "uniroute", "--dataset", "foo"], ["dataset: found 'foo'", "'routerbench'"]),
        (["run", "uniroute", "--dataset", "simulated", "-p", "dataset=auto"], ["disagree"]),
        (["run", "uniroute", "--dataset", "routerbench"], ["routerbench", "ROUTEBOOK_DATA"]),
        (["run", "benchmarks", "--dataset", "simulated"], ["benchmarks has no parameter 'dataset'"]),
        (["run", "uniroute", "-p", "n_trials"], ["-p n_trials: expected NAME=VALUE"]),
        (["run", "uniroute", "-p", "=3"], ["-p =3: expected NAME=VALUE"]),
        (["run", "uniroute", "--profile", "papr"], ["'papr' is not one of"]),
        (["run"], ["Missing argument 'CHAPTER'"]),
        (["rum"], ["No such command 'rum'"]),
        (["ledger", "--paper", "unirout"], ["no ledger of 'unirout'", "did you mean 'uniroute'"]),
        (["data", "check", "routrbench"], ["no dataset 'routrbench'", "did you mean 'routerbench'"]),
        (["data", "check", "routerbench"], ["routerbench", "ROUTEBOOK_DATA"]),
        (["data", "pull", "routrbench"], ["no dataset 'routrbench'", "did you mean 'routerbench'"]),
    ],
    ids=" ".join,
)
def test_refusals(routebook_, words, parts):
    assert_refused(routebook_(*words), *parts)


# --- data that cannot be used -----------------------------------------------------------------------------------


def _missing(folder, file):
    (folder / file.path).unlink()


def _truncated(folder, file):
    data = (folder / file.path).read_bytes()
    (folder / file.path).write_bytes(data[: len(data) // 2])


def _cut_short(folder, file):
    """A whole gzip file whose table stops in the middle of a row."""
    text = gzip.decompress((folder / file.path).read_bytes())
    (folder / file.path).write_bytes(gzip.compress(text[: len(text) // 2]))


def _changed(change):
    def damage(folder, file):
        write(folder, file, change(read(folder, file), file.models[3]))

    return damage


def _with(column, value):
    def change(frame, model):
        frame[column.format(model)] = frame[column.format(model)].astype(float)
        frame.loc[0, column.format(model)] = value
        return frame

    return change


COST = "{}|total_cost"
DAMAGE = {
    "missing": (_missing, ["file"]),
    "truncated": (_truncated, ["file"]),
    "cut short": (_cut_short, ["file"]),
    "column renamed": (_changed(lambda f, m: f.rename(columns={m: m + "-v2"})), ["file", "model"]),
    "negative cost": (_changed(_with(COST, -0.5)), ["cost", "model", "-0.5"]),
    "missing cost": (_changed(_with(COST, float("nan"))), ["cost", "model"]),
    "infinite cost": (_changed(_with(COST, float("inf"))), ["cost", "model"]),
    "quality above 1": (_changed(_with("{}", 1.5)), ["model", "1.5"]),
    "quality below 0": (_changed(_with("{}", -1.0)), ["model", "-1"]),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("words", [["run", "uniroute", "--dataset", "routerbench"], ["data", "check", "routerbench"]])
def test_bad_data_is_refused_before_any_kernel_starts(routebook_, tmp_path, monkeypatch, name, words):
    damage, named = DAMAGE[name]
    folder = tmp_path / "data"
    write_routerbench(folder)
    file = datasets.info("routerbench").files[0]
    damage(folder, file)
    monkeypatch.setenv("ROUTEBOOK_DATA", str(folder))
    monkeypatch.setenv("ROUTEBOOK_ALLOW_MODIFIED", "1")
    out = ["--out", str(tmp_path / "out" / "here")] if words[0] == "run" else []
    words_for = {"file": file.path.rpartition("/")[2], "model": file.models[3]}
    assert_refused(routebook_(*words, *out), *(words_for.get(part, part) for part in named))
    assert not (tmp_path / "out").exists()


def test_data_that_differs_from_its_card_is_refused(routebook_, tmp_path, monkeypatch):
    write_routerbench(tmp_path / "data")
    monkeypatch.setenv("ROUTEBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("ROUTEBOOK_ALLOW_MODIFIED", raising=False)
    assert_refused(routebook_("run", "uniroute"), "differs from its card")
    assert_refused(routebook_("data", "check", "routerbench"), "differs from its card")
    monkeypatch.setenv("ROUTEBOOK_ALLOW_MODIFIED", "1")
    assert routebook_("data", "check", "routerbench")[0] == 0


# --- output folders that cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "parts"),
    [
        ("file", ["is a file"]),
        ("file/below", ["cannot write below"]),
        ("file/far/below", ["cannot write below"]),
        ("full", ["holds other files"]),
        ("foreign", ["holds other files"]),
        ("", ["holds other files"]),
        ("/proc/nothing/here", ["cannot write below /proc"]),
        ("/", ["holds other files"]),
        ("~no-such-user/x", ["home directory"]),
        ("x" * 300, ["too long"]),
        ("loop", ["cannot be used"]),
    ],
)
def test_out_that_cannot_be_used(routebook_, tmp_path, monkeypatch, out, parts):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    # A run.json of somebody else's does not make a folder ours to replace.
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text('{"command": "npm test"}')
    (tmp_path / "loop").symlink_to("loop")
    before = files_below(tmp_path)
    where = out if out.startswith(("/", "~")) else f"{tmp_path}/{out}"
    assert_refused(routebook_("run", "uniroute", "-p", "dataset=simulated", "--out", where), "--out", *parts)
    assert files_below(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"file", "full", "foreign", "loop"}


# --- what it prints ---------------------------------------------------------------------------------------------


def test_params(routebook_):
    code, out, _ = routebook_("params", "uniroute", "--json")
    assert code == 0
    rows = json.loads(out)
    assert {tuple(row) for row in rows} == {("name", "expects", "quick", "paper", "help")}
    by_name = {row["name"]: row for row in rows}
    assert by_name["n_trials"]["paper"] == 400
    assert by_name["n_trials"]["expects"] == "an integer from 1 to 1000"
    code, out, _ = routebook_("params", "uniroute")
    assert code == 0
    for row in rows:
        assert f"{row['name']} = {json.dumps(row['quick'])}\n    {row['help']}\n    takes {row['expects']}" in out
    assert "the paper's: 400" in out


def test_list_and_data_list_say_what_is_present(routebook_, tmp_path, monkeypatch):
    code, out, _ = routebook_("list")
    assert code == 0
    assert "UniRoute" in out
    assert "ROUTEBOOK_DATA is not set" in out
    state = {line.split()[0]: line for line in out.partition("Datasets")[2].splitlines()[1:]}
    assert set(state) == set(datasets.names())
    assert "absent: routebook data pull routerbench" in state["routerbench"]
    assert "present" in state["simulated"]
    write_routerbench(tmp_path)
    monkeypatch.setenv("ROUTEBOOK_DATA", str(tmp_path))
    code, out, _ = routebook_("list")
    assert "ROUTEBOOK_DATA is set" in out
    line = next(line for line in out.splitlines() if line.startswith("  routerbench"))
    assert line.split()[1:] == ["real", "present"]
    code, out, _ = routebook_("data", "list")
    assert code == 0
    assert f"present: {tmp_path}" in out
    assert all(f"{name}: " in out for name in datasets.names())


def test_data_check_of_sound_data(routebook_):
    code, out, err = routebook_("data", "check", "simulated")
    assert (code, err) == (0, "")
    assert "simulated" in out


@pytest.mark.usefixtures("no_constants")
def test_ledger_json_has_the_documented_fields(routebook_, root):
    code, out, _ = routebook_("ledger", "--json")
    assert code == 0
    objects = json.loads(out)
    claims = [o for o in objects if "claim" in o]
    artefacts = [o for o in objects if "claim" not in o]
    names = [
        "paper",
        "artefact",
        "claim",
        "kind",
        "statement",
        "published",
        "ours",
        "interval",
        "verdict",
        "reason",
        "origin",
    ]
    assert claims
    assert all(list(claim) == names for claim in claims)
    assert {claim["paper"] for claim in claims} == {entry.paper for entry in ledger.discover(root)}
    assert len({(claim["paper"], claim["claim"]) for claim in claims}) == len(claims)
    verdicts = {
        *("reproduced", "partly", "not-reproduced", "arithmetic-ok", "arithmetic-fails"),
        *("qualitative", "data-unavailable", "planned", "not-run"),
    }
    assert {claim["verdict"] for claim in claims} <= verdicts
    for artefact in artefacts:
        assert artefact["title"]
        assert artefact["where"]
        if artefact["published"]:
            rows = list(csv.reader((root / artefact["published"]).open()))
            assert len(artefact["cells"]) == len(rows) - 1
    assert {claim["artefact"] for claim in claims} <= {artefact["artefact"] for artefact in artefacts}


@pytest.fixture
def no_constants(monkeypatch):
    """Make `json.loads` refuse NaN and Infinity, which no JSON reader but Python's knows."""
    loads = json.loads

    def strict(text, **options):
        return loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"), **options)

    monkeypatch.setattr(json, "loads", strict)


def test_ledger_for_a_terminal(routebook_):
    code, out, _ = routebook_("ledger", "--paper", "uniroute")
    assert code == 0
    assert out.startswith("uniroute: ")


def test_version_and_help(routebook_):
    assert routebook_("--version")[:2] == (0, f"{routebook.__version__}\n")
    code, out, _ = routebook_("run", "--help")
    assert code == 0
    assert "--profile [quick|paper]" in out


def test_without_a_command_it_shows_its_help(routebook_):
    code, _, err = routebook_()
    assert code == 2
    assert "Commands:" in err


# --- what a run is given ----------------------------------------------------------------------------------------


@pytest.fixture
def planned(routebook_, monkeypatch):
    """Return the plan of a run that would have been executed."""
    plans = []

    def execute(plan):
        plans.append(plan)
        return {"seconds": 1.0, "peak_memory_mib": 1}

    monkeypatch.setattr(runs, "execute", execute)

    def plan(*words):
        code, _, err = routebook_("run", "uniroute", *words)
        assert code == 0, err
        return plans.pop()

    return plan


def test_dataset_option_is_short_for_the_parameter(planned):
    short = planned("--dataset", "simulated", "--profile", "paper")
    assert short == planned("-p", "dataset=simulated", "--profile", "paper")
    assert short.dataset == "simulated"


def test_profiles_and_values_override_each_other_in_order(planned):
    assert planned().params.profile == "quick"
    paper = planned("--profile", "paper").params
    assert (paper.profile, paper.n_trials, paper.max_prompts) == ("paper", 400, 1_000_000)
    custom = planned("--profile", "paper", "-p", "n_trials=3", "-p", "cluster_grid=3,5", "-p", " seed = 7").params
    assert (custom.n_trials, custom.max_prompts, custom.cluster_grid, custom.seed) == (3, 1_000_000, [3, 5], 7)


def test_auto_takes_the_best_dataset_present(planned, tmp_path, monkeypatch):
    assert planned().dataset == "tinypool"
    write_routerbench(tmp_path)
    monkeypatch.setenv("ROUTEBOOK_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTEBOOK_ALLOW_MODIFIED", "1")
    assert planned().dataset == "routerbench"


def test_quiet_silences_progress(routebook_, monkeypatch):
    from routebook import progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert not progress.quiet()
    assert routebook_("--quiet", "list")[0] == 0
    assert progress.quiet()


# --- as a process -----------------------------------------------------------------------------------------------


def test_a_refusal_writes_nothing(tmp_path):
    make_project(tmp_path)
    before = files_below(tmp_path)
    done = call(tmp_path, "run", "toy", "-p", "n=0", "--out", "out")
    assert_refused((done.returncode, done.stdout, done.stderr), "n: found 0, expected an integer from 1 to 1000")
    assert {name for name in files_below(tmp_path) if "__pycache__" not in name} == before


def test_params_imports_nothing_heavy(root):
    heavy = ("torch", "transformers", "sklearn", "scipy", "pandas", "faiss", "papermill", "matplotlib")
    code = (
        "import sys\nfrom routebook import cli\nsys.argv = ['routebook', 'params', 'uniroute']\ncli.main()\n"
        f"found = [m for m in {heavy} if m in sys.modules]\nassert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)


def test_a_reader_who_leaves_early_sees_no_traceback(root):
    command = f"{sys.executable} -m routebook ledger --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "["
    assert done.stderr == ""
