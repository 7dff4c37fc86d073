"""SemiRouter's ledger: every published number, table, figure and finding is in it, and every claim can be judged."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from replications.semirouter import arithmetic, cells
from routebook import ledger as L
from routebook.ledger import evaluate

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "replications" / "semirouter"
SETS = (*cells.SIX.values(), *cells.SMALL.values())
HERE = ("mbpp", "winogrande", "arc-challenge")
COLUMN = {name: column for column, name in {**cells.SIX, **cells.SMALL}.items()}
# What a table says of its rows, or takes from elsewhere; not a result.
SETTINGS = {(f"{row}", "Hidden Size") for row in cells.rows(cells.published()["table-2"])}
SETTINGS |= {("All at GPT-4", "Energy Cost"), ("All at GPT-4", "Backup Cost")}
# Of the same published number: Scores by two formulas, backup by two rules, the attention variant as described.
TWICE = 18 + 7 + 1


@pytest.fixture(scope="module")
def ledger() -> L.Ledger:
    return L.load(FOLDER / "ledger.yaml")


def made_up_run(ledger: L.Ledger, present=SETS, **changes) -> dict[str, dict]:
    """Return a record for every key the ledger reads; of absent source datasets nothing alone is recorded."""
    missing = [name for name in SETS if name not in present]
    records: dict[str, dict] = {}
    for entry, claim in ledger.claims:
        if claim.kind == "arithmetic" or (claim.needs.part or present[0]) not in present:
            continue
        dataset = claim.needs.dataset
        absent = missing if dataset == "routerbench" else []
        published, _ = L._published(ledger, entry, claim)
        keys = [claim.reads] if isinstance(claim.reads, str) else claim.reads
        for place, key in enumerate(keys):
            value = 0.01 - 1e-4 * place if published is None else published
            record = {"id": key, "value": value, "low": value - 1e-3, "high": value + 1e-3, "unit": claim.unit}
            record |= {"dataset": dataset, "origin": "real", "complete": not absent, "absent": absent}
            if key not in records or claim.kind == "value":
                records[key] = record | changes
    return records


def test_every_table_and_figure_has_an_entry(ledger):
    ids = [entry.id for entry in ledger.entries]
    expected = {f"table-{n}" for n in range(1, 7)} | {f"figure-{n}" for n in range(1, 6)}
    assert expected | {"equation-4", "equation-7", "equation-9", "equation-10"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert {path.name for path in (FOLDER / "published").glob("*.csv")} == {f"table-{n}.csv" for n in range(1, 7)}


def test_every_cell_of_the_tables_is_there(ledger):
    # Rows times columns of each table as printed in the paper.
    expected = {1: 7 * 8, 2: 4 * 3, 3: 6 * 9, 4: 6 * 5, 5: 8 * 3, 6: 10 * 2}
    assert {n: len(ledger.cells[f"table-{n}"]) for n in expected} == expected


def test_the_printed_characters_and_the_numbers_agree():
    for path in (FOLDER / "published").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                assert row["printed"].rstrip("M%") == (row["value"] or "–"), (path.name, row)


def test_every_forensic_finding_occurs_exactly_once(ledger):
    cited = [c.forensics for _, c in ledger.claims if c.forensics] + [r.forensics for r in ledger.remarks]
    known = [f"SR-{n}" for n in (*range(1, 23), 25, 26)] + ["X-1", "X-5"]
    ours = ["SR-9b", "SR-10b", "SR-12b", "X-1b"]
    assert sorted(cited) == sorted(known + ours)


def test_every_published_number_is_claimed(ledger):
    claimed = [
        (entry.id, c.published.row, c.published.column)
        for entry, c in ledger.claims
        if c.kind == "value" and isinstance(c.published, L.CellReference)
    ]
    printed = {
        (entry.id, *place)
        for entry in ledger.entries
        for place, cell in ledger.cells[entry.id].items()
        if cell.value is not None and place not in SETTINGS
    }
    assert printed == set(claimed)
    assert len(claimed) == len(printed) + TWICE


def half_interval(percent: float, n: int) -> float:
    return 1.96 * 100 * math.sqrt(percent / 100 * (1 - percent / 100) / n)


def test_tolerances_of_qualities_are_half_the_interval_of_a_share(ledger):
    """The rule at the head of the ledger, from the cells."""
    told = {cells.SIX[d]: arithmetic.queries_told(d) for d in ("ARC", "MBPP", "WinoGrande")}
    told |= {cells.SIX[d]: n for d, n in arithmetic.LARGE.items()}
    told |= {"gsm8k": 1319, "bias-detection": 87, "abstract2title": 87}
    checked = 0
    for entry, claim in ledger.claims:
        if claim.kind != "value" or entry.id not in ("table-1", "table-3", "table-4"):
            continue
        column = COLUMN[claim.needs.part]
        row, place = (cells.EMB, column) if entry.id == "table-1" else (column, f"{cells.LOSSES['full']} / Quality")
        reference = ledger.cells["table-1" if entry.id == "table-1" else "table-3"][row, place].value
        expected = half_interval(reference, told[claim.needs.part])
        kind = claim.published.column.rpartition(" / ")[2]
        if kind == "Cost":
            continue
        expected *= {"table-1": 1, "table-4": 0.01}.get(entry.id) or {"Quality": 1, "Score": 0.6}[kind]
        assert claim.tolerance == pytest.approx(expected, abs=0.006 * (0.01 if entry.id == "table-4" else 1)), claim.id
        checked += 1
    assert checked == 56 + 18 + 36 + 30


def test_tolerances_of_costs_energies_and_ranks_are_half_the_distance_to_the_nearest(ledger):
    table_3, checked = ledger.cells["table-3"], 0
    for entry, claim in ledger.claims:
        if claim.kind != "value":
            continue
        if entry.id == "table-3" and claim.published.column.endswith("Cost"):
            cost = {k: table_3[claim.published.row, f"{name} / Cost"].value for k, name in cells.LOSSES.items()}
            gaps = [abs(cost[k] - cost["full"]) for k in ("div", "anchor")]
        elif entry.id in ("table-5", "table-6"):
            table, column = ledger.cells[entry.id], claim.published.column
            own = table[claim.published.row, column].value
            rows = [r for r in cells.rows(table) if r not in (claim.published.row, "All at GPT-4")]
            gaps = [abs(table[row, column].value - own) for row in rows]
        else:
            continue
        assert claim.tolerance == pytest.approx(min(gaps) / 2, rel=0.001), claim.id
        checked += 1
    assert checked == 18 + 28 + 20


def test_margins_are_what_their_reasons_say(ledger):
    claims = {c.id: c for _, c in ledger.claims}
    one, three, four = (ledger.cells[f"table-{n}"] for n in (1, 3, 4))
    columns = [column for row, column in one if row == cells.EMB]
    emb = {column: one[cells.EMB, column].value for column in columns}
    against_mlp = max(abs(emb[c] - one[cells.MLP, c].value) for c in columns)
    against_full = max(one[cells.FULL_DATA, c].value - emb[c] for c in columns)

    def gain(column: str) -> float:
        full, div = cells.LOSSES["full"], cells.LOSSES["div"]
        return sum(three[d, f"{full} / {column}"].value - three[d, f"{div} / {column}"].value for d in cells.SIX) / 6

    by_dataset: dict[str, list[float]] = {}
    for (_, column), cell in four.items():
        by_dataset.setdefault(column, []).append(100 * cell.value)
    steadiest = min(max(column) - min(column) for column in by_dataset.values())
    saving = min(c.value for (_, column), c in ledger.cells["table-5"].items() if column == "Saving" and c.value)
    expected = {
        "emb-not-below-mlp-": against_mlp,
        "emb-close-to-full-data-": against_full,
        "efficiency-label-accuracy-1-near": against_full,
        "div-alone-is-no-gain": gain("Score") / 2,
        "alpha-0-1-same": gain("Quality") / 2,
        "lambda-0-2-same": gain("Quality") / 2,
        "stable-without-": steadiest,
        "measured-saving-as-large-": saving,
    }
    for start, margin in expected.items():
        found = [c.margin for name, c in claims.items() if name.startswith(start)]
        assert found, start
        assert found == pytest.approx([margin] * len(found), abs=0.006), start


def test_the_claims_were_written_before_any_run_and_none_is_planned(ledger):
    assert {c.written.isoformat() for _, c in ledger.claims} == {"2026-11-22"}
    assert not [c.id for entry, c in ledger.claims if entry.planned(c)]


def test_without_a_run_only_arithmetic_is_judged(ledger):
    verdicts = evaluate(ledger, None)
    assert [v.claim for v in verdicts] == [c.id for _, c in ledger.claims]
    assert {v.verdict for v in verdicts if v.kind != "arithmetic"} == {"not-run"}
    counts = L.counts(v for v in verdicts if v.kind == "arithmetic")
    assert (counts["arithmetic-ok"], counts["arithmetic-fails"]) == (4, 22)


def test_the_published_numbers_reproduce_themselves(ledger):
    verdicts = evaluate(ledger, list(made_up_run(ledger).values()))
    values = [v for v in verdicts if v.kind == "value"]
    assert {v.verdict for v in values} == {"reproduced"}
    # Every printed number, the repeated ones, and the change of the others' predictions.
    assert len(values) == 56 + 8 + 54 + 30 + 21 + 20 + TWICE + 1


def test_on_three_of_the_datasets_what_needs_all_is_unavailable(ledger):
    verdicts = {v.claim: v for v in evaluate(ledger, list(made_up_run(ledger, HERE).values()))}
    assert set(verdicts) == {c.id for _, c in ledger.claims}
    for claim in ("table-1-mbpp-semirouter-emb", "table-3-winogrande-full-score-613", "table-6-rank-claude-v2"):
        assert verdicts[claim].verdict == "data-unavailable"
        assert verdicts[claim].ours is not None
    for claim, part in (("table-1-gsm8k-zooter", "gsm8k"), ("table-5-accounting-audit-saving", "accounting-audit")):
        assert (verdicts[claim].verdict, verdicts[claim].ours) == ("data-unavailable", None)
        assert verdicts[claim].reason == f"needs {part} of routerbench, which is absent"
    for claim in ("table-2-mlp-trainable", "others-do-not-move", "emb-above-mlp-routed-quality", "gpt-4-leads-mbpp"):
        assert verdicts[claim].verdict in ("reproduced", "partly", "not-reproduced"), claim
    assert verdicts["measured-saving-boolq"].verdict == "reproduced"


def test_on_simulated_data_nothing_is_reproduced(ledger):
    run = made_up_run(ledger, dataset="simulated", origin="simulated", complete=True, absent=[])
    verdicts = evaluate(ledger, list(run.values()))
    assert {v.verdict for v in verdicts if v.kind != "arithmetic"} == {"qualitative"}


def test_a_forgotten_number_of_a_present_dataset_is_an_error(ledger):
    run = made_up_run(ledger, HERE)
    del run["table-3/mbpp/full/quality"]
    with pytest.raises(L.LedgerError, match="did not record"):
        evaluate(ledger, list(run.values()))


def test_each_page_is_read_by_its_claims_alone(ledger):
    run = made_up_run(ledger)
    judged = {
        page: {v.claim for v in L.of_pages(ledger, [r for r in run.values() if ledger.page(r["id"]) == page])}
        for page in (None, "energy", "sparsity")
    }
    assert "measured-saving-boolq" in judged["energy"]
    assert "more-data-label-accuracy" in judged["sparsity"]
    assert "emb-above-mlp-label-accuracy" in judged[None]
    assert sum(map(len, judged.values())) == len(ledger.claims)


def test_keys_use_the_names_of_datasets_and_llms(ledger):
    ranks = {c.reads for entry, c in ledger.claims if entry.id == "table-6" and c.kind == "value"}
    assert ranks == {f"table-6/{cells.slug(llm)}/{what}" for llm in cells.LLMS for what in ("score", "rank")}
    parts = {c.needs.part for _, c in ledger.claims if c.needs and c.needs.part}
    assert parts == set(SETS)
