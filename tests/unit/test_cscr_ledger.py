"""CSCR's ledger: every published number, table, figure and finding is in it, and every claim can be judged."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path

import pytest

from routebook import ledger as L
from routebook.ledger import evaluate

FOLDER = Path(__file__).resolve().parents[2] / "replications" / "cscr"
ORIGINS = {
    "routerbench": "real",
    "alpaca-eval": "real",
    "mmlu-pro": "real",
    "tinypool": "made",
    "simulated": "simulated",
}
POOLS = ("routerbench", "alpaca-eval", "tinypool")
# The row each table is about: CSCR, or the paper's default setting (its logits, 5 bands, k = 4, γ = 0.2, ...).
REFERENCE = {f"table-{n}": "CSCR (Ours)" for n in (1, 2, 3)}
REFERENCE |= {
    "table-4": "Logit Desc.",
    "table-5": "Cost-Spectrum InfoNCE",
    "table-7": "With bands",
    "table-8": "bands:5",
}
REFERENCE |= {"table-9": "K=4", "table-10": "gamma=0.2", "table-11": "alpha=0.25", "table-12": "tau_min=0.05"}
REFERENCE |= {"table-13": "MLP-x1"}
COUNTS = ("table-14", "table-15", "appendix-d-5-1")


@pytest.fixture(scope="module")
def ledger() -> L.Ledger:
    return L.load(FOLDER / "ledger.yaml")


def keys(claim: L.Claim) -> list[str]:
    return [claim.reads] if isinstance(claim.reads, str) else list(claim.reads)


def judged_on_results(ledger: L.Ledger) -> list[tuple[L.Entry, L.Claim]]:
    return [(entry, claim) for entry, claim in ledger.claims if claim.kind != "arithmetic"]


def agreeing(ledger: L.Ledger, datasets=tuple(ORIGINS), complete=False) -> list[dict]:
    """Return a record for every key that claims about these datasets read, with numbers that agree with the claims."""
    records: dict[str, dict] = {}
    for entry, claim in judged_on_results(ledger):
        if claim.needs.dataset not in datasets:
            continue
        published, _ = L._published(ledger, entry, claim)
        numbers = {"value": [published], "ordering": [claim.margin + 1.0]}.get(claim.kind, range(len(keys(claim))))
        if claim.side in ("below", "same"):
            numbers = [-1.0 if claim.side == "below" else 0.0]
        if claim.direction == "decreasing":
            numbers = [-n for n in numbers]
        for key, number in zip(keys(claim), numbers, strict=True):
            record = {"id": key, "value": number, "low": number - 1e-4, "high": number + 1e-4, "unit": claim.unit}
            record |= {"dataset": claim.needs.dataset, "origin": ORIGINS.get(claim.needs.dataset, "real")}
            records[key] = record | {"complete": complete, "absent": [] if complete else ["mmlu"]}
    return list(records.values())


def test_every_table_and_figure_has_an_entry(ledger):
    ids = [entry.id for entry in ledger.entries]
    formal = {"theorem-5-2", "lemma-5-3", *(f"equation-{n}" for n in (2, 5, 6, 7, 8, 9, 10))}
    assert {f"table-{n}" for n in range(1, 17)} | {f"figure-{n}" for n in range(1, 8)} | formal <= set(ids)


def test_every_cell_of_the_tables_is_there(ledger):
    # Rows times columns of each table as printed in the paper; Table 5 as quoted in the text, Table 6 a list of names.
    expected = {1: 8 * 9, 2: 7 * 3, 3: 7 * 3, 4: 3 * 3, 5: 2 * 2, 6: 41 + 35, 7: 2 * 2, 8: 5 * 3, 9: 5 * 2}
    expected |= {10: 5 * 3, 11: 5 * 3, 12: 4 * 3, 13: 2, 14: 5, 15: 4, 16: 8}
    assert {n: len(ledger.cells[f"table-{n}"]) for n in expected} == expected


def test_the_printed_characters_and_the_numbers_agree():
    for path in (FOLDER / "published").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["value"]:
                    printed = re.sub(r"×10\^\{(-\d+)\}", r"e\1", row["printed"]).replace(",", "").removesuffix("%")
                    assert float(printed) == float(row["value"]), (path.name, row)
                else:
                    assert path.name == "table-6.csv"


def test_every_forensic_finding_occurs_exactly_once(ledger):
    cited = [c.forensics for _, c in ledger.claims if c.forensics] + [r.forensics for r in ledger.remarks]
    expected = [f"CS-{n}" for n in range(1, 28)] + ["CS-8b", "CS-8c", "X-2", "X-3", "X-4"]
    assert sorted(cited) == sorted(expected)


def test_every_published_number_is_claimed_once(ledger):
    claimed = [
        (entry.id, c.published.row, c.published.column)
        for entry, c in ledger.claims
        if isinstance(c.published, L.CellReference)
    ]
    printed = {
        (entry, *place) for entry, cells in ledger.cells.items() for place, x in cells.items() if x.value is not None
    }
    assert sorted(claimed) == sorted(printed)


def test_tolerances_are_half_the_distance_to_the_nearest_other_row(ledger):
    """The rule at the head of the ledger, from the cells."""
    checked = 0
    for entry, claim in ledger.claims:
        if not isinstance(claim.published, L.CellReference) or entry.id not in REFERENCE:
            continue
        column = {
            row: cell.value
            for (row, name), cell in ledger.cells[entry.id].items()
            if name == claim.published.column and not row.startswith("Oracle")
        }
        gaps = [abs(number - column[REFERENCE[entry.id]]) for number in column.values()]
        assert claim.tolerance == pytest.approx(min(gap for gap in gaps if gap > 1e-9) / 2), claim.id
        checked += 1
    assert checked == 72 + 21 + 21 + 9 + 4 + 4 + 15 + 10 + 15 + 15 + 12 + 2


def test_tolerances_of_counts_are_half_the_smallest_distance_between_two(ledger):
    for entry, claim in ledger.claims:
        if entry.id in COUNTS and isinstance(claim.published, L.CellReference):
            numbers = sorted(cell.value for cell in ledger.cells[entry.id].values())
            gaps = [b - a for a, b in pairwise(numbers)]
            assert claim.tolerance == min(gaps) / 2, claim.id


def test_tolerances_and_margins_with_other_reasons(ledger):
    claims = {c.id: c for _, c in ledger.claims}
    table_1, table_4, table_9 = (ledger.cells[f"table-{n}"] for n in (1, 4, 9))
    lead = {
        head: 100 * (table_1["CSCR (Ours)", f"{head} / AUDC"].value / table_1["UMR [40]", f"{head} / AUDC"].value - 1)
        for head in ("EmbedLLM", "RouterBench")
    }
    gain = claims["routerbench-gain-over-umr"]
    assert gain.published == pytest.approx(lead["RouterBench"], abs=0.05)
    assert gain.tolerance == pytest.approx((lead["RouterBench"] - lead["EmbedLLM"]) / 2, abs=0.05)
    areas = [table_4[row, "MixInstruct / AUDC"].value for row in ("Logit Desc.", "Perp. Desc.", "Mixed")]
    for name in ("mixed-same-as-logit", "mixed-same-as-perplexity", "perplexity-same-as-logit"):
        assert claims[name].margin == pytest.approx(0.5 * (max(areas) / min(areas) - 1), abs=5e-4)
    by_k = [table_9[f"K={k}", "AUDC"].value for k in (1, 2, 4, 8, 16)]
    steps = [b - a for a, b in pairwise(by_k)]
    for pool in POOLS:
        assert claims[f"{pool}-area-grows-with-k"].slack == pytest.approx(min(steps) / 2)
        assert claims[f"{pool}-plateau-of-k"].margin == pytest.approx(max(steps) / 2)


METRIC = "(area|audc-code|peak|cost-at-peak)"
METHOD = "(oracle|umr|thompson|soft-moe|parametric|zero-router|random|cscr|dataset-oracle)"
POOL = "(routerbench|alpaca-eval|tinypool|mmlu-pro|embedllm|mixinstruct)"
SETTING = r"(vanilla|cscr|with|without|bands-\d+|k-\d+|alpha-[\d.]+|tau-[\d.]+|width-x\d)"
GRAMMAR = (
    rf"(table-1|shifts/table-[23])/{POOL}/{METHOD}(-minus-{METHOD})?/{METRIC}",
    rf"table-1/{POOL}/cscr-over-umr-percent",
    rf"figure-2/{POOL}/within-minus-between",
    rf"table-14/{POOL}/(band-\d/chosen|chosen/[a-z0-9-]+)",
    rf"table-15/{POOL}/(too-cheap|too-expensive|optimal|no-correct)",
    rf"table-16/{POOL}/(delta|mcnemar-win-share|delta-low|delta-high|p-bootstrap|p-mcnemar|matched-budget|wins|losses)",
    rf"ablations/table-(5|7|8|9|11|12|13)/{POOL}/{SETTING}(-minus-{SETTING})?/{METRIC}",
    rf"ablations/table-10/{POOL}/(printed|other)/gamma-[\d.]+(-minus-gamma-[\d.]+)?/({METRIC}|chosen-cost)",
    rf"ablations/gamma-sign/(simulated|{POOL})/(printed|other)/slope",
    r"shifts/table-4/(tinypool|mixinstruct)/(logit|perplexity|mixed)(-minus-(logit|perplexity))?/" + METRIC,
    r"shifts/table-6/embedllm/(training|test)-[a-z-]+",
    r"shifts/speed/flat/\d+/single",
)


def test_the_keys_follow_one_grammar_and_name_the_dataset_they_need(ledger):
    for _, claim in judged_on_results(ledger):
        for key in keys(claim):
            assert any(re.fullmatch(pattern, key) for pattern in GRAMMAR), key
            assert claim.needs.dataset in key.split("/") or key.startswith("shifts/speed/"), (claim.id, key)


def test_the_claims_were_written_before_any_run_and_none_is_planned(ledger):
    assert {c.written.isoformat() for _, c in ledger.claims} == {"2026-11-22"}
    assert not [c.id for entry, c in ledger.claims if entry.planned(c)]


def test_without_a_run_only_arithmetic_is_judged(ledger, monkeypatch):
    monkeypatch.delenv("ROUTEBOOK_DATA", raising=False)
    verdicts = evaluate(ledger, None)
    assert [v.claim for v in verdicts] == [c.id for _, c in ledger.claims]
    assert {v.verdict for v in verdicts if v.kind != "arithmetic"} == {"not-run"}
    counts = L.counts(v for v in verdicts if v.kind == "arithmetic")
    # With the authors' registries the three that need them fail, too.
    assert (counts["arithmetic-ok"], counts["arithmetic-fails"], counts["data-unavailable"]) == (4, 23, 3)


def test_numbers_that_agree_give_the_verdicts_their_data_allow(ledger):
    verdicts = {v.claim: v for v in evaluate(ledger, agreeing(ledger))}
    for entry, claim in judged_on_results(ledger):
        found = verdicts[claim.id]
        if claim.needs.dataset in ("embedllm", "mixinstruct"):
            assert (found.verdict, found.ours) == ("data-unavailable", None), claim.id
            assert found.reason.startswith(f"needs {claim.needs.dataset}; the run was on ")
        elif ORIGINS[claim.needs.dataset] != "real":
            assert found.verdict == "qualitative", claim.id
            assert "as claimed" in found.reason
        elif claim.needs.complete:
            assert found.verdict == "data-unavailable", claim.id
            assert found.ours is not None
        else:
            assert found.verdict == "reproduced", (entry.id, claim.id, found.reason)


def test_on_the_whole_of_routerbench_its_numbers_are_compared(ledger):
    verdicts = {v.claim: v for v in evaluate(ledger, agreeing(ledger, complete=True))}
    numbers = [c.id for _, c in judged_on_results(ledger) if c.needs.complete]
    assert len(numbers) == 24 + 1
    assert {verdicts[name].verdict for name in numbers} == {"reproduced"}


def test_cost_on_routerbench_is_compared_in_dollars_per_thousand_prompts_only(ledger):
    records = agreeing(ledger, ("routerbench",))
    for record in records:
        if record["id"] == "table-1/routerbench/umr/cost-at-peak":
            record["unit"] = "USD per prompt"
    with pytest.raises(L.LedgerError, match="has the unit 'USD per prompt', expected 'USD per 1,000 prompts'"):
        evaluate(ledger, records)


@pytest.mark.parametrize("pool", POOLS)
def test_a_run_on_one_pool_leaves_the_others_unavailable(ledger, pool):
    verdicts = {v.claim: v for v in evaluate(ledger, agreeing(ledger, (pool, "simulated")))}
    for _, claim in judged_on_results(ledger):
        expected = {"data-unavailable"}
        if claim.needs.dataset in (pool, "simulated") and not claim.needs.complete:
            expected = {"reproduced", "qualitative"}
        assert verdicts[claim.id].verdict in expected, claim.id


@pytest.mark.parametrize("key", ["table-16/alpaca-eval/delta", "ablations/gamma-sign/routerbench/other/slope"])
def test_a_forgotten_number_of_a_present_pool_is_an_error(ledger, key):
    with pytest.raises(L.LedgerError, match="did not record"):
        evaluate(ledger, [record for record in agreeing(ledger) if record["id"] != key])
