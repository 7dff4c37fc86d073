"""Every check on RadialRouter's own numbers gives its known outcome and another one when a number is changed."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from replications.radialrouter import arithmetic as A
from replications.radialrouter import lookups as L
from routebook.benchmark import RoutingBenchmark
from routebook.datasets import load
from routebook.errors import UserError
from routebook.ledger import load as load_ledger

GPT4 = "gpt-4-1106-preview"


def with_cells(*changes: tuple[str, str, str, float]):
    """Return the published tables with some cells changed: table, row, column, number."""
    tables = dict(L.published())
    for table, row, column, number in changes:
        cell = replace(tables[table][row, column], value=number, printed=str(number))
        tables[table] = {**tables[table], (row, column): cell}
    return tables


def changed(**fields):
    return replace(A.STATED, **fields)


def radial(alpha: str) -> str:
    return L.row_of("RadialRouter", alpha)


def shifted(by: float):
    """Return the published tables with all of RadialRouter's accuracies in Table 9 moved."""
    own = [(radial(alpha), column) for alpha, column in itertools.product(L.ALPHAS, L.DATASETS)]
    table = L.published()["table-9"]
    return with_cells(*(("table-9", row, column, round(table[row, column].value + by, 4)) for row, column in own))


def mended_row():
    """Return GPT-4's row of Table 7 and its two copies in Table 9 with the digits that routers print."""
    rows = [("table-7", GPT4), *(("table-9", L.row_of(method, "0")) for method in ("FrugalGPT", "GraphRouter"))]
    return [(*row, column, number) for row in rows for column, number in (("MMLU", 0.8163), ("winograde", 0.8553))]


def renamed(table: str, row: str, name: str):
    tables = dict(L.published())
    tables[table] = {(name if r == row else r, c): cell for (r, c), cell in tables[table].items()}
    return tables


# Check: (its outcome on the paper's numbers, the check after a change that turns the outcome round).
CHECKS = {
    "means": (True, lambda: A.means(with_cells(("table-7", "Yi-34B-Chat", "MMLU", 0.7287)))),
    "scores": (True, lambda: A.scores(with_cells(("table-6", "lambda=0", "Score", 0.745)))),
    "tables_agree": (True, lambda: A.tables_agree(with_cells(("table-1", "RouterDC", "Balance / Cost", 1.331)))),
    "one_llm": (False, lambda: A.one_llm(shifted(0.0037))),
    "headline": (True, lambda: A.headline(with_cells(("table-1", "RouterDC", "Cost First / Score", 0.68)))),
    "random_row": (
        False,
        lambda: A.random_row(
            with_cells(
                ("table-1", "Random", "Balance / Perf.", 0.632),
                ("table-1", "Random", "Balance / Cost", 1.825),
            )
        ),
    ),
    "misprint": (
        False,
        lambda: A.misprint(with_cells(*mended_row())),
    ),
    "without_contrast": (
        False,
        lambda: A.without_contrast(
            with_cells(
                ("table-2", "w/o L_q-q", "BA", 0.749),
                ("table-6", "lambda=0", "Score", 0.749),
                ("table-8", "w/o L_q-q", "Balance / Score", 0.749),
            )
        ),
    ),
    "repeated_policies": (
        False,
        lambda: A.repeated_policies(
            with_cells(("table-6", "lambda=1", "Cost", 1.963), ("table-6", "lambda=3", "Performance", 0.7912))
        ),
    ),
    "collapsed": (
        False,
        lambda: A.collapsed(
            with_cells(
                ("table-3", "RadialRouter w/ L_ce", "PF", 0.54),
                ("table-3", "RadialRouter w/ L_ce", "BA", 0.536),
                ("table-3", "RadialRouter w/ L_q-L", "PF", 0.7),
                ("table-3", "RadialRouter w/ L_q-L", "CF", 0.67),
                ("table-8", "w/o L_KL", "Balance / Perf.", 0.55),
            )
        ),
    ),
    "pools_as_lookups": (
        False,
        lambda: A.pools_as_lookups(with_cells(("table-4", "+ llama-2-70b-chat", "Performance", 0.6107))),
    ),
    "unchanged_pool": (False, lambda: A.unchanged_pool(with_cells(("table-4", "+ mistral-7b-chat", "Cost", 1.133)))),
    "six_entry_lookup": (False, lambda: A.six_entry_lookup(with_cells(("table-9", radial("0.02"), "Cost", 1.0)))),
    "lead_at_alpha_0": (False, lambda: A.lead_at_alpha_0(with_cells(("table-9", radial("0"), "MBPP", 0.7031)))),
    "own_alpha": (
        False,
        lambda: A.own_alpha(
            with_cells(
                ("table-9", radial("0.01"), "Cost", 4.0),
                ("table-9", radial("0.1"), "Perf.", 0.7595),
                ("table-9", radial("0.1"), "Cost", 0.44),
            )
        ),
    ),
    "heads": (False, lambda: A.heads(changed(head_width=192))),
    "pool_against_one": (
        False,
        lambda: A.pool_against_one(
            with_cells(("table-4", "+ mixtral-8x7b-chat", "Score", 0.658), ("table-4", "+ Yi-34B-Chat", "Score", 0.695))
        ),
    ),
    "pool_of_ten": (False, lambda: A.pool_of_ten(with_cells(("table-4", "+ gpt-3.5-turbo-1106", "Score", 0.752)))),
    "divergence_terms": (False, lambda: A.divergence_terms(stated=changed(first_term=1))),
    "price_order": (False, lambda: A.price_order(stated=changed(dearest=GPT4, cheapest="mistral-7b-chat"))),
    "names": (False, lambda: A.names(renamed("table-5", "mistral-8x7b-chat", "mixtral-8x7b-chat"))),
    "same_threshold": (
        True,
        lambda: A.same_threshold(with_cells(("table-9", L.row_of("HybridLLM", "0.02"), "Cost", 5.0))),
    ),
    "times": (True, lambda: A.times(with_cells(("table-2", "RadialRouter", "Time/ms", 13.6)))),
}


