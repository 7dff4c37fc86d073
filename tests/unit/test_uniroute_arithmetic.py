"""Every check on UniRoute's own numbers gives its known outcome, and another one when a number is changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replications.uniroute import arithmetic as A
from routebook.ledger import load


def with_cell(table: str, row: str, column: str, **changes):
    """Return the published tables with one cell changed."""
    tables = dict(A.published())
    key = (A.row(tables[table], row), column)
    tables[table] = {**tables[table], key: replace(tables[table][key], **changes)}
    return tables


def changed(**fields):
    return replace(A.STATED, **fields)


OUTCOMES = {
    "sizes": True,
    "significant_gains": False,
    "stars_without_reference": False,
    "two_sigma": False,
    "favourable_to_li": True,
    "static_against_dynamic": False,
    "static_setting": True,
    "grids": True,
    "excess_risk_bound": False,
    "mixture_weights": False,
    "cost_monotone": False,
    "budget_range": False,
    "hull_membership": False,
    "neighbour_density": False,
    "matfac_shapes": False,
    "arena_quality_neutral_cost": True,
}


def test_the_ledger_names_exactly_these_checks(root):
    ledger = load(root / "replications" / "uniroute" / "ledger.yaml")
    named = [str(claim.reads).split(":")[1] for _, claim in ledger.claims if claim.kind == "arithmetic"]
    assert sorted(named) == sorted(OUTCOMES)


@pytest.mark.parametrize("name", OUTCOMES)
def test_each_check_gives_its_outcome_on_the_papers_numbers(name):
    check = getattr(A, name)()
    assert check.ok is OUTCOMES[name], check
    assert check.found
    assert check.expected
    assert check == getattr(A, name)()


@pytest.mark.parametrize(
    "fields",
    [
        {"openllm_parts": (800, 6014, 13233)},
        {"openllm_total": 20047, "openllm_parts": (800, 6016, 13231)},
        {"headlines_parts": (4000, 1000, 5600)},
        {"headlines_test_llms": (*A.STATED.headlines_test_llms[:5], "OpenAI GPT-4")},
        {"headlines_llms": 13},
        {"embedllm_llms": 92},
        {"bandit_dollars": (1.7, 2.0)},
        {"embedllm_percents": (60, 20, 30)},
        {"static_percents": ((60, 10, 30), (40, 10, 40))},
    ],
)
def test_sizes_that_do_not_add_up_are_found(fields):
    assert not A.sizes(changed(**fields)).ok


def test_gains_would_hold_with_stars_and_the_lead_on_routerbench_qnc():
    tables = dict(A.published())
    table = dict(tables["figure-6"])
    for name in A.BASELINES:
        key = (A.row(table, name), "RouterBench / QNC")
        table[key] = replace(table[key], printed=f"{table[key].printed} *")
    tables["figure-6"] = table
    assert not A.significant_gains(tables).ok  # Retrained MLP still leads
    key = (A.row(table, "UniRoute (K-Means)"), "RouterBench / QNC")
    tables["figure-6"] = {**table, key: replace(table[key], value=99.1)}
    assert A.significant_gains(tables).ok
    lost = (A.row(table, "K-NN"), "EmbedLLM / Area")
    tables["figure-6"] = {**tables["figure-6"], lost: replace(table[lost], value=0.7)}
    assert not A.significant_gains(tables).ok


def test_the_counts_behind_the_gains_are_the_papers():
    check = A.significant_gains()
    assert check.found.startswith("28 of 32 baseline cells are starred; 9 of 10 columns")
    assert "Retrained MLP" in check.detail


def test_stars_are_allowed_where_the_reference_was_run():
    tables = dict(A.published())
    table = {
        key: replace(cell, printed=cell.printed.replace("*", "")) if key[1].startswith("Math") else cell
        for key, cell in tables["figure-6"].items()
    }
    assert A.stars_without_reference({**tables, "figure-6": table}).ok
    assert A.stars_without_reference().found.startswith("3 starred cells")


def test_two_sigma_would_be_right_at_95_percent():
    assert A.two_sigma(changed(interval_percent=95)).ok
    assert A.two_sigma(changed(interval_sigmas=2.054)).ok  # the 98th percentile of a normal law
    assert A.two_sigma().found == "95.45%"


def test_uniroute_above_the_bound_of_li_is_found():
    assert not A.favourable_to_li(with_cell("table-i1", "UniRoute (K-Means)", "QNC", value=90.0)).ok
    assert not A.favourable_to_li(with_cell("table-i1", "LLM Bandit", "QNC", value=82.0)).ok
    assert "6 of 6 rows" in A.favourable_to_li().detail


def test_static_areas_that_match_the_dynamic_ones_pass():
    tables = dict(A.published())
    for row, area in (("ZeroRouter", 0.395), ("K-NN", 0.487), ("UniRoute (K-Means)", 0.49), ("MLP", 0.5)):
        key = (A.row(tables["table-1"], row), "Math+Code")
        tables["table-1"] = {**tables["table-1"], key: replace(tables["table-1"][key], value=area)}
        assert A.static_against_dynamic(tables).ok is (row == "MLP")


def test_a_weaker_mlp_or_a_weaker_uniroute_is_found_in_the_static_setting():
    assert not A.static_setting(with_cell("table-1", "MLP", "EmbedLLM", value=0.68)).ok
    assert not A.static_setting(with_cell("table-1", "ZeroRouter", "MixInstruct", value=0.0490)).ok


def test_a_validation_set_too_small_for_the_grid_is_found():
    assert not A.grids(changed(validation_sizes=(400, 150))).ok
    assert not A.grids(changed(neighbour_divisor=100)).ok
    assert (
        A.grids().found == "400 prompts: K up to 8, neighbours up to 133; 800 prompts: K up to 16, neighbours up to 266"
    )


# ------------------------------------------------------------------------------------------------ Section 5.3


def test_the_proved_factor_holds_and_a_smaller_one_does_not():
    assert A.excess_risk_bound(changed(bound_factor=2.0)).ok
    assert not A.excess_risk_bound(changed(bound_factor=1.7)).ok


def test_the_counterexample_worked_by_hand():
    problem = A.soft_counterexample()
    # P(x | z) = .5 P(z | x) / P(z), P(z) = (.55, .45).
    first = (0.25 * 1.0 + 0.30 * 0.092) / 0.55
    second = (0.25 * 0.89 + 0.20 * 0.0) / 0.45
    np.testing.assert_allclose(problem.cluster_error[:, 0], [first, second])
    np.testing.assert_allclose(problem.cluster_error[:, 1], [1 - first, 1 - second])
    # Rule (13) prefers LLM 0 on the first prompt and LLM 1 on the second; rule (7) the other way round.
    assert 0.5 * first + 0.5 * second < 0.5
    assert 0.6 * first + 0.4 * second > 0.5
    wrong, right = 0.5 * 1.0 + 0.5 * 0.89, 0.6 * 0.908 + 0.4 * 1.0
    assert problem.excess_risk == pytest.approx(0.5 * (2 * wrong - 1) + 0.5 * (2 * right - 1))
    assert problem.discrepancy == pytest.approx(0.5 * (1 - first) + 0.5 * second)
    assert problem.excess_risk > 1.7 * problem.discrepancy


@pytest.mark.parametrize("hard", [True, False])
def test_mixtures_are_what_they_say(hard):
    for problem in A.mixtures(hard, n_problems=50):
        np.testing.assert_allclose(problem.component.sum(axis=1), 1.0)
        assert (problem.prior > 0).all()
        # The risk of always taking one LLM is the same whichever way it is summed.
        by_prompt = problem.prompt @ problem.prompt_error
        np.testing.assert_allclose(problem.prior @ problem.cluster_error, by_prompt)
        assert problem.excess_risk >= 0
        assert problem.excess_risk <= 2 * problem.discrepancy + 1e-12
        if hard:
            assert set(np.unique(problem.component)) <= {0.0, 1.0}
            assert problem.excess_risk <= problem.discrepancy + 1e-12


def test_the_posterior_in_place_of_the_prior_makes_equation_19_true():
    assert A.mixture_weights(changed(component_weights="posterior")).ok


# ------------------------------------------------------------------------------------------- Appendices C, D, G


def test_lemma_5_holds_one_way():
    assert A.cost_monotone(changed(monotone_both_ways=False)).ok
    assert A.cost_monotone().found.startswith("0 pairs against 'if λ >= λ' then'")


def test_budgets_from_the_cheapest_llm_on_can_be_met():
    assert A.budget_range(changed(lowest_budget="cheapest")).ok


def test_a_point_off_the_hull_may_be_undominated():
    assert A.hull_membership(((1.0, 0.5), (2.0, 0.55), (3.0, 0.1))).ok  # now the first LLM dominates the second
    assert A.hull_membership(((1.0, 0.5), (2.0, 0.25), (3.0, 0.1))).ok  # now it is on the hull


def test_hull_and_dominance_on_points_placed_by_hand():
    points = np.array([[1, 0.5], [2, 0.45], [3, 0.1], [4, 0.1], [2, 0.5]])
    assert A._on_hull(points).tolist() == [True, False, True, True, False]
    assert A._dominated(points).tolist() == [False, False, False, True, True]


def test_neighbours_of_one_density_pass():
    assert A.neighbour_density(changed(neighbour_pools=(("pool", 400, 400),))).ok
    assert A.neighbour_density().found == "EmbedLLM 6.0; Headlines 10.0; OpenLLMv2 16.5"


def test_transposed_factors_have_shapes_that_fit():
    assert A.matfac_shapes(changed(matfac_shapes=(("m", "d"), ("d", "D"), ("D",)))).ok
    assert A.matfac_shapes().found == "undefined"


@pytest.mark.parametrize(
    ("row", "column", "number"),
    [
        ("K-NN", "QNC", 0.99),  # a second method with a finite QNC
        ("K-means (Attributes)", "QNC", 97.0),  # a percentage among fractions
        ("K-means (Gecko)", "Peak Acc.", 55.9),  # a higher peak that never reaches the best LLM
        ("K-means (Attributes)", "QNC", float("inf")),
    ],
)
def test_figure_7_contradicting_its_text_is_found(row, column, number):
    assert not A.arena_quality_neutral_cost(with_cell("figure-7", row, column, value=number)).ok
