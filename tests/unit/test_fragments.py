"""Pieces of pages made from runs: every number in them is the run's, and every page names its data."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from routebook import fragments, ledger, report, runs
from routebook.record import Record
from routebook.site import Built


def make_run(**given):
    run = {
        "chapter": "uniroute",
        "dataset": "routerbench",
        "origin": "real",
        "complete": False,
        "absent": ["mmlu", "gsm8k"],
        "profile": "quick",
        "parameters": {"n_trials": 5, "grid": [3, 4], "dataset": "auto"},
        "digest": "0123456789abcdef",
        "date": "2026-01-02T03:04:05+00:00",
        "seconds": 61.6,
        "peak_memory_mib": 512,
        "packages": {"numpy": "2.0"},
        "python": "3.11.7",
        "git_commit": "abc+changes",
    }
    return {**run, **given}


@pytest.fixture
def built(root, tmp_path):
    """The real project's chapters, with made-up runs."""
    simulated = make_run(dataset="simulated", origin="simulated", complete=True, absent=[], seconds=2.4)
    found = []
    for name, run in (("uniroute", simulated), ("benchmarks", make_run(dataset="all", origin=None, absent=[]))):
        folder = tmp_path / name
        folder.mkdir()
        Record(folder)._write()
        shutil.copy(root / runs.chapter(name, root).notebook, folder / "notebook.ipynb")
        found.append(Built(runs.chapter(name, root), folder, run, executed=name == "uniroute"))
    return found


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (make_run(), "**routerbench** (real, published data); not present of it: mmlu, gsm8k"),
        (make_run(absent=[]), "**routerbench** (real, published data)"),
        (make_run(origin="made", absent=[]), "made by this project: real answers of tiny models"),
        (
            make_run(dataset="simulated", origin="simulated", absent=[]),
            "**simulated** (simulated data: no number here says anything about real LLMs)",
        ),
        (make_run(dataset="all", origin=None, absent=[]), "every dataset present"),
    ],
)
def test_data_is_described_with_its_tier_and_what_is_absent(run, words):
    assert words in fragments.describe_data(run)
    assert fragments.describe_data(run) in fragments.notebook_footer(run)


def test_data_of_several_tiers_is_described_tier_by_tier():
    run = {"dataset": "routerbench, tinypool, mmlu-pro", "origin": None, "absent": []}
    said = fragments.describe_data(run)
    assert said.startswith("**routerbench, mmlu-pro** (real, published data) and **tinypool** (made by this project")


def test_the_notice_warns_where_data_is_not_real():
    assert fragments.notice(make_run()).startswith(":::{note}\n")
    assert "Profile: quick." in fragments.notice(make_run())
    assert fragments.notice(make_run(origin="simulated")).startswith(":::{warning}\n")
    assert fragments.notice(make_run(dataset="tinypool", origin="made")).startswith(":::{warning}\n")
    about_itself = make_run(chapter="tinypool", dataset="tinypool", origin="made")
    assert fragments.notice(about_itself).startswith(":::{note}\n")
    assert ":::" not in fragments.notice(make_run(dataset="all", origin=None))


def test_the_footer_names_all_that_makes_a_run():
    footer = fragments.notebook_footer(make_run())
    for part in ("routerbench", '`n_trials=5`, `grid=[3, 4]`, `dataset="auto"`', "`0123456789abcdef`"):
        assert part in footer
    assert "run on 2026-01-02 in 62 s" in footer
    assert "parameters: none" in fragments.notebook_footer(make_run(parameters={}))


def test_statistics_have_one_row_a_notebook_and_links_from_the_root(built):
    text = fragments.statistics(built)
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len(built)
    assert (
        "](/replications/uniroute/uniroute.ipynb) | simulated | simulated | quick | 2026-01-02 03:04 | 2 |" in rows[0]
    )
    assert "512 | `0123456789abcdef` |" in rows[0]
    assert "Python 3.11.7; numpy 2.0." in text
    assert "Commit: `abc+changes`." in text


def test_minutes_to_read_count_words_formulas_and_what_is_shown():
    assert fragments.reading_minutes(["word " * 450]) == 3
    assert fragments.reading_minutes(["word " * 299, "$$a b c$$ last"]) == 2
    assert fragments.reading_minutes(["word " * 300, "$$a$$", "$$b$$"]) == 3
    assert fragments.reading_minutes(["few words"]) == 1
    assert fragments.reading_minutes([], looks=10) == 5


def test_minutes_of_a_notebook_count_its_figures_and_tables_but_not_what_it_prints():
    v4 = nbformat.v4
    source = v4.new_notebook(cells=[v4.new_markdown_cell("word " * 300), v4.new_code_cell("word " * 300)])
    shown = [{"image/svg+xml": "<svg/>"}, {"text/html": "<table/>"}, {"text/plain": "7"}]
    outputs = [v4.new_output("display_data", data=data) for data in shown]
    outputs.append(v4.new_output("stream", text="said"))
    executed = v4.new_notebook(cells=[v4.new_code_cell("", outputs=outputs)])
    assert fragments.notebook_minutes(source, executed) == 3