def test_the_ledger_names_exactly_these_checks(root):
    ledger = load_ledger(root / "replications" / "radialrouter" / "ledger.yaml")
    named = [str(claim.reads).split(":")[1] for _, claim in ledger.claims if claim.kind == "arithmetic"]
    assert sorted(named) == sorted(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_gives_its_outcome_on_the_papers_numbers(name):
    check = getattr(A, name)()
    assert check.ok is CHECKS[name][0], check
    assert check.found
    assert check.expected
    assert check == getattr(A, name)()


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_gives_the_other_outcome_when_a_number_changes(name):
    outcome, after = CHECKS[name]
    assert after().ok is not outcome, after()


@pytest.mark.parametrize(
    "check",
    [
        lambda: A.means(with_cells(("table-9", radial("0.02"), "ARC", 0.9186))),
        lambda: A.scores(with_cells(("table-1", "Oracle", "Cost First / Perf.", 0.893))),
        lambda: A.scores(with_cells(("table-4", "+ claude-v2", "Cost", 2.448))),
        lambda: A.scores(with_cells(("table-8", "+ MLP", "Balance / Score", 0.734))),
        lambda: A.headline(with_cells(("table-1", "Oracle", "Cost First / Score", 0.87))),
        lambda: A.headline(with_cells(("table-1", "RadialRouter", "Balance / Score", 0.76))),
        lambda: A.headline(stated=changed(oracle_percent=83.0)),
        lambda: A.times(with_cells(("table-2", "+ Transformer", "Time/ms", 10.6))),
        # Half of a contradiction mended is still one.
        lambda: A.random_row(with_cells(("table-1", "Random", "Balance / Perf.", 0.632))),
        lambda: A.misprint(with_cells(*mended_row()[:2])),
        lambda: A.misprint(with_cells(*mended_row()[::2])),
        lambda: A.own_alpha(with_cells(("table-9", radial("0.01"), "Cost", 4.0))),
        lambda: A.without_contrast(with_cells(("table-2", "w/o L_q-q", "BA", 0.749))),
        lambda: A.repeated_policies(with_cells(("table-6", "lambda=1", "Cost", 1.963))),
        lambda: A.pool_against_one(with_cells(("table-4", "+ mixtral-8x7b-chat", "Score", 0.658))),
        lambda: A.unchanged_pool(with_cells(("table-4", "+ mistral-7b-chat", "Score", 0.651))),
        lambda: A.price_order(stated=changed(dearest=GPT4)),
    ],
)
def test_one_wrong_number_is_enough(check):
    assert not check().ok


def test_what_the_checks_find_is_what_the_paper_prints():
    assert A.means().found.startswith("41 of 41")
    assert A.scores().found == "68 of 68 rows"
    assert A.tables_agree().found == "36 of 36 pairs"
    assert A.one_llm().found.startswith("24 of 30")
    assert "19 to every digit, 5 but for one" in A.one_llm().found
    assert "MBPP and MMLU" in A.one_llm().detail
    assert "+8.5%, +8.3%" in A.headline().detail
    assert "no whole number of 380" in A.misprint().detail
    assert "FrugalGPT, GraphRouter" in A.misprint().detail
    assert "lambda=5 and α=0.05" in A.repeated_policies().detail
    assert "lambda=0.75 and + Transformer in Balance" in A.repeated_policies().detail
    assert A.lead_at_alpha_0().found == "ahead on MBPP by 1 of 128 questions"
    assert A.own_alpha().found.startswith("α = 0.01: its own row 0.7606, the row α = 0.02 0.7692")
    assert "L_ce CF 0.520; L_q-L BA 0.714" in A.collapsed().detail


def test_the_chain_of_pools_has_the_known_counts():
    found = A.pools_as_lookups().found
    for size, (fitting, number) in {2: (1, 64), 3: (2, 729), 4: (1, 4096), 5: (5, 15625)}.items():
        assert f"pool {size}: {fitting} of {number} lookups fit, 1 extends pool {size - 1}" in found
    # A chain of one step may be chance: only the product of all is held against the paper.
    assert A.pools_as_lookups(with_cells(("table-4", "+ code-llama-34b-chat", "Performance", 0.5601))).ok


def test_the_lookup_of_six_entries_by_hand():
    # α = .05 row .7620 at .488; WinoGrande from Yi (.7421) to GPT-4 (.8553), 3.5312 - .2809 dollars more.
    perf = (0.6281 + 0.8782 + 0.6875 + 0.7187 + 0.8553 + 0.9176) / 6
    cost = 0.488 + (3.5312 - 0.2809) / 6
    assert A.six_entry_lookup().found.startswith(f"{perf - 0.02 * cost:.4f} ")
    assert not A.six_entry_lookup().ok
    # Were GPT-4 dear enough there, the lookup would stay at the row α = .05 and lose.
    dear = {**A.WINOGRANDE_COSTS, ("winograde", GPT4): 7.0}
    assert A.six_entry_lookup(costs=dear).found.startswith(f"{0.76203 - 0.02 * 0.488:.4f} ")
    assert A.six_entry_lookup(costs=dear).ok
    # If one of its accuracies were no LLM's, the row would be no lookup.
    assert A.six_entry_lookup(with_cells(("table-9", radial("0.05"), "MMLU", 0.72))).ok


def test_a_row_of_ten_llms_only_counts_if_they_have_its_accuracies():
    assert A.pool_of_ten(with_cells(("table-9", radial("0.05"), "MMLU", 0.8162))).ok
    assert not A.pool_of_ten(
        with_cells(("table-9", radial("0.05"), "MMLU", 0.7235), ("table-7", "claude-v2", "MMLU", 0.7235))
    ).ok


def test_random_draws_of_whole_llms_would_fit():
    detail = A.random_row().detail
    assert detail.endswith("0.3 and 0.1 standard errors")


def test_the_tail_of_unequal_trials_by_hand():
    assert A._tail([0.5, 0.25], 1) == pytest.approx(1 - 0.5 * 0.75)
    assert A._tail([0.5, 0.25], 2) == pytest.approx(0.125)
    assert A._tail([0.3] * 4, 0) == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------------------ lookups


def test_matches_of_radial_router_are_those_of_the_forensics():
    found = {(m.alpha, m.dataset): m for m in L.find_matches() if m.method == "RadialRouter"}
    assert found["0", "GSM8K"].near == ("claude-v2",)
    assert found["0", "GSM8K"].exact == ()
    assert found["0.05", "MBPP"].exact == ("gpt-3.5-turbo-1106", GPT4)
    assert found["0.1", "GSM8K"].exact == ("claude-instant-v1",)
    missed = [key for key, m in found.items() if not m.llms]
    assert missed == [
        ("0", "MBPP"),
        ("0.01", "MBPP"),
        ("0.01", "MMLU"),
        ("0.02", "MBPP"),
        ("0.02", "MMLU"),
        ("0.1", "MMLU"),
    ]


def test_counts_and_shares_add_up():
    frame = L.matches()
    assert len(frame) == 6 * 5 * 6
    counts = L.match_counts(frame)
    assert list(counts["in all"]) == [12, 6, 14, 22, 9, 24]
    assert (counts["exact"] + counts["last digit"] == counts["in all"]).all()
    assert (counts[list(L.DATASETS)].sum(axis=1) == counts["in all"]).all()
    assert list(counts.loc["RouterDC", list(L.DATASETS)]) == [5, 5, 2, 1, 4, 5]
    share = L.match_share(frame)
    assert share.shape == (6, 5)
    np.testing.assert_allclose(share.sum(axis=1) * 6, counts["in all"])
    assert share.loc["RadialRouter", 0.05] == 1


def test_numbers_of_questions_are_read_off_the_digits():
    assert {column: L.questions(column) for column in L.DATASETS} == {
        "GSM8K": None,
        "Hellaswag": None,
        "MBPP": 128,
        "MMLU": None,
        "winograde": 380,
        "ARC": 437,
    }
    # Eleven accuracies of a made dataset of 77 questions, one of them misprinted.
    right = [(70 - 3 * i) / 77 for i in range(11)]
    cells = [("table-7", llm, "MMLU", round(p, 4)) for llm, p in zip(L.LLMS, right, strict=True)]
    assert L.questions("MMLU", with_cells(*cells)) == 77
    misprinted = ("table-7", next(iter(L.LLMS)), "MMLU", round(right[0] + 0.003, 4))
    assert L.questions("MMLU", with_cells(*cells, misprinted)) == 77


def test_the_chance_of_a_match_by_hand():
    # Ten questions; LLMs at .2, .4 and .6 only: of the five steps between the worst and the best three are an LLM's.
    cells = [("table-7", llm, "ARC", (0.2, 0.4, 0.6)[i % 3]) for i, llm in enumerate(L.LLMS)]
    tables = with_cells(*cells)
    assert L.questions("ARC", tables) == 5
    assert L.chance_of_match("ARC", tables) == pytest.approx(1.0)
    ten = with_cells(*cells[:-1], ("table-7", "Yi-34B-Chat", "ARC", 0.5), ("table-7", "WizardLM-13B-V1.2", "ARC", 0.5))
    assert L.questions("ARC", ten) == 10
    assert L.chance_of_match("ARC", ten) == pytest.approx(4 / 5)  # .2 .3 .4 .5 .6, no LLM at .3


@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.1])
def test_the_best_lookup_is_the_best_of_all(alpha):
    pool = ["claude-v2", "Yi-34B-Chat", GPT4]
    table = L.published()["table-7"]

    def score(assignment):
        gained = [
            L.value(table, llm, c) - alpha * L.value(table, llm, "Cost")
            for c, llm in zip(L.DATASETS, assignment, strict=True)
        ]
        return sum(gained) / 6

    best = max(map(score, itertools.product(pool, repeat=6)))
    assert L.best_lookup(alpha, pool=pool)["score"].mean() == pytest.approx(best)


