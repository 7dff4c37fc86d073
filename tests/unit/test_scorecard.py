"""The pages made from ledgers: everything is listed and counted once, and nothing a paper says breaks a page."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from demo_ledger import claim, ordering, record, write

from routebook import ledger as L
from routebook import scorecard
from routebook.record import Record

ROOT = Path(__file__).resolve().parents[2]
UNIROUTE = ROOT / "replications" / "uniroute" / "ledger.yaml"


def evaluate(path, results):
    return L.evaluate_all([L.load(path)], {"demo": results})


@pytest.fixture(scope="module")
def everything():
    return L.evaluate_all(L.discover(ROOT), {})


def _rows(table):
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return {row[0].strip(): row[1:] for row in cells if row[0].strip() != "---"}


def test_the_scorecard_counts_every_claim_and_lists_every_artefact(everything):
    page = scorecard.scorecard(everything, {})
    for found, _ in everything:
        for entry in found.entries:
            assert L.as_code(entry.title) in page
            for one in entry.claims:
                assert page.count(f'id="claim-{one.id}"') == 1
    rows = _rows(scorecard.scoreboard(everything))
    assert rows.pop("verdict") == [scorecard.short(found) for found, _ in everything] + ["all papers"]
    for column, (found, _) in enumerate(everything):
        counted = sum(int(cells[column]) for name, cells in rows.items() if name in L.VERDICTS)
        assert int(rows["claims, in all"][column]) == counted == len(found.claims)
        assert int(rows["tables, figures and formal results"][column]) == len(found.entries)


def test_two_papers_are_summed(tmp_path):
    first, second = L.load(write(tmp_path, [claim()])), L.load(UNIROUTE)
    rows = _rows(scorecard.scoreboard(L.evaluate_all([first, second], {"demo": [record(value=0.712)]})))
    assert rows["verdict"] == ["Demo", "UniRoute", "all papers"]
    assert rows["reproduced"] == ["1", "0", "1"]
    assert rows["tables, figures and formal results"][-1] == str(1 + len(second.entries))
    assert rows["claims, in all"][-1] == str(1 + len(second.claims))


def test_verdicts_are_counted_by_what_they_rest_on(tmp_path):
    other = claim(id="area-b", reads="area/b")
    third = claim(id="area-c", reads="area/c")
    results = [record(value=0.712), record("area/b", origin="made"), record("area/c", dataset="elsewhere")]
    rows = _rows(scorecard.tier_table(evaluate(write(tmp_path, [claim(), other, third]), results)))
    assert rows["verdict"] == ["real data", "data this project made"]
    assert rows["reproduced"] == ["1", "0"]
    assert rows["qualitative"] == ["0", "1"]
    assert rows["data-unavailable"] == ["1", "0"]
    rows = _rows(scorecard.tier_table(evaluate(write(tmp_path, [claim()]), None)))
    assert rows["verdict"] == ["no data"]
    assert rows["not-run"] == ["1"]


def test_what_a_paper_says_is_escaped(tmp_path):
    path = write(tmp_path, [claim(statement="A <b>beats</b> B | $x_1$ & more (Table 1).")], title="Areas <i> & `b`")
    page = scorecard.scorecard(evaluate(path, [record()]), {})
    assert "A &lt;b&gt;beats&lt;/b&gt; B | $x_1$ &amp; more" in page
    assert "Areas &lt;i&gt; &amp; <code>b</code>" in page
    assert "<b>beats" not in page
    assert scorecard.markdown("a | <b> $x$ `c` *d*") == r"a \| \<b\> \$x\$ \`c\` \*d\*"


def test_a_row_of_a_claim_says_what_it_is_filtered_and_sorted_by(tmp_path):
    results = [record(value=0.70456), record("area-difference/a/b", 0.0121, low=-0.001, high=0.02)]
    page = scorecard.claim_table(evaluate(write(tmp_path, [claim(), ordering()]), results))
    rows = re.findall(r"<tr id.*?</tr>", page)
    wanted = (
        'data-paper="demo" data-artefact="demo/table-1" data-kind="value" data-verdict="reproduced" data-rests="real"'
    )
    assert wanted in rows[0]
    assert '<td data-value="0.712">0.712</td><td data-value="0.70456">0.705 [0.690, 0.710]</td>' in rows[0]
    (difference,) = re.findall(r'<td data-value="([^"]+)">-0.007</td>', rows[0])
    assert float(difference) == pytest.approx(0.70456 - 0.712)
    assert 'data-verdict="partly"' in rows[1]
    assert ">Demo, Table 1</td>" in rows[1]


def test_the_filters_offer_what_there_is_with_its_number(tmp_path):
    form = scorecard.claim_filters(evaluate(write(tmp_path, [claim(), ordering()]), None))
    assert '<option value="not-run">not-run (2)</option>' in form
    assert '<option value="ordering">ordering (1)</option>' in form
    assert '<option value="none">no data (2)</option>' in form
    assert '<option value="demo/table-1">Table 1 (2)</option>' in form
    assert "reproduced" not in form


def test_an_artefact_links_to_its_chapter_and_to_its_claims(tmp_path):
    evaluated = evaluate(write(tmp_path, [claim(), ordering()], status="partly", reason="Only `A`."), None)
    table = scorecard.artefact_table(evaluated, {"demo": "../replications/demo/demo.html"})
    assert '<a href="../replications/demo/demo.html">Demo</a>' in table
    assert 'data-filter="artefact=demo%2Ftable-1&amp;verdict=not-run"' in table
    assert ">2 not-run<" in table
    assert "Only <code>A</code>." in table
    assert "<a href" not in scorecard.artefact_table(evaluated, {}).replace('<a href="#claims"', "")


def test_the_files_hold_the_same_claims_as_the_command(everything):
    objects = json.loads(scorecard.as_json(everything))
    claims = [one for one in objects if "claim" in one]
    rows = list(csv.DictReader(io.StringIO(scorecard.as_csv(everything))))
    assert [row["claim"] for row in rows] == [one["claim"] for one in claims]
    assert tuple(rows[0]) == scorecard.CSV_FIELDS
    assert all(
        row["published"] == ("" if one["published"] is None else str(one["published"]))
        for row, one in zip(rows, claims, strict=True)
    )


def test_an_interval_takes_two_columns_of_the_csv(tmp_path):
    (row,) = csv.DictReader(io.StringIO(scorecard.as_csv(evaluate(write(tmp_path, [claim()]), [record()]))))
    assert (row["ours"], row["low"], row["high"]) == ("0.7", "0.69", "0.71")


def test_the_errata_list_each_check_that_fails_and_no_other(everything):
    page = scorecard.errata(everything)
    for found, verdicts in everything:
        for (entry, one), verdict in zip(found.claims, verdicts, strict=True):
            fails = verdict.verdict == "arithmetic-fails"
            assert (f'id="erratum-{one.forensics}"' in page) is fails or one.kind != "arithmetic"
            if fails:
                row = page.partition(f'id="erratum-{one.forensics}"')[2].partition("</tr>")[0]
                assert f'href="scorecard.html#claim-{one.id}"' in row
                assert one.reads in row
                assert entry.where.split(",")[0].replace("&", "&amp;") in row
        for remark in found.remarks:
            assert scorecard.markdown(remark.forensics) in page
        failing = sum(v.verdict == "arithmetic-fails" for v in verdicts)
        checks = sum(one.kind == "arithmetic" for _, one in found.claims)
        assert f"{failing} of {checks} checks fail." in page


def test_open_questions_are_those_the_chapters_recorded(tmp_path):
    shown = pd.DataFrame({"detail": ["split"], "ours": ["`n_trials`: <b>5</b>"], "moves": [""]}, index=[1])
    Record(tmp_path).table(scorecard.OPEN_CHOICES, pd.DataFrame({"effect": [0.1]}), show=shown)
    assert scorecard.open_file(tmp_path).is_file()
    page = scorecard.open_questions({"Demo: a paper": ("../replications/demo/demo.html", tmp_path)})
    assert "### Demo\n" in page
    assert 'href="../replications/demo/demo.html#what-the-paper-leaves-open"' in page
    assert "<td><code>n_trials</code>: <b>5</b></td>" in page
    assert "nan" not in page
