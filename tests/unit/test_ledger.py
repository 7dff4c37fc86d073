"""The ledger: verdict rules by hand-worked cases, refusals, renderers, and UniRoute's own ledger."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from demo_ledger import CELLS, claim, ordering, record, write

from replications.uniroute.tables import COMPARED
from replications.uniroute.trials import METHODS
from routebook import ledger as L
from routebook.errors import UserError
from routebook.ledger import LedgerError, evaluate, judge_ordering, judge_trend, judge_value, load

ROOT = Path(__file__).resolve().parents[2]
UNIROUTE = ROOT / "replications" / "uniroute" / "ledger.yaml"

# ---------------------------------------------------------------------------------------------- rules, by hand


@pytest.mark.parametrize(
    ("ours", "interval", "verdict"),
    [
        (0.712, None, "reproduced"),
        (0.7235, None, "reproduced"),  # .712 + .0115, exactly on the boundary
        (0.7005, None, "reproduced"),  # .712 - .0115
        (0.7236, None, "not-reproduced"),
        (0.7236, (0.7235, 0.73), "partly"),  # the interval's nearer end lies on the boundary
        (0.74, (0.7234, 0.76), "partly"),
        (0.74, (0.7237, 0.76), "not-reproduced"),
        (0.68, (0.66, 0.7004), "not-reproduced"),
        (0.74, (0.70, 0.78), "partly"),  # the interval covers the published number
        (math.inf, None, "not-reproduced"),
    ],
)
def test_a_value_is_judged_by_distance_and_then_by_its_interval(ours, interval, verdict):
    assert judge_value(ours, interval, 0.712, 0.0115)[0] == verdict


def test_infinity_reproduces_infinity():
    assert judge_value(math.inf, None, math.inf, 0.1)[0] == "reproduced"


@pytest.mark.parametrize(
    ("difference", "interval", "side", "margin", "verdict"),
    [
        (0.02, (0.01, 0.03), "above", 0, "reproduced"),
        (0.02, (0.0, 0.03), "above", 0, "partly"),  # touching 0 is not beyond it
        (0.02, (-0.01, 0.05), "above", 0, "partly"),
        (0.0, (-0.01, 0.01), "above", 0, "not-reproduced"),
        (-0.01, (-0.02, 0.01), "above", 0, "not-reproduced"),
        (-0.02, (-0.03, -0.01), "above", 0, "not-reproduced"),
        (0.02, None, "above", 0, "partly"),  # one trial: no interval
        (0.02, (0.01, 0.03), "above", 0.01, "partly"),
        (0.02, (0.011, 0.03), "above", 0.01, "reproduced"),
        (-0.02, (-0.03, -0.01), "below", 0, "reproduced"),
        (-0.02, (-0.03, 0.0), "below", 0, "partly"),
        (0.02, (0.01, 0.03), "below", 0, "not-reproduced"),
        (0.001, (-0.005, 0.005), "same", 0.005, "reproduced"),  # both ends on the margin
        (0.001, (-0.006, 0.005), "same", 0.005, "partly"),
        (0.005, (0.001, 0.009), "same", 0.005, "partly"),
        (0.006, (0.001, 0.011), "same", 0.005, "not-reproduced"),
        (0.001, None, "same", 0.005, "partly"),
    ],
)
def test_an_ordering_is_judged_by_the_interval_of_the_difference(difference, interval, side, margin, verdict):
    assert judge_ordering(difference, interval, side, margin)[0] == verdict


@pytest.mark.parametrize(
    ("values", "direction", "slack", "verdict"),
    [
        ((1, 2, 3), "increasing", 0, "reproduced"),
        ((1, 2, 2), "increasing", 0, "reproduced"),
        ((1, 3, 2), "increasing", 0, "partly"),
        ((1, 3, 2.5), "increasing", 0.5, "reproduced"),  # a step back of exactly the slack
        ((1, 3, 2.4), "increasing", 0.5, "partly"),
        ((1, 3, 1), "increasing", 5, "not-reproduced"),
        ((3, 2, 1), "increasing", 0, "not-reproduced"),
        ((3, 2, 1), "decreasing", 0, "reproduced"),
    ],
)
def test_a_trend_is_judged_by_its_steps_and_its_ends(values, direction, slack, verdict):
    assert judge_trend(values, direction, slack)[0] == verdict


# ------------------------------------------------------------------------------------------- a ledger of our own


def only(path: Path, results) -> L.Verdict:
    (verdict,) = evaluate(load(path), results)
    return verdict


def test_a_value_claim_reads_its_published_cell(tmp_path):
    verdict = only(write(tmp_path, [claim()]), [record(value=0.72, low=0.71, high=0.73)])
    assert (verdict.verdict, verdict.published, verdict.ours) == ("reproduced", 0.712, 0.72)
    assert verdict.interval == (0.71, 0.73)
    assert list(verdict.record()) == [
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


def test_results_may_be_a_mapping_from_id_to_record(tmp_path):
    fields = {key: value for key, value in record(value=0.712).items() if key != "id"}
    assert only(write(tmp_path, [claim()]), {"area/a": fields}).verdict == "reproduced"


def test_an_ordering_shows_the_published_difference_without_float_dust(tmp_path):
    verdict = only(write(tmp_path, [ordering()]), [record("area-difference/a/b", 0.01, low=-0.01, high=0.03)])
    assert (verdict.verdict, verdict.published) == ("partly", 0.023)


def test_a_trend_reads_several_results(tmp_path):
    trend = claim(
        kind="trend",
        reads=["k/1", "k/2", "k/3"],
        direction="increasing",
        published=None,
        tolerance=None,
        slack=0.0,
    )
    path = write(tmp_path, [trend])
    rising = [record(f"k/{i}", i) for i in (1, 2, 3)]
    assert only(path, rising).verdict == "reproduced"
    assert only(path, [*rising[:2], record("k/3", 0.5)]).verdict == "not-reproduced"
    with pytest.raises(LedgerError, match="several datasets"):
        only(path, [*rising[:2], record("k/3", 3, dataset="other")])


def test_a_claim_on_complete_data_is_unavailable_on_a_part_and_shows_our_number(tmp_path):
    path = write(tmp_path, [claim(needs={"dataset": "pool", "complete": True})])
    verdict = only(path, [record(value=0.712, complete=False, absent=["mmlu", "hellaswag"])])
    assert (verdict.verdict, verdict.ours) == ("data-unavailable", 0.712)
    assert "mmlu, hellaswag" in verdict.reason
    assert only(path, [record(value=0.712)]).verdict == "reproduced"


def test_an_ordering_on_part_of_the_data_is_judged_and_says_so(tmp_path):
    given = record("area-difference/a/b", 0.02, low=0.01, high=0.03, complete=False, absent=["mmlu"])
    verdict = only(write(tmp_path, [ordering()]), [given])
    assert verdict.verdict == "reproduced"
    assert "on part of pool (absent: mmlu)" in verdict.reason


@pytest.mark.parametrize(
    ("difference", "direction"),
    [(0.02, "): as claimed;"), (0.005, "not beyond its uncertainty"), (-0.02, "): not as claimed;")],
)
def test_made_and_simulated_data_give_a_direction_and_no_verdict(tmp_path, difference, direction):
    path = write(tmp_path, [ordering()])
    for origin in ("made", "simulated"):
        bounds = {"low": difference - 0.01, "high": difference + 0.01}
        given = record("area-difference/a/b", difference, **bounds, origin=origin, dataset="toy")
        verdict = only(path, [given])
        assert verdict.verdict == "qualitative"
        assert verdict.origin == origin
        assert direction in verdict.reason


def test_a_published_value_is_not_compared_with_simulated_data(tmp_path):
    verdict = only(write(tmp_path, [claim()]), [record(origin="simulated", dataset="toy")])
    assert verdict.verdict == "qualitative"
    assert "published number is for pool" in verdict.reason


def test_a_run_on_another_real_dataset_gives_no_verdict_and_no_number(tmp_path):
    verdict = only(write(tmp_path, [claim()]), [record(value=0.712, dataset="elsewhere")])
    assert (verdict.verdict, verdict.ours, verdict.interval) == ("data-unavailable", None, None)
    assert "needs pool; the run used elsewhere" in verdict.reason


def test_without_a_run_claims_are_not_run_or_planned(tmp_path):
    planned = ordering(status="planned", note="Needs the whole pool.")
    path = write(tmp_path, [claim(), planned], status="partly", reason="half of it")
    first, second = evaluate(load(path), None)
    assert (first.verdict, second.verdict) == ("not-run", "planned")
    assert second.reason == "Needs the whole pool."
    path = write(tmp_path, [claim()], status="planned", reason="needs a cluster of machines")
    assert [v.verdict for v in evaluate(load(path), None)] == ["planned"]
    assert evaluate(load(path), [])[0].reason == "needs a cluster of machines"


def test_a_missing_result_is_an_error_that_names_the_nearest(tmp_path):
    with pytest.raises(LedgerError, match=r"'area-a' reads 'area/a', which the run did not record.*'area/b'"):
        only(write(tmp_path, [claim()]), [record("area/b")])


def test_a_planned_claim_whose_result_exists_is_an_error(tmp_path):
    path = write(tmp_path, [claim()], status="planned", reason="later")
    with pytest.raises(LedgerError, match="is planned, but the run recorded 'area/a'"):
        only(path, [record()])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (record(value=None), "has no value"),
        (record(value=math.nan), "has no value"),
        (record(value="many"), "has value 'many', expected a number"),
        (record(origin=None), "has dataset 'pool' and origin None"),
        (record(complete=None), "has complete None"),
        (record(low=0.8, high=0.6), "expected low <= high"),
        (record(unit="USD"), "has the unit 'USD', expected 'area'"),
        ({"value": 1.0}, "expected records with an id"),
    ],
)
def test_a_malformed_record_is_refused(tmp_path, given, message):
    with pytest.raises(LedgerError, match=re.escape(message)):
        only(write(tmp_path, [claim()]), [given])


def test_an_id_recorded_twice_is_refused(tmp_path):
    with pytest.raises(LedgerError, match="recorded twice"):
        only(write(tmp_path, [claim()]), [record(), record()])


def test_fractions_and_percentages_convert_and_a_percentage_must_be_named(tmp_path):
    path = write(tmp_path, [claim(unit="%", published={"row": "A", "column": "QNC"}, tolerance=0.35, reads="qnc/a")])
    verdict = only(path, [record("qnc/a", 0.9975, unit="fraction", low=0.99, high=1.0)])
    assert verdict.ours == pytest.approx(99.75)
    assert verdict.interval == pytest.approx((99.0, 100.0))
    assert verdict.verdict == "reproduced"  # .35 from 99.4, on the boundary
    assert only(path, [record("qnc/a", 99.4, unit="%", low=99, high=100)]).ours == 99.4
    with pytest.raises(LedgerError, match="has the unit ''"):
        only(path, [record("qnc/a", 0.994)])


def test_a_quality_neutral_cost_never_reached_is_infinite_and_survives_json(tmp_path):
    path = write(tmp_path, [claim(unit="%", published={"row": "A", "column": "QNC"}, tolerance=0.35)])
    verdict = only(path, [record(value="inf", unit="%", low=99.0, high="inf")])
    assert verdict.verdict == "partly"
    fields = json.loads(json.dumps(verdict.record(), allow_nan=False))
    assert (fields["ours"], fields["interval"]) == ("inf", [99.0, "inf"])


# -------------------------------------------------------------------------------------------- malformed ledgers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": None}, "entries.table-1.claims.area-a: a claim of kind value needs 'tolerance'"),
        ({"tolerance": 0}, "entries.table-1.claims.area-a.tolerance"),
        ({"tolerance": "wide"}, "entries.table-1.claims.area-a.tolerance"),
        ({"tolerances": 0.1}, "entries.table-1.claims.area-a.tolerances: Extra inputs are not permitted"),
        ({"reason": None}, "needs 'reason'"),
        ({"needs": None}, "needs 'needs'"),
        ({"written": None}, "entries.table-1.claims.area-a.written: Field required"),
        ({"written": "soon"}, "entries.table-1.claims.area-a.written"),
        ({"kind": "hunch"}, "entries.table-1.claims.area-a.kind"),
        ({"reads": "Area of A"}, "'Area of A' is no result key"),
        ({"reads": "area//a"}, "'area//a' is no result key"),
        ({"reads": ["area/a", "area/b"]}, "a trend reads a list of results"),
        ({"side": "above"}, "a claim of kind value takes no 'side'"),
        ({"published": {"row": "A", "column": "Aera"}}, "no published number in cell 'A | Aera'; did you mean"),
        ({"published": {"row": "C", "column": "Area"}}, "no published number in cell 'C | Area'"),
        ({"unit": "%"}, "area-a.unit: is '%', its cell is in 'normalised area'"),
        ({"kind": "arithmetic", "reads": "os:system", "forensics": "UR-1"}, "'os:system' is no check"),
    ],
)
def test_a_malformed_claim_is_refused_with_its_file_and_field(tmp_path, changes, message):
    path = write(tmp_path, [claim(**changes)])
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load(path)
    assert "ledger.yaml" in str(caught.value) or "demo: table-1" in str(caught.value)


def test_a_claim_of_no_difference_needs_a_margin(tmp_path):
    with pytest.raises(LedgerError, match="needs a margin above 0"):
        load(write(tmp_path, [ordering(side="same")]))


def test_a_check_must_be_the_papers_own(tmp_path):
    own = {"id": "sum", "statement": "The parts add up.", "kind": "arithmetic", "written": "2026-11-22"}
    own |= {"forensics": "UR-1", "reads": "replications.other.arithmetic:sizes"}
    with pytest.raises(LedgerError, match=re.escape("expected replications.demo.arithmetic:<function>")):
        load(write(tmp_path, [own]))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"published": None}, "published_note must say why"),
        ({"published": "../x.csv"}, "must be a file name inside the folder"),
        ({"published": "table-9.csv"}, "published/table-1.csv belongs to no entry"),
        ({"status": "planned"}, "status planned needs one"),
        ({"status": "done"}, "entries.table-1.status"),
        ({"status": "not-applicable", "reason": "a diagram"}, "but the status is not-applicable"),
        ({"claims": [claim(), claim()]}, "claim id 'area-a' occurs twice"),
        ({"claims": [claim(status="planned")]}, "'area-a' is planned, but the status is rebuilt"),
    ],
)
def test_a_malformed_entry_is_refused(tmp_path, entry, message):
    with pytest.raises(LedgerError, match=re.escape(message)):
        load(write(tmp_path, **{"claims": [claim()], **entry}))


def test_yaml_that_is_broken_doubled_or_absent_is_refused(tmp_path):
    path = write(tmp_path, [claim()])
    text = path.read_text()
    path.write_text(text.replace("tolerance: 0.0115", "tolerance: 0.0115\n    tolerance: 9"))
    with pytest.raises(LedgerError, match="key 'tolerance' is given twice"):
        load(path)
    path.write_text("entries: [")
    with pytest.raises(LedgerError, match="not valid YAML"):
        load(path)
    path.write_text("- a list")
    with pytest.raises(LedgerError, match="expected a mapping"):
        load(path)
    with pytest.raises(LedgerError, match="no such ledger"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CELLS.replace("printed", "shown", 1), "columns are"),
        (CELLS.replace(",.712,", ",about .7,", 1), "line 2: not a row of seven columns"),
        (CELLS + "A,Area,pool,.7,.7,normalised area,\n", "occurs twice"),
    ],
)
def test_malformed_cells_are_refused(tmp_path, text, message):
    path = write(tmp_path, [claim()])
    (path.parent / "published" / "table-1.csv").write_text(text, encoding="utf-8")
    with pytest.raises(LedgerError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("replications.uniroute.arithmetic:no_such_check", "no arithmetic check"),
        ("replications.no_such_paper.arithmetic:sizes", "no arithmetic check"),
        ("replications.uniroute.arithmetic:row", "stopped: TypeError"),
        ("replications.uniroute.arithmetic:published", "expected a Check"),
    ],
)
def test_a_check_that_cannot_be_run_is_an_error(name, message):
    with pytest.raises(LedgerError, match=message):
        L.run_check(name)


# ---------------------------------------------------------------------------------------------------- renderers


def test_tables_print_as_many_digits_as_the_paper(tmp_path):
    qnc = claim(id="qnc-a", unit="%", published={"row": "A", "column": "QNC"}, reads="qnc/a", tolerance=0.35)
    path = write(tmp_path, [claim(), ordering(), qnc])
    results = [
        record(value=0.70456, low=0.6912, high=0.7149),
        record("area-difference/a/b", 0.0121, low=-0.001, high=0.02),
        record("qnc/a", 97.123, unit="%", low=96.04, high=98.26),
    ]
    frame = L.table(evaluate(load(path), results))
    assert frame.index.name == "claim"
    value, order, cost = (frame.loc[name] for name in ("area-a", "a-above-b", "qnc-a"))
    assert (value.paper, value.ours, value.difference) == ("0.712", "0.705 [0.691, 0.715]", "-0.007")
    assert (order.paper, order.ours) == ("+0.023", "+0.012 [-0.001, +0.020]")
    assert (cost.paper, cost.ours, cost.difference) == ("99.4%", "97.1% [96.0%, 98.3%]", "-2.3%")
    assert value.test == "within 0.0115: half the spread"


def test_a_limit_of_zero_has_no_sign(tmp_path):
    (entry,) = load(write(tmp_path, [ordering(side="below")])).entries
    assert entry.claims[0].test.startswith("interval below 0:")


def test_no_difference_is_shown_where_nothing_was_compared(tmp_path):
    path = write(tmp_path, [claim(needs={"dataset": "pool", "complete": True})])
    frame = L.table(evaluate(load(path), [record(complete=False, absent=["mmlu"])]))
    assert frame.loc["area-a", "ours"] == "0.700 [0.690, 0.710]"
    assert frame.loc["area-a", "difference"] == ""


def test_html_escapes_what_a_paper_may_say(tmp_path):
    path = write(tmp_path, [claim(statement="A <b>beats</b> B | $x_1$ & more (Table 1).")])
    verdicts = evaluate(load(path), [record()])
    page = L.html(verdicts)
    assert "<b>beats" not in page
    assert "&lt;b&gt;beats" in page
    assert 'class="verdict verdict-not-reproduced"' in L.html(
        evaluate(load(path), [record(value=0.1, low=0, high=0.2)])
    )


def test_code_in_a_statement_is_shown_as_code(tmp_path):
    path = write(tmp_path, [claim(statement="Type `a <b>` to see it (Table 1).")])
    assert "<code>a &lt;b&gt;</code>" in L.html(evaluate(load(path), [record()]))


def test_no_two_papers_share_a_claims_id():
    # The scorecard gives each claim an anchor of that name.
    ids = [claim.id for ledger in L.discover(ROOT) for _, claim in ledger.claims]
    assert len(ids) == len(set(ids))


def test_results_of_an_unknown_paper_are_refused():
    with pytest.raises(LedgerError, match="'unirout': no such paper; did you mean 'uniroute'"):
        L.evaluate_all([load(UNIROUTE)], {"unirout": []})


def test_json_has_one_object_a_claim_and_one_an_artefact_with_its_cells():
    ledger = load(UNIROUTE)
    objects = json.loads(json.dumps(L.to_json(L.evaluate_all([ledger], {})), allow_nan=False))
    claims = [o for o in objects if "verdict" in o]
    artefacts = {o["artefact"]: o for o in objects if "cells" in o}
    assert [o["claim"] for o in claims] == [c.id for _, c in ledger.claims]
    assert list(artefacts) == [entry.id for entry in ledger.entries]
    assert all(list(o) == list(L.FIELDS) for o in claims)
    infinite = [cell for cell in artefacts["figure-7"]["cells"] if cell["value"] == "inf"]
    assert len(infinite) == 3
    assert len(artefacts["figure-6"]["cells"]) == 80


# ------------------------------------------------------------------------------------------- UniRoute's own ledger


@pytest.fixture(scope="module")
def uniroute() -> L.Ledger:
    return load(UNIROUTE)


def test_every_figure_table_and_proposition_of_uniroute_has_an_entry(uniroute):
    ids = {entry.id for entry in uniroute.entries}
    figures = {f"figure-{n}" for n in (1, 3, 4, 5, 6, 7, 8, 9)} | {"figure-2-top", "figure-2-bottom"}
    tables = {"table-1", "table-2", "table-f1", "table-h2", "table-i1"}
    assert figures | tables | {f"proposition-{n}" for n in (1, 2, 9)} <= ids


def test_every_published_file_has_an_entry_and_every_cell_is_there(uniroute):
    files = {path.name for path in (UNIROUTE.parent / "published").glob("*.csv")}
    assert files == {entry.published for entry in uniroute.entries if entry.published}
    # Rows times columns of each table as printed in the paper.
    expected = {"figure-6": 8 * 10, "figure-7": 4 * 3, "table-1": 6 * 6, "table-2": 7 * 6}
    expected |= {"table-f1": 2 * 3, "table-h2": 8, "table-i1": 7}
    for name, number in expected.items():
        assert len(uniroute.cells[name]) == number, name


def test_the_printed_characters_and_the_numbers_of_uniroute_agree():
    for path in (UNIROUTE.parent / "published").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                printed = re.sub(r"[*%> ]", "", row["printed"])
                if row["value"]:
                    assert printed == ("∞" if row["value"] == "inf" else row["value"]), (path.name, row)
                else:
                    assert not re.fullmatch(r"[\d.]+", printed), (path.name, row)
                assert ("*" in row["printed"]) == row["note"].startswith("starred"), (path.name, row)


def test_every_forensic_finding_occurs_exactly_once(uniroute):
    cited = [c.forensics for _, c in uniroute.claims if c.forensics] + [r.forensics for r in uniroute.remarks]
    assert sorted(cited, key=lambda name: int(name.removeprefix("UR-"))) == [f"UR-{n}" for n in range(1, 23)]


def chapter_results(**changes) -> list[dict]:
    """Return a made-up record for every key the chapter promises."""
    methods, pairs = METHODS, COMPARED
    area = {"unit": "area", "low": 0.6, "high": 0.8, "dataset": "routerbench", **changes}
    share = {"unit": "%", "low": 90.0, "high": 100.0, "dataset": "routerbench", **changes}
    given = [record(f"area/{m}", 0.7, **area) for m in methods]
    given += [record(f"qnc/{m}", 99.0, **share) for m in methods]
    given += [record(f"area-difference/{a}/{b}", 0.02, **{**area, "low": 0.01, "high": 0.03}) for a, b in pairs]
    given += [record(f"qnc-difference/{a}/{b}", -0.3, **{**share, "low": -1.0, "high": 1.0}) for a, b in pairs]
    given += [record("figure-5/area-difference/worst-k/zero-router", 0.02, **{**area, "low": 0.01, "high": 0.03})]
    contrast = {**area, "unit": "", "low": 0.1, "high": 0.3}
    given += [record("figure-9/similarity-difference/claude-within/claude-others", 0.2, **contrast)]
    truth = {"dataset": "simulated", "origin": "simulated", "low": None, "high": None}
    given += [record("psi-recovery/share-within-2se", 0.95, **truth)]
    return [*given, record("psi-recovery/chi2-per-df", 1.02, **truth)]


def test_every_claim_is_evaluated_on_a_run_with_part_of_routerbench(uniroute):
    results = chapter_results(complete=False, absent=["mmlu"])
    verdicts = evaluate(uniroute, results)
    assert [v.claim for v in verdicts] == [c.id for _, c in uniroute.claims]
    assert {v.verdict for v in L.of_pages(uniroute, results)} <= set(L.VERDICTS) - {"not-run", "planned"}
    elsewhere = {c.id for _, c in uniroute.claims if uniroute.page(str(c.reads))}
    assert {v.claim for v in verdicts if v.verdict == "not-run"} == elsewhere
    by_id = {v.claim: v for v in verdicts}
    for method in ("zero-router", "k-nn", "k-means", "learned-map"):
        for metric in ("area", "qnc"):
            verdict = by_id[f"routerbench-{metric}-{method}"]
            assert verdict.verdict == "data-unavailable"
            assert verdict.ours is not None
    assert by_id["routerbench-k-means-above-k-nn"].verdict == "reproduced"
    assert by_id["routerbench-learned-map-same-as-k-means"].verdict == "not-reproduced"
    assert by_id["routerbench-qnc-same-as-zero-router"].verdict == "reproduced"
    assert by_id["features-chi-squared"].verdict == "qualitative"


def test_the_published_numbers_reproduce_themselves(uniroute):
    given = {r["id"]: r for r in chapter_results()}
    for _, c in uniroute.claims:
        if c.kind == "value" and c.reads in given and c.needs.dataset == "routerbench":
            entry = next(e for e, x in uniroute.claims if x.id == c.id)
            given[c.reads]["value"] = uniroute.cell(entry, c.published).value
    verdicts = [v for v in evaluate(uniroute, list(given.values())) if v.kind == "value" and v.origin == "real"]
    assert len(verdicts) == 16
    assert {v.verdict for v in verdicts} == {"reproduced"}


# ------------------------------------------------------------------------------------------ pages and templates


def test_claims_of_a_further_page_wait_for_its_run(tmp_path):
    path = write(tmp_path, [claim(), claim(id="more-area", reads="more/area/a"), claim(id="far", reads="more/area/b")])
    path.write_text(path.read_text() + "pages: [more]\n")
    found = load(path)
    said = {v.claim: (v.verdict, v.reason) for v in evaluate(found, [record(value=0.71)])}
    assert said["area-a"][0] == "reproduced"
    assert said["more-area"] == ("not-run", "the chapter has not been run; type `routebook run demo-more`")
    both = [record(value=0.71), record("more/area/a", 0.5, low=0.4, high=0.6), record("more/area/b", 0.71)]
    assert [v.verdict for v in evaluate(found, both)] == ["reproduced", "not-reproduced", "reproduced"]
    assert [v.claim for v in L.of_pages(found, both[1:])] == ["more-area", "far"]
    # The page ran on other data, the chapter on the claim's: that says nothing of the page.
    elsewhere = [record(value=0.71), record("more/n", 1.0, dataset="other")]
    assert [v.verdict for v in evaluate(found, elsewhere)] == ["reproduced", "data-unavailable", "data-unavailable"]


def template(**changes):
    words = [{"method": "a", "row": "A"}, {"method": "b", "row": "B"}]
    filled = {"id": "area-{method}", "statement": "{row} has an area of {printed} (Table 1).", "reads": "area/{method}"}
    return {"each": words, "claim": claim(**filled, published={"row": "{row}", "column": "Area"}), **changes}


def test_a_template_is_written_out_as_claims(tmp_path):
    found = load(write(tmp_path, [claim(id="own", reads="own")], templates=[template()]))
    assert [c.id for _, c in found.claims] == ["own", "area-a", "area-b"]
    second = found.claims[2][1]
    assert second.statement == "B has an area of .689 (Table 1)."
    assert (second.reads, second.published.row, second.tolerance) == ("area/b", "B", 0.0115)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"each": []}, "table-1.templates: each template takes 'each'"),
        ({"extra": 1}, "table-1.templates: each template takes 'each'"),
        ({"each": [{"method": "a"}]}, r"'area-{method}': cannot fill in 'row' from \['method'\]"),
        ({"each": [{"method": "a", "row": "Z"}]}, "cannot fill in 'printed'"),
    ],
)
def test_a_malformed_template_is_refused(tmp_path, changes, message):
    with pytest.raises(LedgerError, match=message):
        load(write(tmp_path, [], templates=[template(**changes)]))


def test_on_simulated_data_no_claim_is_reproduced(uniroute):
    verdicts = L.of_pages(uniroute, chapter_results(dataset="simulated", origin="simulated"))
    assert {v.verdict for v in verdicts if v.kind != "arithmetic"} == {"qualitative"}


def test_nothing_of_uniroute_is_planned(uniroute):
    assert not [entry.id for entry in uniroute.entries if entry.status == "planned"]
    assert not [c.id for entry, c in uniroute.claims if entry.planned(c)]


def test_every_published_number_of_uniroute_is_claimed(uniroute):
    claimed = {
        (entry.id, c.published.row, c.published.column)
        for entry, c in uniroute.claims
        if c.kind == "value" and isinstance(c.published, L.CellReference)
    }
    printed = {
        (entry, *place)
        for entry in ("figure-6", "figure-7", "table-1", "table-i1")
        for place, cell in uniroute.cells[entry].items()
        if cell.value is not None
    }
    # Not a number but a bound ("> 90%"), of a method whose authors released no code.
    assert printed - claimed == {("table-i1", "LLM Bandit (Li, 2025)", "QNC")}


def test_the_claims_were_written_before_any_run(uniroute):
    assert {c.written.isoformat() for _, c in uniroute.claims} == {"2026-11-22"}


def test_importing_the_ledger_imports_nothing_heavy():
    code = (
        "import sys, routebook.ledger; print([m for m in ('pandas', 'scipy', 'torch', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_a_run_on_other_data_need_not_record_what_a_claim_reads(tmp_path):
    found = load(write(tmp_path, [claim()]))
    elsewhere = record(dataset="simulated", origin="simulated")
    (verdict,) = evaluate(found, [{**elsewhere, "id": "something/else"}])
    assert verdict.verdict == "data-unavailable"
    assert "simulated" in verdict.reason
    with pytest.raises(LedgerError, match="did not record"):
        evaluate(found, [{**record(), "id": "something/else"}])


def test_a_claim_about_a_part_that_is_absent_needs_no_record(tmp_path):
    part = {"dataset": "pool", "part": "mmlu"}
    path = write(tmp_path, [claim(), claim(id="b", reads="area/b", needs=part)])
    without = record(value=0.71, complete=False, absent=["mmlu", "gsm8k"])
    verdicts = {v.claim: v for v in evaluate(load(path), [without])}
    assert (verdicts["b"].verdict, verdicts["b"].ours) == ("data-unavailable", None)
    assert verdicts["b"].reason == "needs mmlu of pool, which is absent"
    # With the part there, the claim is judged whatever else is absent, and a number that was not recorded is an error.
    other = {"complete": False, "absent": ["gsm8k"]}
    found = evaluate(load(path), [record(value=0.71, **other), record("area/b", 0.71, **other)])
    assert [v.verdict for v in found] == ["reproduced", "reproduced"]
    assert "absent" not in found[1].reason
    with pytest.raises(LedgerError, match="did not record"):
        evaluate(load(path), [record(value=0.71, **other)])
    # A claim that needs all of the dataset, too, shows its number only.
    path = write(tmp_path, [claim(id="b", reads="area/b", needs={**part, "complete": True})])
    (verdict,) = evaluate(load(path), [record("area/b", 0.71, **other)])
    assert (verdict.verdict, verdict.ours) == ("data-unavailable", 0.71)