def test_costs_that_are_passed_in_change_the_best_lookup():
    free = {(column, GPT4): 0.0 for column in L.DATASETS}
    lookup = L.best_lookup(0.1, free)
    assert set(lookup["llm"]) == {GPT4}
    assert set(lookup["cost"]) == {0.0}
    assert L.best_lookup(0.0).loc["MBPP", "llm"] == "gpt-3.5-turbo-1106"  # ties go to the cheaper
    with pytest.raises(UserError, match="alpha is -1, expected at least 0"):
        L.best_lookup(-1)


def test_the_best_lookup_by_mean_costs_is_radial_routers_row_at_005():
    lookups = L.best_lookups()
    assert list(lookups.index) == [0, 0.01, 0.02, 0.05, 0.1]
    row = lookups.loc[0.05]
    own = {m.dataset: m.exact for m in L.find_matches() if (m.method, m.alpha) == ("RadialRouter", "0.05")}
    assert all(row[column] in own[column] for column in L.DATASETS)
    assert lookups.loc[0.01, "score"] > lookups.loc[0.01, "radial_router"]
    assert lookups["radial_router"].tolist() == pytest.approx([0.8161, 0.76058, 0.75742, 0.7376, 0.7152])


def test_the_cost_of_a_lookup_by_hand():
    everything = dict.fromkeys(L.DATASETS, "Yi-34B-Chat")
    assert L.lookup_cost(everything) == pytest.approx(0.439)
    moved = {**everything, "MBPP": GPT4}
    assert math.isnan(L.lookup_cost(moved))
    costs = {("MBPP", GPT4): 9.4, ("MBPP", "Yi-34B-Chat"): 0.2}
    assert L.lookup_cost(moved, costs) == pytest.approx(0.439 + 9.2 / 6)


