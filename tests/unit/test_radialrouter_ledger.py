"""RadialRouter's ledger: every published number, table, figure and finding is in it, and every claim can be judged."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from replications.radialrouter import lookups
from routebook import ledger as L
from routebook.ledger import evaluate

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "replications" / "radialrouter"
SIX = tuple(lookups.DATASETS.values())
HERE = ("mbpp", "winogrande", "arc-challenge")
# What a table says of its rows, not a result.
SETTINGS = {("table-4", "#LLM"), ("table-9", "alpha")}


@pytest.fixture(scope="module")
def ledger() -> L.Ledger:
    return L.load(FOLDER / "ledger.yaml")


def made_up_run(ledger: L.Ledger, present=SIX, **changes) -> dict[str, dict]:
    """Return a record for every key the ledger reads; of absent datasets nothing alone is recorded."""
    absent = [name for name in SIX if name not in present]
    records = {}
    for entry, claim in ledger.claims:
        if claim.kind == "arithmetic" or (claim.needs.part or present[0]) not in present:
            continue
        dataset = claim.needs.dataset
        simulated = dataset == "simulated"
        published, _ = L._published(ledger, entry, claim)
        for key in [claim.reads] if isinstance(claim.reads, str) else claim.reads:
            value = 0.01 if published is None else published
            record = {"id": key, "value": value, "low": value - 1e-3, "high": value + 1e-3, "unit": claim.unit}
            record |= {"dataset": dataset, "origin": "simulated" if simulated else "real"}
            record |= {"complete": simulated or not absent, "absent": [] if simulated else absent}
            if key not in records or claim.kind == "value":
                records[key] = record | changes
    return records


def test_every_table_and_figure_has_an_entry(ledger):
    ids = [entry.id for entry in ledger.entries]
    expected = {f"table-{n}" for n in range(1, 10)} | {f"figure-{n}" for n in range(1, 7)}
    assert expected <= set(ids)
    assert len(ids) == len(set(ids))
    assert {path.name for path in (FOLDER / "published").glob("*.csv")} == {f"table-{n}.csv" for n in range(1, 10)}


def test_every_cell_of_the_tables_is_there(ledger):
    # Rows times columns of each table as printed in the paper.
    expected = {1: 9 * 9, 2: 6 * 4, 3: 3 * 3, 4: 11 * 4, 5: 11, 6: 12 * 3, 7: 11 * 8, 8: 6 * 9, 9: 30 * 9}
    assert {n: len(ledger.cells[f"table-{n}"]) for n in expected} == expected


def test_the_printed_characters_and_the_numbers_agree():
    for path in (FOLDER / "published").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                assert row["printed"].removesuffix("B") == (row["value"] or "-"), (path.name, row)


def test_every_forensic_finding_occurs_exactly_once(ledger):
    cited = [c.forensics for _, c in ledger.claims if c.forensics] + [r.forensics for r in ledger.remarks]
    assert sorted(cited) == sorted([f"RR-{n}" for n in range(1, 26)] + ["RR-11b"])


def test_every_published_number_is_claimed(ledger):
    claimed = [
        (entry.id, c.published.row, c.published.column)
        for entry, c in ledger.claims
        if c.kind == "value" and isinstance(c.published, L.CellReference)
    ]
    printed = {
        (entry, *place)
        for entry in (f"table-{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9))
        for place, cell in ledger.cells[entry].items()
        if cell.value is not None and (entry, place[1]) not in SETTINGS
    }
    assert printed == set(claimed)
    # Two costs of Table 4 are claimed twice: of the router, and of the lookup that has its performance.
    assert sorted(set(claimed), key=claimed.index) != claimed
    assert len(claimed) == len(printed) + 2


REFERENCE = {"table-1": "RadialRouter", "table-2": "RadialRouter", "table-3": "RadialRouter w/ L_KL"}
REFERENCE |= {"table-6": "lambda=0.5", "table-8": "RadialRouter"}


def test_tolerances_are_half_the_distance_to_the_nearest_other_row(ledger):
    """The rule at the head of the ledger, from the cells."""
    checked = 0
    for entry, claim in ledger.claims:
        if claim.kind != "value" or entry.id not in {*REFERENCE, "table-9"}:
            continue
        rows = [row for row, column in ledger.cells[entry.id] if column == claim.published.column]
        column = claim.published.column
        if entry.id == "table-9":
            alpha = claim.published.row.split("=")[1]
            rows = [row for row in rows if row.endswith(f"alpha={alpha}")]
            column = column if column == "Cost" else "Perf."
        reference = REFERENCE.get(entry.id) or f"RadialRouter | alpha={alpha}"
        numbers = {row: ledger.cells[entry.id][row, column].value for row in rows if row != "Oracle"}
        if column == "Time/ms":
            numbers.pop("+ MLP")
        gaps = [abs(x - numbers[reference]) for x in numbers.values() if x is not None]
        assert claim.tolerance == pytest.approx(min(gap for gap in gaps if gap > 1e-9) / 2), claim.id
        checked += 1
    assert checked == 81 + 22 + 9 + 36 + 54 + 240


def test_the_margin_of_insensitivity_is_the_published_range(ledger):
    scores = {
        float(row.split("=")[1]): cell.value
        for (row, column), cell in ledger.cells["table-6"].items()
        if column == "Score"
    }
    inside = [score for lam, score in scores.items() if 0.25 <= lam <= 5]
    claims = [c for _, c in ledger.claims if c.side == "same"]
    assert len(claims) == len(inside) - 1
    assert all(c.margin == pytest.approx(max(inside) - min(inside)) for c in claims)


def test_the_claims_were_written_before_any_run_and_none_is_planned(ledger):
    assert {c.written.isoformat() for _, c in ledger.claims} == {"2026-11-22"}
    assert not [c.id for entry, c in ledger.claims if entry.planned(c)]


def test_without_a_run_only_arithmetic_is_judged(ledger):
    verdicts = evaluate(ledger, None)
    assert [v.claim for v in verdicts] == [c.id for _, c in ledger.claims]
    assert {v.verdict for v in verdicts if v.kind != "arithmetic"} == {"not-run"}
    counts = L.counts(v for v in verdicts if v.kind == "arithmetic")
    assert (counts["arithmetic-ok"], counts["arithmetic-fails"]) == (6, 17)


def test_the_published_numbers_reproduce_themselves(ledger):
    verdicts = evaluate(ledger, list(made_up_run(ledger).values()))
    values = [v for v in verdicts if v.kind == "value" and v.origin == "real"]
    # Tables 2 and 8 print two scores for one result (RR-8): no run can have both.
    assert {v.claim for v in values if v.verdict != "reproduced"} == {"table-2-balance-without-contrast"}
    assert len(values) == 563 + 2 + 2  # every printed number, two costs of lookups, RR-12 and RR-19


def test_on_three_of_the_six_datasets_what_needs_all_is_unavailable(ledger):
    verdicts = {v.claim: v for v in evaluate(ledger, list(made_up_run(ledger, HERE).values()))}
    assert set(verdicts) == {c.id for _, c in ledger.claims}
    for claim in ("table-1-balance-score-radial-router", "table-4-score-11", "table-9-alpha-0-mbpp-router-dc"):
        assert verdicts[claim].verdict == "data-unavailable"
        assert verdicts[claim].ours is not None
    for claim in ("table-7-gsm8k-yi-34b-chat", "table-9-alpha-0-gsm8k-router-dc"):
        assert (verdicts[claim].verdict, verdicts[claim].ours) == ("data-unavailable", None)
        assert verdicts[claim].reason == "needs gsm8k of routerbench, which is absent"
    for claim in ("table-7-mbpp-yi-34b-chat", "pool-2-costs-a-lookup", "balance-above-random", "split-identified"):
        assert verdicts[claim].verdict == "reproduced"
    thirty_three = [v for name, v in verdicts.items() if name.startswith(tuple(f"table-7-{d}-" for d in HERE))]
    assert len(thirty_three) == 33
    assert {v.verdict for v in thirty_three} == {"reproduced"}


def test_on_simulated_data_nothing_is_reproduced(ledger):
    run = made_up_run(ledger, dataset="simulated", origin="simulated", complete=True, absent=[])
    verdicts = evaluate(ledger, list(run.values()))
    assert {v.verdict for v in verdicts if v.kind != "arithmetic"} == {"qualitative"}


def test_a_forgotten_number_of_a_present_dataset_is_an_error(ledger):
    run = made_up_run(ledger, HERE)
    del run["table-7/mbpp/yi-34b-chat"]
    with pytest.raises(L.LedgerError, match="did not record"):
        evaluate(ledger, list(run.values()))


def test_keys_use_the_names_of_the_lookups(ledger):
    read = {c.reads for entry, c in ledger.claims if entry.id == "table-7" and c.kind == "value"}
    cells = {f"table-7/{d}/{lookups.slug(llm)}" for d in SIX for llm in lookups.LLMS}
    means = {f"table-7/{metric}/{lookups.slug(llm)}" for metric in ("performance", "cost") for llm in lookups.LLMS}
    assert read == cells | means | {"table-7/cells-equal", "cost-unit/ratio"}