def test_the_time_stands_in_the_box_at_the_head_of_a_page():
    page = "# Title\n\n:::{admonition} On this page\n:class: tip\n\n**You need** time.\n:::\n\n:::{note}\nNo.\n:::\n"
    timed = fragments.with_time(page, 7, make_run())
    line = "**Time**: 7 minutes to read; the run behind it took 62 seconds (quick profile)."
    assert timed == page.replace("time.\n:::", f"time.\n\n{line}\n:::", 1)
    assert "took 2 minutes (quick profile)." in fragments.with_time(page, 7, make_run(seconds=93))
    assert "**Time**: 1 minute to read.\n:::" in fragments.with_time(page, 1)
    assert fragments.with_time("# Title\n\n:::{note}\nNo.\n:::\n", 7) == "# Title\n\n:::{note}\nNo.\n:::\n"


def test_the_table_of_times_has_a_row_a_notebook_with_its_exercises(built):
    rows = fragments.times(built).splitlines()[2:]
    assert len(rows) == len(built)
    assert rows[0].startswith("| [UniRoute: routing to LLMs")
    assert rows[0].endswith("| 3 | 2 seconds |")


def test_prose_pages_say_what_the_chapters_ran_on(built):
    assert "computed on **simulated** (simulated data" in fragments.prose_footer(built)
    assert fragments.prose_footer([*built, *built]) == fragments.prose_footer(built), "each dataset is named once"
    assert fragments.data_used(built).count("\n- ") + 1 == 1
    assert built[0].chapter.title in fragments.data_used(built)


def test_results_are_those_of_chapters_that_have_a_ledger(built):
    assert fragments.results_of(built, ["uniroute"]) == {"uniroute": []}
    assert fragments.results_of(built, []) == {}


def test_a_shown_command_is_really_run(root):
    block = fragments.command_output(root, ["run", "uniroute", "-p", "n_clusters=0"])
    lines = block.splitlines()
    assert lines[:2] == ["```console", "$ routebook run uniroute -p n_clusters=0"]
    assert "n_clusters: found 0" in lines[2]
    assert lines[-3:] == ["$ echo $?", "2", "```"]
    assert str(root) not in block


def test_every_shown_command_is_used_on_a_page_and_the_reverse(root):
    made = {f"command-{name}" for name in fragments.SHOWN_COMMANDS} | {
        *("scoreboard", "scorecard", "errata", "open-questions", "statistics", "data-used"),
        *(f"api-{name}" for name in fragments.API),
    }
    pages = [path.read_text() for path in (root / "book").rglob("*.md")]
    pages += [path.read_text() for path in (root / "book").glob("*.ipynb")]
    included = {name for name in made if any(f"_generated/{name}.md" in page for page in pages)}
    assert included == made


def test_summary_says_dataset_time_and_claims(root, built, monkeypatch):
    verdicts = [SimpleNamespace(verdict=v) for v in ("planned", "reproduced", "planned")]
    monkeypatch.setattr(ledger, "of_pages", lambda entry, results: verdicts if results == [] else [])
    lines = list(report.summary(root, built))
    assert lines[0] == "uniroute: simulated (simulated), ran in 2 s; claims: 2 planned, 1 reproduced"
    assert lines[1] == "benchmarks: all (various), unchanged, ran earlier in 62 s"


def test_latest_results_are_those_of_the_newest_whole_run_of_each_paper(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), _file(tmp_path / "replications/toy/toy.ipynb"))
    nbformat.write(nbformat.v4.new_notebook(), _file(tmp_path / "replications/other/other.ipynb"))
    for name, value, time in (("old", 1.0, 100), ("new", 2.0, 200), ("half", 3.0, None)):
        records = [{"id": "x", "value": value, "low": None, "high": None}]
        folder = tmp_path / "_build/runs/toy" / name
        _file(folder / "results.json").write_text(json.dumps(records))
        if time:
            (folder / runs.RUN_FILE).write_text("{}")
            os.utime(folder / runs.RUN_FILE, (time, time))
    nbformat.write(nbformat.v4.new_notebook(), _file(tmp_path / "replications/toy/more.ipynb"))
    page = _file(tmp_path / "_build/runs/toy-more/x/results.json")
    page.write_text(json.dumps([{"id": "more/x", "value": 4.0, "low": None, "high": None}]))
    (page.parent / runs.RUN_FILE).write_text("{}")
    assert [r["value"] for r in report.latest_results(tmp_path, ["toy", "other"])["toy"]] == [2.0, 4.0]
    assert set(report.latest_results(tmp_path, ["toy", "other"])) == {"toy"}
    assert report.latest_results(tmp_path, ["other"]) == {}


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_progress_is_silent_without_a_terminal(monkeypatch, capsys):
    from routebook.progress import progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert list(progress(range(3), label="x")) == [0, 1, 2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("ROUTEBOOK_QUIET", "1")
    assert list(progress(range(3), label="x")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("ROUTEBOOK_QUIET")
    assert list(progress(range(3), label="counting")) == [0, 1, 2]
    assert "counting" in capsys.readouterr().err