def test_fitting_assignments_are_those_of_brute_force():
    table, members = L.published()["table-7"], L.pool(3)
    fitting = {
        assignment
        for assignment in itertools.product(members, repeat=6)
        if abs(sum(L.value(table, llm, c) for llm, c in zip(assignment, L.DATASETS, strict=True)) / 6 - 0.6105)
        <= 1e-4 + 1e-12
    }
    frame = L.pool_assignments(3)
    assert {tuple(row) for row in frame[list(L.DATASETS)].to_numpy()} == fitting
    assert len(fitting) == 2
    assert frame["cost"].isna().all()
    assert L.pool_sums(3).shape == (3,) * 6
    with pytest.raises(UserError, match="pool size is 12, expected 1 to 11"):
        L.pool(12)


def test_given_costs_tell_which_assignments_fit_the_cost():
    # Code Llama on MBPP costs so much more than WizardLM that pool 2 costs .178: 6 x .012.
    costs = {("MBPP", "code-llama-34b-chat"): 0.172, ("MBPP", "WizardLM-13B-V1.2"): 0.1}
    (row,) = L.pool_assignments(2, costs).to_dict("records")
    assert row["cost"] == pytest.approx(0.178)
    assert row["cost_fits"] is True
    (dear,) = L.pool_assignments(2, {**costs, ("MBPP", "code-llama-34b-chat"): 0.2}).to_dict("records")
    assert dear["cost_fits"] is False


def test_the_table_of_pools_ends_where_no_lookup_extends():
    table = L.pool_table()
    assert list(table.index) == [1, 2, 3, 4, 5, 6]
    assert list(table["extend"]) == [1, 1, 1, 1, 1, 0]
    assert table.loc[4, "lookup"] == "GSM8K and MBPP to claude-v2; rest to llama-2-70b-chat"
    assert table.loc[6, "lookup"] == ""
    assert table.loc[5, "fit by chance"] > 1 > table.loc[5, "extend by chance"]


def test_costs_per_thousand_are_means_by_source_dataset():
    models = list(L.LLMS.values())
    cost = np.tile([[0.001], [0.003], [0.01]], (1, len(models))) * np.arange(1, len(models) + 1)
    benchmark = RoutingBenchmark(
        name="made",
        prompts=["a", "b", "c"],
        tasks=np.array(["mmlu-law", "mmlu-virology", "mbpp"]),
        models=models,
        quality=np.ones((3, len(models))),
        cost=cost,
        cost_unit="USD per prompt",
    )
    costs = L.costs_per_thousand(benchmark)
    assert costs["MMLU", "WizardLM-13B-V1.2"] == pytest.approx(2.0)
    assert costs["MMLU", "claude-instant-v1"] == pytest.approx(4.0)
    assert costs["MBPP", "WizardLM-13B-V1.2"] == pytest.approx(10.0)
    assert ("ARC", "WizardLM-13B-V1.2") not in costs
    with pytest.raises(UserError, match="cost_unit is 'tokens', expected dollars"):
        L.costs_per_thousand(replace(benchmark, cost_unit="tokens"))


def test_on_routerbench_pools_2_and_3_cost_what_their_lookups_do(real_data):
    benchmark = load("routerbench", leakage="keep")
    costs = L.costs_per_thousand(benchmark.subset(np.flatnonzero(benchmark.split == "test")))
    for key, number in A.WINOGRANDE_COSTS.items():
        assert costs[key] == pytest.approx(number, abs=5e-5)
    assert all(L.pool_assignments(size, costs)["cost_fits"].eq(True).sum() == 1 for size in (2, 3))
